"""Vectors of JSON payloads (section 1)."""

import struct

import fixtures as f
import jcs


def json_file():
    def nested(depth):
        return "[" * (depth + 1) + "]" * (depth + 1)

    good = ['{"b":1,"a":[true,false,null]}', " [ 1 , 2 ]\n", '"\\u0041\\n\\u000f\\/\\"\\\\"', '"\\ud83d\\ude00\u20ac"', "-0", "0",
            "9007199254740991", "-9007199254740991", "1.0", "1e2", "1e-400", "1E+2", "1e21", "123e-7",
            '{"\\u20ac":1,"\\r":2,"\\ufb33":3,"1":4,"\\ud83d\\ude02":5,"\\u0080":6,"\\u00f6":7}', '{"a":{"b":{}},"":[]}', nested(64),
            '{"a":1,"A":2}', '"\u007f\u0080\ufeff\uffff"', "true", '"\\u2028\\u2029<>&"', '{"peach":1,"p\\u00eache":2}', "-1.5e-9",
            "0.000001", "1e-7", "333333333.33333329", "4.50", "2e-3", "0.000000000000000000000000001", "-0.0", "1e-324",
            "1E30", "1000000000000000000000", "-1.50e+300", "0.01e23", "1.7976931348623157e308", "9007199254740991.4", "9007199254740991.0",
            "9.007199254740991e15", "123456789.123456789", "1e-999999999999", "0e999999999999", "0." + "0" * 999 + "1e1021"]
    bad = [("duplicate-key", '{"a":1,"a":1}'), ("duplicate-key-escaped", '{"a":1,"\\u0061":2}'), ("duplicate-key-nested", '[{"a":{"b":1,"b":2}}]'),
           ("lone-high-surrogate", '"\\ud83d"'), ("lone-low-surrogate", '"\\ude00"'), ("swapped-surrogates", '"\\ude00\\ud83d"'),
           ("high-surrogate-then-letter", '"\\ud83da"'), ("two-high-surrogates", '"\\ud83d\\ud83d\\ude00"'), ("lone-surrogate-key", '{"\\ud800":1}'),
           ("nesting-65", nested(65)), ("nesting-65-objects", '{"a":' * 65 + "{}" + "}" * 65), ("text-after", "{} {}"), ("text-after-bracket", "[]]"),
           ("int-2^53", "9007199254740992"), ("int-minus-2^53", "-9007199254740992"),
           ("int-huge", "1" + "0" * 400), ("fraction-2^53", "9007199254740992.0"), ("exponent-2^53", "9.007199254740992e15"), ("rounds-to-2^53", "9007199254740991.5"),
           ("fraction-beyond-2^53", "9007199254740993.0"), ("exponent-16", "1e16"), ("exponent-20", "-1E20"), ("int-17-digits", "10000000000000000"),
           ("int-22-digits", "1234567890123456789012"), ("fraction-22-digits", "1234567890123456789012.0"), ("exponent-22-digits", "1234567890123456789012e0"),
           ("rounds-beyond-1e21", "1000000000000000000001e-0"), ("last-digit-changes", "1.79769313486231571e308"), ("4097-bytes", "1e" + "0" * 4095), ("overflow", "1e309"),
           ("overflow-negative", "-1e999"), ("leading-zero", "01"), ("leading-plus", "+1"), ("no-digit-before-point", ".5"), ("no-digit-after-point", "1."),
           ("no-digit-in-exponent", "1e"), ("minus-alone", "-"), ("hex-number", "0x10"), ("nan", "NaN"), ("infinity", "Infinity"), ("empty", ""),
           ("space-only", " "), ("single-quotes", "{'a':1}"), ("comment", "{}//"), ("trailing-comma", "[1,]"), ("trailing-comma-object", '{"a":1,}'),
           ("leading-comma", "[,1]"), ("no-comma", "[1 2]"), ("no-colon", '{"a" 1}'), ("number-key", "{1:2}"), ("unquoted-key", "{a:1}"),
           ("control-character", '"\n"'), ("tab-in-string", '"\t"'), ("bad-escape", '"\\a"'), ("short-escape", '"\\u12"'), ("escape-not-hex", '"\\u00g0"'),
           ("unterminated", '"abc'), ("unterminated-array", "[1"), ("unterminated-object", '{"a":1'), ("byte-order-mark", "\ufeff{}"),
           ("no-break-space", "\u00a0{}"), ("vertical-tab", "\u000b{}"), ("word-case", "True"), ("word-cut", "tru"), ("fullwidth-digit", "\uff11")]
    raw = [("utf8-invalid", b'"\xff"'), ("utf8-cut", b'"\xe2\x82"'), ("utf8-overlong", b'"\xc0\xaf"'), ("utf8-surrogate", b'"\xed\xa0\x80"'),
           ("utf8-beyond", b'"\xf4\x90\x80\x80"'), ("utf16", '{"a":1}'.encode("utf-16")), ("zero-byte", b"{}\0")]
    return {
        "about": "JSON payloads (section 1): canonical is the RFC 8785 form.",
        "good": [{"name": "good-%d" % n, "text": t, "canonical": jcs.serialise(jcs.parse(t.encode())).decode()} for n, t in enumerate(good)],
        "bad": [{"name": n, "text": t} for n, t in bad] + [{"name": n, "hex": b.hex()} for n, b in raw],
        "numbers": [{"bits": b.hex(), "text": jcs.number(struct.unpack(">d", b)[0])} for b in number_bits()],
    }


def number_bits():
    fixed = "0000000000000000 8000000000000000 0000000000000001 8000000000000001 7fefffffffffffff ffefffffffffffff 4340000000000000 " \
            "c340000000000000 4430000000000000 44b52d02c7e14af5 44b52d02c7e14af6 44b52d02c7e14af7 444b1ae4d6e2ef4e 444b1ae4d6e2ef4f " \
            "444b1ae4d6e2ef50 3eb0c6f7a0b5ed8c 3eb0c6f7a0b5ed8d 41b3de4355555553 41b3de4355555554 becbf647612f3696 43143ff3c1cb0959"
    made = [bytes.fromhex(b) for b in fixed.split()]
    n = 0
    while len(made) < 200:
        bits = f.filler("double %d" % n, 8)
        n += 1
        if bits[0] & 0x7F != 0x7F:
            made.append(bits)
    return made


def vectors():
    return {"json": json_file()}
