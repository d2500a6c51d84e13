#!/usr/bin/python3
"""What a source can do to its replicas: go away in each phase of attach and detach, come back, purge its binary logs, refuse the
password, have the same server_id. The target serves its old data, or follows, and says why."""

import copy
import time
import unittest

from safetysite import *  # noqa: F403


class SourceGone(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.site = cls.enterClassContext(Site("gone"))
        cls.source, cls.target = (cls.site.server(n, i, options=SMALL) for n, i in (("source", 1), ("target", 2)))
        seed_small(cls.source)
        cls.source.sql("SET sql_log_bin=0; CREATE TABLE lab.t02 SELECT * FROM lab.t01")
        cls.target.sql("CREATE DATABASE own_; CREATE TABLE own_.t (id INT PRIMARY KEY); INSERT INTO own_.t VALUES (1)")
        cls.proxy = cls.site.stack.enter_context(Proxy(cls.source.port))
        cls.source_agent = cls.site.agent(cls.source, config={"mysql": {"advertised_port": cls.proxy.port}})
        cls.agent = cls.site.agent(cls.target)
        cls.writer = Writer(cls.source, 1, pause=0.02)
        cls.writer.start()
        cls.site.stack.callback(cls.writer.stop)
        cls.snapshot = cls.source_agent.call("get_replication_snapshot", {"snapshot_id": "good"})

    def attach(self, snapshot=None, **params):
        return self.agent.call(
            "attach_replication_slave",
            {"snapshot": snapshot or self.snapshot, "slave_config": {"overwrite": True}, **params},
        )

    def standalone(self):
        if self.target.slave_status():
            self.agent.call("detach_replication_slave")
        return server_state(self.target)

    def replica(self):
        if not self.target.slave_status():
            self.attach()
        self.site.healthy(self.agent)

    def same(self):
        self.site.healthy(self.agent, 90)
        position, sums = at_one_position(self.source, [self.target], lambda s: s.checksums())
        assert_same(f"checksums at {position}", [self.source, self.target], sums)
        numbered(self.target, 1)

    def refused(self, call, *codes):
        with self.assertRaises(RpcError) as caught:
            call()
        self.assertIn(caught.exception.code, codes, str(caught.exception))
        self.assertTrue(caught.exception.hint, str(caught.exception))
        self.assertEqual(self.site.leftovers(self.agent), [])
        return caught.exception

    def asleep(self, place, method, params, sleep=2000):
        """A job that waits at a place of its journal; answers its id once it is there."""
        self.agent.stop()
        self.agent.start(env={"GUESTAGENT_FAILPOINT": f"journal:{place}=sleep:{sleep}"})
        job_id = "j-" + str(time.monotonic_ns())
        self.agent.call(method, {**params, "async": True, "job_id": job_id})
        journal = self.agent.state_dir / "jobs" / f"{job_id}.journal"
        wait_for(f"the place {place}", lambda: journal.exists() and f'"{place}"' in journal.read_text(), 60, 0.02)
        return job_id

    def ended(self, job_id):
        record = self.agent.call("wait_job", {"job_id": job_id, "timeout_s": 240})
        self.assertNotEqual(record["state"], "running", record)
        return record

    # attach

    def test_gone_before(self):
        before = self.standalone()
        self.source.stop()
        try:
            self.refused(self.attach, "UNAVAILABLE")
        finally:
            self.source.start()
        assert_unchanged(before, server_state(self.target), "attach without its source")

    def test_gone_in_a_phase_of_attach(self):
        for place in ("staging", "install.stop", "install.start", "replica.start"):
            with self.subTest(place=place):
                before = self.standalone()
                job_id = self.asleep(
                    place,
                    "attach_replication_slave",
                    {"snapshot": self.snapshot, "slave_config": {"overwrite": True}, "catch_up_timeout_s": 5},
                )
                self.source.kill9()
                self.proxy.cut()
                try:
                    record = self.ended(job_id)
                finally:
                    self.source.start()
                self.assertEqual(record["state"], "failed", record)
                self.assertEqual(record["error"]["data"]["code"], "UNAVAILABLE", record["error"])
                self.assertTrue(record["error"]["data"]["hint"])
                assert_unchanged(before, server_state(self.target), record["error"]["message"])
                self.assertEqual(self.site.leftovers(self.agent), [])

    def test_restarted_in_a_phase_of_attach(self):
        for place in ("staging", "replica.start"):
            with self.subTest(place=place):
                self.standalone()
                job_id = self.asleep(
                    place, "attach_replication_slave", {"snapshot": self.snapshot, "slave_config": {"overwrite": True}}
                )
                self.source.kill9()
                self.source.start()
                record = self.ended(job_id)
                self.assertEqual(record["state"], "succeeded", record.get("error"))
                self.same()

    def test_wrong_password(self):
        before = self.standalone()
        wrong = copy.deepcopy(self.snapshot)
        wrong["replication_user"]["password"] = "no-such-password-at-all-xxxx"
        error = self.refused(lambda: self.attach(wrong), "PERMISSION_DENIED")
        self.assertNotIn("no-such-password", str(error))
        assert_unchanged(before, server_state(self.target), str(error))

    def test_password_that_becomes_wrong_after_the_switch(self):
        before = self.standalone()
        job_id = self.asleep(
            "install.start",
            "attach_replication_slave",
            {"snapshot": self.snapshot, "slave_config": {"overwrite": True}},
        )
        user = self.snapshot["replication_user"]["name"]
        hashed = self.source.value(
            f"SELECT JSON_VALUE(priv, '$.authentication_string') FROM mysql.global_priv WHERE user='{user}'"
        )
        self.source.sql(f"SET sql_log_bin=0; SET PASSWORD FOR {user}@'%' = PASSWORD('another one')")
        try:
            record = self.ended(job_id)
        finally:
            self.source.sql(f"SET sql_log_bin=0; SET PASSWORD FOR {user}@'%' = '{hashed}'")
        self.assertEqual((record["state"], record["error"]["data"]["code"]), ("failed", "PERMISSION_DENIED"), record)
        assert_unchanged(before, server_state(self.target), record["error"]["message"])

    def test_server_id_clash(self):
        before = self.standalone()
        error = self.refused(
            lambda: self.agent.call(
                "attach_replication_slave",
                {"snapshot": self.snapshot, "slave_config": {"overwrite": True, "server_id": 1}},
            ),
            "FAILED_PRECONDITION",
            "INVALID_ARGUMENT",
        )
        self.assertIn("server_id", str(error))
        assert_unchanged(before, server_state(self.target), str(error))

    def test_server_id_that_comes_to_clash(self):
        """The source takes the replica's own server_id after the checks: the receiving thread says 1593."""
        before = self.standalone()
        job_id = self.asleep(
            "install.start",
            "attach_replication_slave",
            {"snapshot": self.snapshot, "slave_config": {"overwrite": True, "server_id": 77}},
        )
        self.source.sql("SET GLOBAL server_id=77")
        try:
            record = self.ended(job_id)
        finally:
            self.source.sql("SET GLOBAL server_id=1")
        self.assertEqual((record["state"], record["error"]["data"]["code"]), ("failed", "FAILED_PRECONDITION"), record)
        self.assertIn("server_id", record["error"]["message"] + record["error"]["data"]["hint"])
        assert_unchanged(before, server_state(self.target), record["error"]["message"])
        self.writer_goes_on()

    def writer_goes_on(self):
        n = self.writer.done
        wait_for("the writer to go on", lambda: self.writer.done > n + 2, 20)

    # detach

    def test_gone_before_detach(self):
        self.replica()
        n = self.writer.done
        wait_for("some transactions", lambda: self.writer.done > n + 3, 10)
        self.source.kill9()
        try:
            received = self.target.slave_status()["Gtid_IO_Pos"]
            result = self.agent.call("detach_replication_slave")
            self.assertEqual(result["state"], "standalone")
            self.assertEqual(sorted(result["last_applied"]["gtid"].split(",")), sorted(received.split(",")))
            numbered(self.target, 1)
            self.assertEqual(self.target.slave_status(), {})
            self.assertEqual(self.target.value("SELECT @@read_only"), "0")
        finally:
            self.source.start()

    def test_gone_in_a_phase_of_detach(self):
        for place in ("detach.drain", "detach.options", "detach.end"):
            with self.subTest(place=place):
                self.replica()
                job_id = self.asleep(place, "detach_replication_slave", {})
                self.source.kill9()
                try:
                    record = self.ended(job_id)
                    self.assertEqual(record["state"], "succeeded", record.get("error"))
                    numbered(self.target, 1)
                    self.assertEqual(self.target.slave_status(), {})
                finally:
                    self.source.start()

    # following

    def test_restarted_source_is_followed_again(self):
        self.replica()
        for end in (self.source.stop, self.source.kill9):
            end()
            self.assertNotEqual(self.agent.call("get_replication_status")["verdict"], "healthy")
            self.source.start()
            self.same()

    def purge(self):
        """All binary logs of the source but the last. One that a connection still reads stays, with no more than a warning."""
        last = self.source.sql("SHOW BINARY LOGS")[-1][0]

        def gone():
            self.source.sql(f"PURGE BINARY LOGS TO '{last}'")
            return self.source.sql("SHOW BINARY LOGS")[0][0] == last

        wait_for("the binary logs to be purged", gone, 60, 0.3)

    def test_z1_purged_while_the_replica_was_away(self):
        """The lease keeps binary logs from being purged by themselves; by hand they still can be."""
        self.replica()
        self.target.sql("STOP SLAVE")
        at = self.writer.done
        wait_for("more transactions", lambda: self.writer.done > at + 5, 20)
        self.source.sql("FLUSH BINARY LOGS; FLUSH BINARY LOGS")
        wait_for("more transactions", lambda: self.writer.done > at + 10, 20)
        self.proxy.cut()
        self.purge()
        self.target.sql("START SLAVE")

        def broken():
            status = self.agent.call("get_replication_status")
            return (
                status if status["verdict"] == "broken" and any(e["code"] == 1236 for e in status["errors"]) else None
            )

        status = wait_for("the verdict broken with 1236", broken, 60, 0.3)
        self.assertTrue(any("1236" in r for r in status["reasons"]), status)
        # What the snapshot needs is gone, too: refused before anything is touched, and a new one makes it good.
        before = server_state(self.target)
        self.refused(self.attach, "FAILED_PRECONDITION")
        assert_unchanged(before, server_state(self.target), "attach from a source without its binary logs")
        type(self).snapshot = self.source_agent.call("get_replication_snapshot", {"snapshot_id": "new"})
        self.attach()
        self.same()

    def test_z2_purged_under_an_attach(self):
        before = self.standalone()
        job_id = self.asleep(
            "install.start",
            "attach_replication_slave",
            {"snapshot": self.snapshot, "slave_config": {"overwrite": True}},
            3000,
        )
        self.source.sql("FLUSH BINARY LOGS; FLUSH BINARY LOGS")
        self.writer_goes_on()
        self.purge()
        record = self.ended(job_id)
        self.assertEqual((record["state"], record["error"]["data"]["code"]), ("failed", "FAILED_PRECONDITION"), record)
        self.assertIn("new snapshot", record["error"]["data"]["hint"])
        assert_unchanged(before, server_state(self.target), record["error"]["message"])


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
