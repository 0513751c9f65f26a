"""Vectors of section 8: what an auditor has."""

import fixtures as f
import piperoll as p
import policy
from vectors_events import _spare_bits


def salt_file():
    good = p.b64(f.filler("salt")) + "\n"
    bad = [
        ("empty", ""), ("no-newline", good[:-1]), ("crlf", good[:-1] + "\r\n"), ("two-newlines", good + "\n"), ("space-before", " " + good),
        ("base64-spare-bits", _spare_bits(good[:-1]) + "\n"), ("base64-no-padding", good[:-2] + "\n"), ("base64-url", "_" + good[1:]),
        ("31-bytes", p.b64(bytes(31)) + "\n"), ("33-bytes", p.b64(bytes(33)) + "\n"), ("hex", "00" * 32 + "\n"),
        ("inner-newline", good[:20] + "\n" + good[20:]),
    ]
    return {"about": "The file of a payload's salt (section 8).", "good": [{"name": "salt", "text": good, "salt": f.filler("salt").hex()}],
            "bad": [{"name": n, "text": t} for n, t in bad]}


def submitters_file():
    def line(principal, key, name="TEST"):
        return "%s %s\n" % (principal, p.make_vkey(name, f.public(key)))

    one, two = line("crm", "owner"), line("crm", "owner 2")
    good = [("one", one), ("two-keys", one + two), ("two-principals", one + line("svc:x", "loader")), ("key-name-is-not-used", line("crm", "owner", "any.name")),
            ("comments", "# mine\n\n" + one + "#\n"), ("none", ""), ("no-final-newline", one[:-1])]
    bad = [("no-key", "crm\n"), ("two-spaces", one.replace(" ", "  ")), ("tab", one.replace(" ", "\t")), ("space-before", " " + one), ("space-line", " \n"),
           ("space-behind", one[:-1] + " \n"), ("comment-behind", one[:-1] + " # mine\n"), ("crlf", one.replace("\n", "\r\n")), ("no-principal", one[3:]),
           ("principal-no-name", one.replace("crm", "c+m")), ("same-key-twice", one + one), ("same-key-two-principals", one + line("svc:x", "owner")),
           ("witness-key", "crm %s\n" % p.make_vkey("TEST", f.public("owner"), 4)), ("small-order", "crm %s\n" % p.make_vkey("TEST", bytes(32))),
           ("cut", one[:40] + "\n"), ("too-large", None)]
    made = []
    for name, text in good:
        keys = sorted((principal, key.hex()) for principal, key in policy.submitters(text.encode()))
        made.append({"name": name, "text": text, "keys": [{"principal": a, "key": b} for a, b in keys]})
    return {"about": "Submitters files (section 8): keys are the key ids.", "good": made,
            "bad": [{"name": n, "text": t} if t is not None else {"name": n, "pieces": [["#", (1 << 20) + 1]]} for n, t in bad]}


def policy_file():
    log = "log %s https://log.example\nlog %s\n" % (f.LOG_VKEY, f.RECEIPT_VKEY)
    three = log + "".join("witness w%d %s\n" % (n, p.make_vkey("w%d" % n, f.public("witness %d" % n), 4)) for n in range(3))
    again = p.make_vkey("again", f.public("witness 0"), 4)
    good = [("no-quorum-needed", log + "quorum none\n"), ("one-witness", three + "quorum w1\n"), ("two-of-three", three + "group g 2 w0 w1 w2\nquorum g\n"),
            ("all", three + "group g all w0 w1\nquorum g\n"), ("any", three + "group g any w0 w1\nquorum g\n"), ("nested", three + "group g 1 w0 w1\ngroup h 2 g w2\nquorum h\n"),
            ("comments-and-tabs", "# mine\n\n" + log.replace("log ", "log\t") + " \t# mine\nquorum  none \n")]
    bad = [("no-quorum", log), ("two-quorums", log + "quorum none\nquorum none\n"), ("quorum-before-group", three + "quorum g\ngroup g 1 w0\n"),
           ("unknown-quorum", three + "quorum x\n"), ("member-twice", three + "group g 2 w0 w0\nquorum g\n"), ("member-of-two-groups", three + "group g 1 w0\ngroup h 1 w0\nquorum g\n"),
           ("needs-0", three + "group g 0 w0\nquorum g\n"), ("needs-too-many", three + "group g 2 w0\nquorum g\n"), ("needs-plus-1", three + "group g +1 w0\nquorum g\n"),
           ("no-member", three + "group g all\nquorum g\n"), ("unknown-member", three + "group g 1 x\nquorum g\n"), ("member-of-itself", three + "group g 1 g\nquorum g\n"),
           ("unknown-word", log + "key x\nquorum none\n"), ("word-upper-case", log + "Quorum none\n"), ("crlf", log.replace("\n", "\r\n") + "quorum none\r\n"),
           ("words-behind", log + "quorum none x\n"), ("comment-behind", log + "quorum none # x\n"), ("name-twice", three + "group w0 1 w1\nquorum none\n"),
           ("reserved-name", three + "group none 1 w0\nquorum none\n"), ("witness-key-twice", three + "witness x %s\nquorum none\n" % again),
           ("log-key-twice", log + log + "quorum none\n"), ("log-key-as-witness", log + "witness x %s\nquorum none\n" % f.LOG_VKEY),
           ("witness-key-as-log", "log %s\nquorum none\n" % again), ("control-character", log + "quorum none\u0001\n"), ("empty", "")]
    return {"about": "Policy files (section 8, c2sp.org/tlog-policy).", "good": [{"name": n, "text": t} for n, t in good], "bad": [{"name": n, "text": t} for n, t in bad]}


def vectors():
    return {"salt": salt_file(), "submitters": submitters_file(), "policy": policy_file()}
