"""Piperoll's formats, written from log/FORMAT.md alone and sharing no code with the log.

Every parse function accepts exactly the bytes that its writer makes and raises Malformed,
Unsupported or TooLarge otherwise. Nothing here reads a file or a clock.
"""

import base64
import hashlib
import hmac
import re

import ed25519
import jcs
from jcs import MAX_INT, Malformed

EVENT_MAX = 16384  # bytes
ENTRY_MAX = 65535  # bytes
NOTE_MAX = 128 << 10  # bytes
PAYLOAD_MAX, LINEAGE_MAX = 4 << 20, 32 << 20  # bytes
LINEAGE_TYPE = "application/vnd.openlineage+json"
EMPTY_ROOT = hashlib.sha256(b"").digest()


class Unsupported(ValueError):
    """Well enough formed to say that it is of another version."""


class TooLarge(Malformed):
    """Over a limit that FORMAT.md sets."""


def require(condition, what):
    if not condition:
        raise Malformed(what)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


# --- Primitives -------------------------------------------------------------------------


def b64(data):
    return base64.b64encode(data).decode("ascii")


def unb64(text, size=None):
    """The bytes of padded standard base64 without spare bits."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as err:
        raise Malformed("base64: %s" % err) from None
    require(b64(data) == text, "base64 is not canonical")
    require(size is None or len(data) == size, "want %s bytes in base64, not %d" % (size, len(data)))
    return data


def decimal(text):
    require(re.fullmatch(r"0|[1-9][0-9]{0,15}", text) and int(text) <= MAX_INT, "bad number %.40r" % text)
    return int(text)


def _matches(pattern, limit):
    compiled = re.compile(pattern)

    def check(value):
        require(isinstance(value, str) and len(value) <= limit, "not a string of at most %d" % limit)
        require(compiled.fullmatch(value), "bad characters in %.140r" % value)

    return check


def one_of(*values):
    def check(value):
        require(isinstance(value, str) and value in values, "%.40r is not one of %s" % (value, values))

    return check


def bytes64(size):
    def check(value):
        require(isinstance(value, str), "base64 is not a string")
        unb64(value, size)

    return check


def list_of(check_item, limit, least=0):
    def check(value):
        require(isinstance(value, list), "not a list")
        require(least <= len(value) <= limit, "%d items, want %d to %d" % (len(value), least, limit))
        for item in value:
            check_item(item)

    return check


def whole_number(least):
    def check(value):
        require(isinstance(value, int) and not isinstance(value, bool), "not an integer")
        require(least <= value <= MAX_INT, "integer out of range")

    return check


integer, positive, signed_integer = whole_number(0), whole_number(1), whole_number(-MAX_INT)


def version(value):
    require(isinstance(value, int) and not isinstance(value, bool), "version is not an integer")
    if value != 1:
        raise Unsupported("version %d" % value)


def fields(*also, **members):
    """A check of an object with exactly these members; a check in a tuple may be absent."""

    def check(value):
        require(isinstance(value, dict), "not an object")
        require(not set(value) - set(members), "unknown members %s" % sorted(set(value) - set(members)))
        if "v" in members and "v" in value:
            version(value["v"])
        for name, member in members.items():
            optional = isinstance(member, tuple)
            require(optional or name in value, "no member %s" % name)
            if name in value:
                (member[0] if optional else member)(value[name])
        for rule in also:
            rule(value)

    return check


name = _matches(r"[A-Za-z0-9._:/-]+", 128)
kind_text = _matches(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+", 128)
media_type = _matches(r"[a-z0-9._+-]+/[a-z0-9._+-]+", 128)
vkey_text = _matches(r"[!#-\[\]-~]+", 2048)


def parse_json(data, check, limit):
    """A fixed shape: bounded, canonical, and passing check."""
    if len(data) > limit:
        raise TooLarge("%d bytes, limit %d" % (len(data), limit))
    value = jcs.parse(data)
    require(jcs.serialise(value) == data, "not canonical")
    check(value)
    return value


# --- Events -----------------------------------------------------------------------------

MIGRATION_KINDS = frozenset(
    "migration." + word for word in "open start extract transform load verify reject reconcile cutover close".split()
)
SUBMITTED_WORDS = ("audit", "lineage", "x")
SERVER_WORDS = ("access", "rules", "payload", "package", "key", "log")


def kind_class(kind):
    """'submitted' or 'server'."""
    kind_text(kind)
    if kind in MIGRATION_KINDS or kind in ("stream.open", "stream.close"):
        return "submitted"
    first = kind.split(".")[0]
    if first in SUBMITTED_WORDS:
        return "submitted"
    require(first in SERVER_WORDS or kind == "stream.abandoned", "kind %s has no class" % kind)
    return "server"


def is_control(kind):
    """Whether an entry of this kind changes what is decided about later ones."""
    if kind in ("log.open", "log.semantics"):
        return True
    quiet = ("access.summary", "access.read", "access.decision", "access.denied")
    return kind.split(".")[0] in ("rules", "key", "access") and kind not in quiet


def is_erasable(kind):
    if kind in ("migration.open", "migration.close", "stream.open"):
        return False
    return kind == "log.refused" or kind_class(kind) == "submitted"


def _event_rules(event):
    in_log = kind_class(event["kind"]) == "server"
    require((event["migration"] == "log") == in_log, "kind %s in migration %s" % (event["kind"], event["migration"]))
    prefix = event["migration"] + "/"
    require(event["stream"].startswith(prefix) and event["stream"] != prefix, "stream is not in its migration")
    if event["kind"] in PAYLOADS and "payload" in event:
        require(event["payload"]["type"] == "application/json", "structural payload of another type")


_EVENT = fields(
    _event_rules,
    actor=name,
    kind=kind_text,
    log=name,
    migration=name,
    objects=list_of(fields(name=name, role=name), 64),
    payload=(fields(commitment=bytes64(32), scheme=one_of("whole-1"), type=media_type),),
    prev=bytes64(32),
    seq=positive,
    stream=name,
    time=integer,
    v=version,
)


def parse_event(data):
    return parse_json(data, _EVENT, EVENT_MAX)


def event_hash(event):
    return sha256(b"piperoll/event/v1\n", jcs.serialise(event))


def stream_start(origin, stream):
    return sha256(("piperoll/stream/v1\n%s\n%s" % (origin, stream)).encode())


def commitment(salt, kind_of_payload, payload):
    require(len(salt) == 32, "a salt has 32 bytes")
    text = b"piperoll/commit/v1\n" + kind_of_payload.encode() + b"\n" + payload
    return hmac.new(salt, text, hashlib.sha256).digest()


def parse_salt(data):
    """The salt in its file of a directory of events with proofs."""
    require(data.endswith(b"\n"), "salt has no final newline")
    return unb64(data[:-1].decode("latin-1"), 32)


def payload_limit(kind_of_payload):
    return LINEAGE_MAX if kind_of_payload == LINEAGE_TYPE else PAYLOAD_MAX


# --- Signatures of submitters -----------------------------------------------------------

_SIG = fields(alg=one_of("ed25519"), key=bytes64(32), sig=bytes64(64))


def parse_sig(data):
    return parse_json(data, _SIG, 512)


def key_id(public):
    return sha256(b"ed25519", public)


def tail_text(origin, stream, first, last, last_hash):
    return ("piperoll/tail/v1\n%s\n%s\n%d\n%d\n%s\n" % (origin, stream, first, last, b64(last_hash))).encode()


def possession_text(origin, principal, public, label="piperoll/key/v1"):
    return ("%s\n%s\n%s\ned25519\n%s\n" % (label, origin, principal, b64(public))).encode()


def succession_text(origin, principal, public):
    return possession_text(origin, principal, public, "piperoll/key-successor/v1")


def make_sig(seed, text):
    return {"alg": "ed25519", "key": b64(key_id(ed25519.public_key(seed))), "sig": b64(ed25519.sign(seed, text))}


def check_sig(sig, public, text):
    return (
        unb64(sig["key"]) == key_id(public)
        and not ed25519.refused_key(public)
        and ed25519.verify(public, text, unb64(sig["sig"]))
    )


# --- Entries ----------------------------------------------------------------------------


def _entry_rules(entry):
    event, part = entry["event"], entry["log"]
    require(len(jcs.serialise(event)) <= EVENT_MAX, "event over its limit")
    require(part["skew_ms"] == part["received"] - event["time"], "skew_ms is not received - time")
    if kind_class(event["kind"]) == "server":
        require("attested" in part, "a server kind that the log does not attest")


_PART = fields(
    as_of=integer,
    attested=(one_of("log"),),
    auth=name,
    blind=bytes64(16),
    by=name,
    received=integer,
    skew_ms=signed_integer,
)
_ENTRY = fields(_entry_rules, event=_EVENT, log=_PART, sig=(_SIG,), v=version)


def parse_part(data):
    return parse_json(data, _PART, 1024)


def parse_entry(data):
    return parse_json(data, _ENTRY, ENTRY_MAX)


def leaf_hash(data):
    return sha256(b"\0", data)


def node_hash(left, right):
    return sha256(b"\1", left, right)


# --- Structural payloads ----------------------------------------------------------------


def public_key(value):
    bytes64(32)(value)
    require(not ed25519.refused_key(unb64(value)), "refused key")


def _ascending(value):
    streams = [item["stream"] for item in value["streams"]]
    require(all(a < b for a, b in zip(streams, streams[1:])), "streams are not ascending")


def _keys_of_mode(value):
    require((value["mode"] == "signed") == bool(value["keys"]), "keys do not fit mode %s" % value["mode"])


PAYLOADS = {
    "log.open": fields(
        keys=list_of(fields(purpose=one_of("checkpoint", "receipt"), vkey=vkey_text), 16),
        origin=name,
        promise_ms=integer,
        semantics=list_of(name, 64),
        v=version,
    ),
    "stream.open": fields(
        _keys_of_mode,
        keys=list_of(fields(alg=one_of("ed25519"), key=public_key), 16),
        mode=one_of("signed", "log-kept"),
        owner=name,
        v=version,
    ),
    "migration.open": fields(_ascending, streams=list_of(fields(owner=name, stream=name), 10000), v=version),
    "migration.close": fields(
        _ascending, streams=list_of(fields(hash=bytes64(32), last=integer, stream=name), 10000), v=version
    ),
    "key.registered": fields(
        alg=one_of("ed25519"), key=public_key, previous=(_SIG,), principal=name, proof=(bytes64(64),), v=version
    ),
    "key.revoked": fields(compromised_since=(integer,), key=bytes64(32), v=version),
    "access.token.created": fields(
        expires=integer,
        hash=bytes64(32),
        id=name,
        permissions=list_of(name, 64),
        principal=name,
        role=name,
        v=version,
    ),
    "access.token.revoked": fields(id=name, v=version),
    "payload.erased": fields(authority=name, index=integer, v=version),
    "log.refused": fields(
        count=integer, reason=name, request=bytes64(32), route=name, salt=bytes64(32), v=version
    ),
}


def parse_payload(kind, data):
    """The payload of a structural kind."""
    return parse_json(data, PAYLOADS[kind], PAYLOAD_MAX)


# --- Notes, checkpoints, receipts -------------------------------------------------------


class Key:
    """A note's key: vkey text NAME+ID+BASE64(type || 32 bytes), type 1 (a log) or 4 (a witness)."""

    def __init__(self, vkey, types=(1,)):
        parts = vkey.split("+", 2)
        require(len(parts) == 3 and parts[0], "not a vkey: %.80r" % vkey)
        material = unb64(parts[2])
        self.name, self.type, self.public = parts[0], material[:1], material[1:]
        require(not re.search(r"\s", self.name), "white space in a key name")
        self.id = sha256(self.name.encode(), b"\n", material)[:4]
        require(self.id.hex() == parts[1], "key id does not fit %s" % self.name)
        require(material[:1] and material[0] in types, "type of key %s is not one of %s" % (self.name, types))
        require(len(self.public) == 32 and not ed25519.refused_key(self.public), "refused key %s" % self.name)

    def verify(self, text, signature):
        """The cosignature's time in seconds (0 for a log key), or None when the signature is bad."""
        if self.type == b"\1":
            return 0 if ed25519.verify(self.public, text, signature) else None
        time = int.from_bytes(signature[:8], "big")
        if len(signature) != 72 or time > MAX_INT // 1000:
            return None
        message = b"cosignature/v1\ntime %d\n" % time + text
        return time if ed25519.verify(self.public, message, signature[8:]) else None


