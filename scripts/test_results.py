"""Turns what test runners leave behind into counts; called by scripts/test.

test_results.py count FORMAT FILE STATUS   prints members of a JSON object: passed, failed, skipped, failures (names)
test_results.py report OUT FILE            writes OUT (JSON) from such objects, one a line, each with its suite, and
                                           prints the summary and the last line

Formats: meson (testlog.json), tap (node --test), unittest (python3 -m unittest -v), line ("N passed, N failed").
STATUS is the runner's exit status: a runner that failed without naming a failed test counts as one failure.
"""
import json
import re
import sys


def count_meson(text):
    """libcheck programs print how many checks they made; a program that dies first counts as one failure."""
    passed = failed = skipped = 0
    failures = []
    for line in text.splitlines():
        test = json.loads(line)
        checks = re.search(r"Checks: (\d+), Failures: (\d+), Errors: (\d+)", test.get("stdout") or "")
        if test["result"] == "SKIP":
            skipped += 1
            continue
        bad = int(checks[2]) + int(checks[3]) if checks else 0
        good = int(checks[1]) - bad if checks else int(test["result"] == "OK")
        if test["result"] != "OK":
            # Failed beyond its checks: a sanitizer's report at exit, a crash, a timeout.
            bad = max(bad, 1)
            failures.append(f"{test['name']} ({test['result'].lower()})")
        passed += good
        failed += bad
    return passed, failed, skipped, failures


def count_tap(text):
    """The totals are in comments at the end; failed leaves are the `not ok` lines without children of their own."""
    totals = {name: int(n) for name, n in re.findall(r"^# (pass|fail|cancelled|skipped|todo) (\d+)$", text, re.M)}
    failures = [name.strip() for name in re.findall(r"^ *not ok \d+ - (.*)$", text, re.M) if "# TODO" not in name]
    return (totals.get("pass", 0), totals.get("fail", 0) + totals.get("cancelled", 0),
            totals.get("skipped", 0) + totals.get("todo", 0), failures)


def count_unittest(text):
    ran = re.findall(r"^Ran (\d+) tests? in", text, re.M)
    summary = re.findall(r"^(?:OK|FAILED)(?: \((.*)\))?$", text, re.M)
    numbers = dict(re.findall(r"(\w+)=(\d+)", summary[-1])) if summary else {}
    failed = int(numbers.get("failures", 0)) + int(numbers.get("errors", 0)) + int(numbers.get("successes", 0))
    skipped = int(numbers.get("skipped", 0))
    failures = re.findall(r"^(?:FAIL|ERROR): (.*)$", text, re.M)
    return max(0, int(ran[-1]) - failed - skipped) if ran else 0, failed, skipped, failures


def count_line(text):
    found = re.findall(r"^(\d+) passed, (\d+) failed$", text, re.M)
    failures = re.findall(r"^FAILED:? (.*)$", text, re.M)
    # Without the last line the program ended early: what it said so far still counts.
    passed, failed = map(int, found[-1]) if found else (0, len(failures))
    return passed, failed, 0, failures


COUNTERS = {"meson": count_meson, "tap": count_tap, "unittest": count_unittest, "line": count_line}


def count(form, path, status):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
    passed, failed, skipped, failures = COUNTERS[form](text)
    if status and not failed:
        failed = 1
        failures.append("timed out" if status in (124, 137) else f"the runner ended with status {status}")
    print(json.dumps({"passed": passed, "failed": failed, "skipped": skipped, "failures": failures})[1:-1])


def report(out, path):
    suites = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            part = json.loads(line)
            name = part.pop("suite")
            suite = suites.setdefault(name, {"suite": name, "passed": 0, "failed": 0, "skipped": 0, "duration_s": 0,
                                             "failures": []})
            for key, value in part.items():
                suite[key] += value
    for suite in suites.values():
        if not suite["passed"] and not suite["failed"]:
            suite["failed"] = 1
            suite["failures"].append("the suite ran no test")
    total = {key: sum(suite[key] for suite in suites.values()) for key in ("passed", "failed", "skipped", "duration_s")}
    with open(out, "w", encoding="utf-8") as file:
        json.dump({**total, "suites": list(suites.values())}, file, indent=2)
        file.write("\n")
    print(f"\n{'suite':<14}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for suite in suites.values():
        print(f"{suite['suite']:<14}{suite['passed']:>8}{suite['failed']:>8}{suite['skipped']:>9}{suite['duration_s']:>9}")
    for suite in suites.values():
        for failure in suite["failures"]:
            print(f"FAILED {suite['suite']}: {failure}")
    print(f"\n{total['passed']} passed, {total['failed']} failed", flush=True)
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    if sys.argv[1] == "count":
        count(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        sys.exit(report(sys.argv[2], sys.argv[3]))
