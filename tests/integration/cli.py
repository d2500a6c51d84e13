#!/usr/bin/python3
"""The program as a person or a script meets it: help, versions, exit statuses, params by text, file and pipe, what goes to standard output
and what to standard error; and the daemon's jobs, events and files."""

import hashlib
import json
import os
import pty
import re
import stat
import subprocess
import unittest

from testsite import *  # noqa: F403


class CommandLine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.site = cls.enterClassContext(Site("cli"))
        cls.source = cls.site.server("source", 1)
        seed_small(cls.source)
        cls.agent = cls.site.agent(cls.source)
        cls.snapshot = cls.agent.call("get_replication_snapshot", {"snapshot_id": "kept", "job_id": "job-one"})
        cls.href = cls.snapshot["dataset"]["snapshot_href"]

    def guestagent(self, *arguments, **how):
        done = self.site.scratch.run(
            [binary(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
        )
        return done.returncode, done.stdout, done.stderr

    def test_help_and_version(self):
        status, out, err = self.guestagent("--help")
        self.assertEqual((status, err), (0, ""))
        for command in ("daemon", "call", "--oneshot", "check-config", "cat", "restore"):
            self.assertIn(command, out)
            sub = self.guestagent(command, "--help")
            self.assertEqual((sub[0], sub[2]), (0, ""), command)
            self.assertIn("usage" if command == "--help" else command, sub[1])
        status, out, err = self.guestagent("--version")
        self.assertEqual((status, err), (0, ""))
        self.assertRegex(out, r"^guestagent \d+\.\d+\.\d+")

    def test_what_is_mistyped(self):
        for arguments in (
            [],
            ["dance"],
            ["--nonsense"],
            ["call"],
            ["--oneshot"],
            ["cat"],
            ["restore", self.href],
            ["daemon", "twice"],
        ):
            with self.subTest(arguments=arguments):
                status, out, err = self.guestagent("--config", str(self.agent.config_file), *arguments)
                self.assertEqual((status, out), (2, ""), err)
                self.assertIn("hint: ", err)

    def test_no_configuration(self):
        missing = str(self.site.scratch.dir / "nowhere.yaml")
        self.assertEqual(self.guestagent("--config", missing, "doctor")[0], 15)
        for command in (["daemon"], ["--oneshot", "get_info"], ["check-config"], ["call", "get_info"]):
            status, out, err = self.guestagent("--config", missing, *command)
            self.assertEqual((status, out), (15, ""), err)
            self.assertIn(missing, err)

    def test_check_config(self):
        status, out, err = self.agent.command("check-config")
        self.assertEqual(status, 0, out + err)
        for word in ("config", "store", "server", "mariadb-backup", "managed file"):
            self.assertIn(word, out)
        self.assertNotIn("FAIL", out)

    def test_check_config_names_every_mistake(self):
        bad = self.site.scratch.dir / "bad.yaml"
        bad.write_text(
            "agent:\n  job_history_days: soon\n  sokcet: /tmp/x\nstorage:\n  store: swift\n  swift:\n    user: a:b\nmysql:\n"
            "  advertised_address:\n  lock_wait: 5 parsecs\n"
        )
        status, out, err = self.guestagent("--config", str(bad), "check-config")
        self.assertEqual(status, 2, err)
        for place in (
            r"agent\.job_history_days \(line 2\)",
            r"agent\.sokcet \(line 3\)",
            r"storage\.swift\.auth_url \(line \d+\): required",
            r"mysql\.advertised_address \(line 9\): required",
            r"mysql\.lock_wait \(line 10\)",
        ):
            self.assertRegex(err, place)

    def test_check_config_finds_what_is_missing(self):
        kept = self.agent.config
        try:
            self.agent.write_config({"mysql": {"socket": "/nonexistent/mysqld.sock"}})
            status, out, err = self.agent.command("check-config")
            self.assertEqual(status, 24, out + err)
            self.assertIn("FAIL  server", out)
            self.assertIn("->", out)
        finally:
            self.agent.config = kept
            self.agent.write_config()

    def test_check_config_syntax_only_connects_to_nothing(self):
        alone = self.site.scratch.dir / "alone.yaml"
        alone.write_text("mysql:\n  advertised_address: db1\n  socket: /nonexistent/mysqld.sock\n")
        status, out, err = self.guestagent("--config", str(alone), "check-config", "--syntax-only")
        self.assertEqual((status, err), (0, ""), out)
        alone.write_text("mysql:\n  advertised_address:\n")
        status, out, err = self.guestagent("--config", str(alone), "check-config", "--syntax-only")
        self.assertEqual((status, out), (2, ""), err)
        self.assertIn("mysql.advertised_address", err)

    def doctor(self, changes=None, *arguments):
        """(status, report as --json gives it, the same for people) with changes to the configuration, for this call only."""
        kept = self.agent.config
        try:
            self.agent.write_config(changes or {})
            status, out, err = self.agent.command("doctor", "--json", *arguments)
            again, text, err2 = self.agent.command("doctor", *arguments)
            self.assertEqual((status, err), (again, err2))
            return status, json.loads(out), text
        finally:
            self.agent.config = kept
            self.agent.write_config()

    def named(self, report, *results):
        return [c["name"] for c in report["checks"] if c["result"] in results]

    def test_doctor_of_a_good_host(self):
        before = self.site.store_files()
        status, report, text = self.doctor()
        self.assertEqual((status, report["ok"], self.named(report, "failed", "skipped")), (0, True, []), text)
        for name in (
            "config",
            "rights",
            "secret file",
            "data directory",
            "server control",
            "account's rights",
            "binary log",
            "store",
            "store's clock",
            "space for data",
            "clock",
        ):
            self.assertIn(name, self.named(report, "ok", "warning"), text)
        self.assertEqual(self.site.store_files(), before, "the doctor left something in the store")

    def test_doctor_names_what_to_fix_in_order(self):
        bad = self.site.scratch.dir / "doctor-bad.yaml"
        bad.write_text("agent:\n  sokcet: /tmp/x\nmysql:\n  advertised_address:\n")
        status, out, err = self.guestagent("--config", str(bad), "doctor", "--json")
        report = json.loads(out)
        self.assertEqual((status, [c["name"] for c in report["fix"]]), (2, ["config", "config"]), err)
        self.assertIn("agent.sokcet (line 2)", report["fix"][0]["message"])

        blocked = self.site.scratch.dir / "a-file"
        blocked.write_text("")
        status, report, text = self.doctor(
            {
                "mysql": {"data_dir": "/nonexistent/data", "socket": "/nonexistent/mysqld.sock"},
                "storage": {"local": {"path": str(blocked)}},
            }
        )
        self.assertEqual(status, 24, text)
        self.assertEqual([c["name"] for c in report["fix"]][:3], ["server", "data directory", "store"], text)
        self.assertTrue(all(c.get("hint") for c in report["fix"][:3]), text)
        self.assertRegex(text, r"(?s)To fix, in this order:\n  1\. server: .*\n  2\. data directory: .*\n  3\. store: ")
        self.assertIn("binary log", self.named(self.doctor()[1], "ok"))

        os.chmod(self.agent.password_file, 0o644)
        try:
            status, report, text = self.doctor()
            self.assertEqual((status, report["fix"][0]["name"]), (17, "secret file"), text)
            self.assertIn(str(self.agent.password_file), report["fix"][0]["message"])
            self.assertNotIn(self.agent.password, text)
        finally:
            os.chmod(self.agent.password_file, 0o600)

    def test_doctor_names_rights_that_are_missing(self):
        try:
            self.source.sql(
                f"SET sql_log_bin=0; REVOKE BINLOG MONITOR, READ_ONLY ADMIN ON *.* FROM '{self.agent.user}'@'localhost'"
            )
            status, report, text = self.doctor()
            found = next(c for c in report["fix"] if c["name"] == "account's rights")
            self.assertEqual((status, found["result"]), (17, "failed"), text)
            self.assertRegex(found["message"], "lacks BINLOG MONITOR, READ_ONLY ADMIN$")
        finally:
            self.source.sql(
                f"SET sql_log_bin=0; GRANT ALL PRIVILEGES ON *.* TO '{self.agent.user}'@'localhost' WITH GRANT OPTION"
            )

    def test_oneshot_params_and_result(self):
        status, out, err = self.agent.command("--oneshot", "get_info")
        self.assertEqual(status, 0, err)
        info = json.loads(out)
        self.assertEqual((info["host"]["server_id"], info["host"]["has_user_data"]), (1, True))
        for method in ("get_replication_snapshot", "attach_replication_slave", "detach_replication_slave", "get_job"):
            self.assertIn(method, info["methods"])
        params_file = self.site.scratch.dir / "params.json"
        params_file.write_text(json.dumps({"job_id": "job-one"}))
        answers = [
            self.agent.command("--oneshot", "get_job", '{"job_id": "job-one"}'),
            self.agent.command("--oneshot", "get_job", f"@{params_file}"),
            self.agent.command("--oneshot", "get_job", "-", stdin='{"job_id": "job-one"}'),
            self.agent.command("call", "get_job", "-", stdin='{"job_id": "job-one"}'),
        ]
        for status, out, err in answers:
            self.assertEqual(status, 0, err)
            self.assertEqual(json.loads(out)["result"], self.snapshot)

    def test_progress_and_log_go_to_standard_error(self):
        status, out, err = self.agent.command("--oneshot", "get_replication_snapshot", '{"snapshot_id": "lines"}')
        self.assertEqual(status, 0, err)
        self.assertEqual(json.loads(out)["snapshot"]["id"], "lines")
        self.assertRegex(err, r"progress: copy")
        phases = re.findall(r"msg=.?phase.? .*name=(\w+)", err)
        self.assertIn("copy", phases)
        self.assertTrue(all(a != b for a, b in zip(phases, phases[1:])), f"a phase is logged twice: {phases}")
        master, slave = pty.openpty()
        done = self.site.scratch.spawn(
            self.agent.argv("--oneshot", "get_replication_snapshot", '{"snapshot_id": "terminal"}'),
            stdout=subprocess.PIPE,
            stderr=slave,
        )
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        os.close(master)
        out = done.stdout.read()
        done.stdout.close()
        self.assertEqual(done.wait(), 0, shown)
        self.assertEqual(json.loads(out)["snapshot"]["id"], "terminal")
        self.assertIn(b"\r", shown)
        self.assertIn(b"copy", shown)

    def test_exit_statuses(self):
        for arguments, status in (
            (["get_everything"], 22),
            (["get_info", "{"], 2),
            (["get_info", '{"x": 1}'], 2),
            (["get_info", "@/nonexistent"], 15),
            (["get_replication_snapshot", '{"async": true}'], 2),
            (["get_job", '{"job_id": "nobody"}'], 15),
            (["get_replication_snapshot", '{"snapshot_id": "kept"}'], 16),
            (["detach_replication_slave"], 19),
        ):
            with self.subTest(arguments=arguments):
                got, out, err = self.agent.command("--oneshot", *arguments)
                self.assertEqual((got, out), (status, ""), err)
                self.assertRegex(err, r"(?m)^error: .+")
                self.assertRegex(err, r"(?m)^hint: .+")
                self.assertRegex(err, r"(?m)^code: [A-Z_]+$")

    def test_what_is_typed_in_another_way_is_shown_how(self):
        for arguments, hint in (
            (("--oneshot", "get_replication_snapshot", "snapshot_id=monday"), r"\{\"snapshot_id\""),
            (("--oneshot", "get_job", "[]"), r"\{\"snapshot_id\""),
            (("--oneshot", "get_job", "@/nonexistent"), "@FILE"),
            (("get_replication_status",), "guestagent call"),
        ):
            with self.subTest(arguments=arguments):
                got, out, err = self.agent.command(*arguments)
                self.assertEqual((got in (2, 15), out), (True, ""), err)
                self.assertRegex(err, rf"(?m)^hint: .*{hint}")

    def test_a_result_with_a_password_in_a_file_of_all_is_told(self):
        for mode, told in ((0o644, True), (0o640, True), (0o600, False)):
            with self.subTest(mode=oct(mode)):
                into = self.site.scratch.dir / f"result-{mode:o}"
                into.touch()
                into.chmod(mode)
                with open(into, "wb") as out:
                    asked = self.site.scratch.spawn(
                        self.agent.argv("--oneshot", "get_job", '{"job_id": "job-one"}'),
                        stdout=out,
                        stderr=subprocess.PIPE,
                    )
                    said = asked.stderr.read().decode()
                    asked.stderr.close()
                    self.assertEqual(asked.wait(), 0, said)
                self.assertEqual(json.loads(into.read_text())["result"], self.snapshot)
                self.assertEqual("others may read" in said, told, said)

    def test_call_without_daemon(self):
        kept = self.agent.config
        try:
            self.agent.write_config({"agent": {"socket": str(self.agent.dir / "nobody.sock")}})
            status, out, err = self.agent.command("call", "get_info")
            self.assertEqual((status, out), (24, ""), err)
            self.assertIn("nobody.sock", err)
        finally:
            self.agent.config = kept
            self.agent.write_config()

    def test_cat(self):
        done = self.site.scratch.run(self.agent.argv("cat", self.href), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 0, done.stderr)
        segments = Path(self.href.removeprefix("file://")).parent
        stock = subprocess.run(f"cat {segments}/segment-* | zstd -d", shell=True, stdout=subprocess.PIPE, check=True)
        self.assertEqual(hashlib.sha256(done.stdout).hexdigest(), hashlib.sha256(stock.stdout).hexdigest())
        self.assertEqual(len(done.stdout), self.snapshot["snapshot"]["raw_bytes"])
        status, out, err = self.agent.command("cat", self.href.replace("/kept/", "/other/"))
        self.assertEqual(status, 15, err)

    def test_restore(self):
        to = self.site.scratch.dir / "restored"
        status, out, err = self.agent.command("restore", self.href, "--to", str(to))
        self.assertEqual(status, 0, err)
        self.assertIn("mariadbd", out)
        look = MariaDB(self.site.scratch, "look", 5)
        look.data = to
        look.defaults_file.write_text(
            look.defaults_file.read_text().replace(f"datadir={look.dir / 'data'}", f"datadir={to}")
        )
        look.start()
        self.assertEqual(look.checksums(), self.source.checksums())
        look.stop()
        status, out, err = self.agent.command("restore", self.href, "--to", str(to))
        self.assertEqual(status, 19, err)
        self.assertTrue((to / "ibdata1").exists(), "a refused restore removed what was there")

    def test_jobs(self):
        again = self.agent.call("get_replication_snapshot", {"job_id": "job-one", "snapshot_id": "kept"})
        self.assertEqual(again, self.snapshot)
        with self.assertRaises(RpcError) as caught:
            self.agent.call("get_replication_snapshot", {"job_id": "job-one", "snapshot_id": "another"})
        self.assertEqual(caught.exception.code, "ALREADY_EXISTS")
        job = self.agent.call(
            "get_replication_snapshot", {"snapshot_id": "events", "async": True, "job_id": "job-events"}
        )
        self.assertEqual(job, {"job_id": "job-events"})
        events = list(self.agent.events("job-events"))
        self.assertEqual(events[-1]["state"], "succeeded")
        record = self.agent.call("wait_job", {"job_id": "job-events", "timeout_s": 5})
        self.assertEqual(
            (record["state"], record["method"], record["result"]["snapshot"]["id"]),
            ("succeeded", "get_replication_snapshot", "events"),
        )
        for key in ("started_at", "finished_at"):
            self.assertRegex(record[key], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        listed = self.agent.call("list_jobs")
        ids = [j["job_id"] for j in (listed if isinstance(listed, list) else listed["jobs"])]
        self.assertIn("job-one", ids)
        self.assertIn("job-events", ids)
        self.agent.stop()
        self.agent.start()
        self.assertEqual(self.agent.call("get_job", {"job_id": "job-one"})["result"], self.snapshot)

    def test_files_of_the_daemon(self):
        self.assertEqual(stat.S_IMODE(self.agent.socket.stat().st_mode), 0o660)
        for path in (self.agent.state_dir / "jobs").iterdir():
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, path)

    def test_second_daemon_and_stop(self):
        status, out, err = self.agent.command("daemon", timeout=30)
        self.assertEqual(status, 16, err)
        self.assertEqual(self.agent.get("/healthz")[0], 200, "the first daemon lost its socket")
        process = self.agent.process
        self.agent.stop()
        self.assertEqual(process.returncode, 0, self.agent.log_tail())
        self.assertFalse(self.agent.socket.exists(), "the socket file stays behind")
        self.agent.start()

    def test_http(self):
        status, text = self.agent.get("/metrics")
        self.assertEqual(status, 200)
        names = re.findall(rb"(?m)^([a-z_]+)(?:\{[^}]*\})? [0-9.e+-]+$", text)
        self.assertTrue(names and all(n.startswith((b"guestagent_", b"process_")) for n in names), text)
        self.assertTrue({b"guestagent_jobs", b"guestagent_rpc_requests_total"} <= set(names), "nothing to look at")
        check_metrics(text)
        for method, path, expected in (
            ("GET", "/nothing", 404),
            ("GET", "/rpc", 405),
            ("GET", "/jobs/nobody/events", 404),
        ):
            self.assertEqual(self.agent.request(method, path)[0], expected, path)
        done = subprocess.run(
            [
                "curl",
                "-sS",
                "--unix-socket",
                self.agent.socket,
                "-d",
                '{"jsonrpc":"2.0","id":1,"method":"get_info"}',
                "http://agent/rpc",
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
        self.assertEqual(json.loads(done.stdout)["id"], 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
