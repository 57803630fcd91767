"""Judges a run of signalbox-swarm by what its participants wrote down (tests/load/history.h), apart from the checks that
they make while they run.

G1: every member of a room ends with the same, true roster; in the eyes of each peer each session joins once and leaves
once, and only when it is over. G2: directed messages arrive exactly once and in order for each (sender's session,
receiver's session), or their sender was told that the receiver has gone.

A room's members belong to one file, whose records are in the order in which they happened. Times are CLOCK_MONOTONIC.

    history.py DIRECTORY    judges build/.../history-*.bin; exit status 1 after telling the first violation's story
"""
import collections
import pathlib
import struct
import sys

HEADER_SIZE = 512
RECORD = struct.Struct("=qQIIIBBH")
Record = collections.namedtuple("Record", "at_us tag who number value kind seat")
Violation = collections.namedtuple("Violation", "at_us what text room whos tags path")

# What a checkpoint and a story say of a session; kinds of violation, which the tests plant one by one.
LOST, DOUBLED, REORDERED, INVENTED, GARBLED = "lost", "doubled", "reordered", "invented", "garbled"
GHOST, JOINED_TWICE, LEFT_TWICE, FALSE_LEAVE = "ghost", "joined twice", "left without being there", "false leave"
MISSING_LEAVE, MISSING_JOIN, WRONG_STATE, ABSENT = "missing leave", "missing join", "wrong state", "absent"
STOLEN, DECLARED_GONE = "resumed as another", "declared gone but alive"

STORY_BEFORE_US, STORY_AFTER_US, STORY_LINES = 8_000_000, 2_000_000, 40
TAG_TEXT = "{:016x}".format


def read_records(path):
    """Yields (at_us, tag, who, number, value, kind's name, seat)."""
    data = pathlib.Path(path).read_bytes()
    head = data[:HEADER_SIZE].rstrip(b"\0").decode().split("\n")
    if head[0] != "signalbox history 1":
        raise ValueError(f"{path} is not a history that this program can read")
    kinds = head[1].split()
    whole = HEADER_SIZE + (len(data) - HEADER_SIZE) // RECORD.size * RECORD.size
    for at_us, tag, who, number, value, kind, seat, _ in RECORD.iter_unpack(data[HEADER_SIZE:whole]):
        yield Record(at_us, tag, who, number, value, kinds[kind], seat)


class Person:
    """A participant, and what it has seen of its room in its present session."""

    def __init__(self, who, room, seat):
        self.who, self.room, self.seat = who, room, seat
        self.tag = None
        self.seen = {}  # session: True while it is in the roster
        self.lost_us = None


class Session:
    def __init__(self, person):
        self.person = person
        self.ended_us = None
        self.left_us = None  # when the first peer saw it leave, and who
        self.left_by = None


class Pair:
    """Directed messages from one session to another."""

    __slots__ = ("sent", "delivered", "first_open_us", "undeliverable", "sender", "receiver")

    def __init__(self, sender, receiver):
        self.sent = self.delivered = 0
        self.first_open_us = []
        self.undeliverable = None
        self.sender, self.receiver = sender, receiver


class Outage:
    """A joined connection that ended: until when its participant was whole again (None: never in this run)."""

    def __init__(self, room, who, begin_us, code):
        self.room, self.who, self.begin_us, self.code, self.end_us = room, who, begin_us, code, None
        self.resumed = self.recovered = False


