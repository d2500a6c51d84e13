#!/usr/bin/python3
"""What must be refused: with the right code, a hint, and nothing changed on source, target and store."""

import contextlib
import copy
import json
import subprocess
import unittest

from testsite import *  # noqa: F403


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.site = cls.enterClassContext(Site("bad"))
        cls.source = cls.site.server("source", 1)
        cls.target = cls.site.server("target", 2)
        seed_small(cls.source)
        cls.source_agent, cls.target_agent = cls.site.agent(cls.source), cls.site.agent(cls.target)
        # Small segments, so that there are several to damage.
        cls.source_agent.stop()
        cls.source_agent.write_config({"snapshot": {"segment_size": "1MiB"}})
        cls.source_agent.start()
        cls.snapshot = cls.source_agent.call("get_replication_snapshot", {"snapshot_id": "good"})
        cls.assertGreaterEqual(unittest.TestCase(), cls.snapshot["snapshot"]["segments"], 4)
        cls.dir = Path(cls.snapshot["dataset"]["snapshot_href"].removeprefix("file://")).parent

    # the state of all three, which a refusal leaves as it was

    def state(self):
        return {
            "store": self.site.store_files(),
            "source": self.server_state(self.source),
            "target": self.server_state(self.target),
            "left by the source's agent": self.site.leftovers(self.source_agent),
            "left by the target's agent": self.site.leftovers(self.target_agent),
        }

    def server_state(self, server):
        if not server.answers():
            return "down"
        return {
            "process": server.pid(),
            "accounts": server.sql(
                "SELECT user, host, JSON_VALUE(priv, '$.authentication_string') FROM mysql.global_priv ORDER BY 1, 2"
            ),
            "position": server.value("SELECT CONCAT(@@gtid_binlog_state, '|', @@gtid_slave_pos)"),
            "settings": server.sql(
                "SELECT @@server_id, @@read_only, @@log_bin, @@event_scheduler, @@expire_logs_days, @@binlog_expire_logs_seconds"
            ),
            "replication": server.slave_status().get("Master_Host"),
            "checksums": server.checksums(),
            "option files": {p.name: p.read_text() for p in server.conf_d.iterdir()},
            "directories": sorted(p.name for p in server.data.iterdir() if p.is_dir()),
        }

    @contextlib.contextmanager
    def refused(self, *codes, words=(), changes=()):
        """The block must raise an RpcError of one of `codes` with a hint, whose text has `words`; nothing may have changed but what
        `changes` names."""
        before = self.state()
        with self.assertRaises(RpcError) as caught:
            yield caught
        error = caught.exception
        self.assertIn(error.code, codes, str(error))
        self.assertTrue(error.hint, f"no hint: {error}")
        for word in words:
            self.assertIn(word, f"{error.message} {error.hint}")
        for agent in self.site.agents.values():
            if agent.password:
                self.assertNotIn(agent.password, str(error))
        after = self.state()
        for part in before:
            if part not in changes:
                self.assertEqual(before[part], after[part], f"{part} changed: {error}")

    def attach(self, snapshot=None, agent=None, **config):
        params = {"snapshot": snapshot or self.snapshot}
        if config:
            params["slave_config"] = config
        return (agent or self.target_agent).call("attach_replication_slave", params)

    @contextlib.contextmanager
    def damaged(self, path, change):
        """The object with `change` (bytes -> bytes, or None to remove it), and as it was afterwards."""
        original = path.read_bytes()
        new = change(original)
        path.unlink()
        if new is not None:
            path.write_bytes(new)
        try:
            yield
        finally:
            path.write_bytes(original)

    @contextlib.contextmanager
    def other_agent(self, server, **config):
        """An agent with a changed configuration in place of the usual one."""
        usual = self.source_agent if server is self.source else self.target_agent
        usual.stop()
        kept = usual.config
        try:
            usual.write_config(config)
            yield usual.start()
        finally:
            usual.stop()
            usual.config = kept
            usual.write_config()
            usual.start()

    # requests

    def test_unknown_method(self):
        with self.refused("UNIMPLEMENTED", "NOT_FOUND", words=["get_replication_snapshots"]) as caught:
            self.source_agent.call("get_replication_snapshots")
        self.assertEqual(caught.exception.number, -32601)

    def test_params_of_a_wrong_type(self):
        cases = [
            ("get_replication_snapshot", {"snapshot_id": 7}),
            ("get_replication_snapshot", {"compression": "rar"}),
            ("get_replication_snapshot", {"snapshot_id": "../etc"}),
            ("get_replication_snapshot", {"async": "yes"}),
            ("attach_replication_slave", {}),
            ("attach_replication_slave", {"snapshot": "here"}),
            ("attach_replication_slave", {"snapshot": self.snapshot, "slave_config": {"read_only": "yes"}}),
            ("attach_replication_slave", {"snapshot": self.snapshot, "slave_config": {"server_id": 0}}),
            ("attach_replication_slave", {"snapshot": self.snapshot, "slave_config": {"server_id": 4294967296}}),
            ("detach_replication_slave", {"drain_timeout_s": "long"}),
            ("detach_replication_slave", {"drain_timeout_s": -1}),
            ("delete_replication_snapshot", {}),
            ("get_job", {"job_id": 1}),
            ("wait_job", {"job_id": "a", "timeout_s": []}),
        ]
        for method, params in cases:
            with self.subTest(method=method, params=str(params)[:60]), self.refused("INVALID_ARGUMENT"):
                self.target_agent.call(method, params)

    def test_unknown_key_is_named(self):
        for method, params, key in [
            ("get_replication_snapshot", {"snapshot_idd": "x"}, "snapshot_idd"),
            ("attach_replication_slave", {"snapshot": self.snapshot, "slave_config": {"readonly": True}}, "readonly"),
            ("attach_replication_slave", {"snapshot": self.snapshot, "force": True}, "force"),
            ("list_jobs", {"all": True}, "all"),
        ]:
            with self.subTest(key=key), self.refused("INVALID_ARGUMENT", words=[key]):
                self.target_agent.call(method, params)

    def test_bytes_that_are_no_request(self):
        for body in (
            b"",
            b"{",
            b"[]",
            b"null",
            b"\xff\xfe",
            b'{"jsonrpc":"2.0"}',
            b'{"jsonrpc":"2.0","id":1,"method":7}',
            b"[" * 100000,
            b'{"jsonrpc":"2.0","id":1,"method":"get_info","params":[1]}',
            b'{"a":1,"a":2}',
        ):
            status, answer = self.source_agent.request("POST", "/rpc", body)
            self.assertIn("error", json.loads(answer), f"{body[:40]!r}: {status} {answer!r}")
        self.assertEqual(self.source_agent.get("/healthz")[0], 200)

    # snapshots

    def with_href(self, href):
        changed = copy.deepcopy(self.snapshot)
        changed["dataset"]["snapshot_href"] = href
        return changed

    def test_href_that_does_not_exist(self):
        href = self.snapshot["dataset"]["snapshot_href"].replace("/good/", "/nowhere/")
        with self.refused("NOT_FOUND", words=["nowhere"]):
            self.attach(self.with_href(href))

    def test_href_outside_of_the_store(self):
        for href in (
            "file:///etc/passwd",
            "http://127.0.0.1:1/other/good/manifest.json",
            "nonsense",
            self.snapshot["dataset"]["snapshot_href"].replace("/good/", "/../../good/"),
        ):
            with self.subTest(href=href), self.refused("PERMISSION_DENIED", "INVALID_ARGUMENT"):
                self.attach(self.with_href(href))
            with self.subTest(href=href), self.refused("PERMISSION_DENIED", "INVALID_ARGUMENT"):
                self.target_agent.call("delete_replication_snapshot", {"snapshot_href": href})

    def flip(self, at, bit=1):
        return lambda data: data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]

    def test_manifest_with_one_flipped_byte(self):
        path = self.dir / "manifest.json"
        size = path.stat().st_size
        for at in [*range(0, size, max(1, size // 25)), size - 1]:
            with self.subTest(at=at, near=path.read_bytes()[max(0, at - 20) : at + 20]), self.damaged(
                path, self.flip(at)
            ), self.refused("DATA_LOSS", "FAILED_PRECONDITION", "INVALID_ARGUMENT"):
                self.attach()

    def test_index_with_one_flipped_byte(self):
        path = self.dir / "index-000001.json"
        with self.damaged(path, self.flip(path.stat().st_size // 2)), self.refused(
            "DATA_LOSS", words=["index-000001.json"]
        ):
            self.attach()

    def test_segment_with_one_flipped_byte(self):
        for name in ("segment-00000001", f"segment-{self.snapshot['snapshot']['segments']:08}"):
            path = self.dir / name
            with self.subTest(name=name), self.damaged(path, self.flip(path.stat().st_size // 2)), self.refused(
                "DATA_LOSS", words=[name]
            ):
                self.attach()

    def test_segment_cut_short(self):
        with self.damaged(self.dir / "segment-00000002", lambda d: d[:-1]), self.refused(
            "DATA_LOSS", words=["segment-00000002"]
        ):
            self.attach()

    def test_missing_segment(self):
        with self.damaged(self.dir / "segment-00000003", lambda d: None), self.refused(
            "DATA_LOSS", words=["segment-00000003"]
        ):
            self.attach()

    def test_two_segments_swapped(self):
        a, b = self.dir / "segment-00000001", self.dir / "segment-00000002"
        one, two = a.read_bytes(), b.read_bytes()
        with self.damaged(a, lambda d: two), self.damaged(b, lambda d: one), self.refused("DATA_LOSS"):
            self.attach()

    def test_metadata_that_is_not_of_this_snapshot(self):
        changed = copy.deepcopy(self.snapshot)
        changed["snapshot"]["digest"] = "sha256:" + "0" * 64
        with self.refused("DATA_LOSS", "FAILED_PRECONDITION", "INVALID_ARGUMENT"):
            self.attach(changed)

    def test_snapshot_of_a_newer_major_version(self):
        changed = copy.deepcopy(self.snapshot)
        changed["dataset"]["datastore_version"] = "mariadb-12.1.2"
        with self.refused("FAILED_PRECONDITION", words=["12.1"]):
            self.attach(changed)

    def test_snapshot_of_another_family(self):
        changed = copy.deepcopy(self.snapshot)
        changed["dataset"]["datastore_version"] = "mysql-8.0.36"
        with self.refused("FAILED_PRECONDITION"):
            self.attach(changed)

    def test_what_a_reader_must_understand(self):
        changed = copy.deepcopy(self.snapshot)
        changed["snapshot"]["requires"] = ["time travel"]
        with self.refused("FAILED_PRECONDITION", words=["time travel"]):
            self.attach(changed)
        changed = copy.deepcopy(self.snapshot)
        changed["snapshot"]["format_version"] = 2
        with self.refused("FAILED_PRECONDITION"):
            self.attach(changed)

    # hosts

    def test_target_with_user_data(self):
        self.target.sql(
            "CREATE DATABASE precious; CREATE TABLE precious.t (id INT PRIMARY KEY); INSERT INTO precious.t VALUES (1)"
        )
        try:
            with self.refused("FAILED_PRECONDITION", words=["overwrite"]):
                self.attach()
        finally:
            self.target.sql("DROP DATABASE precious")

    def test_attach_of_the_source_to_itself(self):
        with self.refused("FAILED_PRECONDITION", "INVALID_ARGUMENT"):
            self.attach(agent=self.source_agent, overwrite=True)

    def test_detach_of_what_is_no_replica(self):
        with self.refused("FAILED_PRECONDITION"):
            self.target_agent.call("detach_replication_slave")

    def test_wrong_database_password(self):
        wrong = self.site.scratch.dir / "wrong-password"
        wrong.touch(mode=0o600)
        wrong.write_text("pw-that-is-wrong\n")
        with self.other_agent(self.source, mysql={"password_file": str(wrong)}) as agent, self.refused(
            "PERMISSION_DENIED", "UNAVAILABLE", "FAILED_PRECONDITION", words=["guestagent"]
        ) as caught:
            agent.call("get_replication_snapshot")
        self.assertNotIn("that-is-wrong", str(caught.exception))

    def test_missing_tool(self):
        empty = self.site.scratch.dir / "no-tools"
        empty.mkdir(exist_ok=True)
        for server, call in (
            (self.source, lambda a: a.call("get_replication_snapshot")),
            (self.target, lambda a: self.attach(agent=a)),
        ):
            with self.subTest(server=server.name), self.other_agent(
                server, mysql={"tools_dir": str(empty)}
            ) as agent, self.refused("FAILED_PRECONDITION", "NOT_FOUND", words=["mariadb-backup"]):
                call(agent)

    def test_second_job_while_one_runs(self):
        with self.other_agent(self.source, snapshot={"throttle": {"read": "256KiB"}}) as agent:
            first = agent.call("get_replication_snapshot", {"async": True, "job_id": "slow-one", "snapshot_id": "slow"})
            self.assertEqual(first["job_id"], "slow-one")
            wait_for(
                "the copy to begin",
                lambda: agent.call("get_job", {"job_id": "slow-one"})["progress"].get("done_bytes", 0) > 0,
            )
            with self.assertRaises(RpcError) as caught:
                agent.call("get_replication_snapshot", {"snapshot_id": "second"})
            self.assertEqual(
                (caught.exception.code, "slow-one" in str(caught.exception)), ("BUSY", True), str(caught.exception)
            )
            self.assertTrue(caught.exception.hint)
            with self.assertRaises(OneshotError) as second:
                agent.oneshot("get_replication_snapshot", {"snapshot_id": "third"})
            self.assertEqual(
                (second.exception.status, "slow-one" in second.exception.err), (30, True), str(second.exception)
            )
            agent.call("get_replication_status")  # reads do not wait
            agent.call("cancel_job", {"job_id": "slow-one"})
            record = agent.call("wait_job", {"job_id": "slow-one", "timeout_s": 60})
            self.assertEqual((record["state"], record["error"]["data"]["code"]), ("cancelled", "CANCELLED"))
            self.assertEqual(
                [n for n in self.site.store_files() if "slow" in n or "second" in n], [], "left by a cancelled snapshot"
            )
            self.assertEqual(self.site.leftovers(agent), [])
            self.assertEqual(self.source.value("SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'repl\\_%'"), "1")

    def test_snapshot_id_that_is_taken(self):
        with self.refused("ALREADY_EXISTS", words=["good"]):
            self.source_agent.call("get_replication_snapshot", {"snapshot_id": "good"})

    def test_full_disk_on_the_store(self):
        small = self.site.scratch.dir / "small-disk"
        small.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], stderr=subprocess.DEVNULL
        ).returncode:
            self.skipTest("a file system of limited size needs the right to mount")
        try:
            with self.other_agent(
                self.source,
                storage={"local": {"path": str(small / "store")}},
                snapshot={"compression": "none", "spill": {"max_size": 0}},
            ) as agent, self.refused("RESOURCE_EXHAUSTED", words=["space"], changes=["source"]):
                agent.call("get_replication_snapshot", {"snapshot_id": "toolarge"})
            self.assertEqual([str(p) for p in small.rglob("*") if p.is_file()], [], "left on the full disk")
            # The account was made and dropped again, which the binary log tells.
            self.assertEqual(self.source.value("SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'repl\\_%'"), "1")
        finally:
            subprocess.run(["umount", small], check=True)

    def test_source_without_binary_log(self):
        quiet = self.site.server("quiet", 9, log_bin=False)
        agent = self.site.agent(quiet)
        with self.refused("FAILED_PRECONDITION", words=["log_bin"]):
            agent.call("get_replication_snapshot")
        self.assertEqual(quiet.value("SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'repl\\_%'"), "0")
        agent.stop()
        quiet.stop()

    def test_source_with_settings_for_everybody(self):
        odd = self.site.server("odd", 11)
        agent = self.site.agent(odd)
        # A server without rights: nobody's can be asked for.
        rightless = odd.conf_d / "55-rightless.cnf"
        rightless.write_text("[mysqld]\nskip-grant-tables\n")
        odd.stop()
        odd.start()
        with self.refused("FAILED_PRECONDITION", words=["skip_grant_tables"]):
            agent.call("get_replication_snapshot")
        self.assertIn("skip_grant_tables", agent.command("doctor")[1])
        rightless.unlink()
        odd.stop()
        odd.start()
        # Limits that the backup tool would not survive.
        odd.sql("SET GLOBAL sql_select_limit=1; SET GLOBAL max_join_size=1")
        snapshot = agent.call("get_replication_snapshot", {"snapshot_id": "limits"})
        verified = agent.call("verify_replication_snapshot", {"snapshot_href": snapshot["dataset"]["snapshot_href"]})
        self.assertTrue(verified["ok"], verified)
        agent.call("delete_replication_snapshot", {"snapshot_href": snapshot["dataset"]["snapshot_href"]})
        agent.stop()
        odd.stop()

    def test_source_that_is_down(self):
        down = MariaDB(self.site.scratch, "down", 10)
        agent = Agent(self.site.scratch, down, self.site.store)
        agent.start()
        with self.refused("UNAVAILABLE", "FAILED_PRECONDITION"):
            agent.call("get_replication_snapshot")
        self.assertEqual(agent.call("get_replication_status")["verdict"], "unreachable")
        agent.stop()

    def test_zz_all_was_well(self):
        """The snapshot that was damaged and mended above, and the agents that refused all that, still do their work."""
        self.assertEqual(self.attach()["state"], "replica")
        self.assertIn(self.target_agent.call("get_replication_status")["verdict"], ("healthy", "lagging"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
