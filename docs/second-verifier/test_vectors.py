"""Every vector, against the program that made it: python3 -m unittest"""

import json
import struct
import unittest

import ed25519
import fixtures as f
import folds
import jcs
import make_vectors
import piperoll as p
import policy
import trees

FOLDER = make_vectors.FOLDER


def load(name):
    return json.loads((FOLDER / (name + ".json")).read_bytes())


def data(case):
    if "hex" in case:
        return bytes.fromhex(case["hex"])
    if "pieces" in case:
        return "".join(text * times for text, times in case["pieces"]).encode()
    return case["text"].encode()


def unhex(texts):
    return [bytes.fromhex(t) for t in texts]


class Vectors(unittest.TestCase):
    def refused(self, cases, parse):
        """Each case is refused, and for a wrong version as unsupported."""
        self.assertTrue(cases)
        names = [case["name"] for case in cases]
        self.assertEqual(len(names), len(set(names)), "names repeat")
        for case in cases:
            with self.subTest(case["name"]):
                unsupported = case.get("error") == "unsupported"
                with self.assertRaises(p.Unsupported if unsupported else p.Malformed):
                    parse(case)

    def test_files_are_what_is_made(self):
        self.assertEqual(make_vectors.main(["--check"]), 0)

    def test_fixed_shapes(self):
        for name, parse in (("event", p.parse_event), ("entry", p.parse_entry), ("part", p.parse_part), ("sig", p.parse_sig)):
            vectors = load(name)
            for case in vectors["good"]:
                with self.subTest(name + "/" + case["name"]):
                    self.assertEqual(jcs.serialise(parse(data(case))), data(case))
            self.refused(vectors["bad"], lambda case, parse=parse: parse(data(case)))

    def test_hashes(self):
        for case in load("event")["good"]:
            self.assertEqual(p.event_hash(p.parse_event(data(case))).hex(), case["hash"])
        for case in load("entry")["good"]:
            self.assertEqual(p.leaf_hash(data(case)).hex(), case["leaf"])
        hashes = load("hashes")
        for case in hashes["starts"]:
            self.assertEqual(p.stream_start(case["origin"], case["stream"]).hex(), case["hash"])
        for case in hashes["commitments"]:
            salt, payload = unhex((case["salt"], case["payload"]))
            self.assertEqual(p.commitment(salt, case["type"], payload).hex(), case["commitment"])

    def test_payloads(self):
        vectors = load("payload")
        for case in vectors["good"]:
            self.assertEqual(jcs.serialise(p.parse_payload(case["kind"], data(case))), data(case))
        self.assertEqual({c["kind"] for c in vectors["good"]}, set(p.PAYLOADS))
        self.refused(vectors["bad"], lambda case: p.parse_payload(case["kind"], data(case)))

    def test_json(self):
        vectors = load("json")
        for case in vectors["good"]:
            self.assertEqual(jcs.serialise(jcs.parse(data(case))), case["canonical"].encode())
        self.refused(vectors["bad"], lambda case: jcs.parse(data(case)))
        for case in vectors["numbers"]:
            value = struct.unpack(">d", bytes.fromhex(case["bits"]))[0]
            self.assertEqual(jcs.number(value), case["text"])
            self.assertEqual(float(case["text"]), value)

    def test_words(self):
        vectors = load("words")
        for case in vectors["kinds"]:
            kind = case["text"]
            found = (p.kind_class(kind), p.is_control(kind), p.is_erasable(kind))
            self.assertEqual(found, (case["class"], case["control"], case["erasable"]), kind)
        for word, check in (("kinds", p.kind_class), ("names", p.name), ("types", p.media_type)):
            for text in vectors[word + "_bad"]:
                with self.subTest(word + "/" + text), self.assertRaises(p.Malformed):
                    check(text)
        for word, check in (("names", p.name), ("types", p.media_type)):
            for text in vectors[word]:
                check(text)

    def test_keys(self):
        vectors = load("keys")
        for case in vectors["ids"]:
            public = ed25519.public_key(bytes.fromhex(case["seed"]))
            self.assertEqual((public.hex(), p.key_id(public).hex()), (case["public"], case["id"]))
            self.assertEqual(p.parse_vkey(case["vkey"]).public, public)
        for case in vectors["refused"]:
            self.assertTrue(ed25519.refused_key(bytes.fromhex(case["public"])), case["name"])
        for case in vectors["signed"]:
            public = bytes.fromhex(case["public"])
            sig = p.parse_sig(case["sig"].encode())
            self.assertTrue(p.check_sig(sig, public, case["text"].encode()), case["name"])
            self.assertFalse(p.check_sig(sig, public, case["text"].encode() + b"\n"), case["name"])
        self.refused(vectors["vkeys_bad"], lambda case: p.parse_vkey(case["text"]))

    def test_notes(self):
        for name, kind in (("checkpoint", p.Checkpoint), ("receipt", p.Receipt)):
            vectors = load(name)
            key = p.parse_vkey(vectors["vkey"])

            def opened(case, key=key, kind=kind, name=name):
                text, _ = p.open_note(data(case), [key])
                parsed = kind.parse(text)
                p.require(key.name == parsed.origin + ("/receipt" if name == "receipt" else ""), "key of another log")
                return parsed

            for case in vectors["good"]:
                self.assertEqual(kind.parse(data(case)).text(), data(case))
                self.assertEqual(opened({"text": case["note"]}).text(), data(case))
                if name == "receipt":
                    self.assertEqual(kind.parse(data(case)).leaves, p.sha256(*unhex(case["leaves"])))
            self.refused(vectors["bad"], lambda case, kind=kind: kind.parse(data(case)))
            self.refused(vectors["bad_notes"], opened)

    def test_inclusion(self):
        vectors = load("inclusion")
        for case in vectors["good"]:
            index, path, note = trees.parse_inclusion(data(case))
            self.assertEqual(trees.inclusion_text(index, path, note), data(case))
            root = trees.root_from_inclusion(bytes.fromhex(case["leaf"]), index, case["size"], path)
            self.assertEqual((root.hex(), index), (case["root"], case["index"]))
        self.refused(vectors["bad"], lambda case: trees.parse_inclusion(data(case)))

        def check(case):
            root = trees.root_from_inclusion(bytes.fromhex(case["leaf"]), case["index"], case["size"], unhex(case["path"]))
            p.require(root.hex() == case["root"], "another root")

        self.refused(vectors["bad_checks"], check)

    def test_consistency(self):
        vectors = load("consistency")

        def check(case, path):
            before, after = unhex((case["old_root"], case["new_root"]))
            trees.check_consistency(case["old"], before, case["new"], after, path)

        for case in vectors["good"]:
            parsed = trees.parse_consistency(data(case))
            self.assertEqual(trees.consistency_text(*parsed), data(case))
            self.assertEqual(parsed[1:3], (case["old"], case["new"]))
            check(case, parsed[3])
        self.refused(vectors["bad"], lambda case: trees.parse_consistency(data(case)))
        self.refused(vectors["bad_checks"], lambda case: check(case, unhex(case["path"])))

    def test_ranges(self):
        vectors = load("range")

        def check(case, path):
            root = trees.root_from_range(case["begin"], case["size"], unhex(case["leaves"]), path)
            p.require(root.hex() == case["root"], "another root")

        for case in vectors["good"]:
            parsed = trees.parse_range(data(case))
            self.assertEqual(trees.range_text(*parsed), data(case))
            check(case, parsed[4])
        self.refused(vectors["bad"], lambda case: trees.parse_range(data(case)))
        self.refused(vectors["bad_checks"], lambda case: check(case, unhex(case["path"])))

    def test_tiles(self):
        vectors = load("tiles")
        for case in vectors["paths"]:
            level = None if case["level"] < 0 else case["level"]
            self.assertEqual(trees.parse_tile_path(case["text"]), (level, case["index"], case["width"]))
        for path in vectors["paths_bad"]:
            with self.subTest(path), self.assertRaises(p.Malformed):
                trees.parse_tile_path(path)
        for case in vectors["bundles"]:
            entries = trees.parse_bundle(data(case))
            self.assertEqual([e.hex() for e in entries], case["entries"])
            self.assertEqual(trees.root([p.leaf_hash(e) for e in entries]).hex(), case["root"])

        def check(case):
            entries = trees.parse_bundle(data(case))
            p.require(len(entries) == case["width"], "another width")

        self.refused(vectors["bundles_bad"], check)

    def test_files(self):
        for case in load("salt")["good"]:
            self.assertEqual(p.parse_salt(data(case)).hex(), case["salt"])
        self.refused(load("salt")["bad"], lambda case: p.parse_salt(data(case)))
        for case in load("submitters")["good"]:
            found = {(principal, key.hex()) for principal, key in policy.submitters(data(case))}
            self.assertEqual(found, {(k["principal"], k["key"]) for k in case["keys"]})
        self.refused(load("submitters")["bad"], lambda case: policy.submitters(data(case)))
        for case in load("policy")["good"]:
            policy.Policy(data(case))
        self.refused(load("policy")["bad"], lambda case: policy.Policy(data(case)))


