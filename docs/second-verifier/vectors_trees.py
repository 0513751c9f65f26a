"""Vectors of section 7: notes, proofs, tiles."""

import fixtures as f
import piperoll as p
import trees
from vectors_events import _spare_bits

LEAVES = [p.leaf_hash(b"TEST leaf %d" % n) for n in range(70)]
EMPTY_LINE = "\n\n"


def checkpoint_text(size, root=None, origin=f.ORIGIN):
    root = trees.root(LEAVES[:size]) if root is None else root
    return p.Checkpoint(origin, size, root).text()


def note(text_of_note, key="log", name=f.ORIGIN):
    data = text_of_note if isinstance(text_of_note, bytes) else text_of_note.encode()
    return p.sign_note(data, name, f.seed(key)).decode()


def line_faults(good):
    """Faults that no text of lines may have."""
    return [
        ("empty", ""), ("crlf", good.replace("\n", "\r\n")), ("no-final-newline", good[:-1]), ("empty-last-line", good + "\n"),
        ("empty-first-line", "\n" + good), ("space-at-end", good[:-1] + " \n"), ("space-at-start", " " + good),
        ("byte-order-mark", "\ufeff" + good), ("extra-line", good + "extra\n"), ("first-line-missing", good.split("\n", 1)[1]),
        ("last-line-missing", good[: good[:-1].rindex("\n") + 1]), ("lines-joined", good.replace("\n", " ", 1)),
        ("non-ascii", good.replace("log.example", "log.ex\u00e4mple", 1)),
    ]


def number_faults(good, before):
    """Faults of the decimal number after the text before."""
    head, _, rest = good.partition(before)
    old, _, tail = rest.partition("\n")
    word = before.strip().split("\n")[-1] or "size"
    for name, new in [("leading-zero", "0" + old), ("plus", "+" + old), ("negative", "-1"), ("2^53", str(2**53)), ("2^64", str(2**64 + 3)),
                      ("empty", ""), ("hex", "0x1"), ("fraction", old + ".0"), ("exponent", old + "e0"), ("space", old + " "),
                      ("two-spaces", " " + old), ("underscore", "1_0"), ("fullwidth", "\uff11")]:
        yield "%s-%s" % (word, name), head + before + new + "\n" + tail


def hash_faults(good, value):
    for name, new in [("base64-spare-bits", _spare_bits(value)), ("base64-no-padding", value.rstrip("=")), ("base64-url", "_" + value[1:]),
                      ("31-bytes", p.b64(bytes(31))), ("33-bytes", p.b64(bytes(33))), ("hex", "00" * 32), ("no-hash", "")]:
        yield name, good.replace(value, new, 1)


def note_faults(good, name):
    """Faults of a signed note around a good text; good is the whole note."""
    text_part, _, lines = good.rpartition(EMPTY_LINE)
    line = lines[:-1]
    signature = line.split(" ")[2]
    other = p.sign_note(b"x\n", name, f.seed("other")).decode().rpartition(EMPTY_LINE)[2]
    return [
        ("not-signed", text_part + EMPTY_LINE), ("no-empty-line", text_part + "\n" + lines), ("note-crlf", good.replace("\n", "\r\n")),
        ("no-final-newline", good[:-1]), ("hyphen-for-dash", good.replace("\u2014 ", "- ")), ("en-dash", good.replace("\u2014", "\u2013")),
        ("signature-spare-bits", good.replace(signature, _spare_bits(signature))),
        ("signature-no-padding", good.replace(signature, signature.rstrip("="))),
        ("signature-short", good.replace(signature, p.b64(p.unb64(signature)[:-1]))),
        ("signature-long", good.replace(signature, p.b64(p.unb64(signature) + b"\0"))),
        ("signature-flipped", good.replace(signature, p.b64(p.unb64(signature)[:-1] + bytes([p.unb64(signature)[-1] ^ 1])))),
        ("other-key", text_part + EMPTY_LINE + other), ("other-name", good.replace("\u2014 " + name, "\u2014 " + name + "x")),
        ("text-changed", good.replace("1", "2", 1)), ("double-space", good.replace("\u2014 ", "\u2014  ")),
        ("line-after", good + "x\n"), ("empty-line-after", good + "\n"), ("tab", good.replace("\u2014 ", "\u2014\t")),
        ("key-id-only", good.replace(signature, p.b64(p.unb64(signature)[:4]))),
        ("text-only", text_part + "\n"),
    ]


