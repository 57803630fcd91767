"""The manual pages: made from the programs' own words, complete, and good roff."""

import re
import subprocess
import unittest

import nats_cluster as cluster

PROGRAMS = {"gateway/signalbox-gateway": ("--check-config", "SIGNALS", "EXIT STATUS", "placement_seed"),
            "shard/signalbox-shard": ("--print-metrics", "EXIT STATUS", "duplicate_identity"),
            "ctl/signalboxctl": ("--invite", "health", "EXIT STATUS")}


class ManualTest(unittest.TestCase):
    def test_pages(self):
        for program, wanted in PROGRAMS.items():
            page = subprocess.run([cluster.ROOT / "scripts" / "man", cluster.BUILD / program, "8"], capture_output=True, text=True)
            self.assertEqual((page.returncode, page.stderr), (0, ""))
            done = subprocess.run(["groff", "-man", "-ww", "-Tascii"], input=page.stdout, capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            text = re.sub(r".\x08|\x1b\[[\d;]*m", "", done.stdout)
            for part in wanted:
                self.assertIn(part, text, program)
            help_text = subprocess.run([cluster.BUILD / program, "--help"], capture_output=True, text=True).stdout
            for option in re.findall(r"^  (--[\w-]+)", help_text, re.MULTILINE):
                self.assertIn(option, text, program)


if __name__ == "__main__":
    unittest.main()
