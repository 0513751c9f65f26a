"""What an auditor brings: a policy file (c2sp.org/tlog-policy) and a submitters file.

Keys of type 0x06 (ML-DSA-44) are read and never count: this program cannot check them.
"""

import re

import piperoll as p

NO_QUORUM = "none"


class Policy:
    def __init__(self, text):
        """Raises Malformed. A quorum counts each key and each name once."""
        p.require(not re.search(rb"[^\t\n\x20-\x7e\x80-\xff]", text), "control character in the policy")
        p.require(len(text) <= 1 << 20, "policy of %d bytes" % len(text))
        p.require(text.endswith(b"\n"), "the last line does not end in LF")
        self.logs, self.witnesses, self.groups, self.quorum = [], {}, {}, None
        self._members, self._materials, self._ids = set(), {"log": set(), "witness": set()}, {}
        for line in text.split(b"\n"):
            words = [w.decode("latin-1") for w in re.split(rb"[\t ]+", line) if w]
            if words and not words[0].startswith("#"):
                self._line(words)
        p.require(self.quorum is not None, "no quorum line")

    def _line(self, words):
        count = len(words)
        if words[0] == "log" and count in (2, 3):
            self.logs.append(self._key("log", words[1], (1,)))
        elif words[0] == "witness" and count in (3, 4):
            self._new(words[1])
            self.witnesses[words[1]] = self._key("witness", words[2], (4,))
        elif words[0] == "group" and count >= 4:
            self._group(words[1], words[2], words[3:])
        elif words[0] == "quorum" and count == 2:
            p.require(self.quorum is None, "two quorum lines")
            known = words[1] in self.witnesses or words[1] in self.groups or words[1] == NO_QUORUM
            p.require(known, "quorum %s is not defined before" % words[1])
            self.quorum = words[1]
        else:
            raise p.Malformed("policy line %r" % " ".join(words))

    def _new(self, name):
        p.require(name not in self.witnesses and name not in self.groups, "%s is defined twice" % name)
        p.require(name != NO_QUORUM, "none is reserved")

    def _key(self, role, vkey, types):
        found = re.fullmatch(r"[^+\s]+\+[0-9a-f]{8}\+([A-Za-z0-9+/=]+)", vkey)
        p.require(found, "not a vkey: %.80r" % vkey)
        material = p.unb64(found.group(1))
        p.require(material[1:] not in self._materials[role], "one key on two %s lines" % role)
        self._materials[role].add(material[1:])
        # A line names its key by name and 32 bits: what fits two keys, log or witness, is by nobody.
        key_id = vkey[: found.start(1)]
        p.require(self._ids.setdefault(key_id, material) == material, "two keys with the ID of %s" % key_id)
        return None if material[:1] == b"\6" else p.Key(vkey, types)

    def _group(self, name, need, members):
        self._new(name)
        for member in members:
            p.require(member in self.witnesses or member in self.groups, "member %s is not defined before" % member)
            p.require(member not in self._members, "%s is a member twice" % member)
            self._members.add(member)
        counts = {"any": "1", "all": str(len(members))}
        k = p.decimal(counts.get(need, need))
        p.require(1 <= k <= len(members), "group %s needs %d of %d" % (name, k, len(members)))
        self.groups[name] = k, members

    def keys(self):
        return [key for key in self.logs + list(self.witnesses.values()) if key is not None]

    def receipt_keys(self, origin):
        return [key for key in self.logs if key is not None and key.name == origin + "/receipt"]

    def time(self, signed):
        """When the quorum had seen the checkpoint, in seconds; 0 without a quorum; None if it did not sign."""
        if self.quorum == NO_QUORUM:
            return 0
        return self._time(self.quorum, signed)

    def time_after(self, signed, milliseconds):
        """time() by the cosignatures from after that alone; 0 or None if they are no quorum."""
        return self.time({key: time for key, time in signed.items() if time * 1000 > milliseconds})

    def _time(self, name, signed):
        if name in self.witnesses:
            return signed.get(self.witnesses[name])
        need, members = self.groups[name]
        times = [t for t in (self._time(m, signed) for m in members) if t is not None]
        times.sort(key=lambda t: t or p.MAX_INT)  # 0 makes no claim: it is never
        return times[need - 1] if len(times) >= need else None


def submitters(text):
    """{(principal, key id): public key} of lines PRINCIPAL VKEY."""
    pinned = {}
    p.require(len(text) <= 1 << 20, "submitters file of %d bytes" % len(text))
    for line in text.decode("ascii", "replace").split("\n"):
        if line == "" or line.startswith("#"):
            continue
        principal, space, vkey = line.partition(" ")
        p.name(principal)
        p.require(space == " ", "want PRINCIPAL VKEY")
        key = p.parse_vkey(vkey).public
        p.require(key not in pinned.values(), "one key on two lines")
        pinned[principal, p.key_id(key)] = key
    return pinned