def checkpoint_file():
    good = []
    for name, size, root in [("size-9", 9, None), ("empty", 0, None), ("size-1", 1, None), ("largest", p.MAX_INT, f.filler("root"))]:
        value = checkpoint_text(size, root)
        cp = p.Checkpoint.parse(value)
        good.append({"name": name, "text": value.decode(), "note": note(value), "size": size, "root": cp.root.hex()})
    base = checkpoint_text(9).decode()
    root = base.split("\n")[2]
    texts = line_faults(base) + list(number_faults(base, f.ORIGIN + "\n")) + list(hash_faults(base, root)) + [
        ("extension-line", base + "extension\n"), ("empty-tree-root", base.replace("\n9\n", "\n0\n")),
        ("origin-plus", base.replace("TEST", "TE+ST")), ("origin-space", base.replace("TEST", "TE ST")),
        ("origin-129-bytes", base.replace(f.ORIGIN, "o" * 129)), ("origin-empty", base.replace(f.ORIGIN, "")),
        ("size-and-root-swapped", "\n".join([f.ORIGIN, root, "9", ""])),
    ]
    wrong_name = p.sign_note(base.encode(), f.ORIGIN + "x", f.seed("log")).decode()
    cosigned = note(base) + "\u2014 witness.example/w1 " + p.b64(f.filler("cosignature", 76)) + "\n"
    good.append(dict(good[0], name="with-unknown-cosignature", note=cosigned))
    notes = note_faults(note(base), f.ORIGIN) + [
        ("name-not-origin", wrong_name), ("origin-of-other-log", note(base.replace("TEST", "TEST2"))),
        ("receipt-key", note(base, "receipt", f.ORIGIN + "/receipt")),
        ("unknown-signature-spare-bits", note(base) + "\u2014 w " + _spare_bits(p.b64(f.filler("cosignature", 76))) + "\n"),
    ]
    return {
        "about": "Checkpoints (section 7). A bad text is refused even if the log signed it; a bad note has a good text or none.",
        "vkey": f.LOG_VKEY, "good": good,
        "bad": [{"name": n, "text": t} for n, t in texts], "bad_notes": [{"name": n, "text": t} for n, t in notes if t != note(base)],
    }


def receipt_file():
    def make(index, count, received=f.NOW, by=f.NOW + 60000):
        return p.Receipt(f.ORIGIN, index, count, p.sha256(*LEAVES[index : index + count]), received, by).text().decode()

    name = f.ORIGIN + "/receipt"
    good = []
    for title, index, count in (("one", 5, 1), ("three", 7, 3), ("first", 0, 1), ("many", 1, 69)):
        value = make(index, count)
        good.append({"name": title, "text": value, "note": note(value, "receipt", name), "index": index, "count": count,
                     "leaves": [leaf.hex() for leaf in LEAVES[index : index + count]]})
    value = make(3, 1, f.NOW, f.NOW)
    good.append({"name": "by-is-received", "text": value, "note": note(value, "receipt", name), "index": 3, "count": 1,
                 "leaves": [LEAVES[3].hex()]})
    base = make(7, 3)
    texts = line_faults(base) + list(hash_faults(base, base.split("leaves ")[1].split("\n")[0])) + [
        ("count-0", base.replace("count 3", "count 0")), ("by-before-received", base.replace("by %d" % (f.NOW + 60000), "by %d" % (f.NOW - 1))),
        ("label-v2", base.replace("receipt/v1", "receipt/v2")), ("label-case", base.replace("piperoll", "Piperoll", 1)),
        ("unsorted-members", base.replace("index 7\ncount 3", "count 3\nindex 7")), ("word-missing", base.replace("index 7", "7")),
        ("two-spaces", base.replace("log ", "log  ")), ("origin-space", base.replace("TEST", "TE ST")),
        ("duplicate-line", base.replace("index 7\n", "index 7\nindex 7\n")),
    ]
    for word in ("index", "count", "received", "by"):
        texts += list(number_faults(base, "\n%s " % word))
    notes = note_faults(note(base, "receipt", name), name) + [
        ("checkpoint-key", note(base)), ("checkpoint-key-bytes", p.sign_note(base.encode(), name, f.seed("log")).decode()),
        ("receipt-of-other-log", note(base.replace("TEST", "TEST2"), "receipt", name)),
        ("checkpoint-text", note(checkpoint_text(9), "receipt", name)),
    ]
    return {"about": "Receipts (section 7).", "vkey": f.RECEIPT_VKEY, "good": good,
            "bad": [{"name": n, "text": t} for n, t in texts], "bad_notes": [{"name": n, "text": t} for n, t in notes]}