class Keys(unittest.TestCase):
    """What a keyring says beyond the stories: of keys that are not listed, and after a gap."""

    def ring(self, *names, whole=True, **changes):
        """Keys of svc, each vouched for by the one before."""
        ring, before = folds.Keyring(f.ORIGIN), None
        ring.whole = whole
        for index, name in enumerate(names, 1):
            public = f.public(name)
            made = {"key": p.b64(public), "principal": "svc", "proof": p.b64(p.ed25519.sign(f.seed(name), p.possession_text(f.ORIGIN, "svc", public)))}
            if before:
                made["previous"] = p.make_sig(f.seed(before), p.succession_text(f.ORIGIN, "svc", public))
            made = {k: v for k, v in made.items() if (name, k) not in changes.get("without", ())}
            ring.apply(index, "key.registered", made)
            before = name
        return ring

    def test_vouched_for(self):
        ids = [p.key_id(f.public(name)) for name in "abc"]
        listed = {("svc", ids[0]): f.public("a")}
        self.assertEqual([self.ring(*"abc").counts(listed, "svc", key) for key in ids], [True] * 3)
        self.assertEqual([self.ring(*"abc").counts(listed, "other", key) for key in ids], [False] * 3)
        for missing in ("proof", "previous"):
            ring = self.ring(*"abc", without=[("b", missing)])
            self.assertEqual([ring.counts(listed, "svc", key) for key in ids], [True, False, False])

    def test_listed_around_a_gap(self):
        """A listed key vouches though its registration was not seen; what was not seen may vouch for what follows it."""
        public, ids = f.public("b"), [p.key_id(f.public(name)) for name in "ab"]
        made = {"key": p.b64(public), "principal": "svc", "proof": p.b64(p.ed25519.sign(f.seed("b"), p.possession_text(f.ORIGIN, "svc", public)))}
        made["previous"] = p.make_sig(f.seed("a"), p.succession_text(f.ORIGIN, "svc", public))
        for listed, want in (({("svc", ids[0]): f.public("a")}, True), ({("other", ids[0]): f.public("a")}, None)):
            ring = folds.Keyring(f.ORIGIN, listed)
            ring.whole = False
            ring.apply(9, "key.registered", made)
            self.assertIs(ring.counts(listed, "svc", ids[1]), want)
        ring = folds.Keyring(f.ORIGIN, {("svc", ids[0]): f.public("c")})
        ring.whole = False
        with self.assertRaises(folds.Fault):
            ring.apply(9, "key.registered", made)
        self.assertIsNone(ring.counts({}, "svc", ids[1]))

    def test_around_a_gap(self):
        ring, a = self.ring("a", whole=False), p.key_id(f.public("a"))
        ring.uses = [(a, "svc", 0), (a, "svc", 1), (a, "other", 1), (p.key_id(b""), "svc", 1)]
        self.assertEqual([index for index, _ in ring.bad_uses()], [0, 1])
        unseen = p.key_id(f.public("b"))
        ring.apply(5, "key.revoked", {"key": p.b64(unseen)})
        self.assertIsNone(ring.why_not(unseen, "svc", 4))
        self.assertEqual(ring.why_not(unseen, "svc", 5), "key is revoked")
        with self.assertRaises(folds.Fault):
            self.ring("a").apply(5, "key.revoked", {"key": p.b64(unseen)})


if __name__ == "__main__":
    unittest.main()
