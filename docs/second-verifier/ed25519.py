"""Ed25519 of RFC 8032 in plain Python: slow, short and independent of any library.

It is written to check other people's signatures and to make test vectors. Signing is
not constant-time: never give it a key that guards anything.
"""

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)

# Points are in extended coordinates (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z.
IDENTITY = (0, 1, 1, 0)


def _recover_x(y, sign):
    """The x of a point with this y and sign, or None when there is none (section 5.1.3)."""
    if y >= P:
        return None
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P != u:
        x = x * SQRT_M1 % P
        if v * x * x % P != u:
            return None
    if x == 0 and sign:
        return None
    return P - x if x & 1 != sign else x


def _add(a, b):
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g = 2 * D * a[3] * b[3] % P
    h = 2 * a[2] * b[2] % P
    i, j, k, m = f - e, h - g, h + g, f + e
    return (i * j % P, k * m % P, j * k % P, i * m % P)


def _double(a):
    x2, y2 = a[0] * a[0] % P, a[1] * a[1] % P
    h = x2 + y2
    e = h - (a[0] + a[1]) ** 2 % P
    g = x2 - y2
    f = 2 * a[2] * a[2] % P + g
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _multiply(pairs):
    """The sum of scalar * point, all at once: the doublings are shared."""
    total = IDENTITY
    for bit in reversed(range(max(s.bit_length() for s, _ in pairs) or 1)):
        total = _double(total)
        for scalar, point in pairs:
            if scalar >> bit & 1:
                total = _add(total, point)
    return total


def _encode(point):
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decode(data):
    n = int.from_bytes(data, "little")
    y = n & (1 << 255) - 1
    x = _recover_x(y, n >> 255)
    return None if x is None else (x, y, 1, x * y % P)


BASE_Y = 4 * pow(5, P - 2, P) % P
BASE_X = _recover_x(BASE_Y, 0)
BASE = (BASE_X, BASE_Y, 1, BASE_X * BASE_Y % P)


def _hash(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


def _secret(seed):
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little")
    return scalar & (1 << 254) - 8 | 1 << 254, digest[32:]


def public_key(seed):
    """The 32-byte public key of a 32-byte seed."""
    return _encode(_multiply([(_secret(seed)[0], BASE)]))


def sign(seed, message):
    """The 64-byte signature of message (section 5.1.6)."""
    scalar, prefix = _secret(seed)
    public = _encode(_multiply([(scalar, BASE)]))
    r = _hash(prefix, message) % L
    point = _encode(_multiply([(r, BASE)]))
    s = (r + _hash(point, public, message) * scalar) % L
    return point + s.to_bytes(32, "little")


def verify(public, message, signature):
    """Whether signature is by public over message: without cofactor, S below L (section 5.1.7)."""
    if len(public) != 32 or len(signature) != 64:
        return False
    a, s = _decode(public), int.from_bytes(signature[32:], "little")
    if a is None or s >= L:
        return False
    k = _hash(signature[:32], public, message) % L
    minus_a = (P - a[0], a[1], a[2], P - a[3])
    return _encode(_multiply([(s, BASE), (k, minus_a)])) == signature[:32]


def _small_order_y():
    """The y of every point whose order divides 8, found by multiplying points by L."""
    found, y = set(), 2
    while len(found) < 5:  # 1, p-1, 0 and two of order 8
        x = _recover_x(y, 0)
        if x is not None:
            point = _multiply([(L, (x, y, 1, x * y % P))])
            found.add(point[1] * pow(point[2], P - 2, P) % P)
        y += 1
    return frozenset(found)


SMALL_ORDER_Y = _small_order_y()


def refused_key(public):
    """Whether these bytes may never be a key: small order, or y not below p (FORMAT.md section 3)."""
    y = int.from_bytes(public, "little") & (1 << 255) - 1
    return len(public) != 32 or y >= P or y in SMALL_ORDER_Y
