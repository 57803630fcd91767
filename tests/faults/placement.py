"""scripts/test placement: rooms that move and owners that die, under steady traffic on real processes, judged by the
histories of the people in the rooms.

    placement.py [--rooms N] [CASE...]

Each case prints its figures; the last line counts the cases.
"""
import argparse
import shutil
import sys
import time
import traceback

from figures import Figures
from fleet import Fleet, now_us, wait_for
from history import DOUBLED
from load import Swarm
from measure import Lateness, Recovery, latencies_ms, owners_at, pauses_ms, percentile
from suite import ARTIFACTS

ROOM_SIZE = 4
MESSAGES_PER_MIN = 60  # and participant: a message every 250 ms in a room of 4
QUIET_S, AFTER_S = 4, 3
MOVED_TIMEOUT_S = 60
FEW_ROOMS = 150  # where NATS servers are lost


class Stage:
    """A case's figures: what was done between the start of the traffic and its end, and what it did to the people."""

    def __init__(self, name, fleet, figures, few=False):
        self.name, self.fleet, self.figures = name, fleet, figures
        self.rooms = min(FEW_ROOMS, fleet.rooms) if few else fleet.rooms
        self.swarm = Swarm(fleet, ARTIFACTS / f"placement-{name}", self.rooms * ROOM_SIZE, room_size=ROOM_SIZE,
                           messages_per_min=MESSAGES_PER_MIN, mutes_per_min=1, join_rate=500, processes=1)
        self.ok = True

    def __enter__(self):
        self.swarm.__enter__()
        time.sleep(1)
        self.quiet_us = now_us()
        time.sleep(QUIET_S)
        self.before = self.fleet.incarnations()
        self.lateness = Lateness().__enter__()
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.fleet.wait_connections(self.swarm.participants, 30)
            time.sleep(AFTER_S)
            self.end_us = now_us()
        self.lateness.__exit__()
        self.swarm.__exit__(kind, error, trace)
        if kind is None:
            self.run = self.swarm.judged()
            self.judge()

    def begin(self, text):
        self.begin_us = self.swarm.mark(text)

    def add(self, name, *rest):
        self.ok &= self.figures.add(f"{self.name}.{name}", *rest)

    def judge(self):
        counters = self.swarm.result["counters"]
        self.recovery = Recovery(self.run, self.begin_us, self.end_us)
        self.add("machine_late_p99", percentile(self.lateness.late_ms, 99), "ms")
        self.add("machine_late_worst", percentile(self.lateness.late_ms, 100), "ms")
        self.add("messages", self.run.count("SENT"), "count")
        self.add("disconnects", sum(len(judge.outages) for judge in self.run.judges), "count", "==", 0)
        self.add("lost", self.run.lost(), "messages", "==", 0)
        self.add("doubled", self.run.violations_of(DOUBLED), "messages", "==", 0)
        self.add("violations_of_history", len(self.run.violations), "count", "==", 0)
        self.add("violations_seen_by_clients", sum(counters[f"violations_{what}"] for what in ("roster", "order", "protocol")),
                 "count", "==", 0)
        self.add("joins_and_leaves_seen", self.recovery.joins_seen + self.recovery.leaves_seen, "count", "==", 0)
        if self.run.violations:
            print(f"{self.name}: {self.run.story()}", flush=True)

    def rooms_of(self, incarnation, at_us=None):
        owners = owners_at(self.run, at_us or self.begin_us)
        return {room for room, owner in owners.items() if owner == incarnation}

    def live_again(self, rooms, worst_bar_s, p99_bar_s=None):
        """How long the rooms of a lost owner could do nothing, and that the others' did not notice."""
        lives_s = [self.recovery.room_whole_s.get(room, 0) for room in rooms]
        self.add("rooms", len(rooms), "count", ">=", 1)
        self.add("live_again_p50", percentile(lives_s, 50), "s")
        self.add("live_again_p99", percentile(lives_s, 99), "s", *(("<=", p99_bar_s) if p99_bar_s else ()))
        self.add("live_again_worst", percentile(lives_s, 100), "s", "<=", worst_bar_s)
        others = set(owners_at(self.run, self.begin_us)) - set(rooms)
        quiet = latencies_ms(self.run, self.quiet_us, self.begin_us, others)
        during = latencies_ms(self.run, self.begin_us, self.begin_us + 5_000_000, others)
        self.add("others_delivery_p99_quiet", percentile(quiet, 99), "ms")
        self.add("others_delivery_p99_during", percentile(during, 99), "ms")

    def moves(self, rooms, share, low, high):
        """How many of the rooms moved, in how many steps, and how long they paused meanwhile."""
        steps = {}
        for index, judge in enumerate(self.run.judges):
            for at_us, room, owner, view in judge.takeovers:
                if at_us > self.begin_us and (index, room) in rooms:
                    steps.setdefault(view, set()).add((index, room))
        pauses = pauses_ms(self.run, self.begin_us, self.end_us)
        moved = [pauses[room] for room in rooms if room in pauses]
        self.add("moved", 100 * share, "percent", ">=", 100 * low)
        self.add("moved_at_most", 100 * share, "percent", "<=", 100 * high)
        self.add("steps", len(steps), "count", ">=", 2)
        self.add("largest_step", 100 * max(map(len, steps.values()), default=0) / self.rooms, "percent")
        self.add("pause_p50", percentile(moved, 50), "ms")
        self.add("pause_p99", percentile(moved, 99), "ms", "<=", 250)
        self.add("pause_worst", percentile(moved, 100), "ms")
        stayed = [pause for room, pause in pauses.items() if room not in rooms]
        self.add("others_pause_p99", percentile(stayed, 99), "ms")
        self.add("others_pause_worst", percentile(stayed, 100), "ms")


