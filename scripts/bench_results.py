#!/usr/bin/env python3
"""Usage: bench_results.py NAME OUT.json RUN.json...

Prints the figures of a benchmark's runs, adds those that follow from several, and writes all of it, with what is known
of the machine, to one file. Exit status 1 if a figure falls short of its bar.
"""

import json
import os
import sys

JOIN_P95_BAR = 3


def figure(name, value, unit, op=None, bar=None):
    result = {"name": name, "value": value, "unit": unit}
    if op:
        result["bar"] = {"op": op, "value": bar}
        result["ok"] = value <= bar if op == "<=" else value >= bar
    return result


def line(entry, prefix):
    text = f"figure {prefix}{entry['name']} {entry['value']:.6g} {entry['unit']}"
    if "bar" in entry:
        text += f" bar {entry['bar']['op']} {entry['bar']['value']:.6g} {'ok' if entry['ok'] else 'short'}"
    return text


def join_figures(runs):
    latency = runs["join-half"]["latency"]
    ratio = latency["join"]["p95_us"] / latency["handshake"]["p95_us"]
    return [figure("join_p95_to_handshake_p95_at_half_rate", ratio, "times", "<=", JOIN_P95_BAR)]


def counts(name, entry):
    """Memory counts only where the processes had held nothing before; after that they take it from what was freed."""
    return name == "idle" or "_bytes_per_" not in entry["name"]


def machine():
    with open("/proc/cpuinfo") as cpuinfo:
        models = [text.split(":", 1)[1].strip() for text in cpuinfo if text.startswith("model name")]
    return {
        "cpu": models[0] if models else "unknown",
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": os.uname().release,
        "load_average": os.getloadavg(),
    }


def main():
    name, out, *paths = sys.argv[1:]
    runs = {}
    for path in paths:
        with open(path) as file:
            runs[os.path.splitext(os.path.basename(path))[0]] = json.load(file)
    derived = join_figures(runs) if name == "join" else []
    good = all(run["ok"] for run in runs.values())
    for run, result in runs.items():
        result["figures"] = [entry for entry in result["figures"] if counts(name, entry)]
        for entry in result["figures"]:
            print(line(entry, f"{run}." if len(runs) > 1 else ""))
            good = good and entry.get("ok", True)
    for entry in derived:
        print(line(entry, ""))
        good = good and entry.get("ok", True)
    with open(out, "w") as file:
        json.dump({"bench": name, "ok": good, "machine": machine(), "figures": derived, "runs": runs}, file, indent=2)
        file.write("\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