def make_vkey(key_name, public, key_type=1):
    material = bytes([key_type]) + public
    return "%s+%s+%s" % (key_name, sha256(key_name.encode(), b"\n", material)[:4].hex(), b64(material))


def sign_note(text, key_name, seed, key_type=1):
    material = bytes([key_type]) + ed25519.public_key(seed)
    hint = sha256(key_name.encode(), b"\n", material)[:4]
    line = "\u2014 %s %s\n" % (key_name, b64(hint + ed25519.sign(seed, text)))
    return text + b"\n" + line.encode()


def open_note(data, keys):
    """The text of a note and {Key: time} for those of keys that signed it; at least one must."""
    if len(data) > NOTE_MAX:
        raise TooLarge("note of %d bytes" % len(data))
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise Malformed("note is not UTF-8: %s" % err) from None
    require(not re.search(rb"[\x00-\x09\x0b-\x1f]", data), "control character in a note")
    cut = data.rfind(b"\n\n")
    require(cut >= 0 and data.endswith(b"\n"), "not a note")
    text, signed = data[: cut + 1], {}
    lines = data[cut + 2 :].decode("utf-8").splitlines(True)
    require(0 < len(lines) <= 100, "%d signature lines" % len(lines))
    for line in lines:
        found = re.fullmatch("\u2014 ([^\\s+]+) ([A-Za-z0-9+/=]+)\n", line)
        require(found, "bad signature line")
        raw = unb64(found.group(2))
        require(len(raw) >= 5, "short signature")
        for key in keys:
            if (key.name, key.id) == (found.group(1), raw[:4]):
                time = key.verify(text, raw[4:])
                require(time is not None, "bad signature by %s" % key.name)
                require(key not in signed, "two signatures by %s" % key.name)
                signed[key] = time
    require(signed, "not signed by a key that counts")
    return text, signed


