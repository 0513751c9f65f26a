"""The client against the second verifier, which was written from FORMAT.md alone."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "second-verifier"))

import ed25519
import piperoll
import piperoll_client as client

SEED = bytes(range(32))  # of the log's receipt key


class FakeLog(client.Log):
    """A log that answers from memory; spoil changes its answer."""

    def __init__(self, key, spoil=None):
        self.name = "log.example.com/test/receipt"
        super().__init__("http://127.0.0.1:1", "token", piperoll.make_vkey(self.name, ed25519.public_key(SEED)), "me", key)
        self.entries, self.spoil = [], spoil

    def submit(self, lines):
        parts, leaves, first = [], [], len(self.entries)
        for line in lines.splitlines():
            sent = json.loads(line)
            event = line[len(b'{"event":'):line.index(b',"v":1}') + len(b',"v":1}')]
            parsed = piperoll.parse_event(event)
            salt, payload = client.base64.b64decode(sent["salt"]), client.canonical(sent["payload"])
            assert parsed["payload"]["commitment"] == client.b64(piperoll.commitment(salt, "application/json", payload))
            received = parts[0]["received"] if parts else parsed["time"]
            skew = received - parsed["time"]
            part = {"as_of": 0, "auth": "token:1", "blind": client.b64(bytes(16)), "by": "me", "received": received, "skew_ms": skew}
            sig = b',"sig":' + client.canonical(sent["sig"]) if "sig" in sent else b""
            entry = b'{"event":' + event + b',"log":' + client.canonical(part) + sig + b',"v":1}'
            self.entries.append(entry)
            parts.append(part)
            leaves.append(piperoll.leaf_hash(entry))
        text = f"piperoll/receipt/v1\nlog log.example.com/test\nindex {first}\ncount {len(leaves)}\n"
        text += f"leaves {client.b64(client.sha256(*leaves))}\nreceived {received}\nby {received + 8}\n"
        receipt = piperoll.sign_note(text.encode(), self.name, SEED).decode()
        answer = {"index": first, "count": len(leaves), "log": parts, "receipt": receipt}
        if self.spoil:
            self.spoil(answer)
        return answer


class TestClient(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        pem = os.path.join(folder.name, "key.pem")
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", pem], check=True)
        self.key = client.Key(pem)

    def test_entries_are_what_the_format_says(self):
        log = FakeLog(self.key)
        stream = client.Stream(log, "m", "a")
        events = [("x.one", [("t", "source")], {"b": 1, "a": "x"}), ("x.two", [], {})]
        index, entries, _ = stream.append(*events)
        self.assertEqual((index, entries), (1, log.entries[1:]))
        parsed = [piperoll.parse_entry(entry) for entry in log.entries]
        prev = piperoll.stream_start("log.example.com/test", "m/a")
        for seq, entry in enumerate(parsed, 1):
            self.assertEqual((entry["event"]["seq"], entry["event"]["prev"]), (seq, client.b64(prev)))
            prev = piperoll.event_hash(entry["event"])
        for first, last in ((1, 1), (2, 3)):
            sig = parsed[last - 1]["sig"]
            text = piperoll.tail_text("log.example.com/test", "m/a", first, last, piperoll.event_hash(parsed[last - 1]["event"]))
            self.assertTrue(ed25519.verify(self.key.public, text, client.base64.b64decode(sig["sig"])))
            self.assertEqual(sig["key"], client.b64(client.sha256(b"ed25519", self.key.public)))
        self.assertEqual(self.key.vkey("me"), piperoll.make_vkey("me", self.key.public))

    def test_false_receipts_are_evidence(self):
        def part(answer):
            answer["log"][0]["received"] += 1

        def signature(answer):
            answer["receipt"] = answer["receipt"].replace("by ", "by 1")

        def index(answer):
            answer["index"] += 1

        for spoil in (part, signature, index):
            with self.subTest(spoil.__name__), self.assertRaises(client.Evidence):
                client.Stream(FakeLog(self.key, spoil), "m", "a")

    def test_payloads_that_json_writes_otherwise_are_refused(self):
        for payload in ({"a": 1.5}, {"a": "\u00e9"}, {"a": [2**53]}):
            with self.subTest(payload), self.assertRaises(ValueError):
                client.canonical(payload)


if __name__ == "__main__":
    unittest.main()
