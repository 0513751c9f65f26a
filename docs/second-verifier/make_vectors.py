"""Makes the test vectors of log/FORMAT.md: log/testdata/vectors/*.json.

    python3 make_vectors.py          writes them
    python3 make_vectors.py --check  fails unless the files are what it makes

Every case has a name; a bad case is named for its fault. Input is "text" (UTF-8), "hex", or
"pieces": [[text, how many times], ...]. All keys are made from public seeds: TEST keys.
"""

import json
import pathlib
import sys

import vectors_events
import vectors_files
import vectors_folds
import vectors_json
import vectors_trees

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "log" / "testdata" / "vectors"


def files():
    """{file name: bytes} of all vectors."""
    made = {}
    for module in (vectors_json, vectors_events, vectors_trees, vectors_folds, vectors_files):
        for name, content in module.vectors().items():
            made[name + ".json"] = (json.dumps(content, indent=1, ensure_ascii=True) + "\n").encode()
    return made


def main(arguments):
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    made, wrong = files(), []
    if arguments:
        there = {path.name: path.read_bytes() for path in FOLDER.glob("*")}
        wrong = [name for name in sorted(set(made) | set(there)) if made.get(name) != there.get(name)]
    else:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name, content in made.items():
            (FOLDER / name).write_bytes(content)
    for name in wrong:
        print("%s is not what make_vectors.py makes" % name)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
