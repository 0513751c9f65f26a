"""The command on a whole log, on mutants of it, and on hostile directories."""

import contextlib
import io
import os
import pathlib
import shutil
import tempfile
import unittest

import fakelog
import fixtures as f
import piperoll as p
import policy as policies
import trees
import verify


class Verify(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.at = pathlib.Path(self.folder.name)
        (self.at / "policy").write_bytes(fakelog.POLICY)
        (self.at / "submitters").write_bytes(fakelog.SUBMITTERS)
        self.dir = self.at / "dir"
        self.files = fakelog.whole_log().files()
        fakelog.write(self.dir, self.files)

    def run_verify(self, *arguments):
        out = io.StringIO()
        code = verify.run(["verify"] + [str(a) for a in arguments] + [str(self.dir)], out)
        return code, out.getvalue()

    def full(self):
        return self.run_verify("-policy", self.at / "policy", "-submitters", self.at / "submitters")

    def check(self, code, *words):
        got, out = self.full()
        self.assertEqual(got, code, out)
        for word in words:
            self.assertIn(word, out)

    def test_whole(self):
        self.check(0, "Integrity     PASS", "Authenticity  NOT CHECKED", "attested by the log alone", "quorum none")

    def test_refused(self):
        """A log can refuse what it has acknowledged, and all that its owner signed afterwards still fits."""
        self.check(0, "Completeness  NOT CHECKED", "seq 4 of stream crm-2026/load.1 was refused", "migration crm-2026: 1 of its events were refused")
        self.show(fakelog.whole_log(refused=False).files())
        self.check(0, "Completeness  PASS")

    def test_without_submitters(self):
        code, out = self.run_verify("-policy", self.at / "policy")
        self.assertEqual(code, 0)
        self.assertIn("Authenticity  NOT CHECKED", out)
        self.assertIn("attested by the log operator", out)

    def test_without_policy(self):
        code, out = self.run_verify()
        self.assertEqual(code, 3, out)
        self.assertIn("self-consistent", out)

    def test_every_file_is_needed(self):
        harmless = ("receipts/", "consistency/")
        for path in sorted(self.files):
            with self.subTest(path):
                (self.dir / path).unlink()
                code, out = self.full()
                self.assertEqual(code, 0 if path.startswith(harmless) else 1, out)
                (self.dir / path).write_bytes(self.files[path])
        self.check(0)

    def test_changed_bytes(self):
        """One changed byte in any file is found: every 97th byte here."""
        for number, path in enumerate(sorted(self.files)):
            data = self.files[path]
            for at in range(number * 7 % min(97, len(data)), len(data), 97):
                with self.subTest(path, at=at):
                    (self.dir / path).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
                    code, out = self.full()
                    self.assertEqual(code, 1, out)
            (self.dir / path).write_bytes(data)

    def test_entry_and_payload_dropped(self):
        """A stream that is cut short by whole files is incomplete."""
        for index, word in ((9, "does not end where the account says"), (12, "migration.close"), (7, "are missing"), (11, "does not end")):
            with self.subTest(index):
                gone = [path for path in self.files if "%012d" % index in path]
                for path in gone:
                    (self.dir / path).unlink()
                self.check(1, word)
                fakelog.write(self.dir, {path: self.files[path] for path in gone})

    def test_other_keys(self):
        (self.at / "submitters").write_bytes(fakelog.SUBMITTERS.splitlines(True)[0])
        self.check(1, "not in the submitters file")
        (self.at / "policy").write_bytes(b"log %s\nquorum none\n" % p.make_vkey(f.ORIGIN, f.public("other")).encode())
        self.check(1, "not signed by a key that counts")

    def test_receipt_convicts(self):
        path = "receipts/%012d.receipt" % 7
        receipt = p.Receipt(f.ORIGIN, 7, 1, f.filler("another leaf"), f.NOW, f.NOW + 60000).text()
        (self.dir / path).write_bytes(p.sign_note(receipt, f.ORIGIN + "/receipt", f.seed("receipt")))
        self.check(1, "CONVICTS")

    def test_receipt_with_other_times(self):
        leaf = p.leaf_hash(self.files["events/%012d.json" % 7])
        for received, by, word in ((f.NOW, f.NOW + 60000, "received is not"), (f.NOW + 1007, f.NOW + 61008, "by is not")):
            receipt = p.Receipt(f.ORIGIN, 7, 1, p.sha256(leaf), received, by).text()
            (self.dir / ("receipts/%012d.receipt" % 7)).write_bytes(p.sign_note(receipt, f.ORIGIN + "/receipt", f.seed("receipt")))
            self.check(1, word)

    def show(self, files):
        """Shows another directory."""
        shutil.rmtree(self.dir)
        fakelog.write(self.dir, files)

    def test_versions(self):
        """What an entry that was not read can have caused is no tampering; the rest is, and comes first."""
        log = fakelog.whole_log()
        log.entries[11] = log.entries[11][:-2] + b"2}"
        files = log.files()
        self.show(files)
        self.check(4)
        (self.dir / "payloads/000000000012.payload").write_bytes(b"{}")
        self.check(1, "not the one committed to")
        self.show(files)
        (self.dir / "proofs/000000000011.tlog-proof").unlink()
        self.check(1, "no proof")
        self.show(files | {"receipts/000000000007.receipt": self.receipt(7, f.filler("another leaf"))})
        self.check(1, "CONVICTS")
        log.entries[7] = log.entries[7].replace(b'"log":"%s"' % f.ORIGIN.encode(), b'"log":"other"')
        self.show(log.files())
        self.check(1, "made for log other")

    def receipt(self, index, leaves, count=1, received=None):
        received = f.NOW + 1000 + index if received is None else received
        text = p.Receipt(f.ORIGIN, index, count, leaves, received, received + 60000).text()
        return p.sign_note(text, f.ORIGIN + "/receipt", f.seed("receipt"))

    def test_quorum(self):
        """Witnesses that are down are no tampering; a receipt convicts without them too."""
        (self.at / "policy").write_bytes(fakelog.WITNESSED)
        now = f.NOW // 1000 + 1
        self.show(fakelog.whole_log().files((now, now + 100)))
        self.check(0, "a quorum had seen the checkpoint at %d" % (now + 100))
        self.show(fakelog.whole_log().files((now,)))
        self.check(3, "Integrity     NOT CHECKED", "not cosigned by the policy's quorum")
        (self.dir / "receipts/000000000007.receipt").write_bytes(self.receipt(7, f.filler("another leaf")))
        self.check(1, "CONVICTS")
        self.show(fakelog.whole_log().files((now - 1000, now - 1000)))
        self.check(1, "Time          FAIL")

    def test_broken_promise(self):
        """Only a quorum that cosigned after the promise convicts: one late line beside an old one does not."""
        (self.at / "policy").write_bytes(fakelog.WITNESSED)
        late = f.NOW // 1000 + 100
        for times, code in (((late, late), 1), ((late, late - 50, late), 1), ((late, late - 50), 0), ((late - 50, late - 50, late), 0)):
            with self.subTest(times):
                self.show(fakelog.whole_log().files(times) | {"receipts/000000000013.receipt": self.receipt(13, f.filler("leaf"))})
                self.check(code, *["not there in time"] * code)

    def test_history_of_keys(self):
        """Where a control entry is missing, nobody knows of a revocation."""
        gone = [path for path in self.files if "%012d" % 2 in path]
        for path in gone:
            (self.dir / path).unlink()
        self.check(0, "Authenticity  NOT CHECKED", "whether a key was revoked is not known")

    def test_consistency_to_a_newer_tree(self):
        path = "consistency/%d.proof" % 13
        (self.dir / path).write_bytes(trees.consistency_text(f.ORIGIN, 13, 20, [f.filler("a"), f.filler("b")]))
        self.check(0)
        (self.dir / path).write_bytes(trees.consistency_text(f.ORIGIN, 13, 20, []).replace(b"old 13", b"old 12"))
        self.check(1, "proof for other trees")

    def test_hostile_directories(self):
        (self.dir / "extra").write_bytes(b"")
        self.check(1, "not a file that is checked: 'extra'")
        (self.dir / "extra").unlink()
        for odd in ("events/1.json", "events/000000000001.txt", "payloads/.hidden", "proofs/0000000000001.tlog-proof", "receipts/x"):
            with self.subTest(odd):
                (self.dir / odd).write_bytes(b"")
                self.check(1, "not a file that is checked")
                (self.dir / odd).unlink()
        link = self.dir / "events" / "000000000099.json"
        os.symlink("000000000001.json", link)
        self.check(1, "not a file that is checked")
        link.unlink()
        (self.dir / "events" / "000000000099.json").write_bytes(b"x" * (p.ENTRY_MAX + 1))
        (self.dir / "receipts/000000000007.receipt").write_bytes(self.receipt(7, f.filler("another leaf")))
        self.check(1, "65536 bytes, at most 65535", "CONVICTS")
        (self.dir / "checkpoint").write_bytes(b"x" * (p.NOTE_MAX + 1))
        self.check(1, "at most")

    def test_usage(self):
        with contextlib.redirect_stderr(io.StringIO()):
            self.usage()

    def usage(self):
        for arguments in ([], ["verify"], ["help"], ["verify", "-policy"], ["verify", "-x", "."], ["verify", "a", "b"]):
            with self.subTest(arguments):
                self.assertEqual(verify.run(arguments, io.StringIO()), 2)
        (self.at / "policy").write_bytes(b"quorum\n")
        self.assertEqual(self.full()[0], 2)
        self.assertEqual(verify.run(["verify", "-policy", str(self.at / "none"), str(self.dir)], io.StringIO()), 6)


class Policies(unittest.TestCase):
    LOG = "log %s https://log.example\n" % f.LOG_VKEY
    THREE = LOG + "".join("witness w%d %s\n" % (n, p.make_vkey("w%d" % n, f.public("witness %d" % n), 4)) for n in range(3))

    def test_quorum(self):
        policy = policies.Policy((self.THREE + "# two of three\n\ngroup g 2 w0\tw1  w2\nquorum g\n").encode())
        text = p.Checkpoint(f.ORIGIN, 0, p.EMPTY_ROOT).text()
        note = p.sign_note(text, f.ORIGIN, f.seed("log"))

        def cosigned(*times):
            lines = b"".join(fakelog.cosign(text, n, time) for n, time in enumerate(times))
            return policy.time(p.open_note(note + lines, policy.keys())[1])

        self.assertIsNone(cosigned())
        self.assertIsNone(cosigned(5))
        self.assertEqual(cosigned(5, 3), 5)
        self.assertEqual(cosigned(5, 3, 9), 5)
        self.assertEqual(cosigned(5, 0, 9), 9)  # one without a time is no earlier than never
        self.assertEqual(cosigned(0, 0), 0)
        self.assertEqual(cosigned(5, p.MAX_INT // 1000), p.MAX_INT // 1000)
        with self.assertRaises(p.Malformed):
            cosigned(5, p.MAX_INT // 1000 + 1)
        self.assertEqual(policies.Policy((self.THREE + "quorum none\n").encode()).time({}), 0)

    def test_bad(self):
        bad = {
            "no quorum": "", "two quorums": "quorum none\nquorum none\n", "quorum before": "quorum g\ngroup g 1 w0\n",
            "unknown quorum": "quorum x\n", "member twice": "group g 2 w0 w0\nquorum g\n", "zero": "group g 0 w0\nquorum g\n",
            "too many": "group g 2 w0\nquorum g\n", "plus": "group g +1 w0\nquorum g\n", "no member": "group g all\nquorum g\n",
            "two groups": "group g 1 w0\ngroup h 1 w0\nquorum g\n", "unknown word": "key x\nquorum none\n", "crlf": "quorum none\r\n",
            "trailing words": "quorum none x\n", "same name": "group w0 1 w1\nquorum none\n", "reserved": "group none 1 w0\nquorum none\n",
            "same key": "witness x %s\nquorum none\n" % W_AGAIN, "same log": self.LOG + "quorum none\n", "itself": "group g 1 g\nquorum g\n",
            "log key as witness": "witness x %s\nquorum none\n" % f.LOG_VKEY, "comment behind": "quorum none # x\n",
            "cut": "quorum none",
        }
        for name, text in bad.items():
            with self.subTest(name), self.assertRaises(p.Malformed):
                policies.Policy((self.THREE + text).encode())

    def test_ids_that_collide(self):
        """A witness with the name of a log and an ID ground to fit would sign in its place."""
        logs = {}
        for n in range(1 << 21):
            public = n.to_bytes(8, "big") + bytes(24)
            ids = [p.sha256(b"k\n", bytes([kind]), public)[:4] for kind in (1, 4)]
            if ids[1] in logs and logs[ids[1]] != public:
                break
            logs[ids[0]] = public
        lines = ["log " + p.make_vkey("k", logs[ids[1]]), "witness w " + p.make_vkey("k", public, 4)]
        for order in (lines, lines[::-1]):
            with self.assertRaisesRegex(p.Malformed, "two keys with the ID"):
                policies.Policy("\n".join(order + ["quorum none\n"]).encode())

    def test_submitters(self):
        self.assertEqual(len(policies.submitters(b"# comment\n\n" + fakelog.SUBMITTERS)), 2)
        line = fakelog.SUBMITTERS.splitlines(True)[0]
        for bad in (line + line, line.replace(b" ", b"  "), line.replace(b"crm", b"c m"), line[:-5] + b"\n", b"crm\n", line.replace(b"\n", b"\r\n")):
            with self.subTest(bad), self.assertRaises(p.Malformed):
                policies.submitters(bad)


W_AGAIN = p.make_vkey("again", f.public("witness 0"), 4)

if __name__ == "__main__":
    unittest.main()