def wait_weights(fleet):
    """Every shard of the view has its whole weight."""
    def whole():
        shards = fleet.view()["shards"]
        return len(shards) == len(fleet.shard_names) and all(shard["weight"] == shard["fullWeight"] for shard in shards)
    wait_for(whole, "every shard at its whole weight", MOVED_TIMEOUT_S, 0.3)


def case_shard_joins(fleet, figures):
    wait_weights(fleet)
    with Stage("shard_joins", fleet, figures) as stage:
        stage.begin("shard-4 starts")
        fleet.shard_names.append("shard-4")
        fleet.launch("shard-4")
        fleet.wait_whole()
        wait_weights(fleet)
    owners = owners_at(stage.run, stage.end_us)
    rooms = {room for room, owner in owners.items() if owner not in stage.before.values()}
    stage.moves(rooms, len(rooms) / stage.rooms, 0.18, 0.32)
    return stage.ok


def case_shard_drains(fleet, figures):
    wait_weights(fleet)
    with Stage("shard_drains", fleet, figures) as stage:
        stage.begin("SIGTERM of shard-2")
        fleet.shard_names.remove("shard-2")
        began = time.monotonic()
        fleet.terminate("shard-2")
        drained_s = time.monotonic() - began
        fleet.wait_whole()
    rooms = stage.rooms_of(stage.before["shard-2"])
    after = owners_at(stage.run, stage.end_us)
    moved = sum(after[room] != stage.before["shard-2"] for room in rooms)
    others = set(after) - rooms
    before = owners_at(stage.run, stage.begin_us)
    stage.moves(rooms, moved / max(1, len(rooms)), 1, 1)
    stage.add("others_moved", sum(before[room] != after[room] for room in others), "rooms", "==", 0)
    stage.add("drained_in", drained_s, "s")
    stage.add("ended_badly", len(fleet.ended), "count", "==", 0)
    return stage.ok


def kill_shard(name, fleet, figures, shard, **bounds):
    wait_weights(fleet)
    with Stage(name, fleet, figures) as stage:
        stage.begin(f"kill -9 of {shard}")
        fleet.kill_all(shard)
        time.sleep(5)
    stage.live_again(stage.rooms_of(stage.before[shard]), **bounds)
    fleet.restore()
    return stage.ok


def case_shard_killed(fleet, figures):
    return kill_shard("shard_killed", fleet, figures, "shard-1", worst_bar_s=4, p99_bar_s=1.5)


def case_shard_frozen(fleet, figures):
    wait_weights(fleet)
    with Stage("shard_frozen", fleet, figures) as stage:
        stage.begin("SIGSTOP of shard-3")
        fleet.freeze("shard-3")
        time.sleep(10)
        stage.swarm.mark("SIGCONT of shard-3")
        fleet.thaw("shard-3")
        fleet.wait_whole()
    stage.live_again(stage.rooms_of(stage.before["shard-3"]), 4)
    stage.add("zombie_is_new", int(fleet.incarnations()["shard-3"] != stage.before["shard-3"]), "count", "==", 1)
    return stage.ok


# --- Three NATS servers ---


def cut_shard_off(name, fleet, figures, shard, worst_bar_s):
    """The shard lives in a network namespace of its own, whose only way to anywhere goes down."""
    with Stage(name, fleet, figures) as stage:
        stage.begin(f"the link of {shard}'s namespace goes down")
        fleet.set_link(shard, "down")
        time.sleep(8)
        stage.swarm.mark(f"the link of {shard}'s namespace is up again")
        fleet.set_link(shard, "up")
        fleet.wait_whole()
    stage.live_again(stage.rooms_of(stage.before[shard]), worst_bar_s)
    stage.add("zombie_is_new", int(fleet.incarnations()[shard] != stage.before[shard]), "count", "==", 1)
    return stage.ok


def case_shard_partitioned(fleet, figures):
    wait_weights(fleet)
    return cut_shard_off("shard_partitioned", fleet, figures, fleet.shards_in_company()[0], 4)


