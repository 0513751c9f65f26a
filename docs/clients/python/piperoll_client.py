"""A small client in Python's standard library, and openssl for the signatures.

It makes, chains and signs the events of one stream, sends them, and checks what the
log answers: it puts the entries together from its own events and the log's parts, and
the receipt has to be over these, signed by the log's receipt key (log/FORMAT.md).

A request is tried again, the same bytes, until an answer says what became of it: a log
that has it gives the same receipt. Left out, and in the Go SDK: an outbox that outlives
the process, and proofs of every entry (here the verifier checks them).
"""

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ED25519_PREFIX = bytes.fromhex("302a300506032b6570032100")  # of a public key in DER


def b64(data):
    return base64.b64encode(data).decode()


def canonical(value):
    """RFC 8785 of values without floats and without strings beyond ASCII. Others are refused."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    if re.search(r"[^\x20-\x7e]|\\u", text) or any(_floats(value)):
        raise ValueError("payload holds a float or a string beyond ASCII: send it as a string of base64")
    return text.encode()


def _floats(value):
    if isinstance(value, float) or isinstance(value, int) and abs(value) >= 2**53:
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _floats(inner)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


class Key:
    """An Ed25519 key in a PEM file (openssl genpkey -algorithm ed25519)."""

    def __init__(self, pem):
        self.pem = pem
        der = subprocess.run(["openssl", "pkey", "-in", pem, "-pubout", "-outform", "DER"], check=True, capture_output=True).stdout
        if der[:-32] != ED25519_PREFIX:
            raise ValueError(f"{pem} is no Ed25519 key")
        self.public = der[-32:]

    def vkey(self, name):
        """What registers the key: logserver key add -vkey."""
        typed = b"\x01" + self.public
        identity = sha256(name.encode(), b"\n", typed)[:4]
        return f"{name}+{identity.hex()}+{b64(typed)}"

    def sign(self, text):
        with tempfile.NamedTemporaryFile() as file:
            file.write(text)
            file.flush()
            command = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", self.pem, "-in", file.name]
            return subprocess.run(command, check=True, capture_output=True).stdout


def verify(public, text, signature):
    """Whether the signature is by the public key over text."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: os.path.join(folder, name) for name in ("key", "text", "sig")}
        for name, data in (("key", ED25519_PREFIX + public), ("text", text), ("sig", signature)):
            with open(paths[name], "wb") as file:
                file.write(data)
        command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", paths["key"]]
        return subprocess.run(command + ["-in", paths["text"], "-sigfile", paths["sig"]], capture_output=True).returncode == 0


class Refused(Exception):
    """The log, or something before it, refused a request: nothing of it is in the log."""


class Evidence(Exception):
    """The log acknowledged something else than it was sent. Keep what is in it."""


class Log:
    """A log, as one principal. receipt_vkey comes by another channel than the URL."""

    def __init__(self, url, token, receipt_vkey, principal, key):
        name, _, typed = receipt_vkey.strip().split("+", 2)
        self.receipt_name, self.receipt_public = name, base64.b64decode(typed, validate=True)[1:]
        self.origin = name.removesuffix("/receipt")
        self.url, self.token, self.principal, self.key = url.rstrip("/"), token.strip(), principal, key

    def get(self, path):
        return self._do(urllib.request.Request(self.url + path))

    def _do(self, request, attempts=8):
        request.add_header("Authorization", "Bearer " + self.token)
        for attempt in range(attempts):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.read()
            except urllib.error.HTTPError as error:
                body = error.read().decode(errors="replace")
                if error.code not in (408, 429, 500, 502, 503, 504, 507) or attempt + 1 == attempts:
                    raise Refused(f"{error.code}: {body}") from error
            except OSError:
                if attempt + 1 == attempts:
                    raise
            time.sleep(min(10, 0.1 * 2**attempt))
        raise AssertionError("not reached")

    def submit(self, lines):
        headers = {"Content-Type": "application/x-ndjson", "Prefer": "wait=5"}
        return json.loads(self._do(urllib.request.Request(self.url + "/v1/events", data=lines, headers=headers)))

    def check_receipt(self, receipt, first, leaves, received):
        """Holds a receipt to the leaves: the log is bound by exactly these."""
        text, _, line = receipt.rpartition("\n\n")
        text += "\n"
        want = f"piperoll/receipt/v1\nlog {self.origin}\nindex {first}\ncount {len(leaves)}\nleaves {b64(sha256(*leaves))}\nreceived {received}\nby "
        typed = b"\x01" + self.receipt_public
        identity = sha256(self.receipt_name.encode(), b"\n", typed)[:4]
        parts = line.strip().split(" ")
        signature = base64.b64decode(parts[2]) if parts[:2] == ["\u2014", self.receipt_name] and len(parts) == 3 else b""
        if signature[:4] != identity or not verify(self.receipt_public, text.encode(), signature[4:]):
            raise Evidence("the receipt is not signed by the log's receipt key", receipt)
        if not text.startswith(want) or not re.fullmatch(r"\d+\n", text[len(want):]):
            raise Evidence("the receipt is not over the entries of the answer", receipt)


