"""Vectors of section 6: streams with their keys, and accounts of migrations."""

import fixtures as f
import folds
import jcs
import piperoll as p
from fixtures import text

STREAM = "crm-2026/load.1"
ENTRY_0 = 10  # index of a stream's first entry; keys are registered before


class Story:
    """The entries of one stream, and what the log says of keys around them."""

    def __init__(self, **chain):
        self.chain = f.Chain(**dict({"stream": STREAM}, **chain))
        self.index = ENTRY_0
        self.steps = []
        if self.chain.mode == "signed":
            self.register(self.chain.key, index=1)

    def register(self, key, index=None, principal="crm-loader", **members):
        payload = {"alg": "ed25519", "key": p.b64(f.public(key)), "principal": principal, "v": 1}
        payload["proof"] = p.b64(p.ed25519.sign(f.seed(key), p.possession_text(f.ORIGIN, principal, f.public(key))))
        payload.update(members)
        payload = {name: value for name, value in payload.items() if value is not None}
        return self.step("key.registered", index, payload=text(payload))

    def revoke(self, key, index=None, **members):
        payload = dict({"key": p.b64(p.key_id(f.public(key))), "v": 1}, **members)
        return self.step("key.revoked", index, payload=text(payload))

    def step(self, what, index=None, **members):
        self.steps.append(dict({"do": what, "index": self.index if index is None else index}, **members))
        self.index += index is None
        return self

    def open(self, tail=True, **changes):
        opening = text(self.chain.opening)
        return self.step("add", entry=text(self.chain.next("stream.open", tail, **changes)), payload=opening)

    def add(self, kind="migration.load", tail=False, **changes):
        return self.put(self.chain.next(kind, tail, **changes))

    def put(self, entry):
        return self.step("add", entry=text(entry))

    def refuse(self, seq=None, **changes):
        """A refusal by policy of the event that would be next: only its hash is logged."""
        chain = self.chain
        refused = chain.next(**changes)["event"]
        if seq is None:
            chain.first = chain.seq + 1
        return self.step("refuse", seq=chain.seq if seq is None else seq, hash=p.event_hash(refused).hex())


def play(story):
    """(states after each accepted step, the fault that stopped it or None)."""
    keyring = folds.Keyring(f.ORIGIN)
    stream, states = folds.Stream(f.ORIGIN, story.chain.stream, keyring), []
    for step in story.steps:
        try:
            if step["do"] == "add":
                entry = p.parse_entry(step["entry"].encode())
                opening = p.parse_payload("stream.open", step["payload"].encode()) if "payload" in step else None
                stream.add(step["index"], entry, opening)
            elif step["do"] == "refuse":
                stream.refuse(step["seq"], bytes.fromhex(step["hash"]))
            else:
                keyring.apply(step["index"], step["do"], p.parse_payload(step["do"], step["payload"].encode()))
        except folds.Fault as fault:
            return states, str(fault)
        states.append({"seq": stream.seq, "hash": stream.head.hex(), "tail_first": stream.tail_first(), "closed": stream.closed})
    return states, None


def good_stories():
    yield "one-request", Story().open(False).add().add(tail=True)
    yield "three-requests", Story().open().add(tail=True).add().add(tail=True)
    yield "closed", Story().open().add("stream.close", tail=True)
    yield "log-kept", Story(mode="log-kept").open(False).add().add("stream.close")
    yield "refused", Story().open().add(tail=True).refuse().add(tail=True)
    yield "refused-twice", Story().open().refuse().refuse().add().add(tail=True)
    yield "refused-after-unsigned", Story().open(False).add().refuse().add(tail=True)
    yield "refused-last", Story().open().refuse()
    yield "revoked-later", Story().open().add(tail=True).revoke("loader")
    yield "compromised-since", Story().open().add(tail=True).revoke("loader", compromised_since=5)
    successor = Story().open()
    public = f.public("loader 2")
    sig = p.make_sig(f.seed("loader"), p.succession_text(f.ORIGIN, "crm-loader", public))
    yield "succession", successor.register("loader 2", previous=sig)
    yield "unproven-key", Story().register("loader 2", proof=None).open()


def changed(story, **event):
    """The next entry, signed, with members of its event changed after the chain computed them."""
    chain = story.chain
    first, before = chain.first, chain.seq
    made = chain.next()["event"]
    made.update(event)
    sig = p.make_sig(f.seed(chain.key), p.tail_text(f.ORIGIN, made["stream"], first, made["seq"], p.event_hash(made)))
    chain.seq = before
    return story.put(f.entry(made, sig, by=chain.owner))


