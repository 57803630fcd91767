"""Tests of scripts/bench_results.py: what falls short is called short, and a run that ended early is never good."""
import contextlib
import importlib.util
import io
import json
import os
import sys
import tempfile
import unittest
from unittest import mock

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
spec = importlib.util.spec_from_file_location("bench_results", os.path.join(ROOT, "scripts", "bench_results.py"))
results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results)


def run_of(ok=True, latency=None, participants=1000, **figures):
    return {
        "ok": ok,
        "settings": {"participants": participants},
        "figures": [{"name": name, "value": value, "unit": "x"} for name, value in figures.items()],
        "latency": latency or {},
    }


class BenchResultsTest(unittest.TestCase):
    def judge(self, name, *facts, **runs):
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for run, result in runs.items():
                paths.append(os.path.join(folder, run.replace("_", "-") + ".json"))
                with open(paths[-1], "w", encoding="utf-8") as file:
                    json.dump(result, file)
            out = os.path.join(folder, "out.json")
            printed = io.StringIO()
            with mock.patch.object(sys, "argv", ["bench_results.py", name, out, *facts, *paths]), \
                    contextlib.redirect_stdout(printed):
                status = results.main()
            with open(out, encoding="utf-8") as file:
                return status, printed.getvalue(), json.load(file)

    def storm(self, **changes):
        figures = {"join_took": 14, "storm_full_took": 15, "storm_resumed_took": 10} | changes
        return self.judge("storm", bare=run_of(join_took=10, storm_resumed_took=7), storm=run_of(**figures))

    def test_storms_are_held_against_bare_handshakes_of_their_kind(self):
        status, printed, result = self.storm()
        self.assertEqual(status, 0)
        values = {entry["name"]: entry["value"] for entry in result["figures"]}
        self.assertEqual(values["ramp_to_bare_time"], 1.4)
        self.assertEqual(values["storm_full_to_bare_time"], 1.5)
        self.assertAlmostEqual(values["storm_resumed_to_bare_time"], 10 / 7)
        self.assertIn("every figure reaches its bar", printed)

    def test_a_slow_storm_is_short(self):
        status, printed, result = self.storm(storm_full_took=15.1)
        self.assertEqual(status, 1)
        self.assertFalse(result["ok"])
        self.assertIn("storm: short: storm_full_to_bare_time", printed)

    def test_a_run_that_ended_early_is_not_good(self):
        status, printed, _ = self.judge("storm", bare=run_of(join_took=10, storm_resumed_took=7), storm=run_of(ok=False))
        self.assertEqual(status, 1)
        self.assertIn("short: storm", printed)

    def test_a_change_of_the_view_is_short(self):
        for after, status in (("7.3", 0), ("7.4", 1)):
            runs = {"idle": run_of()}
            self.assertEqual(self.judge("idle", "view_before=7.3", f"view_after={after}", **runs)[0], status)

    def test_joins_are_held_against_bare_handshakes(self):
        def half(join_us):
            return self.judge("join", join_half=run_of(latency={"join": {"p95_us": join_us}}),
                              bare_half=run_of(latency={"handshake": {"p95_us": 1000}}))[0]
        self.assertEqual(half(3000), 0)
        self.assertEqual(half(3001), 1)

    def scale(self, large_bytes):
        common = {"gateway_bytes_per_connection_busy": 100, "gateways_cpu_held": 1, "shards_cpu_held": 1,
                  "gateways_cpu_per_join": 1, "shards_cpu_per_join": 1, "gateways_cpu_idle": 1}
        times = {name: value * 10 if name.endswith(("held", "idle")) else value for name, value in common.items()}
        return self.judge("scale",
                          a=run_of(participants=1000, shard_bytes_per_participant=900, **common),
                          b=run_of(participants=10000, shard_bytes_per_participant=100, **common),
                          c=run_of(participants=100000, shard_bytes_per_participant=large_bytes, **times))

    def test_cost_must_be_flat_above_ten_thousand_only(self):
        self.assertEqual(self.scale(110)[0], 0)
        status, printed, _ = self.scale(116)
        self.assertEqual(status, 1)
        self.assertIn("short: shard_bytes_per_participant_spread", printed)

    def test_peers(self):
        facts = ["ws.cpu_us_per_join=1300", "ws.bytes_per_connection=34000", "peerjs.cpu_us_per_join=1000",
                 "peerjs.bytes_per_connection=50000"]
        run = {"gateway_bytes_per_connection": 17000, "gateways_cpu_per_join": 300, "shards_cpu_per_join": 100}
        self.assertEqual(self.judge("peers", *facts, peers=run_of(bus_cpu_per_join=100, **run))[0], 0)
        status, printed, _ = self.judge("peers", *facts, peers=run_of(bus_cpu_per_join=101, **run))
        self.assertEqual(status, 1)
        self.assertIn("short: joins_per_cpu_second_to_best_peer", printed)


if __name__ == "__main__":
    unittest.main()
