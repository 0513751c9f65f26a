"""Runs conftest.py against a small Go module, with a stand-in for pytest.

pytest itself need not be installed here, so the stand-in has only what
conftest.py uses, with the meaning that pytest's reference gives it.
"""

import contextlib
import importlib.util
import pathlib
import shutil
import subprocess
import sys
import tempfile
import types
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]

GOOD = """package good
import "testing"
func TestGood(t *testing.T) { t.Run("x", func(t *testing.T) {}) }
func TestBad(t *testing.T) { t.Error("seven is not six") }
func TestSkipped(t *testing.T) { t.Skip("no clock") }
func TestLongNightly(t *testing.T) { t.Error("must not run") }
func BenchmarkX(b *testing.B) {}
"""
EXITS = """package exits
import ("flag"; "os"; "testing")
func TestMain(m *testing.M) {
	m.Run()
	if flag.Lookup("test.list").Value.String() == "" {
		os.Exit(3)
	}
}
func TestFine(t *testing.T) {}
"""


class Outcome(Exception):
    """What pytest.skip and pytest.fail raise."""


class Skipped(Outcome):
    pass


class Failed(Outcome):
    pass


def stand_in():
    def skip(reason):
        raise Skipped(reason)

    def fail(reason, pytrace=True):
        raise Failed(reason)

    class Node:
        CollectError = type("CollectError", (Exception,), {})

        def __init__(self, *, name=None, parent=None, nodeid=None, path=None):
            self.name, self.parent, self.nodeid, self.path = name, parent, nodeid, path

        @classmethod
        def from_parent(cls, parent, **kw):
            return cls(parent=parent, **kw)

    pytest = types.ModuleType("pytest")
    pytest.File, pytest.Item = type("File", (Node,), {}), type("Item", (Node,), {})
    pytest.skip, pytest.fail = skip, fail
    pytest.hookimpl = lambda **kw: lambda f: f
    return pytest


@contextlib.contextmanager
def module(files):
    """A Go module with conftest.py in its root, loaded as pytest would load it."""
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name).resolve()
        for file, text in {"go.mod": "module example.org/m\n\ngo 1.26.0\n", **files}.items():
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_text(text)
        shutil.copy(REPOSITORY / "conftest.py", root)
        sys.modules["pytest"] = stand_in()
        try:
            spec = importlib.util.spec_from_file_location("conftest", root / "conftest.py")
            conftest = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(conftest)
            yield root, conftest
        finally:
            del sys.modules["pytest"]


def outcomes(root, conftest):
    collector = conftest.pytest_collect_file(root / "go.mod", None)
    found = {}
    for item in collector.collect():
        try:
            item.runtest()
            found[item.nodeid] = ("passed", "")
        except Outcome as e:
            found[item.nodeid] = (type(e).__name__.lower(), str(e))
    return found


class TestConftest(unittest.TestCase):
    def test_one_item_per_go_test(self):
        with module({"good/a_test.go": GOOD, "exits/a_test.go": EXITS, "empty/a.go": "package empty\n"}) as (root, conftest):
            found = outcomes(root, conftest)
        good = "good/a_test.go::"
        self.assertEqual(
            {nodeid: outcome for nodeid, (outcome, _) in found.items()},
            {
                good + "TestGood": "passed",
                good + "TestBad": "failed",
                good + "TestSkipped": "skipped",
                # No test of it failed, the package did: nobody may read that as passed.
                "exits/a_test.go::TestFine": "failed",
            },
        )
        self.assertIn("seven is not six", found[good + "TestBad"][1])
        self.assertIn("no clock", found[good + "TestSkipped"][1])

    def test_a_panic_fails_its_test(self):
        text = 'package p\nimport "testing"\nfunc TestP(t *testing.T) { panic("p") }\nfunc TestQ(t *testing.T) {}\n'
        with module({"p/p_test.go": text}) as (root, conftest):
            found = outcomes(root, conftest)
        self.assertEqual([o for o, _ in found.values()], ["failed", "failed"])
        self.assertIn("panic: p", found["p/p_test.go::TestP"][1])

    def test_what_does_not_build_is_a_collection_error(self):
        with module({"b/b_test.go": "package b\nfunc TestB(\n"}) as (root, conftest):
            collector = conftest.pytest_collect_file(root / "go.mod", None)
            with self.assertRaises(collector.CollectError):
                list(collector.collect())

    def test_an_inner_module_is_run_in_its_folder(self):
        inner = {"x/go.mod": "module example.net/x\n\ngo 1.26.0\n", "x/y/y_test.go": GOOD, "x/z_test.go": GOOD}
        with module(inner) as (root, conftest):
            found = outcomes(root / "x", conftest)
            self.assertIsNone(conftest.pytest_collect_file(root / "x" / "testdata" / "go.mod", None))
            self.assertIsNone(conftest.pytest_collect_file(root / "x" / "y_test.go", None))
            self.assertEqual(conftest.collect_ignore_glob, ["*.py"])
        self.assertEqual(found["x/y/y_test.go::TestGood"][0], "passed")
        self.assertEqual(found["x/z_test.go::TestBad"][0], "failed")
        self.assertEqual(len(found), 6)

    def test_the_report_names_its_commit(self):
        report = {"root": "/somewhere", "tests": []}
        with module({}) as (root, conftest):
            def git(*command):
                identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
                return subprocess.run(["git", "-C", root, *identity, *command], check=True, stdout=subprocess.PIPE, text=True).stdout

            git("init", "-q")
            (root / ".gitignore").write_text("__pycache__/\n")
            git("add", "-A")
            git("commit", "-q", "--no-verify", "-m", "m")
            (root / "pytest_results.json").write_text("{}")
            conftest.pytest_json_modifyreport(report)
            commit = git("rev-parse", "HEAD").strip()
            self.assertEqual(report, {"root": ".", "tests": [], "commit": commit, "modified": False})
            (root / "go.mod").write_text("module example.org/other\n")
            conftest.pytest_json_modifyreport(report)
            self.assertEqual(report, {"root": ".", "tests": [], "commit": commit, "modified": True})

    def test_duration_is_the_go_tests(self):
        with module({}) as (_, conftest):
            item = conftest.GoTest.from_parent(None, name="TestX", nodeid="x::TestX", package="x")
            item.seconds = 2.5
            report = types.SimpleNamespace(duration=99.0)
            hook = conftest.pytest_runtest_makereport(item, types.SimpleNamespace(when="call"))
            next(hook)
            with self.assertRaises(StopIteration):
                hook.send(types.SimpleNamespace(get_result=lambda: report))
            self.assertEqual(report.duration, 2.5)

    def test_it_stays_small(self):
        self.assertLessEqual(len((REPOSITORY / "conftest.py").read_text().splitlines()), 80)


if __name__ == "__main__":
    unittest.main()