class Judge:
    """One file's story, record by record."""

    def __init__(self, path):
        self.path = str(path)
        self.people, self.rooms, self.sessions, self.pairs = {}, {}, {}, {}
        self.violations = []
        self.lost = 0  # messages, at the last checkpoint
        self.checkpoint = []
        self.unknown = {}  # sessions seen that no participant has (yet) confirmed: who saw them, when
        # For whoever measures.
        self.deliveries = []  # (room, due_us, at_us, receiver, sender)
        self.outages = []
        self.takeovers = []  # (at_us, room, the owner's incarnation, the view in which it took the room)
        self.changes = []  # (at_us, kind, observer, tag) of joins and leaves seen
        self.counts = collections.Counter()

    def run(self, records):
        for record in records:
            self.take(record)
        self.judge_checkpoint()
        for tag, (record, person) in self.unknown.items():
            if tag not in self.sessions and person.seen.get(tag):
                self.blame(record.at_us, GHOST, f"{self.name(person)} saw {TAG_TEXT(tag)} join, a session that nobody has",
                           [person], [tag])
        self.violations.sort()
        return self

    def blame(self, at_us, what, text, people, tags):
        self.violations.append(Violation(at_us, what, text, people[0].room, tuple(p.who for p in people), tuple(tags),
                                         self.path))

    @staticmethod
    def name(person):
        return f"room {person.room} seat {person.seat}"

    def name_tag(self, tag):
        session = self.sessions.get(tag)
        return f"{TAG_TEXT(tag)} ({self.name(session.person)})" if session else f"{TAG_TEXT(tag)} (of nobody)"

    def take(self, record):
        if record.kind in ("CHECKED", "LISTED"):
            self.checkpoint.append(record)
            return
        if self.checkpoint:
            self.judge_checkpoint()
        self.counts[record.kind] += 1
        if record.kind == "SEAT":
            person = self.people[record.who] = Person(record.who, record.number, record.seat)
            self.rooms.setdefault(record.number, []).append(person)
        else:
            handler = getattr(self, "on_" + record.kind.lower(), None)
            if handler:
                handler(record, self.people[record.who])

    # --- Sessions

    def on_session(self, record, person):
        if person.tag is not None:
            self.end(person, record.at_us)
        person.tag, person.seen = record.tag, {}
        self.sessions[record.tag] = Session(person)

    def end(self, person, at_us):
        self.sessions[person.tag].ended_us = at_us
        person.tag = None

    def on_ended(self, record, person):
        if person.tag is not None:
            self.end(person, record.at_us)

    def on_resumed(self, record, person):
        if record.tag != person.tag:
            self.blame(record.at_us, STOLEN, f"{self.name(person)} resumed and was told to be {self.name_tag(record.tag)}",
                       [person], [record.tag])
        if person.lost_us is not None:
            person.lost_us.resumed, person.lost_us.recovered = True, bool(record.number)

    def on_whole(self, record, person):
        if person.lost_us is not None:
            person.lost_us.end_us, person.lost_us = record.at_us, None
        session = self.sessions.get(record.tag)
        if session is not None and session.left_us is not None:
            self.false_leave(session, record.tag)

    def on_lost(self, record, person):
        person.lost_us = Outage(person.room, person.who, record.at_us, record.value)
        self.outages.append(person.lost_us)

    def on_owner(self, record, person):
        self.takeovers.append((record.at_us, person.room, record.tag, record.number))

    # --- G1

    def on_saw_join(self, record, person):
        self.changes.append((record.at_us, "join", person.who, record.tag))
        if record.tag in person.seen:
            what = "again, though it had left" if not person.seen[record.tag] else "a second time"
            self.blame(record.at_us, JOINED_TWICE, f"{self.name(person)} saw {self.name_tag(record.tag)} join {what}", [person],
                       [record.tag])
        person.seen[record.tag] = True
        if record.tag not in self.sessions:
            self.unknown.setdefault(record.tag, (record, person))

    def on_saw_leave(self, record, person):
        self.changes.append((record.at_us, "leave", person.who, record.tag))
        if not person.seen.get(record.tag):
            self.blame(record.at_us, LEFT_TWICE, f"{self.name(person)} saw {self.name_tag(record.tag)} leave, who was not there",
                       [person], [record.tag])
        person.seen[record.tag] = False
        session = self.sessions.get(record.tag)
        if session is not None and session.left_us is None:
            session.left_us, session.left_by = record.at_us, person

    def false_leave(self, session, tag):
        self.blame(session.left_us, FALSE_LEAVE,
                   f"{self.name(session.left_by)} saw {self.name_tag(tag)} leave, whose session went on",
                   [session.left_by, session.person], [tag])
        session.left_us = None

    # --- G2

    def pair(self, sender, receiver):
        key = (sender, receiver)
        if key not in self.pairs:
            self.pairs[key] = Pair(sender, receiver)
        return self.pairs[key]

    def on_sent(self, record, person):
        pair = self.pair(person.tag, record.tag)
        pair.sent = record.number
        pair.first_open_us.append(record.at_us)

    def on_delivered(self, record, person):
        pair = self.pair(record.tag, person.tag)
        sender = self.sessions.get(record.tag)
        people = [person] + ([sender.person] if sender else [])
        story = f"{self.name(person)} got message {record.number} of {self.name_tag(record.tag)}"
        if record.number > pair.sent:
            self.blame(record.at_us, INVENTED, f"{story}, which had sent {pair.sent}", people, pair_tags(pair))
        elif record.number <= pair.delivered:
            self.blame(record.at_us, DOUBLED, f"{story} again, after {pair.delivered}", people, pair_tags(pair))
        elif record.number != pair.delivered + 1:
            self.blame(record.at_us, REORDERED, f"{story} where {pair.delivered + 1} was due", people, pair_tags(pair))
        pair.delivered = max(pair.delivered, record.number)
        if sender is not None:
            self.deliveries.append((person.room, record.at_us - record.value, record.at_us, person.who, sender.person.who))

    def on_garbled(self, record, person):
        self.blame(record.at_us, GARBLED, f"{self.name(person)} got a changed message of {self.name_tag(record.tag)}", [person],
                   [record.tag])

    def on_undeliverable(self, record, person):
        self.pair(person.tag, record.tag).undeliverable = record.at_us

    # --- Checkpoints

    def judge_checkpoint(self):
        states, listed, at_us = {}, collections.defaultdict(dict), 0
        for record in self.checkpoint:
            at_us = record.at_us
            if record.kind == "CHECKED":
                states[record.who] = (bool(record.number), bool(record.value))
            else:
                listed[record.who][record.seat] = (record.tag, bool(record.number))
        self.checkpoint = []
        for people in self.rooms.values():
            truth = {p.seat: (p.tag, states[p.who][1]) for p in people if p.who in states and states[p.who][0]}
            for person in people:
                if person.who not in states:
                    continue
                if person.seat in truth:
                    self.compare(at_us, person, truth, listed[person.who], people)
                else:
                    self.blame(at_us, ABSENT, f"{self.name(person)} did not come back", [person], [person.tag or 0])
        self.lost = sum(self.judge_pair(pair, at_us) for pair in self.pairs.values())

    def compare(self, at_us, person, truth, roster, people):
        session = self.sessions.get(person.tag)
        if session is not None and session.left_us is not None:
            self.false_leave(session, person.tag)
        for other in people:
            true, seen = truth.get(other.seat), roster.get(other.seat)
            if true == seen:
                continue
            story = f"{self.name(person)} at the checkpoint: seat {other.seat} "
            if seen is not None and (true is None or true[0] != seen[0]):
                session = self.sessions.get(seen[0])
                what = MISSING_LEAVE if session is not None else GHOST
                self.blame(at_us, what, f"{story}is still {self.name_tag(seen[0])}", [person, other], [seen[0]])
            elif seen is None:
                self.blame(at_us, MISSING_JOIN, f"{story}is not listed", [person, other], [true[0]])
            else:
                self.blame(at_us, WRONG_STATE, f"{story}has another mute state", [person, other], [true[0]])

    def judge_pair(self, pair, at_us):
        """How many of its messages are lost, where both sessions are there."""
        sender, receiver = self.sessions.get(pair.sender), self.sessions.get(pair.receiver)
        if not sender or not receiver or sender.ended_us or receiver.ended_us:
            return 0
        people = [sender.person, receiver.person]
        if pair.undeliverable is not None:
            self.blame(pair.undeliverable, DECLARED_GONE, f"{self.name(people[0])} was told that {self.name_tag(pair.receiver)} "
                       "has gone, who is there", people, pair_tags(pair))
        if pair.delivered < pair.sent and pair.undeliverable is None:
            self.blame(pair.first_open_us[pair.delivered], LOST, f"{self.name(people[0])} sent {pair.sent} messages to "
                       f"{self.name_tag(pair.receiver)}, of which {pair.delivered} had arrived by the checkpoint", people,
                       pair_tags(pair))
        return max(0, pair.sent - pair.delivered)


