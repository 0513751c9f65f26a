"""Strict JSON in, RFC 8785 (JCS) out.

The parser is stricter than RFC 8259: see "JSON payloads" in log/FORMAT.md. It keeps the
difference between 1 (an int) and 1.0 (a float): the fixed shapes hold only the first.
"""

import decimal
import re

MAX_INT = 2**53 - 1
MAX_DEPTH = 64
NUMBER_MAX = 4096  # bytes

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_SPACE = re.compile(r"[ \t\n\r]*")
_HEX4 = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS = {"true": True, "false": False, "null": None}


class Malformed(ValueError):
    """The bytes are not in the one form that is accepted."""


def parse(data):
    """The value of a JSON text in bytes. Objects become dicts, integers int, all other numbers float."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as err:
        raise Malformed("not UTF-8: %s" % err) from None
    parser = _Parser(text)
    value = parser.value(0)
    parser.space()
    if parser.at != len(text):
        raise Malformed("text after the value, at %d" % parser.at)
    return value


class _Parser:
    def __init__(self, text):
        self.text, self.at = text, 0

    def space(self):
        self.at = _SPACE.match(self.text, self.at).end()

    def peek(self):
        return self.text[self.at : self.at + 1]

    def take(self, char):
        if self.peek() != char:
            raise Malformed("want %r at %d" % (char, self.at))
        self.at += 1

    def value(self, depth):
        if depth > MAX_DEPTH:
            raise Malformed("nested deeper than %d" % MAX_DEPTH)
        self.space()
        char = self.peek()
        if char == "{":
            return self.object(depth)
        if char == "[":
            return self.array(depth)
        if char == '"':
            return self.string()
        for word, value in _WORDS.items():
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return value
        return self.number()

    def object(self, depth):
        result = {}
        self.take("{")
        self.space()
        while self.peek() != "}" or result:
            self.space()
            key = self.string()
            if key in result:
                raise Malformed("duplicate member %r" % key)
            self.space()
            self.take(":")
            result[key] = self.value(depth + 1)
            self.space()
            if self.peek() != ",":
                break
            self.take(",")
        self.take("}")
        return result

    def array(self, depth):
        result = []
        self.take("[")
        self.space()
        while self.peek() != "]" or result:
            result.append(self.value(depth + 1))
            self.space()
            if self.peek() != ",":
                break
            self.take(",")
        self.take("]")
        return result

    def string(self):
        self.take('"')
        parts = []
        while True:
            plain = _PLAIN.match(self.text, self.at)
            parts.append(plain.group())
            self.at = plain.end()
            if self.peek() != "\\":
                break
            parts.append(self.escape())
        self.take('"')
        # Escapes of a surrogate pair became two code units: join them, and refuse a lone one.
        try:
            return "".join(parts).encode("utf-16-be", "surrogatepass").decode("utf-16-be")
        except UnicodeDecodeError:
            raise Malformed("lone surrogate before %d" % self.at) from None

    def escape(self):
        char = self.text[self.at + 1 : self.at + 2]
        if char in _ESCAPES and char:
            self.at += 2
            return _ESCAPES[char]
        digits = _HEX4.match(self.text, self.at + 2)
        if char != "u" or digits is None:
            raise Malformed("bad escape at %d" % self.at)
        self.at += 6
        return chr(int(digits.group(), 16))

    def number(self):
        found = _NUMBER.match(self.text, self.at)
        if found is None:
            raise Malformed("no value at %d" % self.at)
        self.at, written = found.end(), found.group()
        if len(written) > NUMBER_MAX:
            raise Malformed("number of %d bytes" % len(written))
        value = float(written)
        if value in (float("inf"), float("-inf")):
            raise Malformed("number beyond the doubles: %.40s" % written)
        if abs(value) > MAX_INT:
            # Written as an integer, or not the same number to the last digit.
            if abs(value) < 1e21 or decimal.Decimal(written) != decimal.Decimal(number(value)):
                raise Malformed("number beyond 2^53-1: %.40s" % written)
            return value
        return int(written) if found.group(1) is None and found.group(2) is None else value


def serialise(value):
    """The RFC 8785 bytes of a value as parse returns it."""
    out = []
    _write(value, out)
    return "".join(out).encode("utf-8")


def _write(value, out):
    if value is None or isinstance(value, bool):
        out.append({None: "null", True: "true", False: "false"}[value])
    elif isinstance(value, str):
        out.append(_quote(value))
    elif isinstance(value, int):
        out.append(str(value))
    elif isinstance(value, float):
        out.append(number(value))
    elif isinstance(value, list):
        out.append("[")
        for n, item in enumerate(value):
            out.append("," if n else "")
            _write(item, out)
        out.append("]")
    else:
        out.append("{")
        # Sorted by UTF-16 code units, which differs from code points beyond U+FFFF.
        for n, key in enumerate(sorted(value, key=lambda k: k.encode("utf-16-be"))):
            out.append(("," if n else "") + _quote(key) + ":")
            _write(value[key], out)
        out.append("}")


_SHORT = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
_QUOTED = {n: "\\u%04x" % n for n in range(32)}
_QUOTED.update(_SHORT)


def _quote(text):
    return '"' + text.translate(_QUOTED) + '"'


def number(value):
    """A double as ECMAScript writes it: RFC 8785 section 3.2.2.3."""
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = ("%r" % abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    # The value is 0.DIGITS * 10^point; repr gives the fewest digits that read back the same.
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if 0 < point <= 21:
        if len(digits) <= point:
            return sign + digits.ljust(point, "0")
        return sign + digits[:point] + "." + digits[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + digits
    rest = "." + digits[1:] if len(digits) > 1 else ""
    return "%s%s%se%+d" % (sign, digits[0], rest, point - 1)
