"""What a fault did to the people in a run, from their histories."""
import collections
import threading
import time

# A message that took longer was held up by something: on a busy machine of two cores the quiet p99 is far below.
LATE_US = 250_000


def percentile(values, percent):
    """The smallest value that so many percent do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * percent // 100) - 1))] if ordered else 0


class Lateness:
    """How late this machine wakes a process that sleeps: what no server on it can be faster than."""

    STEP_S = 0.01

    def __init__(self):
        self.late_ms = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        while not self.ended.is_set():
            due = time.monotonic() + self.STEP_S
            time.sleep(self.STEP_S)
            self.late_ms.append((time.monotonic() - due) * 1000)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


class Recovery:
    """From `begin_us` to `end_us` of a run: who was affected, and how long until each was whole again.

    A participant is affected if its connection ended or a message from or to it came late. It is whole again when its last
    outage has ended and its last late message was delivered; that time counts from `from_us`, which is `begin_us` where the
    fault is over at once, and otherwise the moment at which it was mended. `interrupted_s`: how long the longest of its outages
    and late messages took.
    """

    def __init__(self, run, begin_us, end_us, from_us=None):
        from_us = from_us or begin_us
        whole, interrupted = collections.defaultdict(int), collections.defaultdict(int)
        self.disconnects = self.resumed = self.recovered = 0
        self.rooms = collections.defaultdict(int)
        for index, judge in enumerate(run.judges):
            for outage in judge.outages:
                if begin_us <= outage.begin_us <= end_us:
                    self.disconnects += 1
                    self.resumed += outage.resumed
                    self.recovered += outage.recovered
                    self.add(whole, (index, outage.who), outage.end_us or end_us)
                    self.add(interrupted, (index, outage.who), (outage.end_us or end_us) - outage.begin_us)
                    self.add(self.rooms, (index, outage.room), outage.end_us or end_us)
            for room, due_us, at_us, receiver, sender in judge.deliveries:
                if at_us - due_us > LATE_US and begin_us <= at_us and due_us <= end_us:
                    for who in (receiver, sender):
                        self.add(whole, (index, who), at_us)
                        self.add(interrupted, (index, who), at_us - due_us)
                    self.add(self.rooms, (index, room), at_us)
        self.affected = len(whole)
        self.whole_s = [max(0, at_us - from_us) / 1e6 for at_us in whole.values()]
        self.interrupted_s = [us / 1e6 for us in interrupted.values()]
        self.room_whole_s = {room: max(0, at_us - from_us) / 1e6 for room, at_us in self.rooms.items()}
        self.joins_seen = self.leaves_seen = 0
        for judge in run.judges:
            for at_us, kind, _, _ in judge.changes:
                if begin_us <= at_us <= end_us:
                    self.joins_seen += kind == "join"
                    self.leaves_seen += kind == "leave"

    @staticmethod
    def add(longest, who, us):
        longest[who] = max(longest[who], us)

    def p(self, percent):
        return percentile(self.whole_s, percent)


def latencies_ms(run, begin_us, end_us, rooms=None):
    """Of the messages that were due in this time; `rooms`: only of these (file, room)."""
    return [(at_us - due_us) / 1000 for index, judge in enumerate(run.judges)
            for room, due_us, at_us, _, _ in judge.deliveries
            if begin_us <= due_us <= end_us and (rooms is None or (index, room) in rooms)]


def pauses_ms(run, begin_us, end_us):
    """{(file, room): the longest that a message which was due in this time took}: with even traffic, how long nothing went
    through the room, to within the interval of its messages."""
    longest = collections.defaultdict(float)
    for index, judge in enumerate(run.judges):
        for room, due_us, at_us, _, _ in judge.deliveries:
            if begin_us <= due_us <= end_us:
                longest[index, room] = max(longest[index, room], (at_us - due_us) / 1000)
    return longest


def owners_at(run, at_us):
    """{(file, room): the owner's incarnation} as its members last heard by then."""
    owners = {}
    for index, judge in enumerate(run.judges):
        for moment_us, room, incarnation, _ in judge.takeovers:
            if moment_us <= at_us:
                owners[index, room] = incarnation
    return owners
