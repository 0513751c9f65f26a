"""Lets pytest run the Go tests, one item each, where pytest and its plugin exist:
pytest --json-report --json-report-file=pytest_results.json
"make test" writes the same file without them, with subtests and coverage on top.
"""

import json
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent
NIGHTLY = "Nightly"  # suffix of tests that "make nightly" runs
collect_ignore_glob = ["*.py"]  # "make python" runs these


def go_test(*args):
    """Returns the events of go test -json."""
    run = subprocess.run(["go", "test", "-json", *args], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def pytest_collect_file(file_path, parent):
    if file_path == ROOT / "go.mod":
        return GoModule.from_parent(parent, path=file_path)


class GoModule(pytest.File):
    def collect(self):
        module = self.path.read_text().split("\n", 1)[0].removeprefix("module ")
        self.packages = {}  # results by package
        for event in go_test("-vet=off", "-list", ".", "./..."):
            name, package = event.get("Output", "").strip(), event.get("Package", "")
            if event["Action"] in ("fail", "build-fail"):
                raise self.CollectError(f"{package or event.get('ImportPath')} does not build")
            if re.fullmatch(r"(Test|Example|Fuzz)\w*", name) and not name.endswith(NIGHTLY):
                nodeid = f"{place(package.removeprefix(module).removeprefix('/') or '.', name)}::{name}"
                yield GoTest.from_parent(self, name=name, nodeid=nodeid, package=package)

    def results(self, package):
        """Runs a package once: {test: (action, seconds, output)}, "" for the package itself."""
        if package not in self.packages:
            ends, texts = {}, {}
            for event in go_test("-count=1", "-timeout=20m", f"-skip={NIGHTLY}$", package):
                test = event.get("Test", "").split("/")[0]
                texts[test] = texts.get(test, "") + event.get("Output", "")
                if event["Action"] in ("pass", "fail", "skip") and "/" not in event.get("Test", ""):
                    ends[test] = event["Action"], event.get("Elapsed", 0)
            self.packages[package] = {t: (*e, texts.get(t, "")) for t, e in ends.items()}
        return self.packages[package]


class GoTest(pytest.Item):
    def __init__(self, *, package, **kw):
        super().__init__(**kw)
        self.package, self.seconds = package, 0.0

    def runtest(self):
        results = self.parent.results(self.package)
        whole = results.get("", ("fail", 0, "go test did not run"))
        action, self.seconds, output = results.get(self.name, ("fail", 0, "the test did not end\n" + whole[2]))
        if action == "skip":
            pytest.skip(output)
        blamed = any(end[0] == "fail" for test, end in results.items() if test)
        if action != "pass" or (whole[0] == "fail" and not blamed):
            pytest.fail(output + whole[2], pytrace=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if call.when == "call" and isinstance(item, GoTest):
        report.duration = item.seconds  # the first test of a package would be charged for all


def place(folder, name):
    files = sorted((ROOT / folder).glob("*_test.go"))
    return next((str(f.relative_to(ROOT)) for f in files if f"func {name}(" in f.read_text()), folder)
