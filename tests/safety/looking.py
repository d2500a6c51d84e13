#!/usr/bin/python3
"""Looking changes nothing: around every read, every dry run and a scrape of the metrics the server and the agent's files are the same."""

import hashlib
import time
import unittest

from safetysite import *  # noqa: F403


class Looking(unittest.TestCase):
    ENGINE = "mariadb"

    @classmethod
    def setUpClass(cls):
        if cls.ENGINE != "mariadb":
            try:
                fetch(ENGINES[cls.ENGINE][0])
            except Unavailable as e:
                raise unittest.SkipTest(str(e))
        cls.site = cls.enterClassContext(Site("looking", by="oneshot", engine=cls.ENGINE))
        options = (SMALL[0], "binlog-expire-logs-seconds=86400")
        cls.source = cls.site.server("source", 1, options=options)
        seed_small(cls.source)
        cls.replica = cls.site.server("replica", 2, role="replica", options=options)
        # Leases that are over at once: what ends them is a change.
        config = {"mysql": {"lease_limit": "1s"}}
        cls.source_agent, cls.agent = cls.site.agent(cls.source, config=config), cls.site.agent(
            cls.replica, config=config
        )
        cls.snapshot = cls.source_agent.oneshot("get_replication_snapshot", {"snapshot_id": "one"})
        cls.agent.oneshot("attach_replication_slave", {"snapshot": cls.snapshot})
        # The first reading of such a table after a start makes the server log a statement.
        cls.source.sql("CREATE TABLE lab.mem (a INT) ENGINE=MEMORY; INSERT INTO lab.mem VALUES (1)")
        wait_for("the table", lambda: cls.replica.reached(cls.source.position(), 1), 30)
        cls.replica.restart()
        wait_for("replication", lambda: cls.replica.slave_status().get("Slave_IO_Running") == "Yes", 30)
        time.sleep(2.1)  # times in the records are kept to the second

    def state(self, server, agent):
        status = "SHOW MASTER STATUS" if self.ENGINE == "mariadb" else "SHOW BINARY LOG STATUS"
        return {
            "variables": server.sql("SHOW GLOBAL VARIABLES"),
            "accounts": server.sql("SELECT * FROM mysql.user ORDER BY User, Host"),
            "binary log": server.sql(status),
            "files": {
                str(p.relative_to(agent.dir)): (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest())
                for p in sorted(agent.state_dir.rglob("*"))
                if p.is_file() and p.parent.name != "jobs" and not p.name.endswith("lock")
            },
            "directory": sorted(p.name for p in server.dir.iterdir()) + sorted(p.name for p in server.data.iterdir()),
        }

    def unchanged(self, what, server, agent, look):
        before = self.state(server, agent)
        try:
            look()
        except (RpcError, OneshotError) as e:
            log(f"{what}: refused: {str(e).splitlines()[-1][:100]}")
        after = self.state(server, agent)
        for part in before:
            if isinstance(before[part], list):
                changed = [(a, b) for a, b in zip(before[part], after[part]) if a != b]
                self.assertEqual(changed, [], f"{what} on {server.name}: {part}")
            self.assertEqual(before[part], after[part], f"{what} on {server.name}: {part}")

    def calls(self):
        href = {"snapshot_href": self.snapshot["dataset"]["snapshot_href"]}
        attach = {"snapshot": self.snapshot, "slave_config": {"overwrite": True}}
        reads = [
            ("get_replication_status", {}),
            ("get_info", {}),
            ("list_replication_snapshots", {}),
            ("list_jobs", {}),
            ("get_job", {"job_id": "none"}),
            ("wait_job", {"job_id": "none", "timeout_s": 1}),
            ("verify_replication_snapshot", href),
            ("checksum_tables", {}),
            ("checksum_tables", {"tables": ["lab.mem"]}),
        ]
        dry = [
            ("get_replication_snapshot", {"snapshot_id": "dry"}),
            ("attach_replication_slave", attach),
            ("detach_replication_slave", {}),
            ("detach_replication_slave", {"force": True}),
            ("delete_replication_snapshot", href),
            ("cleanup_replication_source", {"replication_user": self.snapshot["replication_user"]["name"]}),
            ("verify_replication_snapshot", href),
            ("checksum_tables", {}),
        ]
        return reads + [(method, {**params, "dry_run": True}) for method, params in dry]

    def test_calls(self):
        for server, agent in ((self.replica, self.agent), (self.source, self.source_agent)):
            if server is self.source:
                server.sql("SELECT * FROM lab.mem")  # a source that logs what it lost tells its replicas so
            for method, params in self.calls():
                with self.subTest(server=server.name, method=method, dry="dry_run" in params):
                    self.unchanged(f"{method} {sorted(params)}", server, agent, lambda: agent.oneshot(method, params))
            for command in ("doctor", "check-config"):
                with self.subTest(server=server.name, command=command):
                    self.unchanged(command, server, agent, lambda: agent.command(command))
        self.assertEqual(self.replica.errant(), "")

    def test_daemon(self):
        for server, agent in ((self.replica, self.agent), (self.source, self.source_agent)):
            agent.start()
            for what, look in (
                ("/metrics", lambda: self.assertEqual(agent.get("/metrics")[0], 200)),
                ("status", lambda: agent.call("get_replication_status")),
            ):
                with self.subTest(server=server.name, what=what):
                    for last in (False, True):  # the daemon itself looks after leases, when it starts and each minute
                        try:
                            self.unchanged(what, server, agent, look)
                            break
                        except AssertionError:
                            if last:
                                raise
                            time.sleep(1)
            agent.stop()

    def test_the_next_changing_call_looks_after_leases(self):
        self.source.sql("DELETE FROM lab.mem")
        self.source_agent.oneshot("get_replication_snapshot", {"snapshot_id": "two"})
        self.source_agent.oneshot("get_replication_snapshot", {"snapshot_id": "three"})
        seen = [p.read_text() for p in (self.source_agent.state_dir / "accounts").glob("*.json")]
        self.assertEqual(len(seen), 3)
        self.assertIn('"last_seen":"2', " ".join(seen), "the replica's account was seen in use")


class LookingMysql(Looking):
    ENGINE = "mysql-clone"

    test_daemon = test_the_next_changing_call_looks_after_leases = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.source.sql("SET GLOBAL event_scheduler=OFF")


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