def signed_over(story, key="loader", **changes):
    """The next entry, with a tail signature over another text than it should cover."""
    chain = story.chain
    entry = chain.next(**changes.pop("event", {}))
    cover = dict(origin=f.ORIGIN, stream=chain.stream, first=chain.first, last=chain.seq, last_hash=chain.head)
    cover.update(changes)
    entry["sig"] = p.make_sig(f.seed(key), p.tail_text(**cover))
    return story.put(entry)


def bad_stories():
    yield "seq-skipped", changed(Story().open(), seq=3)
    yield "seq-repeated", changed(Story().open(), seq=1)
    yield "prev-of-other-event", changed(Story().open(), prev=p.b64(f.filler("fork")))
    yield "prev-is-stream-start", changed(Story().open(), prev=p.b64(p.stream_start(f.ORIGIN, STREAM)))
    yield "opened-twice", changed(Story().open(), kind="stream.open")
    yield "not-opened", Story().add(tail=True)
    yield "stream-start-of-other-log", wrong_start()
    yield "by-other-principal", Story().open().put(dict_by(Story().open(), "intruder"))
    yield "other-migration", changed(Story(stream="crm-2026/a/b").open(), migration="crm-2026/a")
    yield "after-close", Story().open().add("stream.close", tail=True).add(tail=True)
    yield "refused-after-close", Story().open().add("stream.close", tail=True).refuse()
    yield "refused-seq-skipped", Story().open().refuse(seq=5)
    yield "attested-in-signed-stream", Story().open().add(tail=True, part={"attested": "log"})
    yield "not-attested-in-log-kept-stream", Story(mode="log-kept").open(False).put(not_attested())
    yield "signature-in-log-kept-stream", signed_over(Story(mode="log-kept").open(False))
    yield "tail-by-other-key", signed_over(Story().register("other", 2).open(), "other")
    yield "tail-over-other-origin", signed_over(Story().open(), origin="other.example/TEST")
    yield "tail-over-other-stream", signed_over(Story().open(), stream="crm-2026/load.2")
    yield "tail-over-other-hash", signed_over(Story().open(), last_hash=f.filler("other event"))
    yield "tail-over-too-much", signed_over(Story().open(), first=1)
    yield "tail-over-too-little", signed_over(Story().open().add().add(), first=4)
    yield "tail-over-other-last", signed_over(Story().open(), last=3)
    yield "tail-over-refused", signed_over(Story().open().refuse(), first=2)
    yield "tail-swapped-first-last", signed_over(Story().open().add(), first=3, last=2)
    unregistered = Story().open()
    unregistered.steps.pop(0)
    yield "key-not-registered", unregistered
    other = Story()
    other.steps.clear()
    yield "key-of-other-principal", other.register("loader", 1, principal="somebody").open()
    yield "key-revoked", Story().open().revoke("loader").add(tail=True)
    yield "key-registered-twice", Story().register("loader", 2)
    yield "key-revoked-twice", Story().revoke("loader", 2).revoke("loader", 3)
    yield "unknown-key-revoked", Story().revoke("other", 2)
    proof = p.ed25519.sign(f.seed("other"), p.possession_text(f.ORIGIN, "somebody", f.public("other")))
    yield "possession-of-other-principal", Story().register("other", 2, proof=p.b64(proof))
    proof = p.ed25519.sign(f.seed("other"), p.possession_text("other.example/TEST", "crm-loader", f.public("other")))
    yield "possession-of-other-origin", Story().register("other", 2, proof=p.b64(proof))
    sig = p.make_sig(f.seed("loader"), p.possession_text(f.ORIGIN, "crm-loader", f.public("other")))
    yield "succession-under-label-of-possession", Story().register("other", 2, previous=sig)
    sig = p.make_sig(f.seed("loader"), p.succession_text(f.ORIGIN, "crm-loader", f.public("loader 2")))
    yield "succession-of-other-key", Story().register("other", 2, previous=sig)
    sig = p.make_sig(f.seed("stranger"), p.succession_text(f.ORIGIN, "crm-loader", f.public("other")))
    yield "succession-by-unknown-key", Story().register("other", 2, previous=sig)
    sig = p.make_sig(f.seed("loader"), p.succession_text(f.ORIGIN, "crm-loader", f.public("other")))
    yield "succession-by-revoked-key", Story().revoke("loader", 2).register("other", 3, previous=sig)


def wrong_start():
    story = Story()
    story.chain.head = p.stream_start("other.example/TEST", story.chain.stream)
    return story.open()


def dict_by(story, principal):
    entry = story.chain.next(tail=True)
    entry["log"]["by"] = principal
    return entry


def not_attested():
    story = Story(mode="log-kept").open(False)
    entry = story.chain.next()
    del entry["log"]["attested"]
    return entry


