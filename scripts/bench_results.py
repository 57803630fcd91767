#!/usr/bin/env python3
"""Usage: bench_results.py NAME OUT.json [FACT=VALUE...] RUN.json...

Prints the figures of a benchmark's runs, adds those that follow from several, and writes all of it, with what is known
of the machine, to one file. Exit status 1 if a figure falls short of its bar.
"""

import json
import os
import sys

JOIN_P95_BAR = 3
TIME_BAR = 1.5
MEMORY_BAR = 0.5
JOINS_BAR = 2
UNITS = {"bytes_per_connection": "bytes", "cpu_us_per_join": "us"}
LINEAR_BAR_PERCENT = 15
LINEAR_FROM = 10000


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


def value(run, name):
    return next(entry["value"] for entry in run["figures"] if entry["name"] == name)


def half_rate_figures(runs):
    if "join-half" not in runs:
        return []
    p95_us = runs["join-half"]["latency"]["join"]["p95_us"]
    bare_p95_us = runs["bare-half"]["latency"]["handshake"]["p95_us"]
    return [
        figure("bare_handshake_p95_at_half_rate", bare_p95_us / 1000, "ms"),
        figure("join_p95_to_bare_handshake_p95_at_half_rate", p95_us / bare_p95_us, "times", "<=", JOIN_P95_BAR),
    ]


def storm_figures(runs, main):
    """Against the bare connections of the same run: of full handshakes for the ramp, as nothing is cut before it."""
    if main not in runs or "bare" not in runs:
        return []
    run, bare = runs[main], runs["bare"]
    pairs = [
        ("ramp_to_bare_time", "join_took", "join_took"),
        ("storm_full_to_bare_time", "storm_full_took", "join_took"),
        ("storm_resumed_to_bare_time", "storm_resumed_took", "storm_resumed_took"),
    ]
    try:
        return [figure(name, value(run, ours) / value(bare, theirs), "times", "<=", TIME_BAR) for name, ours, theirs in pairs]
    except StopIteration:
        # A run that ended early has said why, and is not good.
        return []


def scale_figures(runs):
    names = ["gateway_bytes_per_connection_busy", "shard_bytes_per_participant"]
    results = []
    rows = []
    for run in runs.values():
        size = run["settings"]["participants"]
        row = {name: value(run, name) for name in names}
        for tier in ("gateways", "shards"):
            row[f"{tier}_cpu_us_per_participant_second"] = value(run, f"{tier}_cpu_held") * 1e4 / size
            row[f"{tier}_cpu_us_per_join"] = value(run, f"{tier}_cpu_per_join")
        row["gateways_cpu_us_per_idle_participant_second"] = value(run, "gateways_cpu_idle") * 1e4 / size
        rows.append((size, row))
        results += [figure(f"{name}_at_{size}", entry, "bytes" if "bytes" in name else "us") for name, entry in row.items()]
    large = [row for size, row in rows if size >= LINEAR_FROM]
    for name in large[0] if len(large) > 1 else []:
        values = [row[name] for row in large]
        spread = 100 * (max(values) / min(values) - 1) if min(values) > 0 else 0
        results.append(figure(f"{name}_spread", spread, "percent", "<=", LINEAR_BAR_PERCENT))
    return results


def peers_figures(run, facts):
    ours = {
        "bytes_per_connection": value(run, "gateway_bytes_per_connection"),
        "cpu_us_per_join": sum(value(run, f"{tier}_cpu_per_join") for tier in ("gateways", "shards", "bus")),
    }
    measured = [*ours.items(), *((name, int(entry)) for name, entry in facts.items())]
    for name, entry in measured:
        if entry <= 0:
            # Of so few connections that what the process did beside them outweighs them.
            sys.exit(f"peers: {name} came out as {entry:g}: nothing follows from that (try again with more --participants)")
    results = [figure(f"signalbox.{name}", entry, UNITS[name]) for name, entry in ours.items()]
    results += [figure(name, int(entry), UNITS[name.split(".")[1]]) for name, entry in facts.items()]
    best_us = min(int(entry) for name, entry in facts.items() if name.endswith(".cpu_us_per_join"))
    results.append(figure("bytes_per_connection_to_ws", ours["bytes_per_connection"] / int(facts["ws.bytes_per_connection"]),
                          "times", "<=", MEMORY_BAR))
    results.append(figure("joins_per_cpu_second_to_best_peer", best_us / ours["cpu_us_per_join"], "times", ">=", JOINS_BAR))
    return results


def derived_figures(name, runs, facts):
    if name == "peers":
        return peers_figures(runs["peers"], facts)
    if name == "scale":
        return scale_figures(runs)
    derived = storm_figures(runs, name) + half_rate_figures(runs)
    if "view_before" in facts:
        derived.append(figure("view_changes", int(facts["view_before"] != facts["view_after"]), "count", "<=", 0))
    return derived


def counts(run, entry):
    """Memory counts only where the processes had held nothing before; after that they take it from what was freed."""
    return run not in ("join-half", "join-max", "bare-half") or "_bytes_per_" not in entry["name"]


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
    name, out, *arguments = sys.argv[1:]
    facts = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    runs = {}
    for path in (argument for argument in arguments if "=" not in argument):
        with open(path) as file:
            runs[os.path.splitext(os.path.basename(path))[0]] = json.load(file)
    derived = derived_figures(name, runs, facts)
    shown = []
    for run, result in runs.items():
        result["figures"] = [entry for entry in result["figures"] if counts(run, entry)]
        shown += [(f"{run}." if len(runs) > 1 else "", entry) for entry in result["figures"]]
    shown += [("", entry) for entry in derived]
    for prefix, entry in shown:
        print(line(entry, prefix))
    short = [prefix + entry["name"] for prefix, entry in shown if not entry.get("ok", True)]
    failed = [run for run, result in runs.items() if not result["ok"]]
    good = not short and not failed
    print(f"{name}: " + ("every figure reaches its bar" if good else f"short: {', '.join(short + failed)}"))
    with open(out, "w") as file:
        json.dump({"bench": name, "ok": good, "machine": machine(), "facts": facts, "figures": derived, "runs": runs}, file, indent=2)
        file.write("\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
