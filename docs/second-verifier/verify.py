"""Verifies a directory of events with proofs, as an auditor would.

    verify.py verify [-policy POLICY] [-submitters FILE] DIR

Exit code: 0 policy met, nothing failed; 1 tamper or omission; 2 usage; 3 intact, trust not
established; 4 unsupported version; 5 resource limit; 6 input or output. Keys come from the policy
and submitters files, never from DIR.
"""

import os
import re
import stat
import sys

import folds
import piperoll as p
import policy as policies
import trees

LEVELS = ("Integrity", "Authenticity", "Completeness", "Time", "Semantics")
REASONS_MAX = 20
CLOCK_AHEAD_MS = 5 * 60 * 1000
ENTRIES_MAX = 10**7
LAYOUT = {  # folder: {suffix: (largest file in bytes, digits of the number)}
    "events": {".json": (p.ENTRY_MAX, 12)},
    "proofs": {".tlog-proof": (p.NOTE_MAX + 8192, 12)},
    "payloads": {".payload": (p.LINEAGE_MAX, 12), ".salt": (45, 12)},
    "consistency": {".proof": (8192, 1)},
    "receipts": {".receipt": (p.NOTE_MAX, 12)},
}


class Limit(Exception):
    """More than this program is willing to read."""


class Report:
    """What was found, by level."""

    def __init__(self):
        self.failed = {level: [] for level in LEVELS}
        self.skipped = {level: [] for level in LEVELS}
        self.passed = {level: [] for level in LEVELS}
        self.certain = False  # something failed that no unread entry can make fail

    def fail(self, level, what, certain=True):
        self.failed[level].append(what)
        self.certain = self.certain or certain

    def lines(self):
        for level in LEVELS:
            yield "%-13s %s" % (level, self.status(level))
            for word, found in (("FAIL", self.failed), ("not checked", self.skipped), ("", self.passed)):
                for what in found[level][:REASONS_MAX]:
                    yield "  " + (word + ": " if word else "") + what
                if len(found[level]) > REASONS_MAX:
                    yield "  ... and %d more" % (len(found[level]) - REASONS_MAX)

    def status(self, level):
        if self.failed[level]:
            return "FAIL"
        return "NOT CHECKED" if self.skipped[level] or not self.passed[level] else "PASS"


class Directory:
    """The files of DIR: only what is checked may be in it."""

    def __init__(self, path, report):
        self.path = path
        self.numbers = {suffix: set() for suffixes in LAYOUT.values() for suffix in suffixes}
        for item in sorted(os.listdir(path)):
            mode = os.lstat(os.path.join(path, item)).st_mode
            if item == "checkpoint" and stat.S_ISREG(mode):
                self._bounded(item, p.NOTE_MAX, report)
                continue
            if item in LAYOUT and stat.S_ISDIR(mode):
                self._folder(item, report)
            else:
                report.fail("Integrity", "not a file that is checked: %r" % item)
        for suffix, of in ((".json", ".tlog-proof"), (".tlog-proof", ".json"), (".payload", ".salt"), (".salt", ".payload"), (".payload", ".json")):
            for number in sorted(self.numbers[suffix] - self.numbers[of]):
                report.fail("Integrity", "%012d%s has no %s" % (number, suffix, of))

    def _folder(self, folder, report):
        for item in sorted(os.listdir(os.path.join(self.path, folder))):
            info = os.lstat(os.path.join(self.path, folder, item))
            found = re.fullmatch(r"([0-9]{1,16})(\.[a-z-]+)", item)
            known = found and int(found.group(1)) <= p.MAX_INT and LAYOUT[folder].get(found.group(2))
            if not known or not stat.S_ISREG(info.st_mode) or "%0*d" % (known[1], int(found.group(1))) != found.group(1):
                report.fail("Integrity", "not a file that is checked: %r" % os.path.join(folder, item))
                continue
            if len(self.numbers[found.group(2)]) >= ENTRIES_MAX:
                raise Limit("more than %d files in %s" % (ENTRIES_MAX, folder))
            if self._bounded(os.path.join(folder, item), known[0], report):
                self.numbers[found.group(2)].add(int(found.group(1)))

    def _bounded(self, item, limit, report):
        """Whether a file is within its bound: one that is not counts as missing, and the rest is looked at."""
        size = os.lstat(os.path.join(self.path, item)).st_size
        if size > limit:
            report.fail("Integrity", "%s: %d bytes, at most %d" % (item, size, limit))
        return size <= limit

    def read(self, folder, number, suffix):
        limit, digits = LAYOUT[folder][suffix]
        return read_file(os.path.join(self.path, folder, "%0*d%s" % (digits, number, suffix)), limit)