class Stream:
    """A stream of our own, opened now: MIGRATION/NAME."""

    def __init__(self, log, migration, name):
        self.log, self.migration, self.name = log, migration, f"{migration}/{name}"
        self.seq = 0
        self.hash = sha256(b"piperoll/stream/v1\n", log.origin.encode(), b"\n", self.name.encode())
        keys = [{"alg": "ed25519", "key": b64(log.key.public)}]
        self.append(("stream.open", [], {"keys": keys, "mode": "signed", "owner": log.principal, "v": 1}))

    def append(self, *events):
        """Logs events (kind, [(object, role), ...], payload or None) in one request, and
        gives the index of the first, the entries and the receipt."""
        made, seq, prev, lines = [], self.seq, self.hash, []
        for kind, objects, payload in events:
            event, line = self._make(kind, objects, payload, seq + 1, prev)
            seq, prev = seq + 1, sha256(b"piperoll/event/v1\n", event)
            made.append(event)
            lines.append(line)
        tail = f"piperoll/tail/v1\n{self.log.origin}\n{self.name}\n{self.seq + 1}\n{seq}\n{b64(prev)}\n"
        identity = sha256(b"ed25519", self.log.key.public)
        sig = canonical({"alg": "ed25519", "key": b64(identity), "sig": b64(self.log.key.sign(tail.encode()))})
        lines[-1] = lines[-1][:-1] + b',"sig":' + sig + b"}"
        answer = self.log.submit(b"\n".join(lines) + b"\n")
        entries = []
        for i, (event, part) in enumerate(zip(made, answer["log"], strict=True)):
            last = b',"sig":' + sig if i + 1 == len(made) else b""
            entries.append(b'{"event":' + event + b',"log":' + canonical(part) + last + b',"v":1}')
        leaves = [sha256(b"\0", entry) for entry in entries]
        self.log.check_receipt(answer["receipt"], answer["index"], leaves, answer["log"][0]["received"])
        self.seq, self.hash = seq, prev  # only now: a request that failed can be made again
        return answer["index"], entries, answer["receipt"]

    def _make(self, kind, objects, payload, seq, prev):
        event = {
            "actor": self.log.principal, "kind": kind, "log": self.log.origin, "migration": self.migration,
            "objects": [{"name": name, "role": role} for name, role in objects],
            "prev": b64(prev), "seq": seq, "stream": self.name, "time": int(time.time() * 1000), "v": 1,
        }
        if payload is None:
            text = canonical(event)
            return text, b'{"event":' + text + b"}"
        data, salt = canonical(payload), os.urandom(32)
        commitment = hmac.digest(salt, b"piperoll/commit/v1\napplication/json\n" + data, "sha256")
        event["payload"] = {"commitment": b64(commitment), "scheme": "whole-1", "type": "application/json"}
        text = canonical(event)
        return text, b'{"event":' + text + b',"payload":' + data + b',"salt":"' + b64(salt).encode() + b'"}'