def pair_tags(pair):
    return [pair.sender, pair.receiver]


class Run:
    """All files of one run, judged."""

    def __init__(self, directory, marks=()):
        """`marks`: (at_us, text) of what was done to the cluster, for the story."""
        paths = sorted(pathlib.Path(directory).glob("history-*.bin"))
        if not paths:
            raise ValueError(f"{directory} holds no history")
        self.marks = sorted(marks)
        self.judges = [Judge(path).run(read_records(path)) for path in paths]
        self.violations = sorted(violation for judge in self.judges for violation in judge.violations)

    def count(self, kind):
        return sum(judge.counts[kind] for judge in self.judges)

    def lost(self):
        return sum(judge.lost for judge in self.judges)

    def violations_of(self, *kinds):
        return sum(violation.what in kinds for violation in self.violations)

    def story(self):
        """The first violation and what led to it; "" if there is none."""
        if not self.violations:
            return ""
        first = self.violations[0]
        begin_us, end_us = first.at_us - STORY_BEFORE_US, first.at_us + STORY_AFTER_US
        lines = [(at_us, f"*** {text}") for at_us, text in self.marks if begin_us <= at_us <= end_us]
        for record in read_records(first.path):
            ours = record.who in first.whos and (record.tag in first.tags or record.kind in ("LOST", "WHOLE", "OWNER", "MUTED", "ANSWERED"))
            if ours and begin_us <= record.at_us <= end_us:
                lines.append((record.at_us, self.line(record)))
        lines.append((first.at_us, f"!!! {first.what}: {first.text}"))
        lines.sort(key=lambda line: line[0])
        at = next(i for i, line in enumerate(lines) if line[1].startswith("!!!"))
        lines = lines[max(0, at - STORY_LINES * 3 // 4):][:STORY_LINES]
        kinds = collections.Counter(violation.what for violation in self.violations)
        head = f"{len(self.violations)} violations ({', '.join(f'{n} {what}' for what, n in kinds.items())}); the first:"
        return "\n".join([head] + [f"  {(at_us - first.at_us) / 1e6:+9.4f} s  {text}" for at_us, text in lines])

    @staticmethod
    def line(record):
        text = f"who {record.who}: {record.kind} seat {record.seat} {TAG_TEXT(record.tag)} number {record.number}"
        return text + (f" ({record.value / 1000:.1f} ms)" if record.kind in ("SENT", "DELIVERED", "RESUMED") else "")


def main():
    run = Run(sys.argv[1])
    print(run.story() or f"{run.count('SENT')} messages, {run.count('DELIVERED')} delivered, no violation")
    return 1 if run.violations else 0


if __name__ == "__main__":
    sys.exit(main())
