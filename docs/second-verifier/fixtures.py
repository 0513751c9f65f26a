"""Keys, events and entries with fixed contents, for vectors and tests. All keys are TEST keys."""

import hashlib

import ed25519
import jcs
import piperoll as p

ORIGIN = "log.example/TEST"
NOW = 1767225600000  # Unix milliseconds


def seed(label):
    return hashlib.sha256(b"TEST " + label.encode()).digest()


def public(label):
    return ed25519.public_key(seed(label))


LOG_VKEY = p.make_vkey(ORIGIN, public("log"))
RECEIPT_VKEY = p.make_vkey(ORIGIN + "/receipt", public("receipt"))


def filler(label, size=32):
    """Bytes that look random and are the same in every run."""
    return hashlib.shake_256(b"TEST " + label.encode()).digest(size)


def salted(label, media_type, payload):
    return {"commitment": p.b64(p.commitment(filler(label), media_type, payload)), "scheme": "whole-1", "type": media_type}


def event(**changes):
    made = {
        "actor": "p:00112233445566778899aabbccddeeff",
        "kind": "migration.load",
        "log": ORIGIN,
        "migration": "crm-2026",
        "objects": [{"name": "db/new/customers", "role": "target"}, {"name": "o:" + "0f" * 16, "role": "source"}],
        "payload": salted("salt", "application/json", b"{}"),
        "prev": p.b64(filler("prev")),
        "seq": 7,
        "stream": "crm-2026/load.1",
        "time": NOW,
        "v": 1,
    }
    made.update(changes)
    return {name: value for name, value in made.items() if value is not None}


def entry(the_event, sig=None, **changes):
    made = {
        "as_of": 3,
        "auth": "token:4f2a91c0",
        "blind": p.b64(filler("blind", 16)),
        "by": "crm-loader",
        "received": the_event["time"] + 25,
    }
    if p.kind_class(the_event["kind"]) == "server":
        made.update(attested="log", auth="log", by=ORIGIN)
    made.update(changes)
    made.setdefault("skew_ms", made["received"] - the_event["time"])
    part = {name: value for name, value in made.items() if value is not None}
    whole = {"event": the_event, "log": part, "v": 1}
    if sig is not None:
        whole["sig"] = sig
    return whole


def text(value):
    return jcs.serialise(value).decode()


class Chain:
    """A submitter of one stream: makes its events and signs tails."""

    def __init__(self, stream, key="loader", owner="crm-loader", mode="signed"):
        self.stream, self.key, self.owner, self.mode = stream, key, owner, mode
        self.seq, self.head, self.first = 0, p.stream_start(ORIGIN, stream), 1
        keys = [{"alg": "ed25519", "key": p.b64(public(key))}] if mode == "signed" else []
        self.opening = {"keys": keys, "mode": mode, "owner": owner, "v": 1}

    def next(self, kind="migration.load", tail=False, **changes):
        """The next entry of the stream; changes of "part" go to the log's part."""
        part = dict(changes.pop("part", {}), by=self.owner)
        if self.mode == "log-kept":
            part["attested"] = "log"
        payload = changes.pop("content", None)
        if kind == "stream.open":
            payload = self.opening
        if payload is not None:
            data = jcs.serialise(payload)
            changes.setdefault("payload", salted(self.stream + str(self.seq), "application/json", data))
        changes.setdefault("payload", None)
        made = event(
            kind=kind, stream=self.stream, migration=self.stream.split("/")[0], seq=self.seq + 1,
            prev=p.b64(self.head), time=NOW + self.seq, **changes
        )
        self.seq, self.head = made["seq"], p.event_hash(made)
        sig = None
        if tail:
            sig = p.make_sig(seed(self.key), p.tail_text(ORIGIN, self.stream, self.first, self.seq, self.head))
            self.first = self.seq + 1
        return entry(made, sig, **part)
