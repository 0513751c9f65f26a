"""A whole log in a directory of events with proofs, for tests. All keys are TEST keys."""

import pathlib

import ed25519
import fixtures as f
import jcs
import piperoll as p
import trees


class FakeLog:
    """Entries at their indexes, in the order they are added."""

    def __init__(self):
        self.entries, self.payloads, self.chains, self.control, self.receipts = [], {}, {}, 0, []
        keys = [{"purpose": "checkpoint", "vkey": f.LOG_VKEY}, {"purpose": "receipt", "vkey": f.RECEIPT_VKEY}]
        opening = {"keys": keys, "origin": f.ORIGIN, "promise_ms": 60000, "semantics": [], "v": 1}
        self.own("log/open", "log.open", opening)

    def _put(self, entry, payload, control):
        index = len(self.entries)
        entry["log"]["as_of"] = self.control
        entry["log"]["received"] = f.NOW + 1000 + index
        entry["log"]["skew_ms"] = entry["log"]["received"] - entry["event"]["time"]
        self.control = index if control else self.control
        self.entries.append(jcs.serialise(entry))
        if payload is not None:
            self.payloads[index] = payload
        return index

    def _commit(self, payload):
        return f.salted("payload", "application/json", payload) if payload is not None else None

    def own(self, stream, kind, payload=None, objects=()):
        """An event of the log itself."""
        seq, head = self.chains.get(stream, (0, p.stream_start(f.ORIGIN, stream)))
        data = None if payload is None else jcs.serialise(payload)
        event = f.event(
            actor="log", kind=kind, migration="log", stream=stream, seq=seq + 1, prev=p.b64(head), objects=list(objects),
            payload=self._commit(data), time=f.NOW + len(self.entries),
        )
        self.chains[stream] = seq + 1, p.event_hash(event)
        return self._put(f.entry(event), data, p.is_control(kind))

    def register(self, key, principal):
        public = f.public(key)
        proof = p.ed25519.sign(f.seed(key), p.possession_text(f.ORIGIN, principal, public))
        payload = {"alg": "ed25519", "key": p.b64(public), "principal": principal, "proof": p.b64(proof), "v": 1}
        return self.own("log/keys", "key.registered", payload)

    def add(self, chain, kind, payload=None, tail=True):
        """An event of a submitter's chain."""
        data = jcs.serialise(chain.opening) if kind == "stream.open" else None if payload is None else jcs.serialise(payload)
        tail = tail and chain.mode == "signed"
        return self._put(chain.next(kind, tail, payload=self._commit(data)), data, False)

    def files(self, times=()):
        """{path: bytes} of the whole directory, cosigned by witnesses w0, w1, ... at these times."""
        leaves = [p.leaf_hash(entry) for entry in self.entries]
        text = p.Checkpoint(f.ORIGIN, len(leaves), trees.root(leaves)).text()
        note = p.sign_note(text, f.ORIGIN, f.seed("log")) + b"".join(cosign(text, n, time) for n, time in enumerate(times) if time)
        made = {"checkpoint": note}
        for index, entry in enumerate(self.entries):
            made["events/%012d.json" % index] = entry
            made["proofs/%012d.tlog-proof" % index] = trees.inclusion_text(index, trees.inclusion(leaves, index), note)
        for index, payload in self.payloads.items():
            made["payloads/%012d.payload" % index] = payload
            made["payloads/%012d.salt" % index] = p.b64(f.filler("payload")).encode() + b"\n"
        for index in self.receipts:
            receipt = p.Receipt(f.ORIGIN, index, 1, p.sha256(leaves[index]), f.NOW + 1000 + index, f.NOW + 61000 + index).text()
            made["receipts/%012d.receipt" % index] = p.sign_note(receipt, f.ORIGIN + "/receipt", f.seed("receipt"))
        old = len(leaves) - 2
        made["consistency/%d.proof" % old] = trees.consistency_text(f.ORIGIN, old, len(leaves), trees.consistency(leaves, old))
        return made


def cosign(text, n, time):
    """The line of witness number n under a checkpoint's text."""
    key = p.Key(p.make_vkey("w%d" % n, f.public("witness %d" % n), 4), (4,))
    signature = p.ed25519.sign(f.seed("witness %d" % n), b"cosignature/v1\ntime %d\n" % time + text)
    return ("\u2014 %s %s\n" % (key.name, p.b64(key.id + time.to_bytes(8, "big") + signature))).encode()


def whole_log(refused=True):
    """A complete migration: a control stream, a signed stream with a refusal, and one that the log keeps."""
    log = FakeLog()
    log.register("owner", "crm")  # 1
    log.register("loader", "crm-loader")  # 2
    control = f.Chain("crm-2026/control", "owner", "crm")
    load, kept = f.Chain("crm-2026/load.1"), f.Chain("crm-2026/kept", mode="log-kept", owner="crm")
    log.add(control, "stream.open")  # 3
    announced = [{"owner": "crm-loader", "stream": load.stream}]
    log.add(control, "migration.open", {"streams": announced, "v": 1})  # 4
    log.add(load, "stream.open")  # 5
    log.add(load, "migration.load", {"row": 1}, tail=False)  # 6
    log.receipts.append(log.add(load, "migration.load", {"row": 2}))  # 7
    objects = []
    if refused:
        gone = load.next("migration.load")["event"]
        load.first = load.seq + 1
        objects = [{"name": load.stream, "role": "stream"}, {"name": str(load.seq), "role": "seq"}]
        objects.append({"name": p.event_hash(gone).hex(), "role": "event"})
    log.own("log/refusals", "log.refused", None, objects)  # 8
    log.add(load, "stream.close")  # 9
    log.add(kept, "stream.open")  # 10
    log.add(kept, "audit.note")  # 11
    ends = [{"hash": p.b64(c.head), "last": c.seq, "stream": c.stream} for c in (kept, load)]
    log.add(control, "migration.close", {"streams": ends, "v": 1})  # 12
    return log


POLICY = ("log %s\nlog %s\nquorum none\n" % (f.LOG_VKEY, f.RECEIPT_VKEY)).encode()
WITNESSED = POLICY.replace(b"quorum none\n", b"") + "".join(
    "witness w%d %s\n" % (n, p.make_vkey("w%d" % n, f.public("witness %d" % n), 4)) for n in range(3)
).encode() + b"group g 2 w0 w1 w2\nquorum g\n"
SUBMITTERS = "".join(
    "%s %s\n" % (principal, p.make_vkey("TEST", ed25519.public_key(f.seed(key))))
    for principal, key in (("crm", "owner"), ("crm-loader", "loader"))
).encode()


def write(folder, files):
    for path, data in files.items():
        at = pathlib.Path(folder) / path
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_bytes(data)
