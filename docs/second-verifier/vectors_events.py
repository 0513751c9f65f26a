"""Vectors of sections 1 to 5: names, events, entries, keys, payloads."""

import json

import ed25519
import fixtures as f
import jcs
import piperoll as p
from fixtures import text

BEYOND = 2**53


def json_faults(value, unversioned=False):
    """Faults that no fixed shape may have. value is a good one."""
    good = text(value)
    first = sorted(value)[0]
    rest = good[1:]
    item = '%s:%s' % (json.dumps(first), text(value[first]))
    cases = [
        ("empty", ""),
        ("space-before", " " + good),
        ("space-inside", good.replace(":", ": ", 1)),
        ("space-after-comma", good.replace(",", ", ", 1)),
        ("newline-after", good + "\n"),
        ("second-value", good + "{}"),
        ("truncated", good[:-1]),
        ("byte-order-mark", "\ufeff" + good),
        ("unsorted-members", "{" + ",".join("%s:%s" % (json.dumps(k), text(value[k])) for k in sorted(value)[::-1]) + "}"),
        ("duplicate-key", "{" + item + "," + rest),
        ("duplicate-key-escaped", '{"\\u%04x%s,' % (ord(first[0]), item[2:]) + rest),
        ("unknown-member", text(dict(value, zz=1))),
        ("folded-case", good.replace(json.dumps(first), json.dumps(first.upper()), 1)),
        ("escaped-letter", good.replace('"' + first, '"\\u%04x' % ord(first[0]) + first[1:], 1)),
        ("array", "[" + good + "]"),
        ("string", json.dumps(good)),
        ("null", "null"),
    ]
    if len(value) == 2:
        cases = [c for c in cases if c[1] != good]
    for member in value:
        cases.append(("null-" + member, text(dict(value, **{member: None}))))
    if not unversioned:
        cases += [
            ("version-string", text(dict(value, v="1"))),
            ("version-fraction", good[:-1] + ".0}"),
            ("version-exponent", good[:-1] + "e0}"),
            ("version-leading-zero", good[:-2] + "01}"),
            ("version-2^53", text(dict(value, v=BEYOND))),
        ]
        cases = [{"name": n, "text": t} for n, t in cases]
        cases.append({"name": "wrong-version", "text": text(dict(value, v=2)), "error": "unsupported"})
        cases.append({"name": "version-0", "text": text(dict(value, v=0)), "error": "unsupported"})
        return cases
    return [{"name": n, "text": t} for n, t in cases]


def without(value, *names):
    return [("no-" + n, {k: v for k, v in value.items() if k != n}) for n in names]


def member_faults(value, **faults):
    """Cases with one member changed: faults maps a member to [(name, changed), ...]."""
    for member, changes in faults.items():
        for name, changed in changes:
            yield (member + "-" + name, dict(value, **{member: changed}))


