#!/usr/bin/python3
"""The documents hold to the program: every configuration in them is accepted, the table of errors is the code's, every metric is told of
and exists, promtool takes the alert rules, links lead somewhere, and the manual pages and completions know every command."""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAM = os.environ["GUESTAGENT_BIN"]


def run(*argv):
    return subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def metrics_of_the_code():
    found = set()
    for name, more in re.findall(r'family\("(guestagent_\w+)"( \+ thread \+ "_running")?', (ROOT / "agent/metrics.cc").read_text()):
        found |= {f"{name}{thread}_running" for thread in ("io_thread", "sql_thread")} if more else {name}
    return found


class Documents(unittest.TestCase):
    def test_every_configuration_is_accepted(self):
        count = 0
        for doc in DOCS:
            for block in re.findall(r"```yaml\n(.*?)```", doc.read_text(), re.S):
                count += 1
                with self.subTest(doc=doc.name, block=block[:60]), tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                    file.write(block)
                    file.flush()
                    done = run(PROGRAM, "--config", file.name, "check-config", "--syntax-only")
                    self.assertEqual(done.returncode, 0, done.stdout)
        self.assertGreaterEqual(count, 5)

    def test_errors_are_the_codes(self):
        rows = re.findall(r'\{Code::\w+, "(\w+)", (-\d+), (\d+)\}', (ROOT / "base/error.cc").read_text())
        told = re.findall(r"^\| `(\w+)` \| (-\d+) \| (\d+) \|", (ROOT / "docs/errors.md").read_text(), re.M)
        self.assertEqual(len(rows), 13)
        self.assertEqual(sorted(told), sorted(rows))
        page = (ROOT / "packaging/man/guestagent.1").read_text()
        for code, _, status in rows:
            self.assertRegex(page, rf"(?m)^{status}\t{code}\b")

    def test_metrics_are_told_of_and_exist(self):
        told = set(re.findall(r"^\| `(guestagent_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.M))
        self.assertEqual(told, metrics_of_the_code())

    def test_alert_rules(self):
        rules = ROOT / "docs/alerts.yaml"
        done = run("promtool", "check", "rules", rules)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout, r"SUCCESS: [1-9]\d* rules found")
        used = set(re.findall(r"\bguestagent_\w+", rules.read_text()))
        self.assertEqual(used - metrics_of_the_code(), set())

    def test_links_lead_somewhere(self):
        for doc in DOCS:
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", doc.read_text()):
                if "://" not in target:
                    self.assertTrue((doc.parent / target).exists(), f"{doc.name}: {target}")

    def test_commands_are_in_the_page_and_the_completions(self):
        overview = run(PROGRAM, "--help").stdout
        commands = set(re.findall(r"^  guestagent ([a-z-]+) ", overview, re.M))
        self.assertIn("doctor", commands)
        for file in ("packaging/man/guestagent.1", "packaging/completion/guestagent.bash", "packaging/completion/_guestagent"):
            text = (ROOT / file).read_text().replace("\\-", "-")
            for command in commands:
                self.assertIn(command, text, file)


if __name__ == "__main__":
    unittest.main(verbosity=2)