def _lines(text):
    try:
        lines = text.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise Malformed("not ASCII") from None
    require(len(lines) > 1 and lines[-1] == "", "no final newline")
    return lines[:-1]


def _field(line, word):
    require(line.startswith(word + " "), "want a line %r" % word)
    return line[len(word) + 1 :]


class Checkpoint:
    def __init__(self, origin, size, root):
        name(origin)
        require(0 <= size <= MAX_INT, "size out of range")
        require(size > 0 or root == EMPTY_ROOT, "root of the empty tree")
        self.origin, self.size, self.root = origin, size, root

    @classmethod
    def parse(cls, text):
        lines = _lines(text)
        require(len(lines) == 3, "a checkpoint has 3 lines")
        return cls(lines[0], decimal(lines[1]), unb64(lines[2], 32))

    def text(self):
        return ("%s\n%d\n%s\n" % (self.origin, self.size, b64(self.root))).encode()


class Receipt:
    def __init__(self, origin, index, count, leaves, received, by):
        name(origin)
        for number in (index, count, received, by):
            integer(number)
        require(count >= 1, "count is 0")
        require(by >= received, "by is before received")
        self.origin, self.index, self.count = origin, index, count
        self.leaves, self.received, self.by = leaves, received, by

    @classmethod
    def parse(cls, text):
        lines = _lines(text)
        require(len(lines) == 7 and lines[0] == "piperoll/receipt/v1", "not a receipt")
        return cls(
            _field(lines[1], "log"),
            decimal(_field(lines[2], "index")),
            decimal(_field(lines[3], "count")),
            unb64(_field(lines[4], "leaves"), 32),
            decimal(_field(lines[5], "received")),
            decimal(_field(lines[6], "by")),
        )

    def text(self):
        values = (self.origin, self.index, self.count, b64(self.leaves), self.received, self.by)
        return ("piperoll/receipt/v1\nlog %s\nindex %d\ncount %d\nleaves %s\nreceived %d\nby %d\n" % values).encode()


def parse_vkey(text):
    """An Ed25519 key of a log or a submitter, from its one spelling."""
    key = Key(text)
    require(make_vkey(key.name, key.public) == text, "vkey is not canonical")
    return key