def inclusion_file():
    checks, bad_checks = [], []
    for size, index in [(1, 0), (2, 0), (2, 1), (3, 2), (7, 6), (8, 3), (9, 8), (9, 5), (65, 64), (65, 31), (70, 69)]:
        leaves = LEAVES[:size]
        path = trees.inclusion(leaves, index)
        proof = trees.inclusion_text(index, path, note(checkpoint_text(size)).encode()).decode()
        checks.append({"name": "%d-of-%d" % (index, size), "text": proof, "leaf": LEAVES[index].hex(), "index": index, "size": size,
                       "root": trees.root(leaves).hex()})
    size, path, root = 9, trees.inclusion(LEAVES[:9], 5), trees.root(LEAVES[:9])
    for name, index, n, leaf, hashes in [
        ("other-leaf", 5, size, LEAVES[6], path), ("other-index", 4, size, LEAVES[5], path), ("index-is-size", 9, size, LEAVES[5], path),
        ("other-size", 5, 17, LEAVES[5], path), ("size-0", 0, 0, LEAVES[5], []), ("path-short", 5, size, LEAVES[5], path[:-1]),
        ("path-long", 5, size, LEAVES[5], path + [root]), ("path-empty", 5, size, LEAVES[5], []), ("path-reversed", 5, size, LEAVES[5], path[::-1]),
        ("path-flipped", 5, size, LEAVES[5], path[:-1] + [root]), ("node-for-leaf", 2, 9, trees.node_hash(LEAVES[4], LEAVES[5]), path[1:]),
    ]:
        bad_checks.append({"name": name, "index": index, "size": n, "leaf": leaf.hex(), "root": root.hex(), "path": [h.hex() for h in hashes]})
    cp = note(checkpoint_text(9))
    base = trees.inclusion_text(5, path, cp.encode()).decode()
    head = "c2sp.org/tlog-proof@v1\n"
    bad = [(n, t) for n, t in line_faults(base) if n in ("empty", "crlf", "empty-first-line", "space-at-start", "byte-order-mark", "first-line-missing", "lines-joined")]
    bad += list(number_faults(base, "\nindex ")) + [c for c in hash_faults(base, p.b64(path[1])) if c[0] != "no-hash"] + [
        ("extra-line", base.replace(head, head + "extra AAAA\n")), ("extra-empty", base.replace(head, head + "extra \n")),
        ("label-v2", base.replace("@v1", "@v2")), ("no-checkpoint", base.split(EMPTY_LINE)[0] + EMPTY_LINE),
        ("no-empty-line", base.split(EMPTY_LINE)[0] + "\n"), ("107-hashes", trees.inclusion_text(5, [root] * 107, cp.encode()).decode()),
        ("trailing-space-in-hash", base.replace(p.b64(path[1]), p.b64(path[1]) + " ")), ("index-missing", base.replace("index 5\n", "")),
    ]
    bad = [{"name": n, "text": t} for n, t in bad]
    return {"about": "Inclusion proofs (section 7). bad are texts; bad_checks are well-formed proofs that prove nothing.",
            "vkey": f.LOG_VKEY, "good": checks, "bad": bad, "bad_checks": bad_checks}