def lose_server(name, fleet, figures, choose, bound_s):
    wait_weights(fleet)
    with Stage(name, fleet, figures, few=True) as stage:
        server = choose()
        shards_on_it = fleet.shards_on(server)
        stage.begin(f"kill -9 of {server}")
        fleet.kill_all(server)
        time.sleep(10)
        after = fleet.incarnations()
        fleet.launch(server)
        fleet.wait_whole()
    stage.add("shards_on_it", shards_on_it, "count", ">=", 1)
    stage.add("shards_evicted", sum(after.get(shard) != incarnation for shard, incarnation in stage.before.items()), "count",
              "==", 0)
    stage.add("whole_again_p99", stage.recovery.p(99), "s", "<=", bound_s)
    stage.add("whole_again_worst", stage.recovery.p(100), "s")
    return stage.ok


def case_nats_leader_lost(fleet, figures):
    return lose_server("nats_leader_lost", fleet, figures,
                       lambda: fleet.move_log_leader(lambda leader: fleet.shards_on(leader) > 0), 10)


def case_nats_server_lost(fleet, figures):
    """One that does not lead the log and has shards on it."""
    def choose():
        def busiest_but(leader):
            return max((name for name in fleet.nats_names if name != leader), key=fleet.shards_on)
        return busiest_but(fleet.move_log_leader(lambda leader: fleet.shards_on(busiest_but(leader)) > 0))
    return lose_server("nats_server_lost", fleet, figures, choose, 10)


def case_nats_log_lost(fleet, figures):
    wait_weights(fleet)
    with Stage("nats_log_lost", fleet, figures, few=True) as stage:
        generation = fleet.view()["generation"]
        stage.begin("all NATS servers killed, their stores removed")
        fleet.kill_all(*fleet.nats_names)
        for name in fleet.nats_names:
            shutil.rmtree(fleet.directory / name)
        for name in fleet.nats_names:
            fleet.launch(name)
        back_us = stage.swarm.mark("NATS is there again, empty")
        fleet.wait_whole()
        wait_for(lambda: fleet.view()["generation"] > generation, "a new generation", MOVED_TIMEOUT_S)
        after = fleet.incarnations()
    stage.add("generations", fleet.view()["generation"] - generation, "count", ">=", 1)
    stage.add("shards_evicted", sum(after.get(shard) != incarnation for shard, incarnation in stage.before.items()), "count",
              "==", 0)
    whole = Recovery(stage.run, stage.begin_us, stage.end_us, back_us)
    stage.add("whole_again_p99", whole.p(99), "s", "<=", 15)
    return stage.ok


# --- A shard that has its NATS server for itself: only its second connection tells its end from that server's ---


def case_lone_shard_partitioned(fleet, figures):
    fleet.seclude()
    wait_weights(fleet)
    return cut_shard_off("lone_shard_partitioned", fleet, figures, fleet.alone, 4)


def case_lone_shard_killed(fleet, figures):
    fleet.seclude()
    return kill_shard("lone_shard_killed", fleet, figures, fleet.alone, worst_bar_s=4, p99_bar_s=1.5)


def case_lone_server_lost(fleet, figures):
    fleet.seclude()
    return lose_server("lone_server_lost", fleet, figures, lambda: fleet.nats_names[-1], 12)


SHARDS = ["shard-1", "shard-2", "shard-3"]
GROUPS = (
    (dict(gateways=2, shards=3, nats=1), [case_shard_joins, case_shard_drains, case_shard_killed, case_shard_frozen]),
    (dict(gateways=2, shards=3, nats=3, namespaces=SHARDS),
     [case_shard_partitioned, case_nats_leader_lost, case_nats_server_lost, case_nats_log_lost]),
    (dict(gateways=2, shards=3, nats=3, namespaces=["shard-3"], alone="shard-3"),
     [case_lone_shard_partitioned, case_lone_shard_killed, case_lone_server_lost]),
)


def name_of(case):
    return case.__name__.removeprefix("case_")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rooms", type=int, default=500)
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    known = [name_of(case) for _, cases in GROUPS for case in cases]
    unknown = set(args.cases) - set(known)
    if unknown:
        sys.exit(f"there is no case {', '.join(sorted(unknown))}; there are: {' '.join(known)}")
    figures, passed, failed = Figures(), [], []
    for options, cases in GROUPS:
        fleet = None
        for case in cases:
            if args.cases and name_of(case) not in args.cases:
                continue
            began = time.monotonic()
            try:
                fleet = fleet or Fleet(**options)
                fleet.rooms = args.rooms
                ok = case(fleet, figures)
            except Exception:
                ok = False
                traceback.print_exc(file=sys.stdout)
                if fleet is not None:
                    fleet.abandon()
                fleet = None
            (passed if ok else failed).append(name_of(case))
            print(f"{'ok' if ok else 'not ok'} {name_of(case)} ({time.monotonic() - began:.1f} s)", flush=True)
        if fleet is not None:
            try:
                fleet.stop()
            except AssertionError as error:
                print(error)
                failed.append("a process ended badly")
    figures.write("placement", passed=passed, failed=failed)
    for name in failed:
        print(f"FAILED {name}")
    print(f"{len(passed)} passed, {len(failed)} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
