"""Lets pytest run the Go tests of all modules, one item each, where pytest and its plugin exist:
pytest --json-report --json-report-file=pytest_results.json. "make test" does it without, with subtests and coverage.
"""

import functools
import json
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent
NIGHTLY = "Nightly"  # suffix of tests that "make nightly" runs
collect_ignore_glob = ["*.py"]  # "make python" runs these


def lines(folder, *command):
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True).stdout.splitlines()


def pytest_collect_file(file_path, parent):
    if file_path.name == "go.mod" and "testdata" not in file_path.parts:
        return GoModule.from_parent(parent, path=file_path)


@pytest.hookimpl(optionalhook=True)
def pytest_json_modifyreport(json_report):
    commit = (lines(ROOT, "git", "rev-parse", "HEAD") or ["unknown"])[0]
    changed = lines(ROOT, "git", "status", "--porcelain", "--", ".", ":(exclude)pytest_results.json")
    json_report.update(root=".", commit=commit, modified=bool(changed))  # "make results-check" asks


class GoModule(pytest.File):
    def collect(self):
        module = self.path.read_text().split("\n", 1)[0].removeprefix("module ")
        for event in map(json.loads, lines(self.path.parent, "go", "test", "-json", "-vet=off", "-list", ".", "./...")):
            name, package = event.get("Output", "").strip(), event.get("Package", "")
            if event["Action"] in ("fail", "build-fail"):
                raise self.CollectError(f"{package or event.get('ImportPath')} does not build")
            if re.fullmatch(r"(Test|Example|Fuzz)\w*", name) and not name.endswith(NIGHTLY):
                folder = self.path.parent / package.removeprefix(module).removeprefix("/")
                files = [f for f in sorted(folder.glob("*_test.go")) if f"func {name}(" in f.read_text()] or [folder]
                nodeid = f"{files[0].relative_to(ROOT).as_posix()}::{name}"
                yield GoTest.from_parent(self, name=name, nodeid=nodeid, package=package)

    @functools.cache
    def results(self, package):
        """Runs a package once: {test: (action, seconds, output)}, "" for the package itself."""
        ends, texts = {}, {}
        command = ("go", "test", "-json", "-count=1", "-timeout=20m", f"-skip={NIGHTLY}$", package)
        for event in map(json.loads, lines(self.path.parent, *command)):
            test, _, sub = event.get("Test", "").partition("/")
            texts[test] = texts.get(test, "") + event.get("Output", "")
            if event["Action"] in ("pass", "fail", "skip") and not sub:
                ends[test] = event["Action"], event.get("Elapsed", 0)
        return {test: (*end, texts.get(test, "")) for test, end in ends.items()}


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
