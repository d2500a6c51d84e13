#!/usr/bin/python3
"""The systemd units: systemd-analyze finds nothing wrong, and what they leave open is little."""

import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

from agent import binary  # noqa: E402
from scratch import Scratch  # noqa: E402

UNITS = Path(__file__).resolve().parents[2] / "packaging/systemd"
MOST_EXPOSED = 4.0


class Units(unittest.TestCase):
    def setUp(self):
        self.scratch = self.enterContext(Scratch("units"))
        self.dir = self.scratch.dir / "units"
        shutil.copytree(UNITS, self.dir)
        for unit in self.dir.glob("*.service"):
            unit.write_text(
                unit.read_text().replace("/usr/bin/guestagent", binary()).replace("Documentation=", "#Documentation=")
            )

    def analyze(self, *words):
        done = subprocess.run(
            ["systemd-analyze", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout

    def test_verify(self):
        for unit in sorted(self.dir.iterdir()):
            with self.subTest(unit=unit.name):
                said = [
                    line for line in self.analyze("verify", "--man=no", unit)[1].splitlines() if "guestagent" in line
                ]
                self.assertEqual(said, [])

    def test_verify_finds_what_is_wrong(self):
        unit = self.dir / "guestagent.service"
        unit.write_text(unit.read_text().replace("Type=notify", "Type=notifyy"))
        self.assertIn("notifyy", self.analyze("verify", "--man=no", unit)[1])

    def test_exposure(self):
        for unit in sorted(self.dir.glob("*.service")):
            status, said = self.analyze("security", "--offline=yes", unit)
            found = re.search(r"exposure level for \S+: ([\d.]+)", said)
            self.assertTrue(found, said)
            print(f"{unit.name}: {found.group(1)}", file=sys.stderr)
            self.assertLess(float(found.group(1)), MOST_EXPOSED, said)

    def test_a_host_without_configuration_is_skipped(self):
        """The unit's own condition, run on what may stand in the file."""
        line = next(
            x for x in (UNITS / "guestagent.service").read_text().splitlines() if x.startswith("ExecCondition=")
        )
        pattern = re.search(r'"((?:[^"\\]|\\.)*)"', line).group(1).replace('\\"', '"')
        shipped = (UNITS.parents[1] / "config/guestagent.yaml").read_text()
        cases = [
            (shipped, 1),
            (shipped.replace("  advertised_address:\n", "  advertised_address: db1.example.org\n"), 0),
            ("mysql: {advertised_address: db1}\n", 0),
            ("mysql:\n  'advertised_address' : \"::1\"\n", 0),
            ("mysql:\n  advertised_address: # later\n", 1),
            ("", 1),
        ]
        for text, wanted in cases:
            with self.subTest(text=text[-60:]):
                file = self.scratch.dir / "guestagent.yaml"
                file.write_text(text)
                self.assertEqual(subprocess.run(["grep", "-Eq", pattern, str(file)]).returncode, wanted)


if __name__ == "__main__":
    unittest.main(verbosity=2)
