#!/usr/bin/python3
"""The documents hold to the program: every configuration in them is accepted, the table of errors is the code's, every metric is told of
and exists, the reference of the RPC has every method, param and code, promtool takes the alert rules, links lead somewhere, and the manual
pages and completions know every command."""

import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAM = os.environ["GUESTAGENT_BIN"]


def run(*argv):
    return subprocess.run(
        [str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def metrics_of_the_code():
    # The datastore names its threads and what it counts.
    status = (ROOT / "strategies/mysql/follow/status.cc").read_text()
    own = {
        "": [""],
        'thread.name + "_running"': [f"{name}_running" for name in re.findall(r'\{"(\w+)", channel\.\w+', status)],
        "number.name": re.findall(r'\{"(\w+)", "[^"]+", channel\.\w+', status),
    }
    return {
        name + more
        for name, what in re.findall(
            r'family\("(guestagent_\w+)"(?: \+ ([^,]+))?', (ROOT / "agent/metrics.cc").read_text()
        )
        for more in own[what]
    }


class Documents(unittest.TestCase):
    def test_every_configuration_is_accepted(self):
        count = 0
        for doc in DOCS:
            for block in re.findall(r"```yaml\n(.*?)```", doc.read_text(), re.S):
                count += 1
                with self.subTest(doc=doc.name, block=block[:60]), tempfile.NamedTemporaryFile(
                    "w", suffix=".yaml"
                ) as file:
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

    def test_the_rpc_reference_is_the_dispatchers(self):
        code = (ROOT / "agent/methods.cc").read_text()
        rows = re.findall(r'\{"(\w+)",\s+MethodKind::(\w+),\s+\{((?:\{[^}]*\}[,\s]*)*)\}', code)
        rows = [(name, how, ", ".join(re.findall(r'\{("\w+")', params))) for name, how, params in rows]
        self.assertEqual(len(rows), 21)
        text = (ROOT / "docs/rpc.md").read_text()
        told = {name: part for name, part in re.findall(r"(?ms)^### `(\w+)`\n(.*?)(?=^##|\Z)", text)}
        self.assertEqual(sorted(told), sorted(name for name, _, _ in rows))
        for name, how, params in rows:
            with self.subTest(method=name):
                self.assertEqual(
                    re.findall(r"(?m)^\| `(\w+)` \| (?!required$)", re.split(r"\bResult\b", told[name])[0]),
                    re.findall(r'"(\w+)"', params),
                )
                kind = {"changing": "Changing job.", "reading": "Reading job.", "waiting": "Waiting job."}.get(how)
                self.assertEqual(
                    [k for k in ("Changing job.", "Reading job.", "Waiting job.") if told[name].lstrip().startswith(k)],
                    [kind] if kind else [],
                )
                sent = json.loads(re.search(r"```json\n(.*?)```", told[name], re.S).group(1))
                self.assertEqual(sent["method"], name)
                self.assertEqual(
                    set(sent.get("params", {})) - set(re.findall(r'"(\w+)"', params)) - {"async", "dry_run", "job_id"},
                    set(),
                )

    def test_examples_of_the_rpc_are_understood(self):
        """Each request goes to the program as it stands. Here is no database, no snapshot and no job: whatever else is wrong is the example's."""
        for block in re.findall(r"```json\n(.*?)```", (ROOT / "docs/rpc.md").read_text(), re.S):
            message = json.loads(block)
            if "method" not in message:
                continue
            with self.subTest(method=message["method"]), tempfile.TemporaryDirectory() as folder:
                config = Path(folder) / "guestagent.yaml"
                config.write_text(
                    f"agent: {{socket: {folder}/agent.sock, state_dir: {folder}/state}}\nstorage: {{local: {{path: /srv/guestagent}}}}\n"
                    f"mysql: {{advertised_address: db1, socket: {folder}/no.sock, data_dir: {folder}/data}}\n"
                )
                params = {k: v for k, v in message.get("params", {}).items() if k != "async"}
                done = run(PROGRAM, "--config", config, "--oneshot", message["method"], json.dumps(params))
                self.assertIn(done.returncode, (0, 15, 24), done.stdout)

    def test_codes_in_the_documents_exist(self):
        codes = set(re.findall(r'\{Code::\w+, "(\w+)"', (ROOT / "base/error.cc").read_text()))
        words = {w for doc in DOCS for w in re.findall(r"`([A-Z]+_[A-Z_]+|INTERNAL|BUSY|CANCELLED)`", doc.read_text())}
        self.assertEqual({w for w in words - codes if not w.startswith("GUESTAGENT_")}, set())

    def test_alert_rules(self):
        rules = ROOT / "docs/alerts.yaml"
        done = run("promtool", "check", "rules", rules)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout, r"SUCCESS: [1-9]\d* rules found")
        used = set(re.findall(r"\bguestagent_\w+", rules.read_text()))
        self.assertEqual(used - metrics_of_the_code(), set())

    def test_links_lead_somewhere(self):
        for doc in [*DOCS, *PAGES]:
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", doc.read_text()):
                if "://" not in target:
                    self.assertTrue((doc.parent / target).exists(), f"{doc.name}: {target}")

    def test_files_that_are_named_exist(self):
        """Sources and tests that the pages for developers name in the text."""
        count = 0
        for doc in [*DOCS, *PAGES]:
            for name in re.findall(
                r"`((?:base|net|stream|config|storage|strategies|agent|controller|tests)/[\w./-]+)`", doc.read_text()
            ):
                if "NAME" in name or "KIND" in name or "shelf" in name:
                    continue
                count += 1
                self.assertTrue((ROOT / name).exists(), f"{doc.name}: {name}")
        self.assertGreater(count, 60)

    def test_commands_that_are_typed_exist(self):
        """Each command line in a block of a page: its command, its method, its options."""
        methods = set(re.findall(r"^([a-z_]+)", run(PROGRAM, "help", "methods").stdout, re.M))
        overview = run(PROGRAM, "--help").stdout
        commands = set(re.findall(r"^  guestagent ([a-z-]+) ", overview, re.M))
        count = 0
        for doc in DOCS:
            for block in re.findall(r"```(?:sh)?\n(.*?)```", doc.read_text(), re.S):
                for words in re.findall(r"(?m)(?:^|[$|(] ?)guestagent ([^|\n#;&<>]+)", block):
                    words = [w for w in words.split() if w != "--config" and not w.strip('"').endswith(".yaml")]
                    with self.subTest(doc=doc.name, words=words):
                        count += 1
                        if words[0] in ("--oneshot", "call"):
                            self.assertIn(words[1], methods)
                        else:
                            self.assertIn(words[0], commands)
                            told = run(PROGRAM, words[0], "--help").stdout + overview
                            for option in words[1:]:
                                if option.startswith("--"):
                                    self.assertIn(option.split("=")[0], told)
        self.assertGreater(count, 20)

    def test_commands_are_in_the_page_and_the_completions(self):
        overview = run(PROGRAM, "--help").stdout
        commands = set(re.findall(r"^  guestagent ([a-z-]+) ", overview, re.M))
        self.assertIn("doctor", commands)
        for file in (
            "packaging/man/guestagent.1",
            "packaging/completion/guestagent.bash",
            "packaging/completion/_guestagent",
        ):
            text = (ROOT / file).read_text().replace("\\-", "-")
            for command in commands:
                self.assertIn(command, text, file)


if __name__ == "__main__":
    unittest.main(verbosity=2)
