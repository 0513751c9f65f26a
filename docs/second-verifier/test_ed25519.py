"""Ed25519 against the vectors of RFC 8032 and of Wycheproof, and against openssl where it is at hand."""

import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import ed25519

WYCHEPROOF = pathlib.Path(__file__).resolve().parents[2] / "log" / "testdata" / "wycheproof" / "ed25519_test.json"

# RFC 8032 section 7.1: seed, public key, message, signature.
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


class Ed25519(unittest.TestCase):
    def test_rfc8032(self):
        for case in RFC8032:
            seed, public, message, signature = map(bytes.fromhex, case)
            self.assertEqual(ed25519.public_key(seed), public)
            self.assertEqual(ed25519.sign(seed, message), signature)
            self.assertTrue(ed25519.verify(public, message, signature))
            self.assertFalse(ed25519.verify(public, message + b"x", signature))

    def test_wycheproof(self):
        vectors = json.loads(WYCHEPROOF.read_bytes())
        ran = 0
        for group in vectors["testGroups"]:
            public = bytes.fromhex(group["publicKey"]["pk"])
            for case in group["tests"]:
                with self.subTest(case["tcId"], comment=case["comment"]):
                    valid = ed25519.verify(public, bytes.fromhex(case["msg"]), bytes.fromhex(case["sig"]))
                    self.assertEqual(valid, case["result"] == "valid")
                    ran += 1
        self.assertEqual(ran, vectors["numberOfTests"])

    def test_small_order(self):
        self.assertEqual(len(ed25519.SMALL_ORDER_Y), 5)
        self.assertEqual(ed25519.SMALL_ORDER_Y & {0, 1, ed25519.P - 1}, {0, 1, ed25519.P - 1})

    @unittest.skipUnless(shutil.which("openssl"), "NOT RUN: there is no openssl")
    def test_openssl(self):
        """Another implementation takes our signatures, and no changed one."""
        prefix = bytes.fromhex("302a300506032b6570032100")  # SubjectPublicKeyInfo of RFC 8410
        with tempfile.TemporaryDirectory() as folder:
            at = pathlib.Path(folder)
            for n in range(4):
                seed, message = bytes([n]) * 32, b"message %d" % n
                signature = ed25519.sign(seed, message)
                if n == 3:
                    signature = signature[:5] + bytes([signature[5] ^ 1]) + signature[6:]
                (at / "key").write_bytes(prefix + ed25519.public_key(seed))
                (at / "message").write_bytes(message)
                (at / "signature").write_bytes(signature)
                command = "openssl pkeyutl -verify -pubin -keyform DER -inkey key -rawin -in message -sigfile signature"
                ran = subprocess.run(command.split(), cwd=folder, capture_output=True, check=False)
                self.assertEqual(ran.returncode == 0, n != 3, ran.stdout + ran.stderr)


if __name__ == "__main__":
    unittest.main()
