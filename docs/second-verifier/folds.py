"""Streams, keys and migrations as folds over entries: log/FORMAT.md sections 3, 5 and 6.

A Fault says that an entry does not fit what came before it.
"""

import re

import piperoll as p


class Fault(ValueError):
    """A well-formed entry that does not fit; level says what it breaks.

    certain says that no entry of another stream, if it could be read, would excuse it.
    """

    def __init__(self, what, level="Integrity", certain=True):
        super().__init__(what)
        self.level, self.certain = level, certain


def fault_unless(condition, what, level="Integrity", certain=True):
    if not condition:
        raise Fault(what, level, certain)


class Keyring:
    """key.registered and key.revoked, in the order of the log."""

    def __init__(self, origin, brought=None):
        """brought are the keys of the submitters file, by principal and key id."""
        self.origin, self.keys, self.whole = origin, {}, True  # whole: all key entries so far are at hand
        self.brought = brought or {}
        self.uses = []  # (key id, principal, index) of valid tails

    def apply(self, index, kind, payload):
        if kind == "key.registered":
            self._register(index, payload)
        elif kind == "key.revoked":
            key = self.keys.get(p.unb64(payload["key"]))
            if key is None and not self.whole:
                key = self.keys[p.unb64(payload["key"])] = self._state(None, None, 0)
            fault_unless(key is not None, "revoked key is not registered")
            fault_unless(key["revoked"] is None, "key is revoked twice")
            key["revoked"], key["doubtful"] = index, payload.get("compromised_since")

    def _register(self, index, payload):
        public, principal = p.unb64(payload["key"]), payload["principal"]
        key = p.key_id(public)
        fault_unless(key not in self.keys, "key is registered twice")
        if "proof" in payload:
            text = p.possession_text(self.origin, principal, public)
            good = p.ed25519.verify(public, text, p.unb64(payload["proof"]))
            fault_unless(good, "possession is not proven")
        before = self._before(principal, payload) if "previous" in payload else None
        if "previous" in payload and (before is not None or self.whole):
            known = before and before["principal"] == principal and before["revoked"] is None
            fault_unless(known, "previous key is not a valid one of the principal")
            text = p.succession_text(self.origin, principal, public)
            fault_unless(p.check_sig(payload["previous"], before["public"], text), "succession does not verify")
        self.keys[key] = self._state(public, principal, index)
        if "proof" in payload and "previous" in payload:
            self.keys[key]["vouched"] = p.unb64(payload["previous"]["key"])
            self.keys[key]["seen"] = before is not None

    def _before(self, principal, payload):
        """The previous key; after a gap one that the auditor brought will do, though its registration was not seen."""
        key = p.unb64(payload["previous"]["key"])
        if key not in self.keys and not self.whole and (principal, key) in self.brought:
            return self._state(self.brought[principal, key], principal, None)
        return self.keys.get(key)

    @staticmethod
    def _state(public, principal, index):
        """A key. principal is None if its registration was not seen; vouched is the key that did so for a proven one, seen if that was checked."""
        return {"public": public, "principal": principal, "registered": index, "revoked": None, "doubtful": None, "vouched": None, "seen": True}

    def why_not(self, key, principal, index):
        """Why principal may not use this key id at index, or None."""
        known = self.keys.get(key)
        if known is None:
            return "key is not registered" if self.whole else None
        if known["registered"] > index:
            return "key is not registered yet"
        if known["principal"] not in (None, principal):
            return "key is registered for %s" % known["principal"]
        if known["revoked"] is not None and known["revoked"] <= index:
            return "key is revoked"
        return None

    def counts(self, listed, principal, key):
        """Whether key is listed (by principal and key id), or a chain of keys from one that is vouches for it.

        None if a registration that could say so was not seen.
        """
        while (principal, key) not in listed:
            state = self.keys.get(key)
            if state is None or state["principal"] is None or not state["seen"]:
                return None
            if state["vouched"] is None:
                return False
            key = state["vouched"]
        return True

    def bad_uses(self):
        """Uses that what was seen later, after a gap, shows to be bad: (index, why)."""
        found = [(index, self.why_not(key, principal, index)) for key, principal, index in self.uses if key in self.keys]
        return [(index, why) for index, why in found if why]


