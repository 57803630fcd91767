"""A judge that finds nothing proves nothing: histories with one planted violation each must be found out, and a good
history, with everything in it that is allowed, must not."""
import pathlib
import re
import tempfile
import unittest

import history
from history import RECORD, Run

HEADER = (pathlib.Path(__file__).parents[1] / "load" / "history.h").read_text()
KINDS = re.findall(r"^    X\((\w+), ", HEADER, re.M)
A, B, C, A2, NOBODY = 0xA1, 0xB1, 0xC1, 0xA2, 0xEE
ANN, BEA, CEE = 0, 1, 2


def good():
    """Three in a room; Ann's connection breaks and resumes; she leaves and comes anew, while a message to her is under way."""
    story = [("SEAT", who, who, 0, 7, 3) for who in (ANN, BEA, CEE)]
    for who, tag in ((ANN, A), (BEA, B), (CEE, C)):
        story += [("SESSION", who, who, tag), ("WHOLE", who, who, tag)]
    story += [("SAW_JOIN", who, seat, tag) for who in (ANN, BEA, CEE) for seat, tag in ((0, A), (1, B), (2, C))]
    for number in (1, 2, 3):
        story += [("SENT", ANN, 1, B, number), ("DELIVERED", BEA, 0, A, number), ("SENT", BEA, 2, C, number)]
    story += [("DELIVERED", CEE, 1, B, number) for number in (1, 2, 3)]
    story += [("LOST", ANN, 0, A), ("SENT", BEA, 0, A, 1), ("RESUMED", ANN, 0, A, 1), ("WHOLE", ANN, 0, A),
              ("DELIVERED", ANN, 1, B, 1), ("SENT", BEA, 0, A, 2), ("ENDED", ANN, 0, A, 1), ("SAW_LEAVE", BEA, 0, A),
              ("UNDELIVERABLE", BEA, 0, A), ("SAW_LEAVE", CEE, 0, A), ("SESSION", ANN, 0, A2), ("WHOLE", ANN, 0, A2)]
    story += [("SAW_JOIN", who, 0, A2) for who in (ANN, BEA, CEE)]
    story += [("SAW_JOIN", ANN, 1, B), ("SAW_JOIN", ANN, 2, C), ("SENT", CEE, 0, A2, 1), ("DELIVERED", ANN, 2, C, 1)]
    for who, tag in ((ANN, A2), (BEA, B), (CEE, C)):
        story += [("CHECKED", who, who, tag, 1, 0)]
        story += [("LISTED", who, seat, listed) for seat, listed in ((0, A2), (1, B), (2, C))]
    return story


