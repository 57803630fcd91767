"""scripts/test faults: breaks a cluster of real processes under load, one way after another and in drawn pairs, and judges
every run by the histories of the people in it.

    suite.py [--all] [--slice K/N] [--seed N] [CASE...]     CASE: a fault's name, two with '+' between, or gateway_kill_2000

--all takes every pair instead of six; --slice the Kth of N parts of all pairs, and no single fault. Each case prints its figures;
the last line counts the cases. A case passes only if its fault is seen to have happened.
"""
import argparse
import concurrent.futures
import itertools
import os
import pathlib
import random
import sys
import threading
import time
import traceback

from faults import FROM_BEGIN, INTERRUPTION, SINGLE, WHOLE, aim_at_leader, kind_of, pair_bound_s
from figures import ROOT, Figures
from fleet import Fleet, now_us
from history import DOUBLED
from load import Swarm
from measure import Recovery, percentile

PARTICIPANTS = 400
DRAWN_PAIRS = 6
BEFORE_S, AFTER_S = 1, 2
LANES = 2
CROWD_PER_GATEWAY, CROWD_BOUND_S = 2000, 10
GATEWAY = {"drain": {"spread_ms": 1000}, "limits": {"ping_interval_ms": 2000}}
ARTIFACTS = pathlib.Path(os.environ.get("SIGNALBOX_ARTIFACTS", ROOT / "build" / "faults"))
COLUMNS = (("fault", 34), ("clients", 8), ("affected", 9), ("disconnects", 12), ("p50 s", 8), ("p99 s", 8), ("worst s", 8),
           ("bound s", 8), ("sent", 8), ("lost", 6), ("doubled", 8))


class Case:
    def __init__(self, faults, participants=PARTICIPANTS):
        self.faults, self.participants = faults, participants
        self.name = "+".join(fault.name for fault in faults)
        self.single = len(faults) == 1
        self.bound_s = faults[0].bound_s if self.single else pair_bound_s(faults)
        self.row = None
        self.proofs = []

    def aim(self, fleet):
        """The victim of the view log's leader first: choosing it may move that."""
        fleet.victims.clear()
        order = sorted(enumerate(self.faults, 1), key=lambda entry: entry[1].aim is not aim_at_leader)
        for n, fault in order:
            nth = sum(kind_of(other) == kind_of(fault) for other in self.faults[:n - 1])
            self.proofs.append(fault.aim(fleet, n, nth))

    def befall(self, fleet, swarm):
        """Returns when it began and from when on people can be whole."""
        begin_us = 0
        for n, fault in enumerate(self.faults, 1):
            began_us = swarm.mark(f"{fault.what} ({n})")
            begin_us = begin_us or began_us
            fault.start(fleet, swarm, n)
        time.sleep(max(fault.lasts_s for fault in self.faults))
        for n, fault in sorted(enumerate(self.faults, 1), key=lambda entry: entry[1].rank):
            swarm.mark(f"the end of: {fault.what}")
            fault.mend(fleet, swarm, n)
        return begin_us, begin_us if self.single and self.faults[0].since == FROM_BEGIN else now_us()

    def run(self, fleet, figures):
        with Swarm(fleet, ARTIFACTS / self.name, self.participants) as swarm:
            time.sleep(BEFORE_S)
            self.aim(fleet)
            begin_us, from_us = self.befall(fleet, swarm)
            fleet.restore()
            fleet.wait_connections(self.participants, self.bound_s + 15)
            time.sleep(AFTER_S)
            end_us = now_us()
        run = swarm.judged()
        recovery = Recovery(run, begin_us, end_us, from_us)
        proofs = [figure for proof in self.proofs for figure in proof(run, recovery, fleet, begin_us, end_us)]
        return self.judge(figures, swarm, run, recovery, proofs)

    def judge(self, figures, swarm, run, recovery, proofs):
        interruption = self.single and self.faults[0].since == INTERRUPTION
        times_s = recovery.interrupted_s if interruption else recovery.whole_s
        p = lambda percent: percentile(times_s, percent)
        with figures.lock:
            counters = swarm.result["counters"]
            inline = sum(counters[f"violations_{what}"] for what in ("roster", "order", "protocol"))
            add = lambda name, *rest: figures.add(f"{self.name}.{name}", *rest)
            ok = add("interruption_p99" if interruption else "whole_again_p99", p(99), "s", "<=", self.bound_s)
            for proof in proofs:
                ok &= add(*proof)
            if not all(fault.harmless for fault in self.faults):
                ok &= add("affected", recovery.affected, "clients", ">=", 1)
            if all(fault.quiet for fault in self.faults):
                ok &= add("disconnects_seen", recovery.disconnects, "count", "==", 0)
            ok &= add("lost", run.lost(), "messages", "==", 0)
            ok &= add("doubled", run.violations_of(DOUBLED), "messages", "==", 0)
            ok &= add("violations_of_history", len(run.violations), "count", "==", 0)
            ok &= add("violations_seen_by_clients", inline, "count", "==", 0)
            since = "" if self.single and self.faults[0].since == FROM_BEGIN else " i" if interruption else " e"
            self.row = (self.name, self.participants, recovery.affected, recovery.disconnects, f"{p(50):.2f}", f"{p(99):.2f}",
                        f"{p(100):.2f}", f"{self.bound_s:g}{since}", run.count("SENT"), run.lost(), run.violations_of(DOUBLED))
            if run.violations:
                print(f"{self.name}: {run.story()}", flush=True)
        return ok


