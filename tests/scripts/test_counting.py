"""Tests of scripts/test_results.py: what the runners of each kind print becomes the right counts, and no way of failing
is counted as success."""
import contextlib
import importlib.util
import io
import json
import os
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
spec = importlib.util.spec_from_file_location("results", os.path.join(ROOT, "scripts", "test_results.py"))
results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results)


class CountTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, text):
        path = os.path.join(self.folder, "input")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def count(self, form, text, status=0):
        path = self.write(text)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            results.count(form, path, status)
        return json.loads("{" + out.getvalue() + "}")

    def check(self, counted, passed, failed, skipped=0):
        self.assertEqual((counted["passed"], counted["failed"], counted["skipped"]), (passed, failed, skipped))

    def meson(self, result, stdout=""):
        return json.dumps({"name": "ws", "result": result, "stdout": stdout})

    def test_meson_counts_checks(self):
        text = "\n".join([self.meson("OK", "100%: Checks: 12, Failures: 0, Errors: 0"),
                          self.meson("FAIL", "66%: Checks: 3, Failures: 0, Errors: 1"), self.meson("SKIP"), self.meson("OK")])
        counted = self.count("meson", text, 1)
        self.check(counted, 15, 1, 1)
        self.assertEqual(counted["failures"], ["ws (fail)"])

    def test_meson_program_that_fails_beyond_its_checks(self):
        self.check(self.count("meson", self.meson("FAIL", "100%: Checks: 5, Failures: 0, Errors: 0"), 1), 5, 1)
        self.check(self.count("meson", self.meson("TIMEOUT"), 1), 0, 1)

    def test_runner_that_fails_without_a_failed_test(self):
        for form in results.COUNTERS:
            counted = self.count(form, "", 124)
            self.check(counted, 0, 1)
            self.assertEqual(counted["failures"], ["timed out"])

    def test_node(self):
        text = "not ok 1 - joins\nok 2 - leaves\n# tests 2\n# pass 1\n# fail 0\n# cancelled 1\n# skipped 0\n# todo 0\n"
        counted = self.count("tap", text, 1)
        self.check(counted, 1, 1)
        self.assertEqual(counted["failures"], ["joins"])

    def test_unittest(self):
        self.check(self.count("unittest", "Ran 4 tests in 0.1s\n\nOK (skipped=1)\n"), 3, 0, 1)
        self.check(self.count("unittest", "Ran 4 tests in 0.1s\n\nFAILED (failures=1, errors=1)\n", 1), 2, 2)

    def test_last_line(self):
        self.check(self.count("line", "FAILED it\n3 passed, 1 failed\n", 1), 3, 1)
        self.check(self.count("line", "FAILED it\nFAILED that\n", 1), 0, 2)

    def report(self, *parts):
        path = self.write("\n".join(json.dumps(part) for part in parts))
        with contextlib.redirect_stdout(io.StringIO()) as out:
            status = results.report(os.path.join(self.folder, "out"), path)
        return status, out.getvalue().splitlines()[-1]

    def test_report(self):
        self.assertEqual(self.report({"suite": "a", "passed": 2}, {"suite": "a", "passed": 1}, {"suite": "b", "passed": 1}),
                         (0, "4 passed, 0 failed"))
        self.assertEqual(self.report({"suite": "a", "passed": 2}, {"suite": "b", "failed": 1}), (1, "2 passed, 1 failed"))

    def test_suite_without_tests_fails(self):
        self.assertEqual(self.report({"suite": "a", "passed": 2}, {"suite": "b", "duration_s": 1}), (1, "2 passed, 1 failed"))


if __name__ == "__main__":
    unittest.main()