class Stream:
    """One chain of events. keyring None means that registrations are not at hand."""

    def __init__(self, origin, name, keyring=None):
        self.origin, self.name, self.keyring = origin, name, keyring
        self.seq, self.head, self.request_end = 0, p.stream_start(origin, name), 0
        self.opened, self.closed, self.migration = None, False, None
        self.pending = self.signed = self.kept = self.unknown = 0  # events, by who vouches for them
        self.lost = False  # events are missing, so what the next tail covers is not known
        self.gap = False  # events are missing, here or before
        self.refused = 0  # events whose seq a refusal took
        self.signers = {}  # (owner, key id) of valid tails: how many events they cover

    def tail_first(self):
        return self.request_end + 1

    def skip_to(self, seq, prev):
        """Goes on after missing events: the next one has this seq."""
        self.seq, self.head, self.lost, self.gap = seq - 1, prev, True, True
        self.unknown, self.pending = self.unknown + self.pending, 0

    def add(self, index, entry, opening=None):
        """Takes the next entry; opening is the payload of a stream.open. A Fault leaves it as it was."""
        event, part = entry["event"], entry["log"]
        fault_unless((event["log"], event["stream"]) == (self.origin, self.name), "event of another log or stream")
        fault_unless(self.migration in (None, event["migration"]), "stream belongs to another migration")
        fault_unless(not self.closed, "stream is closed")
        fault_unless(event["seq"] == self.seq + 1, "seq is not the next")
        fault_unless(p.unb64(event["prev"]) == self.head, "prev is not the head")
        after, opened = p.event_hash(event), self.opened
        if event["migration"] != "log":
            fault_unless((event["kind"] == "stream.open") == (event["seq"] == 1), "stream.open is seq 1, only")
            opened = opening if event["seq"] == 1 else opened
            fault_unless(opened is None or part["by"] == opened["owner"], "stream belongs to another principal")
            self._attest(index, entry, opened, after)
        self.opened, self.seq, self.head, self.migration = opened, event["seq"], after, event["migration"]
        self.closed = event["kind"] == "stream.close"

    def _attest(self, index, entry, opened, after):
        """Who vouches for the entry: the submitter by a tail, or only the log."""
        kept = "attested" in entry["log"]
        if opened is not None:
            signed = opened["mode"] == "signed"
            fault_unless(kept != signed, "attested does not fit the stream's mode", "Authenticity")
            fault_unless(signed or "sig" not in entry, "signature in a log-kept stream", "Authenticity")
        if kept:
            self.kept += 1
        elif "sig" not in entry:
            self.pending += 1
        elif opened is None or self.lost:
            self.unknown, self.pending, self.lost = self.unknown + self.pending + 1, 0, False
            self.request_end = entry["event"]["seq"]
        else:
            self._check_tail(index, entry, opened, after)
            self.signed, self.pending = self.signed + self.pending + 1, 0
            self.request_end = entry["event"]["seq"]

    def _check_tail(self, index, entry, opened, after):
        sig, seq, owner = entry["sig"], entry["event"]["seq"], opened["owner"]
        found = [k["key"] for k in opened["keys"] if p.b64(p.key_id(p.unb64(k["key"]))) == sig["key"]]
        fault_unless(found, "key is not one of the stream's", "Authenticity")
        text = p.tail_text(self.origin, self.name, self.tail_first(), seq, after)
        good = p.check_sig(sig, p.unb64(found[0]), text)
        fault_unless(good, "tail signature does not verify", "Authenticity")
        if self.keyring is not None:
            why = self.keyring.why_not(p.unb64(sig["key"]), owner, index)
            fault_unless(why is None, why, "Authenticity", certain=False)
            self.keyring.uses.append((p.unb64(sig["key"]), owner, index))
        signer = owner, p.unb64(sig["key"])
        self.signers[signer] = self.signers.get(signer, 0) + self.pending + 1

    def refuse(self, seq, refused_hash):
        """A refusal takes the next seq, and ends its request: no later tail reaches what came before."""
        fault_unless(not self.closed, "stream is closed")
        fault_unless(seq == self.seq + 1, "refused seq is not the next")
        self.seq = self.request_end = seq
        self.head, self.lost = refused_hash, False
        self.refused += 1
        self.unknown, self.pending = self.unknown + self.pending, 0


def refusal(event):
    """(stream, seq, EventHash) that a log.refused takes, or None if it takes nothing. Seq 1 is stream.open's."""
    if event["kind"] != "log.refused":
        return None
    found = {role: [o["name"] for o in event["objects"] if o["role"] == role] for role in ("stream", "seq", "event")}
    if any(len(names) != 1 for names in found.values()):
        return None
    seq, refused_hash = found["seq"][0], found["event"][0]
    if not re.fullmatch("[1-9][0-9]{0,15}", seq) or not 1 < int(seq) <= p.MAX_INT or not re.fullmatch("[0-9a-f]{64}", refused_hash):
        return None
    return found["stream"][0], int(seq), bytes.fromhex(refused_hash)


def account(control, announced, listed, at_hand):
    """Everything that keeps a migration from being complete.

    control is its control stream's name; announced and listed are the streams of migration.open
    and migration.close; at_hand maps every other stream to its (last seq, EventHash).
    """
    missing, ends = [], {item["stream"]: item for item in listed}
    for stream in announced:
        if stream["stream"] not in ends and stream["stream"] != control:
            missing.append("announced, not accounted for: " + stream["stream"])
    for stream in sorted(set(at_hand) - set(ends) - {control}):
        missing.append("not accounted for: " + stream)
    for stream, end in ends.items():
        if stream not in at_hand:
            missing.append("not at hand: " + stream)
        elif at_hand[stream] != (end["last"], p.unb64(end["hash"])):
            missing.append("does not end where the account says: " + stream)
    return missing
