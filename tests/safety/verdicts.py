#!/usr/bin/python3
"""Every verdict of get_replication_status, each made with real servers, and the same in /metrics."""

import re
import unittest

from safetysite import *  # noqa: F403

VERDICTS = {"source", "healthy", "lagging", "broken", "diverged", "standalone", "restoring", "unreachable"}


class Verdicts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.site = cls.enterClassContext(Site("verdicts"))
        cls.source = cls.site.server("source", 1, options=SMALL)
        cls.replica = cls.site.server("replica", 2, options=SMALL)
        seed_small(cls.source)
        cls.proxy = cls.site.stack.enter_context(Proxy(cls.source.port))
        cls.source_agent = cls.site.agent(cls.source, config={"mysql": {"advertised_port": cls.proxy.port}})
        cls.agent = cls.site.agent(cls.replica, config={"mysql": {"lag_limit": "1s"}})
        cls.before = cls.verdict_of(cls.source_agent)[0], cls.verdict_of(cls.agent)[0]
        cls.snapshot = cls.source_agent.call("get_replication_snapshot")
        cls.attach()

    @classmethod
    def attach(cls):
        cls.agent.call("attach_replication_slave", {"snapshot": cls.snapshot, "slave_config": {"overwrite": True}})

    @staticmethod
    def verdict_of(agent):
        status = agent.call("get_replication_status")
        return status["verdict"], status

    def reaches(self, verdict, agent=None, timeout=60):
        """The status, once it has this verdict; /metrics must have it, too."""
        agent = agent or self.agent
        seen = []

        def look():
            got, status = self.verdict_of(agent)
            seen.append((got, status["reasons"]))
            return status if got == verdict else None

        try:
            status = wait_for(f"the verdict {verdict}", look, timeout, 0.3)
        except TimeoutError:
            self.fail(f"not {verdict} but {seen[-1]}")
        metrics = agent.get("/metrics")[1].decode()
        said = dict(re.findall(r'^guestagent_replication_verdict\{verdict="(\w+)"\} (\d)$', metrics, re.M))
        self.assertEqual(set(said), VERDICTS)
        self.assertEqual({v for v, n in said.items() if n == "1"}, {verdict})
        return status, metrics

    def value(self, metrics, name):
        found = re.search(rf"^guestagent_replication_{name} (\S+)$", metrics, re.M)
        return float(found.group(1)) if found else None

    def reasons(self, status, *words):
        text = " ".join(status["reasons"])
        for word in words:
            self.assertIn(word, text)

    def test_standalone(self):
        self.assertEqual(self.before, ("standalone", "standalone"))

    def test_source(self):
        status, _ = self.reaches("source", self.source_agent)
        self.assertEqual((status["role"], status["server_id"], status["read_only"]), ("source", 1, False))

    def test_healthy(self):
        status, metrics = self.reaches("healthy")
        self.assertEqual(status["reasons"], [])
        self.assertEqual(
            (status["role"], status["io_thread"], status["sql_thread"], status["read_only"]),
            ("replica", "running", "running", True),
        )
        self.assertEqual(status["source"], {"host": "127.0.0.1", "port": self.proxy.port, "server_id": 1})
        self.assertEqual(status["position"]["applied"]["gtid"], self.source.value("SELECT @@gtid_binlog_pos"))
        self.assertLess(status["lag_seconds"], 1)
        self.assertEqual(status["lag_transactions"], 0)
        self.assertGreater(status["relay_log_bytes"], 0)
        self.assertEqual(
            [
                self.value(metrics, n)
                for n in ("io_thread_running", "sql_thread_running", "read_only", "lag_transactions", "errant")
            ],
            [1, 1, 1, 0, 0],
        )
        self.assertLess(self.value(metrics, "lag_seconds"), 1)

    def test_nothing_is_written_on_the_source_to_measure(self):
        before = self.source.value("SELECT @@gtid_binlog_pos")
        for _ in range(3):
            self.verdict_of(self.agent)
        self.assertEqual(self.source.value("SELECT @@gtid_binlog_pos"), before)

    def test_lagging_by_what_it_has_not_applied(self):
        with self.replica.session() as lock:
            lock.run("BEGIN")
            lock.run("SELECT * FROM lab.t01 WHERE id = 1 FOR UPDATE")
            for n in range(5):
                self.source.sql(f"UPDATE lab.t01 SET amount = amount + 1 WHERE id = {5 - n}")
            status, metrics = self.reaches("lagging")
            self.assertEqual((status["io_thread"], status["sql_thread"]), ("running", "running"))
            self.assertGreaterEqual(status["lag_transactions"], 1)
            self.assertGreater(status["lag_seconds"], 1)
            self.assertGreater(self.value(metrics, "lag_seconds"), 1)
            self.reasons(status, "behind")
            lock.run("ROLLBACK")
        self.reaches("healthy")

    def test_lagging_by_what_it_has_not_received(self):
        self.source.sql("CREATE TABLE IF NOT EXISTS lab.big (n INT, body LONGTEXT)")
        self.reaches("healthy")
        self.proxy.limit(200_000)
        try:
            self.source.sql("INSERT INTO lab.big SELECT seq, REPEAT(MD5(seq), 1000) FROM lab.seq_1_to_100")
            status, _ = self.reaches("lagging")
            self.assertEqual((status["io_thread"], status["sql_thread"]), ("running", "running"))
            self.assertGreaterEqual(status["lag_transactions"], 1)
        finally:
            self.proxy.limit(None)
        self.reaches("healthy")

    def test_broken_where_a_thread_is_stopped(self):
        for thread in ("IO", "SQL"):
            with self.subTest(thread=thread):
                self.replica.sql(f"STOP SLAVE {thread}_THREAD")
                status, metrics = self.reaches("broken")
                self.assertEqual(status[f"{thread.lower()}_thread"], "stopped")
                self.assertEqual(self.value(metrics, f"{thread.lower()}_thread_running"), 0)
                self.assertNotIn("lag_seconds", status)
                self.replica.sql(f"START SLAVE {thread}_THREAD")
                self.reaches("healthy")

    def test_broken_where_the_source_is_gone(self):
        self.source.stop()
        try:
            self.proxy.cut()
            status, _ = self.reaches("broken")
            self.assertEqual(status["io_thread"], "connecting")
            self.assertEqual([e["thread"] for e in status["errors"]], ["io"])
        finally:
            self.source.start()
        self.reaches("healthy", timeout=90)

    def test_broken_where_the_account_is_gone(self):
        user = self.snapshot["replication_user"]["name"]
        self.source.sql(f"SET sql_log_bin=0; ALTER USER {user}@'%' ACCOUNT LOCK")
        try:
            self.proxy.cut()
            status, _ = self.reaches("broken")
            self.assertTrue(status["errors"], status)
        finally:
            self.source.sql(f"SET sql_log_bin=0; ALTER USER {user}@'%' ACCOUNT UNLOCK")
        self.replica.sql("STOP SLAVE; START SLAVE")
        self.reaches("healthy")

    def test_read_only_that_is_off_is_told(self):
        self.replica.sql("SET GLOBAL read_only=0")
        try:
            status, metrics = self.reaches("healthy")
            self.assertFalse(status["read_only"])
            self.assertEqual(self.value(metrics, "read_only"), 0)
            self.reasons(status, "read_only")
        finally:
            self.replica.sql("SET GLOBAL read_only=1")
        self.assertEqual(self.reaches("healthy")[0]["reasons"], [])

    def test_unreachable_and_back(self):
        self.replica.stop()
        status, _ = self.reaches("unreachable")
        self.assertTrue(status["reasons"])
        self.replica.start()
        self.reaches("healthy")

    def test_y1_diverged_by_a_transaction_of_its_own(self):
        self.replica.sql("INSERT INTO lab.t01 VALUES (900001, 'mine', 1)")
        status, metrics = self.reaches("diverged")
        self.assertEqual((status["io_thread"], status["sql_thread"]), ("running", "running"))
        self.assertIn(f"-{status['server_id']}-", status["errant"])
        self.assertEqual(self.value(metrics, "errant"), 1)
        self.attach()
        self.reaches("healthy")

    def test_y2_diverged_by_data_that_does_not_fit(self):
        self.replica.sql("SET sql_log_bin=0; INSERT INTO lab.t01 VALUES (900002, 'mine', 1)")
        self.source.sql("INSERT INTO lab.t01 VALUES (900002, 'the source''s', 1)")
        status, _ = self.reaches("diverged")
        self.assertEqual(status["sql_thread"], "stopped")
        error = [e for e in status["errors"] if e["thread"] == "sql"][0]
        self.assertEqual(error["code"], 1062)
        with self.assertRaises(RpcError) as refused:
            self.agent.call("detach_replication_slave")
        self.assertEqual(refused.exception.code, "FAILED_PRECONDITION")
        self.assertIn("1062", str(refused.exception))
        self.attach()
        self.reaches("healthy")

    def test_z_restoring(self):
        self.agent.stop()
        self.agent.start(env={"GUESTAGENT_FAILPOINT": "journal:switch.in=sleep:4000"})
        self.agent.call(
            "attach_replication_slave",
            {"snapshot": self.snapshot, "slave_config": {"overwrite": True}, "async": True, "job_id": "again"},
        )
        self.reaches("restoring")
        record = self.agent.call("wait_job", {"job_id": "again", "timeout_s": 120})
        self.assertEqual(record["state"], "succeeded", record)
        self.reaches("healthy")


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