def consistency_file():
    good, bad_checks = [], []
    for old, new in [(0, 0), (0, 5), (1, 1), (1, 2), (3, 9), (4, 8), (6, 8), (7, 7), (8, 9), (63, 64), (64, 65), (65, 70), (32, 70), (1, 70)]:
        path = trees.consistency(LEAVES[:new], old)
        good.append({"name": "%d-to-%d" % (old, new), "text": trees.consistency_text(f.ORIGIN, old, new, path).decode(), "old": old, "new": new,
                     "old_root": trees.root(LEAVES[:old]).hex(), "new_root": trees.root(LEAVES[:new]).hex()})
    path, other = trees.consistency(LEAVES[:9], 3), f.filler("other root")
    roots = {n: trees.root(LEAVES[:n]) for n in (0, 3, 4, 9)}
    for name, old, old_root, new, new_root, hashes in [
        ("old-root", 3, other, 9, roots[9], path), ("new-root", 3, roots[3], 9, other, path), ("roots-swapped", 3, roots[9], 9, roots[3], path),
        ("path-short", 3, roots[3], 9, roots[9], path[:-1]), ("path-long", 3, roots[3], 9, roots[9], path + [other]),
        ("path-empty", 3, roots[3], 9, roots[9], []), ("path-reversed", 3, roots[3], 9, roots[9], path[::-1]),
        ("old-above-new", 9, roots[9], 3, roots[3], path), ("same-size-other-root", 9, roots[9], 9, other, []),
        ("same-size-with-path", 9, roots[9], 9, roots[9], path), ("empty-tree-root", 0, other, 9, roots[9], []),
        ("path-from-empty", 0, roots[0], 9, roots[9], path), ("other-old", 4, roots[4], 9, roots[9], path),
        ("fork", 3, trees.root(LEAVES[1:4]), 9, roots[9], trees.consistency(LEAVES[1:10], 3)),
    ]:
        bad_checks.append({"name": name, "old": old, "new": new, "old_root": old_root.hex(), "new_root": new_root.hex(),
                           "path": [h.hex() for h in hashes]})
    base = trees.consistency_text(f.ORIGIN, 3, 9, path).decode()
    texts = [c for c in line_faults(base) if c[0] != "last-line-missing"] + list(hash_faults(base, p.b64(path[1]))) + [
        ("old-above-new", base.replace("old 3", "old 10")), ("label-v2", base.replace("proof/v1", "proof/v2")),
        ("unsorted-members", base.replace("old 3\nnew 9", "new 9\nold 3")), ("origin-space", base.replace("TEST", "TE ST")),
        ("107-hashes", trees.consistency_text(f.ORIGIN, 3, 9, [other] * 107).decode()),
    ]
    for word in ("old", "new"):
        texts += list(number_faults(base, "\n%s " % word))
    return {"about": "Consistency proofs (section 7).", "good": good, "bad": [{"name": n, "text": t} for n, t in texts], "bad_checks": bad_checks}


def range_file():
    good, bad_checks = [], []
    for begin, end, size in [(0, 1, 1), (0, 9, 9), (0, 5, 9), (5, 9, 9), (5, 6, 9), (3, 7, 9), (1, 2, 3), (7, 64, 65), (64, 65, 70), (32, 48, 70), (69, 70, 70), (1, 69, 70)]:
        path = trees.range_proof(LEAVES[:size], begin, end)
        good.append({"name": "%d-%d-of-%d" % (begin, end, size), "text": trees.range_text(f.ORIGIN, begin, end, size, path).decode(),
                     "begin": begin, "size": size, "leaves": [h.hex() for h in LEAVES[begin:end]], "root": trees.root(LEAVES[:size]).hex()})
    path, root, leaves = trees.range_proof(LEAVES[:9], 3, 7), trees.root(LEAVES[:9]), LEAVES[3:7]
    for name, begin, size, some, hashes in [
        ("leaf-missing", 3, 9, leaves[:-1], path), ("leaf-added", 3, 9, leaves + [LEAVES[7]], path), ("other-leaf", 3, 9, leaves[:-1] + [LEAVES[8]], path),
        ("leaves-swapped", 3, 9, leaves[::-1], path), ("other-begin", 4, 9, leaves, path), ("other-size", 3, 17, leaves, path),
        ("path-short", 3, 9, leaves, path[:-1]), ("path-long", 3, 9, leaves, path + [root]), ("path-reversed", 3, 9, leaves, path[::-1]),
        ("no-leaves", 3, 9, [], path), ("beyond-size", 8, 9, leaves[:2], path), ("repeated-leaf", 3, 9, [leaves[0]] * 4, path),
    ]:
        bad_checks.append({"name": name, "begin": begin, "size": size, "leaves": [h.hex() for h in some], "root": root.hex(),
                           "path": [h.hex() for h in hashes]})
    base = trees.range_text(f.ORIGIN, 3, 7, 9, path).decode()
    texts = line_faults(base) + list(hash_faults(base, p.b64(path[1]))) + [
        ("begin-is-end", base.replace("begin 3", "begin 7")), ("end-above-size", base.replace("end 7", "end 10")),
        ("unsorted-members", base.replace("begin 3\nend 7", "end 7\nbegin 3")), ("label-v2", base.replace("proof/v1", "proof/v2")),
        ("label-of-consistency", base.replace("range-proof", "consistency-proof")), ("one-hash-more", base + p.b64(root) + "\n"),
    ]
    for word in ("begin", "end", "size"):
        texts += list(number_faults(base, "\n%s " % word))
    return {"about": "Range proofs (section 7).", "good": good, "bad": [{"name": n, "text": t} for n, t in texts], "bad_checks": bad_checks}


