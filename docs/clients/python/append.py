"""Logs two events of a stream, and leaves what the verifier needs.

    append.py URL TOKEN-FILE RECEIPT-VKEY-FILE PRINCIPAL KEY.pem MIGRATION NAME
"""

import sys

from piperoll_client import Key, Log, Stream


def read(path):
    with open(path, encoding="ascii") as file:
        return file.read()


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def main(url, token, receipt_vkey, principal, pem, migration, name):
    log = Log(url, read(token), read(receipt_vkey), principal, Key(pem))
    stream = Stream(log, migration, name)
    index, entries, receipt = stream.append(
        ("migration.extract", [("crm.customers", "source")], {"rows": 1000}),
        ("migration.load", [("erp.partners", "target")], {"rows": 998}),
    )
    write("request.receipt", receipt.encode())
    for i, entry in enumerate(entries):
        write(f"{index + i}.json", entry)
        write(f"{index + i}.tlog-proof", log.get(f"/v1/proofs/inclusion/{index + i}"))
    print(index)


if __name__ == "__main__":
    main(*sys.argv[1:])