class Crowd(Case):
    """A gateway killed with 2,000 clients on it: nobody else may notice."""

    def __init__(self):
        super().__init__([SINGLE[0]], CROWD_PER_GATEWAY * 2)
        self.name, self.bound_s = "gateway_kill_2000", CROWD_BOUND_S

    def run(self, fleet, figures):
        with Swarm(fleet, ARTIFACTS / self.name, self.participants, messages_per_min=6, mutes_per_min=0) as swarm:
            time.sleep(BEFORE_S)
            clients = fleet.metrics_of("gateway-1")["active_websocket_connections"]
            self.aim(fleet)
            begin_us, _ = self.befall(fleet, swarm)
            fleet.wait_connections(self.participants, self.bound_s * 2)
            time.sleep(AFTER_S)
            end_us = now_us()
        fleet.restore()
        run = swarm.judged()
        recovery = Recovery(run, begin_us, end_us)
        ok = self.judge(figures, swarm, run, recovery, [])
        back_s = [((outage.end_us or end_us) - begin_us) / 1e6 for judge in run.judges for outage in judge.outages]
        with figures.lock:
            add = lambda name, *rest: figures.add(f"{self.name}.{name}", *rest)
            ok &= add("clients", clients, "count", ">=", CROWD_PER_GATEWAY)
            ok &= add("back_worst", max(back_s, default=0), "s", "<=", CROWD_BOUND_S)
            ok &= add("disconnects", recovery.disconnects, "count", "==", clients)
            ok &= add("recovered", 100 * recovery.recovered / max(1, recovery.disconnects), "percent", "==", 100)
            ok &= add("joins_and_leaves_seen", recovery.joins_seen + recovery.leaves_seen, "count", "==", 0)
        return ok


class Results(Figures):
    """Two lanes print, one case at a time."""

    def __init__(self):
        super().__init__()
        self.lock = threading.RLock()
        self.passed, self.failed = [], []

    def run_lane(self, cases):
        """One cluster for many cases: a case that fails may leave it in a state that the next must not suffer from."""
        fleet = None
        for case in cases:
            began = time.monotonic()
            try:
                fleet = fleet or Fleet(gateways=2, shards=3, nats=3, gateway=GATEWAY)
                ok = case.run(fleet, self)
            except Exception:
                ok = False
                with self.lock:
                    print(f"{case.name}: {traceback.format_exc()}", flush=True)
                if fleet is not None:
                    fleet.abandon()
                fleet = None
            with self.lock:
                (self.passed if ok else self.failed).append(case.name)
                print(f"{'ok' if ok else 'not ok'} {case.name} ({time.monotonic() - began:.1f} s)", flush=True)
        if fleet is not None:
            try:
                fleet.stop()
            except AssertionError as error:
                with self.lock:
                    print(error)
                    self.failed.append("a process ended badly")

    def table(self, cases):
        lines = ["".join(title.ljust(width) for title, width in COLUMNS)]
        lines += ["".join(str(cell).ljust(width) for cell, (_, width) in zip(case.row, COLUMNS)) for case in cases if case.row]
        return "\n".join(line.rstrip() for line in lines)


def choose(args):
    every = [Case([fault]) for fault in SINGLE + WHOLE] + [Crowd()]
    pairs = [Case(list(pair)) for pair in itertools.combinations(SINGLE, 2)]
    if args.cases:
        named = {case.name: case for case in every + pairs}
        unknown = [name for name in args.cases if name not in named]
        if unknown:
            sys.exit(f"there is no case {', '.join(unknown)}; there are: {' '.join(named)}")
        return [named[name] for name in args.cases]
    if args.slice:
        part, parts = map(int, args.slice.split("/"))
        if not 1 <= part <= parts:
            sys.exit(f"--slice: there is no part {part} of {parts}")
        return pairs[part - 1::parts]
    if not args.all:
        pairs = random.Random(args.seed).sample(pairs, DRAWN_PAIRS)
    return every + pairs


def lanes_of(cases):
    """The long ones are spread over the lanes; the crowd needs the machine for itself, so it comes apart."""
    lanes = [[] for _ in range(LANES)]
    lasts_s = lambda case: sum(fault.lasts_s for fault in case.faults) + 12
    for case in sorted((case for case in cases if not isinstance(case, Crowd)), key=lasts_s, reverse=True):
        min(lanes, key=lambda lane: sum(map(lasts_s, lane))).append(case)
    return [lane for lane in lanes if lane], [case for case in cases if isinstance(case, Crowd)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true", default=bool(os.environ.get("SIGNALBOX_TEST_ALL")))
    parser.add_argument("--slice", metavar="K/N")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    cases = choose(args)
    print(f"seed {args.seed}: {len(cases)} cases", flush=True)
    results = Results()
    lanes, alone = lanes_of(cases)
    with concurrent.futures.ThreadPoolExecutor(LANES) as executor:
        list(executor.map(results.run_lane, lanes))
    if alone:
        results.run_lane(alone)
    table = results.table(cases)
    results.write("faults", seed=args.seed, columns=[title for title, _ in COLUMNS], table=[case.row for case in cases if case.row])
    print(f"\n{table}\n\nTime to whole again is that of the people affected (e: from the fault's end; "
          f"i: the longest interruption). Seed {args.seed}; build/faults.json has the figures.")
    for name in results.failed:
        print(f"FAILED {name}")
    print(f"{len(results.passed)} passed, {len(results.failed)} failed", flush=True)
    return 1 if results.failed else 0


if __name__ == "__main__":
    sys.exit(main())