def tile_file():
    numbers = [0, 1, 9, 10, 99, 100, 255, 256, 999, 1000, 1001, 65535, 999999, 1000000, 1234067, 999999999, 1000000000, 2**45 - 1]
    paths = [{"level": level, "index": n, "width": w} for level in (0, 1, 6) for n in numbers for w in (256, 1, 255)]
    paths += [{"level": -1, "index": n, "width": w} for n in numbers for w in (256, 7)]
    for case in paths:
        case["text"] = trees.tile_path(None if case["level"] < 0 else case["level"], case["index"], case["width"])
    bad_paths = ["", "tile", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/0/x000/001", "tile/0/x000/000", "tile/0/x01/000",
                 "tile/0/001/000", "tile/0/x001/x000", "tile/0/1000", "tile/00/001", "tile/01/001", "tile/64/001", "tile/-1/001", "tile/+1/001",
                 "tile/0/001.p/0", "tile/0/001.p/256", "tile/0/001.p/01", "tile/0/001.p/", "tile/0/001.p", "tile/0/001.p/1/", "tile/0/001.p/+1",
                 "tile/0/001.p/-1", "tile/0/001.P/1", "/tile/0/001", "tile/0/001/", "tile//001", "tile/0//001", "tile/entries", "tile/entries/",
                 "tile/entries/x000/001", "tile/data/001", "tile/Entries/001", "tile/0/001?x", "tile/0/001\n", "tile/0/../001", "tile/0/X001/000",
                 "tile/0/001.p/1.p/1", "tile/8/0/001", "tile/0/ 01", "tile/0/\uff11\uff11\uff11", trees.tile_path(0, 2**45), trees.tile_path(None, 2**45), "tile/0/x001/x002/x003/x004/x005/x006/x007/x008/009"]
    entries = [b"", b"a", b"TEST entry", bytes(range(256))]
    good = [("one", [b"TEST"]), ("four", entries), ("256", [b"%d" % n for n in range(256)])]
    bad = [("empty", b"", 1), ("length-cut", b"\0", 1), ("entry-cut", b"\0\2a", 1), ("trailing-byte", b"\0\1a\0", 1), ("one-too-many", b"\0\1a\0\1b", 1),
           ("one-too-few", b"\0\1a", 2), ("width-0", b"", 0), ("257", b"\0\1a" * 257, 257), ("little-endian", b"\1\0a", 1)]
    return {
        "about": "Tiles and entry bundles (section 7). Level -1 is an entry bundle.",
        "paths": paths, "paths_bad": bad_paths,
        "bundles": [{"name": n, "hex": trees.bundle(e).hex(), "entries": [x.hex() for x in e], "root": trees.root([p.leaf_hash(x) for x in e]).hex()}
                    for n, e in good],
        "bundles_bad": [{"name": n, "hex": b.hex(), "width": w} for n, b, w in bad],
    }


def vectors():
    return {"checkpoint": checkpoint_file(), "receipt": receipt_file(), "inclusion": inclusion_file(), "consistency": consistency_file(),
            "range": range_file(), "tiles": tile_file()}
