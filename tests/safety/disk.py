#!/usr/bin/python3
"""A disk that is full, read only, a mount point of its own, or that no longer lets the agent in: at every phase, on real servers. Each
time a clear error, the old data served, and nothing left. Needs the right to mount."""

import contextlib
import subprocess
import time
import unittest

from safetysite import *  # noqa: F403


class Disk(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.site = cls.enterClassContext(Site("disk"))
        cls.source = cls.site.server("source", 1, options=SMALL)
        seed_small(cls.source)
        cls.small = cls.site.scratch.dir / "small"  # of the source's agent: its store, its spill, its state
        mount_tmpfs(cls.small, 64)
        cls.source_agent = cls.site.agent(
            cls.source, config={"snapshot": {"segment_size": "1MiB", "spill": {"dir": str(cls.small / "spill")}}}
        )
        cls.snapshot = cls.source_agent.call("get_replication_snapshot", {"snapshot_id": "good"})

        # The target's data directory is a mount point: what the agent keeps meanwhile is on the same file system.
        cls.target = MariaDB(cls.site.scratch, "target", 2, options=SMALL)
        cls.site.servers.append(cls.target)
        mount_ext4(cls.site.scratch.dir / "data.img", cls.target.data, 640)
        cls.target.initialise().start()
        cls.agent = cls.site.agent(cls.target, config={"mysql": {"server": {"start_timeout": "20s"}}})
        cls.target.sql(
            "CREATE DATABASE own_; CREATE TABLE own_.t (id INT AUTO_INCREMENT PRIMARY KEY, body TEXT);"
            "INSERT INTO own_.t (body) VALUES ('old'), ('data')"
        )

    # the target

    def attach_params(self):
        return {"snapshot": self.snapshot, "slave_config": {"overwrite": True}, "catch_up_timeout_s": 20}

    def at(self, place, then, sleep=2500):
        """Calls attach, does `then` where the journal has come to `place`, and answers the job's record."""
        job_id = "j-" + str(time.monotonic_ns())
        self.agent.stop()
        self.agent.start(env={"GUESTAGENT_FAILPOINT": f"journal:{place}=sleep:{sleep}"})
        self.agent.call("attach_replication_slave", {**self.attach_params(), "async": True, "job_id": job_id})
        journal = self.agent.state_dir / "jobs" / f"{job_id}.journal"

        def reached():
            try:
                return f'"step":"{place}"' in journal.read_text().replace(" ", "")
            except OSError:
                return self.agent.call("get_job", {"job_id": job_id})["state"] != "running"

        wait_for(f"the place {place}", reached, 60, 0.02)
        then()
        return self.agent.call("wait_job", {"job_id": job_id, "timeout_s": 180})

    def refused(self, record, *codes, words=()):
        self.assertEqual(record["state"], "failed", record)
        error = record["error"]
        self.assertIn(error["data"]["code"], codes, error)
        self.assertTrue(error["data"]["hint"], error)
        for word in words:
            self.assertIn(word, error["message"] + error["data"]["hint"])

    def as_before(self, before, record):
        assert_unchanged(before, server_state(self.target), record["error"]["message"])
        self.assertEqual(self.site.leftovers(self.agent), [])
        self.assertEqual(
            [p.name for p in self.target.data.iterdir() if "guestagent" in p.name or p.name == "ballast"], []
        )
        self.target.sql("INSERT INTO own_.t (body) VALUES ('still writable')")

    def test_full_before_anything(self):
        before = server_state(self.target)
        with filled(self.target.data, 30 << 20):
            with self.assertRaises(RpcError) as refused:
                self.agent.call("attach_replication_slave", self.attach_params())
            self.assertEqual(refused.exception.code, "RESOURCE_EXHAUSTED")
            self.assertIn("free", str(refused.exception))
            plan = self.agent.call("attach_replication_slave", {**self.attach_params(), "dry_run": True})
            self.assertIn("failed", [c["result"] for c in plan["checks"] if c["name"] == "space"])
        assert_unchanged(before, server_state(self.target), "preflight")

    def test_full_in_a_phase(self):
        raw = self.snapshot["snapshot"]["raw_bytes"]
        for place, leave in (
            ("staging", 4 << 20),
            ("staging", raw // 2),
            ("staging", raw + (2 << 20)),
            ("install.begin", 64 << 10),
            ("switch.plan", 64 << 10),
            ("switch.done", 64 << 10),
            ("first-start", 64 << 10),
            ("install.start", 64 << 10),
        ):
            with self.subTest(place=place, leave=leave), contextlib.ExitStack() as stack:
                before = server_state(self.target)
                record = self.at(place, lambda: stack.enter_context(filled(self.target.data, leave)))
                log(
                    f"{place}, {leave >> 10} KiB left: {record['state']} {record.get('error', {}).get('message', '')[:300]}"
                )
                # The old server had room enough before, and the copy is gone: it runs while the disk is still as full.
                self.assertTrue(self.target.answers())
                stack.close()
                if record["state"] == "succeeded":  # what was left was enough for so small a server
                    self.assertIn(
                        place, ("install.begin", "switch.plan", "switch.done", "first-start", "install.start")
                    )
                    self.site.healthy(self.agent)
                    self.make_old_again()
                    continue
                self.refused(record, "RESOURCE_EXHAUSTED", words=["free"])
                self.as_before(before, record)

    def make_old_again(self):
        self.agent.call("detach_replication_slave")
        self.target.sql(
            "CREATE DATABASE IF NOT EXISTS own_; CREATE TABLE IF NOT EXISTS own_.t (id INT AUTO_INCREMENT PRIMARY KEY, body TEXT)"
        )

    def test_full_state_directory(self):
        before = server_state(self.target)
        state = self.site.scratch.dir / "small-state"
        mount_tmpfs(state, 1)
        self.agent.stop()
        usual = self.agent.config
        try:
            self.agent.write_config({"agent": {"state_dir": str(state / "state")}})
            self.agent.start()
            self.agent.call("list_jobs")
            with filled(state):
                with self.assertRaises(RpcError) as refused:
                    self.agent.call("attach_replication_slave", self.attach_params())
                self.assertEqual(refused.exception.code, "RESOURCE_EXHAUSTED", str(refused.exception))
            assert_unchanged(before, server_state(self.target), str(refused.exception))
            self.assertEqual(self.site.leftovers(self.agent), [])
        finally:
            self.agent.stop()
            self.agent.config = usual
            self.agent.write_config()
            self.agent.start()
            unmount(state)

    def test_read_only_staging_and_options(self):
        before = server_state(self.target)
        staging = self.site.scratch.dir / "ro-staging"
        mount_tmpfs(staging, 600)
        subprocess.run(["mount", "-o", "remount,ro", str(staging)], check=True)
        usual = self.agent.config
        try:
            self.agent.stop()
            self.agent.write_config({"mysql": {"staging_dir": str(staging)}})
            self.agent.start()
            with self.assertRaises(RpcError) as refused:
                self.agent.call("attach_replication_slave", self.attach_params())
            self.assertIn(refused.exception.code, ("FAILED_PRECONDITION", "PERMISSION_DENIED"), str(refused.exception))
            self.assertIn(str(staging), str(refused.exception))
            assert_unchanged(before, server_state(self.target), str(refused.exception))
        finally:
            self.agent.stop()
            self.agent.config = usual
            self.agent.write_config()
            self.agent.start()
            unmount(staging)
        # The directory of the managed option file: a bind mount of itself, read only.
        subprocess.run(["mount", "--bind", str(self.target.conf_d), str(self.target.conf_d)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(self.target.conf_d)], check=True)
        try:
            with self.assertRaises(RpcError) as refused:
                self.agent.call("attach_replication_slave", self.attach_params())
            self.assertIn(refused.exception.code, ("FAILED_PRECONDITION", "PERMISSION_DENIED"), str(refused.exception))
            assert_unchanged(before, server_state(self.target), str(refused.exception))
            self.assertEqual(self.site.leftovers(self.agent), [])
        finally:
            unmount(self.target.conf_d)

    def test_permission_lost_at_the_switch(self):
        """Nothing can be moved, nor the old server started, until the permission is back; then the agent does so by itself."""
        before = server_state(self.target)
        immutable = lambda sign: subprocess.run(["chattr", f"{sign}i", str(self.target.data)], check=True)  # noqa: E731
        try:
            record = self.at("switch.plan", lambda: immutable("+"))
            self.assertEqual(record["state"], "failed", record)
            self.assertIn(
                record["error"]["data"]["code"], ("PERMISSION_DENIED", "FAILED_PRECONDITION"), record["error"]
            )
            self.assertTrue(record["error"]["data"]["hint"])
        finally:
            immutable("-")
        self.agent.stop()
        self.agent.start()
        wait_for("the old server", self.target.answers, 60)
        wait_for("no leftovers", lambda: not self.site.leftovers(self.agent), 20)
        self.as_before(before, record)

    def test_rights_lost_in_the_database(self):
        before = server_state(self.target)
        account = f"{self.agent.user}@localhost"
        self.target.sql(f"SET sql_log_bin=0; REVOKE ALL PRIVILEGES, GRANT OPTION FROM {account}")
        try:
            with self.assertRaises(RpcError) as refused:
                self.agent.call("attach_replication_slave", self.attach_params())
            self.assertEqual(refused.exception.code, "PERMISSION_DENIED", str(refused.exception))
        finally:
            self.target.sql(f"SET sql_log_bin=0; GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION")
        assert_unchanged(before, server_state(self.target), str(refused.exception))

    def test_z_the_mount_point_is_attached_and_detached(self):
        device = self.target.data.stat().st_dev
        self.assertEqual(self.agent.call("attach_replication_slave", self.attach_params())["state"], "replica")
        self.site.healthy(self.agent)
        position, sums = at_one_position(self.source, [self.target], lambda s: s.checksums())
        assert_same(f"checksums at {position}", [self.source, self.target], sums)
        self.assertEqual(self.site.leftovers(self.agent), [])
        self.assertEqual(self.target.data.stat().st_dev, device)
        self.assertTrue(self.target.data.is_mount())
        self.assertEqual(self.agent.call("detach_replication_slave")["state"], "standalone")

    # the source

    def snapshot_fails(self, *codes, **how):
        before = server_state(self.source)
        before.pop("own transactions")
        with self.assertRaises(RpcError) as refused:
            self.source_agent.call("get_replication_snapshot", {"snapshot_id": "bad", **how})
        self.assertIn(refused.exception.code, codes, str(refused.exception))
        self.assertTrue(refused.exception.hint, str(refused.exception))
        after = server_state(self.source)
        after.pop("own transactions")  # the account was made and dropped again, which the binary log tells
        assert_unchanged(before, after, str(refused.exception))
        self.assertEqual(self.site.leftovers(self.source_agent), [])
        return refused.exception

    @contextlib.contextmanager
    def source_with(self, **config):
        usual = self.source_agent.config
        self.source_agent.stop()
        self.source_agent.write_config(config)
        try:
            yield self.source_agent.start()
        finally:
            self.source_agent.stop()
            self.source_agent.config = usual
            self.source_agent.write_config()
            self.source_agent.start()

    def test_store_full_at_every_depth(self):
        store = self.small / "store"
        stored = self.snapshot["snapshot"]["stored_bytes"]
        for leave in (0, stored // 4, stored // 2, stored - (64 << 10)):
            with self.subTest(leave=leave), self.source_with(storage={"local": {"path": str(store)}}), filled(
                self.small, leave
            ):
                self.snapshot_fails("RESOURCE_EXHAUSTED")
                self.assertEqual([str(p) for p in store.rglob("*") if p.is_file()] if store.exists() else [], [])

    def test_store_read_only(self):
        with self.source_with(storage={"local": {"path": str(self.small / "store")}}):
            subprocess.run(["mount", "-o", "remount,ro", str(self.small)], check=True)
            try:
                self.snapshot_fails("PERMISSION_DENIED", "FAILED_PRECONDITION")
            finally:
                subprocess.run(["mount", "-o", "remount,rw", str(self.small)], check=True)

    def test_spill_full_is_only_slower(self):
        with self.source_with(snapshot={"spill": {"keep_free": "1MiB"}, "throttle": {"upload": "4MiB"}}), filled(
            self.small
        ):
            snapshot = self.source_agent.call("get_replication_snapshot", {"snapshot_id": "spilled"})
        self.assertTrue(
            self.source_agent.call(
                "verify_replication_snapshot", {"snapshot_href": snapshot["dataset"]["snapshot_href"]}
            )["ok"]
        )
        self.source_agent.call("cleanup_replication_source", {"replication_user": snapshot["replication_user"]["name"]})


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