def read_file(path, limit):
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Limit("%s has more than %d bytes" % (path, limit))
    return data


class Verification:
    def __init__(self, path, policy, pinned, report):
        self.policy, self.pinned, self.report = policy, pinned, report
        self.directory = Directory(path, report)
        self.note = b""
        at = os.path.join(path, "checkpoint")
        if os.path.lexists(at) and stat.S_ISREG(os.lstat(at).st_mode):  # what is missing was omitted: no failure to read
            with open(at, "rb") as file:
                self.note = file.read(p.NOTE_MAX + 1)
        self.checkpoint, self.quorum_time, self.signed = None, None, {}
        self.streams, self.migrations, self.leaves = {}, {}, {}
        self.received = self.as_of = self.last_control = 0
        self.counts = {"payloads": 0, "own": 0}
        self.withheld, self.erased, self.unsupported = set(), set(), False
        self.stays = set()  # entries whose payload is never erased, or that have none
        self.times, self.promise_ms = {}, None  # received by index; of log.open

    def fail(self, level, what, certain=True):
        self.report.fail(level, what, certain)

    def open_checkpoint(self):
        """Opens the checkpoint under the policy, or only reads it when there is none."""
        if self.policy is None:
            self.checkpoint = p.Checkpoint.parse(self.note[: self.note.rfind(b"\n\n") + 1])
            self.report.skipped["Time"].append("no policy, so no witness is known")
            return
        text, signed = p.open_note(self.note, self.policy.keys())
        checkpoint = p.Checkpoint.parse(text)
        by_log = [key for key in signed if key in self.policy.logs and key.name == checkpoint.origin]
        p.require(by_log, "not signed by a log of the policy")
        self.checkpoint, self.signed = checkpoint, signed
        self.quorum_time = self.policy.time(signed)
        if self.quorum_time is None:  # witnesses that are down are no tampering
            self.report.skipped["Integrity"].append("signed by the log, not cosigned by the policy's quorum")
            self.report.skipped["Time"].append("no quorum says when it saw the checkpoint")
        elif self.policy.quorum == policies.NO_QUORUM:
            self.report.skipped["Time"].append("quorum none: there is only the log's own clock")
        else:
            self.report.passed["Time"].append("a quorum had seen the checkpoint at %d" % self.quorum_time)

    def entries(self):
        """Proves and folds every entry, in the order of the log."""
        self.keyring = folds.Keyring(self.checkpoint.origin, self.pinned)
        indexes = sorted(self.directory.numbers[".json"])
        self.keyring.whole = indexes[:1] == [0]
        for index in indexes:
            try:
                entry = self._proven(index)
            except p.Unsupported as err:
                self.unsupported = True
                self.report.skipped["Integrity"].append("entry %d: %s" % (index, err))
                continue
            except p.Malformed as err:
                self.fail("Integrity", "entry %d: %s" % (index, err))
                continue
            payload = self._payload(index, entry)
            self._order(index, entry)
            self._fold(index, entry, payload)
        self.report.passed["Integrity"].append("%d entries lead to the root" % len(self.leaves))
        if not indexes:
            self.fail("Completeness", "there is no entry", certain=False)

    def _proven(self, index):
        """The entry, once it is shown to be in the tree: what is not says nothing, not even a version."""
        data = self.directory.read("events", index, ".json")
        leaf = p.leaf_hash(data)
        p.require(index in self.directory.numbers[".tlog-proof"], "no proof")
        at, path, note = trees.parse_inclusion(self.directory.read("proofs", index, ".tlog-proof"))
        p.require(at == index and note == self.note, "proof of another entry or checkpoint")
        root = trees.root_from_inclusion(leaf, index, self.checkpoint.size, path)
        p.require(root == self.checkpoint.root, "proof does not lead to the root")
        self.leaves[index] = leaf
        return p.parse_entry(data)

    def _payload(self, index, entry):
        """The payload's bytes if they are at hand and the right ones."""
        kind, reference = entry["event"]["kind"], entry["event"].get("payload")
        if index not in self.directory.numbers[".payload"] & self.directory.numbers[".salt"]:
            if reference is not None:
                self.withheld.add(index)
            return None
        try:
            p.require(reference is not None, "payload of an event without one")
            data = self.directory.read("payloads", index, ".payload")
            salt = self.directory.read("payloads", index, ".salt")
            if len(data) > p.payload_limit(reference["type"]):
                raise p.TooLarge("payload of %d bytes" % len(data))
            committed = p.b64(p.commitment(p.parse_salt(salt), reference["type"], data))
            p.require(committed == reference["commitment"], "payload is not the one committed to")
            self.counts["payloads"] += 1
            return p.parse_payload(kind, data) if kind in p.PAYLOADS else data
        except p.Unsupported as err:  # of a later version is not tampered with
            self.unsupported = True
            self.report.skipped["Integrity"].append("payload %d: %s" % (index, err))
        except p.Malformed as err:
            self.fail("Integrity", "payload %d: %s" % (index, err))
        return None

    def _order(self, index, entry):
        part, kind = entry["log"], entry["event"]["kind"]
        as_of = part["as_of"]
        if part["received"] < self.received:
            self.fail("Integrity", "entry %d: received goes back" % index)
        if part["skew_ms"] < -CLOCK_AHEAD_MS:
            self.fail("Integrity", "entry %d: its time is too far in the log's future" % index)
        if (kind == "log.open") != (index == 0):
            self.fail("Integrity", "entry %d is %s: entry 0, and no other, is log.open" % (index, kind))
        if index == 0 and entry["event"]["stream"] != "log/open":
            self.fail("Integrity", "entry 0 is not in stream log/open")
        if as_of < max(self.as_of, self.last_control) or as_of >= max(index, 1):
            self.fail("Integrity", "entry %d: as_of %d is not the last control entry" % (index, as_of), certain=False)
        elif as_of != self.last_control:
            if as_of in self.directory.numbers[".json"]:
                self.fail("Integrity", "entry %d: as_of %d is no control entry" % (index, as_of), certain=False)
            self.keyring.whole = False
        self.times[index] = part["received"]
        self.received, self.as_of = max(self.received, part["received"]), max(self.as_of, as_of)
        if p.is_control(kind):
            self.last_control = index

    def _fold(self, index, entry, payload):
        event = entry["event"]
        kind = event["kind"]
        if event["log"] != self.checkpoint.origin:
            self.fail("Integrity", "entry %d was made for log %s" % (index, event["log"]))
            return
        if kind in ("key.registered", "key.revoked"):
            if payload is None:
                self.keyring.whole = False
            else:
                try:
                    self.keyring.apply(index, kind, payload)
                except folds.Fault as fault:
                    self.fail("Authenticity", "entry %d: %s" % (index, fault), certain=False)
        if "payload" not in event or not p.is_erasable(kind):
            self.stays.add(index)
        if kind == "payload.erased" and payload is not None:
            if payload["index"] >= index:
                self.fail("Integrity", "entry %d erases the payload of a later one" % index)
            if payload["index"] in self.stays:
                self.fail("Integrity", "entry %d erases what is never erased, or nothing" % index)
            self.erased.add(payload["index"])
        if kind == "log.open" and payload is not None:
            self._log_open(payload)
        self._stream(index, entry, payload)
        if event["migration"] == "log":
            self.counts["own"] += 1
        else:
            self._migration(index, entry, payload)

    def _log_open(self, payload):
        """Compares the log's own statement with the keys that the auditor brought."""
        origin, self.promise_ms = self.checkpoint.origin, payload["promise_ms"]
        if payload["origin"] != origin:
            self.fail("Authenticity", "log.open names origin %s" % payload["origin"])
        for purpose, name in (("checkpoint", origin), ("receipt", origin + "/receipt")):
            brought = {p.make_vkey(k.name, k.public) for k in self.policy.logs if k and k.name == name} if self.policy else set()
            named = {key["vkey"] for key in payload["keys"] if key["purpose"] == purpose}
            if brought and brought != named:
                self.fail("Authenticity", "log.open names other %s keys than the policy" % purpose)

    def _stream(self, index, entry, payload):
        event = entry["event"]
        name, seq = event["stream"], event["seq"]
        stream = self.streams.setdefault(name, folds.Stream(self.checkpoint.origin, name, self.keyring))
        if seq > stream.seq + 1:
            if event["migration"] != "log":
                self.fail("Completeness", "stream %s: seq %d to %d are missing" % (name, stream.seq + 1, seq - 1), certain=False)
            stream.skip_to(seq, p.unb64(event["prev"]))
        try:
            stream.add(index, entry, payload if event["kind"] == "stream.open" else None)
        except folds.Fault as fault:
            self.fail(fault.level, "entry %d in stream %s: %s" % (index, name, fault), certain=fault.certain and not stream.gap)
            if seq == stream.seq + 1:  # go on from there, to find what else is wrong
                stream.seq, stream.head = seq, p.event_hash(event)
        taken = folds.refusal(event)
        if taken and taken[0] in self.streams:
            try:
                self.streams[taken[0]].refuse(*taken[1:])
                text = "entry %d: seq %d of stream %s was refused: the log alone says so"
                self.report.skipped["Completeness"].append(text % (index, taken[1], taken[0]))
            except folds.Fault as fault:
                self.fail("Integrity", "entry %d: %s" % (index, fault), certain=False)

    def _migration(self, index, entry, payload):
        event, by = entry["event"], entry["log"]["by"]
        fresh = {"owner": None, "control": None, "opened": None, "close": None, "closed": False, "plain": True}
        m, kind = self.migrations.setdefault(event["migration"], fresh), event["kind"]
        m["plain"] = m["plain"] and kind.split(".")[0] in ("x", "stream")
        wrong = None
        if m["closed"]:
            wrong = "the migration is closed"
        elif kind == "migration.open":
            wrong = "the migration is open already" if m["owner"] is not None else None
            if wrong is None:
                m.update(owner=by, control=event["stream"], opened=payload)
                foreign = [s["stream"] for s in (payload or {"streams": []})["streams"] if not s["stream"].startswith(event["migration"] + "/")]
                wrong = "migration.open lists streams of another: %s" % foreign[0] if foreign else None
        elif kind == "migration.close":
            if (by, event["stream"]) != (m["owner"], m["control"]):
                wrong = "a migration is closed by its owner in the control stream"
            m.update(closed=True, close=payload)
        elif kind == "stream.open" and m["owner"] not in (None, by) and payload is not None:
            listed = m["opened"]["streams"] if m["opened"] else []
            if {"owner": payload["owner"], "stream": event["stream"]} not in listed:
                wrong = "migration.open does not list this stream with this owner"
        if wrong:
            self.fail("Integrity", "entry %d: %s" % (index, wrong), certain=False)

    def receipts(self):
        taken = range(0)  # what the receipt before is for
        for number in sorted(self.directory.numbers[".receipt"]):
            data = self.directory.read("receipts", number, ".receipt")
            keys = self.policy.receipt_keys(self.checkpoint.origin) if self.policy else []
            if not keys:
                self.report.skipped["Integrity"].append("receipt %d: no receipt key at hand" % number)
                continue
            try:
                receipt = p.Receipt.parse(p.open_note(data, keys)[0])
                p.require((receipt.origin, receipt.index) == (self.checkpoint.origin, number), "receipt of others")
            except p.Malformed as err:
                self.fail("Integrity", "receipt %d: %s" % (number, err))
                continue
            self._receipt(number, receipt)
            if number in taken and all(n in self.leaves for n in range(taken[0], number + 1)):
                self.fail("Integrity", "receipt %d begins within another" % number)
            taken = range(number, number + receipt.count)

    def _receipt(self, number, receipt):
        indexes = range(number, number + min(receipt.count, len(self.leaves) + 1))
        if any(self.times.get(n, receipt.received) != receipt.received for n in indexes):
            self.fail("Integrity", "receipt %d: received is not that of its entries" % number)
        if self.promise_ms is not None and receipt.by != receipt.received + self.promise_ms:
            self.fail("Integrity", "receipt %d: by is not received and what log.open promises" % number)
        leaves = [self.leaves.get(n) for n in indexes]
        if None not in leaves and p.sha256(*leaves) != receipt.leaves:
            self.fail("Integrity", "receipt %d CONVICTS the log: it has other entries there" % number)
        # Lines can be taken off a note, and a witness that lags cosigns an old tree again: only what was
        # cosigned after the promise counts, and must be a quorum alone. So any two quorums must overlap.
        if self.checkpoint.size <= number + receipt.count - 1 and self.policy.time_after(self.signed, receipt.by):
            self.fail("Integrity", "receipt %d CONVICTS the log: the entries are not there in time" % number)

    def clock(self):
        """The log and the witnesses may differ as far as a log and its submitters may."""
        if self.quorum_time and self.received // 1000 > self.quorum_time + CLOCK_AHEAD_MS // 1000:
            self.fail("Time", "the last entry was received after the witnesses had seen it")

    def consistency(self):
        size = self.checkpoint.size
        for old in sorted(self.directory.numbers[".proof"]):
            try:
                origin, before, new, path = trees.parse_consistency(self.directory.read("consistency", old, ".proof"))
                same = (origin, before) == (self.checkpoint.origin, old) and size in (new, before)
                p.require(same, "proof for other trees")
                if new == size and all(n in self.leaves for n in range(old)):
                    old_root = trees.root([self.leaves[n] for n in range(old)])
                    trees.check_consistency(old, old_root, new, self.checkpoint.root, path)
            except p.Malformed as err:
                self.fail("Integrity", "consistency proof %d: %s" % (old, err))

    def finish(self):
        self._signatures()
        self._completeness()
        self.report.skipped["Semantics"].append("rules and access decisions are not evaluated again")

    def _signatures(self):
        found, skipped = self.streams.values(), self.report.skipped["Authenticity"]
        for stream in found:
            if stream.pending and not stream.lost and stream.opened and stream.opened["mode"] == "signed":
                last = stream.seq - stream.pending + 1, stream.seq
                self.fail("Authenticity", "stream %s: no tail covers seq %d to %d" % ((stream.name,) + last), certain=False)
            else:
                stream.unknown += stream.pending
        signed, kept, unknown = (sum(getattr(s, word) for s in found) for word in ("signed", "kept", "unknown"))
        for owner, key in sorted(set().union(*[s.signers for s in found]) if self.pinned is not None else ()):
            counts = self.keyring.counts(self.pinned, owner, key)
            if counts is None:
                covered = sum(s.signers.get((owner, key), 0) for s in found)
                signed, unknown = signed - covered, unknown + covered
                skipped.append("whether a key of the submitters file vouches for key %s of %s is not known" % (key.hex(), owner))
            elif not counts:
                self.fail("Authenticity", "key %s of %s is not in the submitters file" % (key.hex(), owner), certain=False)
        for index, why in self.keyring.bad_uses():
            self.fail("Authenticity", "entry %d: %s" % (index, why), certain=False)
        text = "%d events are covered by tail signatures" % signed
        if self.pinned is None:
            skipped.append(text + ", under keys that only the log names: attested by the log operator")
        elif signed:
            self.report.passed["Authenticity"].append(text)
        if kept:
            skipped.append("%d submitted events are attested by the log alone" % kept)
        if not self.keyring.whole:
            skipped.append("a control entry is not at hand: whether a key was revoked is not known")
        if any(key["doubtful"] is not None for key in self.keyring.keys.values()):
            skipped.append("signatures of a key are doubtful: it was compromised before it was revoked")
        if unknown:
            skipped.append("%d events: no tail that can be checked is at hand" % unknown)
        if self.counts["own"]:
            self.report.passed["Authenticity"].append("%d entries are the log's own word" % self.counts["own"])

    def _completeness(self):
        complete = 0
        for name, m in sorted(self.migrations.items()):
            at_hand = {s.name: (s.seq, s.head) for s in self.streams.values() if s.migration == name}
            refused = sum(self.streams[s].refused for s in at_hand)
            control = m["control"]
            if m["plain"]:
                self.report.skipped["Completeness"].append("%s was never opened as a migration" % name)
                continue
            missing = ["migration.open" if m["opened"] is None else "", "migration.close" if m["close"] is None else ""]
            missing = ["%s or its payload" % what for what in missing if what]
            missing += ["payload of stream.open of " + s for s in sorted(at_hand) if self.streams[s].opened is None]
            if not missing:
                at_hand.pop(control, None)
                missing = folds.account(control, m["opened"]["streams"], m["close"]["streams"], at_hand)
            for what in missing:
                self.fail("Completeness", "INCOMPLETE: migration %s: %s" % (name, what), certain=False)
            if refused and not missing:
                self.report.skipped["Completeness"].append("migration %s: %d of its events were refused: the log alone says so" % (name, refused))
            complete += not missing and not refused
        withheld = len(self.withheld - self.erased)
        text = "%d migrations are complete; payloads: %d disclosed, %d erased, %d withheld"
        counts = complete, self.counts["payloads"], len(self.withheld & self.erased), withheld
        (self.report.passed if complete else self.report.skipped)["Completeness"].append(text % counts)