BAD_NAMES = [
    ("empty", ""),
    ("space", "a b"),
    ("129-bytes", "a" * 129),
    ("non-ascii", "caf\u00e9"),
    ("control-character", "a\nb"),
    ("quote", 'a"b'),
    ("backslash", "a\\b"),
    ("number", 1),
    ("plus", "a+b"),
]
BAD_INTS = [
    ("negative", -1),
    ("2^53", BEYOND),
    ("fraction", 1.5),
    ("string", "1"),
    ("true", True),
    ("list", [1]),
]
SIXTY_FOUR = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
BAD_HASHES = [
    ("base64-spare-bits", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB="),
    ("base64-no-padding", SIXTY_FOUR[:-1]),
    ("base64-url", "_" + SIXTY_FOUR[1:]),
    ("base64-newline", SIXTY_FOUR + "\n"),
    ("base64-inner-newline", SIXTY_FOUR[:20] + "\n" + SIXTY_FOUR[20:]),
    ("31-bytes", p.b64(bytes(31))),
    ("33-bytes", p.b64(bytes(33))),
    ("hex", "00" * 32),
    ("empty", ""),
]


def named(pairs):
    return [{"name": n, "text": text(v)} for n, v in pairs]


def event_file():
    big = f.event(payload=f.salted("x", "text/plain", b""), objects=[])
    objects = [{"name": "n" * 128, "role": "r" * 90} for _ in range(64)]
    big["objects"] = objects
    room = p.EVENT_MAX - len(text(big))
    for item in objects:
        grow = min(room, 38)
        item["role"] += "r" * grow
        room -= grow
    good = [
        ("load", f.event()),
        ("no-payload", f.event(payload=None)),
        ("no-objects", f.event(objects=[])),
        ("largest-numbers", f.event(seq=p.MAX_INT, time=p.MAX_INT)),
        ("smallest-numbers", f.event(seq=1, time=0)),
        ("64-objects", f.event(objects=[{"name": "a%d" % n, "role": "row"} for n in range(64)])),
        ("objects-repeat", f.event(objects=[{"name": "a", "role": "b"}] * 2)),
        ("128-byte-names", f.event(migration="m" * 126, stream="m" * 126 + "/s", actor="A" * 128)),
        ("slash-in-migration", f.event(migration="a/b", stream="a/b/c")),
        ("unknown-kind-of-known-class", f.event(kind="x.acme.made-up_1")),
        ("structural-kind-without-payload", f.event(kind="stream.open", payload=None)),
        ("server-kind", f.event(kind="log.open", migration="log", stream="log/open")),
        ("unknown-server-kind", f.event(kind="access.new", migration="log", stream="log/new")),
    ]
    if len(text(big)) == p.EVENT_MAX:
        good.append(("16384-bytes", big))
    base = f.event()
    payload = base["payload"]
    bad = [c for c in json_faults(base) if c["name"] != "null-payload"] + [
        {"name": "null-payload", "text": text(dict(base, payload=None))},
        {"name": "seq-leading-zero", "text": text(base).replace('"seq":7', '"seq":07')},
        {"name": "seq-minus-zero", "text": text(base).replace('"time":%d' % f.NOW, '"time":-0')},
        {"name": "seq-exponent", "text": text(base).replace('"seq":7', '"seq":7e0')},
        {"name": "int-overflow", "text": text(base).replace('"seq":7', '"seq":18446744073709551623')},
        {"name": "float-like-int", "text": text(base).replace('"seq":7', '"seq":7.0')},
        {"name": "invalid-utf8", "hex": (text(base).encode().replace(b"load.1", b"load\xff1")).hex()},
        {"name": "escaped-slash", "text": text(base).replace("crm-2026/load", "crm-2026\\/load")},
        {"name": "16385-bytes", "text": text(dict(big, time=0)).replace('"r', '"' + "r" * (len(str(big["time"]))) + 'r', 1)},
        {"name": "huge", "pieces": [["[", 1 << 20]]},
    ] + named(
        without(base, *[k for k in base if k != "payload"])
        + list(member_faults(
            base,
            actor=BAD_NAMES, log=BAD_NAMES, migration=BAD_NAMES, stream=BAD_NAMES, prev=BAD_HASHES, time=BAD_INTS,
            seq=[b for b in BAD_INTS] + [("zero", 0)],
            kind=[("one-word", "migration"), ("unregistered", "billing.paid"), ("upper-case", "migration.Load"),
                  ("unknown-migration-kind", "migration.copy"), ("longer", "migration.load.now"),
                  ("unknown-stream-kind", "stream.pause"), ("empty-word", "audit..x"), ("final-dot", "audit.x."),
                  ("first-dot", ".audit.x"), ("slash", "audit.a/b"), ("129-bytes", "audit." + "a" * 123),
                  ("server-in-other-migration", "log.open"), ("abandoned-in-other-migration", "stream.abandoned")],
            objects=[("65", [{"name": "a", "role": "b"}] * 65), ("no-role", [{"name": "a"}]),
                     ("no-name", [{"role": "a"}]), ("unknown-member", [{"name": "a", "role": "b", "x": "c"}]),
                     ("empty-name", [{"name": "", "role": "b"}]), ("space-in-role", [{"name": "a", "role": "b c"}]),
                     ("object", {"name": "a", "role": "b"}), ("string", ["a"]), ("null-item", [None])],
            payload=[("scheme", dict(payload, scheme="whole-2")), ("no-type", {k: payload[k] for k in ("commitment", "scheme")}),
                     ("type-upper-case", dict(payload, type="Text/plain")), ("type-parameter", dict(payload, type="text/plain;a=b")),
                     ("type-one-word", dict(payload, type="text")), ("type-two-slashes", dict(payload, type="a/b/c")),
                     ("type-129-bytes", dict(payload, type="a/" + "b" * 127)), ("type-empty-word", dict(payload, type="text/")),
                     ("unknown-member", dict(payload, size=2)), ("empty", {}), ("list", [])]
                    + [("commitment-" + n, dict(payload, commitment=h)) for n, h in BAD_HASHES],
        ))
        + [
            ("stream-of-other-migration", f.event(stream="crm-2027/load.1")),
            ("stream-is-migration", f.event(stream="crm-2026")),
            ("stream-without-name", f.event(stream="crm-2026/")),
            ("submitted-kind-in-log", f.event(migration="log", stream="log/x")),
            ("structural-payload-of-other-type", f.event(kind="stream.open", payload=f.salted("salt", p.LINEAGE_TYPE, b"{}"))),
            ("server-payload-of-other-type", f.event(kind="key.revoked", migration="log", stream="log/keys", payload=f.salted("salt", "text/plain", b"{}"))),
        ]
    )
    return {
        "about": "Events (section 2): hash is EventHash in hexadecimal.",
        "good": [{"name": n, "text": text(v), "hash": p.event_hash(v).hex()} for n, v in good],
        "bad": bad,
    }


SIG = p.make_sig(f.seed("loader"), b"TEST text\n")
KEY_ID = p.b64(p.key_id(f.public("loader")))


def sig_file():
    bad = json_faults(SIG, unversioned=True) + named(
        without(SIG, "alg", "key", "sig")
        + list(member_faults(SIG, alg=[("other", "ed25519ph"), ("empty", ""), ("upper-case", "Ed25519")], key=BAD_HASHES,
                             sig=[("63-bytes", p.b64(bytes(63))), ("65-bytes", p.b64(bytes(65))),
                                  ("base64-spare-bits", p.b64(bytes(64))[:-3] + "B=="), ("empty", "")]))
        + [("versioned", dict(SIG, v=1))]
    )
    return {"about": "Signatures of submitters (section 3).", "good": named([("sig", SIG)]), "bad": bad}


PART = f.entry(f.event())["log"]


def part_file():
    good = [
        ("plain", PART),
        ("attested", dict(PART, attested="log", auth="log")),
        ("early", dict(PART, skew_ms=-300000)),
        ("zero-skew", dict(PART, skew_ms=0)),
        ("smallest", dict(PART, as_of=0, received=0, skew_ms=-p.MAX_INT)),
        ("largest", dict(PART, as_of=p.MAX_INT, received=p.MAX_INT, skew_ms=p.MAX_INT)),
    ]
    bad = json_faults(PART, unversioned=True) + named(
        without(PART, "as_of", "auth", "blind", "by", "received", "skew_ms")
        + list(member_faults(PART, as_of=BAD_INTS, received=BAD_INTS, by=BAD_NAMES,
                             auth=BAD_NAMES,
                             skew_ms=[("2^53", BEYOND), ("minus-2^53", -BEYOND), ("fraction", 0.5), ("string", "0")],
                             blind=[("15-bytes", p.b64(bytes(15))), ("17-bytes", p.b64(bytes(17))), ("empty", ""),
                                    ("base64-spare-bits", p.b64(bytes(16))[:-3] + "B==")],
                             attested=[("other", "operator"), ("empty", ""), ("true", True)],
                             decision=[("reserved", {})], verdict=[("reserved", {})]))
    ) + [{"name": "skew_ms-minus-zero", "text": text(PART).replace('"skew_ms":25', '"skew_ms":-0')}]
    return {"about": "What the log adds to an event (section 4).", "good": named(good), "bad": bad}


def entry_file():
    plain = f.entry(f.event())
    server = f.event(kind="log.open", migration="log", stream="log/open", seq=1)
    good = [
        ("plain", plain),
        ("signed", f.entry(f.event(), SIG)),
        ("late", f.entry(f.event(), received=f.NOW + 86400000)),
        ("early", f.entry(f.event(), received=f.NOW - 300000)),
        ("log-kept", f.entry(f.event(), attested="log")),
        ("log-open", f.entry(server, as_of=0)),
        ("unknown-kind", f.entry(f.event(kind="lineage.new"))),
    ]
    bad = json_faults(plain) + named(
        without(plain, "event", "log")
        + [("event-" + n, dict(plain, event=v)) for n, v in without(f.event(), "actor", "v")]
        + [
            ("event-unknown-member", dict(plain, event=f.event(x=1))),
            ("event-text", dict(plain, event=text(f.event()))),
            ("event-kind-unregistered", dict(plain, event=f.event(kind="billing.paid"))),
            ("event-too-large", f.entry(f.event(objects=[{"name": "n" * 128, "role": "r" * 128}] * 64))),
            ("part-unknown-member", dict(plain, log=dict(PART, decision="permit"))),
            ("part-no-blind", dict(plain, log={k: v for k, v in PART.items() if k != "blind"})),
            ("skew-differs", f.entry(f.event(), skew_ms=26)),
            ("skew-sign", f.entry(f.event(), skew_ms=-25)),
            ("server-kind-not-attested", f.entry(server, attested=None, as_of=0)),
            ("sig-unknown-member", f.entry(f.event(), dict(SIG, v=1))),
            ("sig-63-bytes", f.entry(f.event(), dict(SIG, sig=p.b64(bytes(63))))),
            ("sig-empty", f.entry(f.event(), {})),
        ]
    ) + [{"name": "65536-bytes", "pieces": [["{", 1], [" ", 65534], ["}", 1]]}]
    bad.append({"name": "event-wrong-version", "text": text(dict(plain, event=f.event(v=2))), "error": "unsupported"})
    return {
        "about": "Entries (section 4): leaf is the leaf hash in hexadecimal.",
        "good": [{"name": n, "text": text(v), "leaf": p.leaf_hash(text(v).encode()).hex()} for n, v in good],
        "bad": bad,
    }


def refused_keys():
    for y in sorted(ed25519.SMALL_ORDER_Y):
        for sign in (0, 1):
            yield "small-order-%s-sign-%d" % (hex(y)[2:10], sign), (y | sign << 255).to_bytes(32, "little")
    for name, y in (("p", ed25519.P), ("p+1", ed25519.P + 1), ("p+3", ed25519.P + 3), ("2^255-1", 2**255 - 1)):
        for sign in (0, 1):
            yield "not-below-p-%s-sign-%d" % (name, sign), (y | sign << 255).to_bytes(32, "little")


def key_file():
    loader, next_key = f.public("loader"), f.public("loader 2")
    last = p.event_hash(f.event())
    texts = [
        ("tail", p.tail_text(f.ORIGIN, "crm-2026/load.1", 5, 7, last), "loader"),
        ("tail-largest", p.tail_text(f.ORIGIN, "a/b", 1, p.MAX_INT, bytes(32)), "loader"),
        ("possession", p.possession_text(f.ORIGIN, "crm-loader", loader), "loader"),
        ("succession", p.succession_text(f.ORIGIN, "crm-loader", next_key), "loader"),
    ]
    return {
        "about": "Keys and what they sign (section 3). TEST keys: seed is the private key.",
        "ids": [
            {"name": "TEST " + who, "seed": f.seed(who).hex(), "public": f.public(who).hex(), "id": p.key_id(f.public(who)).hex(),
             "vkey": p.make_vkey("TEST/" + who.replace(" ", "-"), f.public(who))}
            for who in ("loader", "loader 2", "log", "receipt")
        ],
        "refused": [{"name": n, "public": k.hex()} for n, k in refused_keys()],
        "texts": {
            "origin": f.ORIGIN, "principal": "crm-loader", "public": loader.hex(), "successor": next_key.hex(),
            "tail": {"stream": "crm-2026/load.1", "first": 5, "last": 7, "hash": last.hex()},
        },
        "signed": [
            {"name": n, "text": t.decode(), "public": f.public(k).hex(), "sig": text(p.make_sig(f.seed(k), t))} for n, t, k in texts
        ],
        "vkeys_bad": [
            {"name": n, "text": v}
            for n, v in [
                ("no-id", "TEST+" + p.b64(b"\1" + loader)),
                ("wrong-id", "TEST+00000000+" + p.b64(b"\1" + loader)),
                ("upper-case-id", _upper_id()),
                ("no-name", p.make_vkey("", loader)),
                ("space-in-name", p.make_vkey("a b", loader)),
                ("witness-type", p.make_vkey("TEST", loader, 4)),
                ("unknown-type", p.make_vkey("TEST", loader, 9)),
                ("31-bytes", p.make_vkey("TEST", loader[:31])),
                ("33-bytes", p.make_vkey("TEST", loader + b"\0")),
                ("small-order", p.make_vkey("TEST", bytes(32))),
                ("base64-inner-newline", p.make_vkey("TEST", loader)[:40] + "\n" + p.make_vkey("TEST", loader)[40:]),
                ("key-changed", _spare_bits(p.make_vkey("TEST", loader))),
                ("newline", p.make_vkey("TEST", loader) + "\n"),
                ("empty", ""),
            ]
        ],
    }


def _upper_id():
    for n in range(99):
        name, key_id, key = p.make_vkey("TEST/%d" % n, f.public("loader")).split("+", 2)
        if key_id != key_id.upper():
            return "+".join((name, key_id.upper(), key))


def _spare_bits(base64_text):
    """The same bytes with other spare bits, if it ends in padding; else it is returned as it is."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body = base64_text.rstrip("=")
    return body[:-1] + alphabet[alphabet.index(body[-1]) ^ 1] + base64_text[len(body):]


def payload_cases():
    public, revoked = p.b64(f.public("loader")), KEY_ID
    sig, hash32 = SIG, p.b64(f.filler("hash"))
    ed = {"alg": "ed25519", "key": public}
    two = [{"owner": "crm-loader", "stream": "crm-2026/a"}, {"owner": "o2", "stream": "crm-2026/b"}]
    ends = [{"hash": hash32, "last": 3, "stream": "crm-2026/a"}, {"hash": hash32, "last": 1, "stream": "crm-2026/b"}]
    log_open = {"keys": [{"purpose": "checkpoint", "vkey": f.LOG_VKEY}, {"purpose": "receipt", "vkey": f.RECEIPT_VKEY}],
                "origin": f.ORIGIN, "promise_ms": 60000, "semantics": ["authz/1", "cedar-1"], "v": 1}
    opened = {"keys": [ed], "mode": "signed", "owner": "crm-loader", "v": 1}
    registered = {"alg": "ed25519", "key": public, "principal": "crm-loader", "v": 1}
    token = {"expires": f.NOW, "hash": hash32, "id": "4f2a91c0", "permissions": ["log:append", "log:read"],
             "principal": "crm-loader", "role": "migration-service", "v": 1}
    refused = {"count": 1, "reason": "rules.denied", "request": hash32, "route": "/v1/events", "salt": hash32, "v": 1}
    bad_keys = [("small-order-key", p.b64(bytes(32))), ("key-not-below-p", p.b64(b"\xff" * 32)), ("key-31-bytes", p.b64(bytes(31)))]
    return {
        "log.open": ([log_open, dict(log_open, semantics=[])], [
            ("unknown-purpose", dict(log_open, keys=[{"purpose": "other", "vkey": f.LOG_VKEY}])),
            ("17-keys", dict(log_open, keys=log_open["keys"][:1] * 17)),
            ("65-semantics", dict(log_open, semantics=["s"] * 65)),
            ("space-in-semantics", dict(log_open, semantics=["s s"])),
            ("vkey-space", dict(log_open, keys=[{"purpose": "receipt", "vkey": "a b"}])),
            ("vkey-empty", dict(log_open, keys=[{"purpose": "receipt", "vkey": ""}])),
            ("vkey-2049-bytes", dict(log_open, keys=[{"purpose": "receipt", "vkey": "a" * 2049}])),
            ("vkey-backslash", dict(log_open, keys=[{"purpose": "receipt", "vkey": "a\\b"}])),
        ] + list(member_faults(log_open, promise_ms=BAD_INTS, origin=BAD_NAMES))),
        "stream.open": ([opened, {"keys": [], "mode": "log-kept", "owner": "crm", "v": 1}, dict(opened, keys=distinct_keys(16))], [
            ("signed-without-keys", dict(opened, keys=[])),
            ("log-kept-with-key", dict(opened, mode="log-kept")),
            ("unknown-mode", dict(opened, mode="open")),
            ("17-keys", dict(opened, keys=distinct_keys(17))),
            ("unknown-alg", dict(opened, keys=[{"alg": "rsa", "key": public}])),
            ("no-alg", dict(opened, keys=[{"key": public}])),
        ] + [(n, dict(opened, keys=[{"alg": "ed25519", "key": k}])) for n, k in bad_keys] + list(member_faults(opened, owner=BAD_NAMES))),
        "migration.open": ([{"streams": two, "v": 1}, {"streams": [], "v": 1}], [
            ("unsorted-streams", {"streams": two[::-1], "v": 1}),
            ("repeated-stream", {"streams": two[:1] * 2, "v": 1}),
            ("repeated-stream-other-owner", {"streams": two[:1] + [dict(two[0], owner="zz")], "v": 1}),
            ("empty-stream", {"streams": [{"owner": "a", "stream": ""}], "v": 1}),
            ("unknown-item-member", {"streams": [dict(two[0], x=1)], "v": 1}),
            ("no-owner", {"streams": [{"stream": "a/b"}], "v": 1}),
        ]),
        "migration.close": ([{"streams": ends, "v": 1}, {"streams": [], "v": 1}], [
            ("unsorted-streams", {"streams": ends[::-1], "v": 1}),
            ("repeated-stream", {"streams": ends[:1] * 2, "v": 1}),
            ("hash-31-bytes", {"streams": [dict(ends[0], hash=p.b64(bytes(31)))], "v": 1}),
            ("negative-last", {"streams": [dict(ends[0], last=-1)], "v": 1}),
            ("last-2^53", {"streams": [dict(ends[0], last=BEYOND)], "v": 1}),
        ]),
        "key.registered": ([registered, dict(registered, previous=sig, proof=sig["sig"]), dict(registered, proof=sig["sig"])], [
            ("proof-63-bytes", dict(registered, proof=p.b64(bytes(63)))),
            ("previous-unknown-member", dict(registered, previous=dict(sig, x=1))),
            ("previous-null", dict(registered, previous=None)),
            ("unknown-alg", dict(registered, alg="rsa")),
        ] + [(n, dict(registered, key=k)) for n, k in bad_keys] + list(member_faults(registered, principal=BAD_NAMES))),
        "key.revoked": ([{"key": revoked, "v": 1}, {"compromised_since": 5, "key": revoked, "v": 1}],
                        list(member_faults({"key": revoked, "v": 1}, key=BAD_HASHES, compromised_since=BAD_INTS))),
        "access.token.created": ([token, dict(token, permissions=[])], [
            ("65-permissions", dict(token, permissions=["p"] * 65)), ("permission-space", dict(token, permissions=["a b"])),
        ] + list(member_faults(token, expires=BAD_INTS, hash=BAD_HASHES, id=BAD_NAMES, role=BAD_NAMES, principal=BAD_NAMES))),
        "access.token.revoked": ([{"id": "4f2a91c0", "v": 1}], list(member_faults({"id": "x", "v": 1}, id=BAD_NAMES))),
        "payload.erased": ([{"authority": "gdpr:art17:case-81", "index": 12, "v": 1}],
                           list(member_faults({"authority": "a", "index": 1, "v": 1}, authority=BAD_NAMES, index=BAD_INTS))),
        "log.refused": ([refused], list(member_faults(refused, count=BAD_INTS, reason=BAD_NAMES, route=BAD_NAMES,
                                                      request=BAD_HASHES, salt=BAD_HASHES))),
    }


def distinct_keys(count):
    return [{"alg": "ed25519", "key": p.b64(f.public("key %d" % n))} for n in range(count)]


def payload_file():
    good, bad = [], []
    for kind, (shapes, faults) in payload_cases().items():
        good += [{"name": "%s/%d" % (kind, n), "kind": kind, "text": text(v)} for n, v in enumerate(shapes)]
        cases = json_faults(shapes[0]) + named(without(shapes[0], *shapes[0])) + named(faults)
        bad += [dict(case, name=kind + "/" + case["name"], kind=kind) for case in cases]
    return {"about": "Structural payloads (section 5).", "good": good, "bad": bad}


def words_file():
    kinds = sorted(p.MIGRATION_KINDS) + [
        "audit.note", "audit.a.b.c", "lineage.run", "x.acme.y", "stream.open", "stream.close", "stream.abandoned",
        "access.summary", "access.read", "access.decision", "access.denied", "access.token.created", "access.token.revoked",
        "access.read.bulk", "rules.activated", "payload.erased", "package.issued", "key.registered", "key.revoked", "log.open",
        "log.semantics", "log.refused", "log.recovered", "log.closed", "log.open.again", "x." + "a" * 126, "x.0", "x._", "x.-",
    ]
    bad_kinds = ["", "x", "x.", ".x", "x..y", "X.y", "x.Y", "x y.z", "x.\u00e9", "x.y\n", "migration.copy", "migration.open.x",
                 "migration", "stream.opened", "stream.open.x", "billing.paid", "x." + "a" * 127, "xx.y", "logs.open", "a/x.y"]
    names = ["a", "Z9._:/-", "a" * 128, "..", "/", ":", "p:" + "0f" * 16, "log.example/TEST"]
    bad_names = ["", "a" * 129, "a b", "a\n", "\n", "caf\u00e9", "a+b", "a\u0000", "a%20", "a@b", "a\\b", 'a"b', "a,b", "\uff41", "a\u200b"]
    types = ["application/json", "a/b", "application/vnd.openlineage+json", "x_y/z-0", "a/" + "b" * 126]
    bad_types = ["", "a", "/", "a/", "/b", "a/b/c", "A/b", "a/b;c=d", "a/ b", "a/" + "b" * 127, "a/b\n", "a/\u00e9", "text/*"]
    return {
        "about": "Names, kinds with their classes, and media types (sections 1 and 2).",
        "kinds": [{"text": k, "class": p.kind_class(k), "control": p.is_control(k), "erasable": p.is_erasable(k)} for k in kinds],
        "kinds_bad": bad_kinds,
        "names": names,
        "names_bad": bad_names,
        "types": types,
        "types_bad": bad_types,
    }


def hash_file():
    def commit(name, salt, media_type, payload):
        return {"name": name, "salt": salt.hex(), "type": media_type, "payload": payload.hex(),
                "commitment": p.commitment(salt, media_type, payload).hex()}

    starts = [(f.ORIGIN, "crm-2026/load.1"), (f.ORIGIN, "log/open"), ("a", "b/c"), ("o" * 128, "m/" + "s" * 126)]
    return {
        "about": "StreamStart and commitments (section 2), in hexadecimal.",
        "starts": [{"origin": o, "stream": s, "hash": p.stream_start(o, s).hex()} for o, s in starts],
        "commitments": [
            commit("empty", f.filler("salt"), "application/json", b""),
            commit("object", f.filler("salt"), "application/json", b"{}"),
            commit("other-type", f.filler("salt"), "text/plain", b"{}"),
            commit("zero-salt", bytes(32), "application/octet-stream", bytes(range(256))),
        ],
    }


def vectors():
    return {
        "words": words_file(), "hashes": hash_file(), "keys": key_file(), "sig": sig_file(),
        "event": event_file(), "part": part_file(), "entry": entry_file(), "payload": payload_file(),
    }