class HistoryTest(unittest.TestCase):
    def judge(self, story, marks=()):
        with tempfile.TemporaryDirectory() as directory:
            with open(pathlib.Path(directory) / "history-0.bin", "wb") as file:
                file.write(("signalbox history 1\n" + " ".join(KINDS)).encode().ljust(history.HEADER_SIZE, b"\0"))
                for i, (kind, who, seat, tag, number, value) in enumerate((*line, 0, 0)[:6] for line in story):
                    file.write(RECORD.pack(1_000_000 + i * 1000, tag, who, number, value, KINDS.index(kind), seat, 0))
            run = Run(directory, marks)
            return run, run.story()

    def assert_found(self, story, what, *texts):
        run, text = self.judge(story)
        self.assertIn(what, [violation.what for violation in run.violations], text)
        for part in texts:
            self.assertIn(part, text)
        self.assertIn("!!!", text)

    def replaced(self, old, *new):
        story = good()
        at = story.index(old)
        return story[:at] + list(new) + story[at + 1:]

    def test_nothing_is_found_in_a_good_history(self):
        run, text = self.judge(good())
        self.assertEqual(text, "")
        self.assertEqual((run.count("SENT"), run.count("DELIVERED"), run.lost()), (9, 8, 0))
        outages = [outage for judge in run.judges for outage in judge.outages]
        self.assertEqual([(outage.who, outage.resumed, outage.recovered) for outage in outages], [(ANN, True, True)])
        self.assertGreater(outages[0].end_us, outages[0].begin_us)

    def test_a_lost_message(self):
        story = self.replaced(("DELIVERED", CEE, 1, B, 3))
        self.assert_found(story, history.LOST, "sent 3 messages", "of which 2 had arrived")
        self.assertEqual(self.judge(story)[0].lost(), 1)

    def test_a_doubled_message(self):
        line = ("DELIVERED", CEE, 1, B, 2)
        self.assert_found(self.replaced(line, line, line), history.DOUBLED, "got message 2", "again")

    def test_reordered_messages(self):
        one, two = ("DELIVERED", CEE, 1, B, 1), ("DELIVERED", CEE, 1, B, 2)
        story = self.replaced(one, two)
        at = len(story) - story[::-1].index(two) - 1
        self.assert_found(story[:at] + [one] + story[at + 1:], history.REORDERED, "where 1 was due")

    def test_a_message_that_nobody_sent(self):
        line = ("DELIVERED", CEE, 1, B, 3)
        self.assert_found(self.replaced(line, line, ("DELIVERED", CEE, 1, B, 4)), history.INVENTED, "had sent 3")

    def test_a_changed_message(self):
        self.assert_found(self.replaced(("DELIVERED", CEE, 1, B, 3), ("GARBLED", CEE, 1, B, 3)), history.GARBLED)

    def test_a_receiver_declared_gone_who_is_there(self):
        line = ("DELIVERED", CEE, 1, B, 3)
        self.assert_found(self.replaced(line, line, ("UNDELIVERABLE", BEA, 2, C)), history.DECLARED_GONE)

    def test_a_ghost_join(self):
        line = ("SAW_JOIN", BEA, 2, C)
        self.assert_found(self.replaced(line, line, ("SAW_JOIN", BEA, 2, NOBODY)), history.GHOST, "00000000000000ee")

    def test_a_join_that_nobody_could_confirm_and_that_was_taken_back(self):
        line = ("SAW_JOIN", BEA, 2, C)
        story = self.replaced(line, ("SAW_JOIN", BEA, 2, NOBODY), ("SAW_LEAVE", BEA, 2, NOBODY), line)
        self.assertEqual(self.judge(story)[1], "")

    def test_a_session_that_joins_twice(self):
        line = ("SAW_JOIN", BEA, 2, C)
        self.assert_found(self.replaced(line, line, line), history.JOINED_TWICE, "a second time")
        line = ("SAW_LEAVE", CEE, 0, A)
        self.assert_found(self.replaced(line, line, ("SAW_JOIN", CEE, 0, A)), history.JOINED_TWICE, "though it had left")

    def test_a_session_that_leaves_twice(self):
        line = ("SAW_LEAVE", CEE, 0, A)
        self.assert_found(self.replaced(line, line, line), history.LEFT_TWICE)

    def test_a_leave_of_a_session_that_goes_on(self):
        line = ("LOST", ANN, 0, A)
        self.assert_found(self.replaced(line, line, ("SAW_LEAVE", BEA, 0, A)), history.FALSE_LEAVE, "whose session went on")
        line = ("SENT", CEE, 0, A2, 1)
        self.assert_found(self.replaced(line, line, ("SAW_LEAVE", BEA, 2, C)), history.FALSE_LEAVE)

    def test_a_missing_leave(self):
        self.assert_found(self.replaced(("LISTED", CEE, 0, A2), ("LISTED", CEE, 0, A)), history.MISSING_LEAVE, "is still")

    def test_a_ghost_in_a_roster(self):
        self.assert_found(self.replaced(("LISTED", CEE, 0, A2), ("LISTED", CEE, 0, NOBODY)), history.GHOST)

    def test_a_roster_without_somebody_who_is_there(self):
        self.assert_found(self.replaced(("LISTED", CEE, 0, A2)), history.MISSING_JOIN, "is not listed")

    def test_a_wrong_mute_state(self):
        self.assert_found(self.replaced(("LISTED", CEE, 1, B), ("LISTED", CEE, 1, B, 1)), history.WRONG_STATE)

    def test_somebody_who_did_not_come_back(self):
        self.assert_found(self.replaced(("CHECKED", ANN, 0, A2, 1, 0), ("CHECKED", ANN, 0, A2, 0, 0)), history.ABSENT)

    def test_a_resume_as_somebody_else(self):
        self.assert_found(self.replaced(("RESUMED", ANN, 0, A, 1), ("RESUMED", ANN, 0, B, 1)), history.STOLEN)

    def test_the_story_tells_what_was_done_and_what_led_to_it(self):
        line = ("DELIVERED", CEE, 1, B, 2)
        story = self.judge(self.replaced(line, line, line), [(1_000_000, "shard-2 killed")])[1]
        self.assertIn("*** shard-2 killed", story)
        self.assertIn("who 1: SENT seat 2", story)
        self.assertLess(story.index("shard-2 killed"), story.index("!!!"))


if __name__ == "__main__":
    unittest.main()