def verify(path, policy, pinned, out):
    report = Report()
    v = Verification(path, policy, pinned, report)
    try:
        v.open_checkpoint()
    except p.Malformed as err:
        report.fail("Integrity", "checkpoint: %s" % err)
    if v.checkpoint is not None:
        for step in (v.entries, v.receipts, v.clock, v.consistency, v.finish):
            step()
    for line in report.lines():
        print(line, file=out)
    if v.unsupported and not report.certain:
        return 4, "there are entries of a version that this program does not know"
    if any(report.failed.values()):
        return 1, "FAILED: tampered with, or something is omitted"
    if policy is None or report.status("Integrity") != "PASS":
        return 3, "self-consistent, and no more: trust is not established"
    return 0, "the policy is met, and nothing failed"


def run(arguments, out=sys.stdout):
    """The exit code."""
    options, rest = {}, list(arguments[1:])
    while rest and rest[0] in ("-policy", "-submitters") and len(rest) > 1 and rest[0] not in options:
        options[rest[0]] = rest[1]
        rest = rest[2:]
    if arguments[:1] != ["verify"] or len(rest) != 1 or rest[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        policy = policies.Policy(read_file(options["-policy"], 1 << 20)) if "-policy" in options else None
        pinned = policies.submitters(read_file(options["-submitters"], 1 << 20)) if "-submitters" in options else None
    except p.Malformed as err:
        print("policy or submitters file: %s" % err, file=sys.stderr)
        return 2
    except (OSError, Limit) as err:
        print("read what you brought: %s" % err, file=sys.stderr)
        return 5 if isinstance(err, Limit) else 6
    try:
        code, result = verify(rest[0], policy, pinned, out)
    except Limit as err:
        code, result = 5, "resource limit: %s" % err
    except OSError as err:
        code, result = 6, "read %s: %s" % (rest[0], err)
    print("\n%s (exit %d)" % (result, code), file=out)
    return code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
