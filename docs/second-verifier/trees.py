"""Trees of RFC 6962: roots, proofs, tiles and entry bundles, as log/FORMAT.md section 7 says."""

import re

from piperoll import (
    EMPTY_ROOT,
    ENTRY_MAX,
    MAX_INT,
    NOTE_MAX,
    TooLarge,
    _field,
    _lines,
    b64,
    decimal,
    name,
    node_hash,
    require,
    unb64,
)


PATH_MAX = 106  # hashes
BUNDLE_MAX = 256  # entries


def _split(size):
    """The largest power of two below size."""
    return 1 << (size - 1).bit_length() - 1


def root(leaves):
    """The root over a list of leaf hashes: the recursive definition."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    return node_hash(root(leaves[:k]), root(leaves[k:]))


def inclusion(leaves, index):
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return inclusion(leaves[:k], index) + [root(leaves[k:])]
    return inclusion(leaves[k:], index - k) + [root(leaves[:k])]


def root_from_inclusion(leaf, index, size, path):
    """The root that makes path a proof of leaf."""
    require(0 <= index < size, "index is not below size")
    if size == 1:
        require(not path, "path too long")
        return leaf
    require(path, "path too short")
    k = _split(size)
    if index < k:
        return node_hash(root_from_inclusion(leaf, index, k, path[:-1]), path[-1])
    return node_hash(path[-1], root_from_inclusion(leaf, index - k, size - k, path[:-1]))


def consistency(leaves, old, whole=True):
    size = len(leaves)
    if old == size or old == 0:
        return [] if whole else [root(leaves)]
    k = _split(size)
    if old <= k:
        return consistency(leaves[:k], old, whole) + [root(leaves[k:])]
    return consistency(leaves[k:], old - k, False) + [root(leaves[:k])]


def check_consistency(old, old_root, size, new_root, path):
    require(0 <= old <= size, "old is above new")
    require(old > 0 or old_root == EMPTY_ROOT, "root of the empty tree")
    if old == 0 or old == size:
        require(not path, "path too long")
        require(old == 0 or old_root == new_root, "two roots for one size")
        return

    def walk(old, size, path, whole):
        """The roots of both sizes of a subtree."""
        if old == size:
            if whole:
                require(not path, "path too long")
                return old_root, old_root
            require(len(path) == 1, "path has a wrong length")
            return path[0], path[0]
        require(path, "path too short")
        k = _split(size)
        if old <= k:
            before, after = walk(old, k, path[:-1], whole)
            return before, node_hash(after, path[-1])
        before, after = walk(old - k, size - k, path[:-1], False)
        return node_hash(path[-1], before), node_hash(path[-1], after)

    require(walk(old, size, path, True) == (old_root, new_root), "roots do not fit")


def range_subtrees(begin, end, size):
    """The subtrees (start, width) whose roots a range proof holds, in its order."""
    result, at = [], 0
    for bit in reversed(range(begin.bit_length())):
        if begin >> bit & 1:
            result.append((at, 1 << bit))
            at += 1 << bit
    at = end
    while at < size:
        width = at & -at or 1 << 53  # 0 is aligned to everything
        while at + width > size:
            width >>= 1
        result.append((at, width))
        at += width
    return result


def range_proof(leaves, begin, end):
    return [root(leaves[at : at + width]) for at, width in range_subtrees(begin, end, len(leaves))]


def root_from_range(begin, size, leaves, path):
    """The root that makes path a proof that leaves are all those of [begin, begin + len(leaves))."""
    end = begin + len(leaves)
    require(0 <= begin < end <= size, "want 0 <= begin < end <= size")
    known = range_subtrees(begin, end, size)
    require(len(known) == len(path), "path has a wrong length")
    hashes = dict(zip(known, path))

    def walk(start, width):
        if (start, width) in hashes:
            return hashes[start, width]
        if width == 1:
            return leaves[start - begin]
        k = _split(width)
        return node_hash(walk(start, k), walk(start + k, width - k))

    return walk(0, size)


def _hashes(lines):
    require(len(lines) <= PATH_MAX, "more than %d hashes" % PATH_MAX)
    return [unb64(line, 32) for line in lines]


def _text(lines, path):
    return ("\n".join(list(lines) + [b64(h) for h in path]) + "\n").encode()


def parse_inclusion(data):
    """(index, path, checkpoint note) of a tlog-proof."""
    if len(data) > NOTE_MAX + 8192:
        raise TooLarge("proof of %d bytes" % len(data))
    head, empty, note = data.partition(b"\n\n")
    require(empty and note, "no checkpoint")
    lines = _lines(head + b"\n")
    require(len(lines) >= 2 and lines[0] == "c2sp.org/tlog-proof@v1", "not an inclusion proof")
    return decimal(_field(lines[1], "index")), _hashes(lines[2:]), note


def inclusion_text(index, path, note):
    return _text(("c2sp.org/tlog-proof@v1", "index %d" % index), path) + b"\n" + note


def parse_consistency(data):
    """(origin, old, new, path)."""
    lines = _lines(data[:16384])
    require(len(data) <= 16384 and len(lines) >= 4 and lines[0] == "piperoll/consistency-proof/v1", "not one")
    origin, old, new = _field(lines[1], "log"), decimal(_field(lines[2], "old")), decimal(_field(lines[3], "new"))
    name(origin)
    require(old <= new, "old is above new")
    return origin, old, new, _hashes(lines[4:])


def consistency_text(origin, old, new, path):
    return _text(("piperoll/consistency-proof/v1", "log " + origin, "old %d" % old, "new %d" % new), path)


def parse_range(data):
    """(origin, begin, end, size, path)."""
    lines = _lines(data[:16384])
    require(len(data) <= 16384 and len(lines) >= 5 and lines[0] == "piperoll/range-proof/v1", "not a range proof")
    origin = _field(lines[1], "log")
    name(origin)
    begin, end, size = (decimal(_field(lines[n], word)) for n, word in ((2, "begin"), (3, "end"), (4, "size")))
    require(begin < end <= size, "want begin < end <= size")
    path = _hashes(lines[5:])
    require(len(path) == len(range_subtrees(begin, end, size)), "path has a wrong length")
    return origin, begin, end, size, path


def range_text(origin, begin, end, size, path):
    head = ("piperoll/range-proof/v1", "log " + origin, "begin %d" % begin, "end %d" % end, "size %d" % size)
    return _text(head, path)


def tile_path(level, index, width=256):
    """The path of a tile; level None is an entry bundle."""
    groups = "%03d" % (index % 1000)
    while index >= 1000:
        index //= 1000
        groups = "x%03d/%s" % (index % 1000, groups)
    partial = "" if width == 256 else ".p/%d" % width
    return "tile/%s/%s%s" % ("entries" if level is None else level, groups, partial)


def parse_tile_path(path):
    """(level, index, width); level is None for an entry bundle."""
    found = re.fullmatch(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?", path)
    require(found, "not a path of a tile")
    level = None if found.group(1) == "entries" else int(found.group(1))
    index = int(re.sub("[x/]", "", found.group(2)))
    width = 256 if found.group(3) is None else int(found.group(3))
    require(level is None or level <= 63, "level above 63")
    require(1 <= width <= 256 and index <= MAX_INT >> 8, "tile out of range")
    require(tile_path(level, index, width) == path, "path is not canonical")
    return level, index, width


def bundle(entries):
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_bundle(data):
    if len(data) > BUNDLE_MAX * (ENTRY_MAX + 2):
        raise TooLarge("bundle of %d bytes" % len(data))
    entries, at = [], 0
    while at < len(data):
        require(at + 2 <= len(data), "bundle ends inside a length")
        size = int.from_bytes(data[at : at + 2], "big")
        require(at + 2 + size <= len(data), "bundle ends inside an entry")
        entries.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    require(0 < len(entries) <= BUNDLE_MAX, "%d entries in a bundle" % len(entries))
    return entries