def stream_file():
    good, bad = [], []
    for name, story in good_stories():
        states, fault = play(story)
        if fault:
            raise AssertionError("good story %s: %s" % (name, fault))
        good.append({"name": name, "steps": story.steps, "states": states})
    for name, story in bad_stories():
        states, fault = play(story)
        if fault is None or len(states) != len(story.steps) - 1:
            raise AssertionError("bad story %s: %s after %d of %d" % (name, fault, len(states), len(story.steps)))
        bad.append({"name": name, "steps": story.steps[: len(states) + 1], "states": states})
    return {
        "about": "Stories of a stream and of keys (sections 3, 5 and 6). states are those after each step; a bad story's last step "
        "must be refused.",
        "origin": f.ORIGIN, "good": good, "bad": bad,
    }


def refusal_file():
    seq, digest = "3", "0f" * 32
    full = [{"name": STREAM, "role": "stream"}, {"name": seq, "role": "seq"}, {"name": digest, "role": "event"}]
    cases = [("all", full), ("other-order", full[::-1]), ("others-between", [{"name": "x", "role": "principal"}] + full)]
    cases += [("no-" + full[n]["role"], full[:n] + full[n + 1 :]) for n in range(3)]
    cases += [("none", []), ("hash-upper-case", full[:2] + [{"name": digest.upper(), "role": "event"}]),
              ("hash-short", full[:2] + [{"name": digest[:-2], "role": "event"}]),
              ("seq-leading-zero", [full[0], {"name": "03", "role": "seq"}, full[2]]),
              ("seq-1", [full[0], {"name": "1", "role": "seq"}, full[2]]),
              ("seq-0", [full[0], {"name": "0", "role": "seq"}, full[2]]), ("seq-2^53", [full[0], {"name": str(2**53), "role": "seq"}, full[2]]),
              ("two-streams", full + [{"name": "crm-2026/load.2", "role": "stream"}]), ("two-seqs", full + full[1:2]),
              ("two-events", full + full[2:]), ("seq-word", [full[0], {"name": "three", "role": "seq"}, full[2]])]
    made = []
    for name, objects in cases:
        event = f.event(kind="log.refused", migration="log", stream="log/refusals", objects=objects)
        taken = folds.refusal(event)
        case = {"name": name, "text": text(event), "takes": taken is not None}
        if taken:
            case.update(stream=taken[0], seq=taken[1], hash=taken[2].hex())
        made.append(case)
    other = f.event(kind="log.recovered", migration="log", stream="log/refusals", objects=full)
    made.append({"name": "other-kind", "text": text(other), "takes": False})
    return {"about": "What a log.refused takes (section 6).", "cases": made}


def migration_file():
    def end(stream, last=3, label=None):
        return {"hash": p.b64(f.filler(label or stream)), "last": last, "stream": "m/" + stream}

    def at_hand(*ends):
        return [{"hash": e["hash"], "last": e["last"], "stream": e["stream"]} for e in ends]

    a, b, c = end("a"), end("b", 9), end("c", 1)
    owner = {"owner": "o", "stream": "m/a"}, {"owner": "o2", "stream": "m/b"}
    control = {"owner": "o", "stream": "m/control"}
    cases = [
        ("alone", [], [], [], True), ("two-streams", owner, [a, b], at_hand(a, b), True), ("unannounced-stream", owner[:1], [a, c], at_hand(a, c), True),
        ("control-announced", owner + (control,), [a, b], at_hand(a, b), True), ("nothing-announced", [], [a], at_hand(a), True),
        ("stream-missing", owner, [a, b], at_hand(a), False), ("all-missing", owner, [a, b], [], False),
        ("stream-not-in-account", owner, [a, b], at_hand(a, b, c), False), ("announced-not-in-account", owner, [a], at_hand(a), False),
        ("announced-at-hand-not-in-account", owner, [a], at_hand(a, b), False), ("cut-short", owner, [a, b], at_hand(a, end("b", 8)), False),
        ("goes-on", owner, [a, b], at_hand(a, end("b", 10)), False), ("other-hash", owner, [a, b], at_hand(a, end("b", 9, "other")), False),
        ("other-stream-same-end", owner, [a, b], at_hand(a, dict(end("c", 9, "b"))), False),
    ]
    made = []
    for name, announced, listed, streams, complete in cases:
        opened, closed = {"streams": list(announced), "v": 1}, {"streams": list(listed), "v": 1}
        p.parse_payload("migration.open", jcs.serialise(opened))
        missing = folds.account("m/control", announced, listed, {s["stream"]: (s["last"], p.unb64(s["hash"])) for s in streams})
        if bool(missing) == complete:
            raise AssertionError("account %s: %s" % (name, missing))
        made.append({"name": name, "open": text(opened), "close": text(closed), "at_hand": streams, "complete": complete})
    return {"about": "Accounts of migration m, control stream m/control (section 6). at_hand are the other streams.", "cases": made}


def vectors():
    return {"streams": stream_file(), "refusals": refusal_file(), "migrations": migration_file()}
