#!/usr/bin/python3
"""A replica goes on by another source, or by a new account of the same one, without a new copy; replication over TLS."""

import subprocess
import unittest

from safetysite import *  # noqa: F403


class Repoint(unittest.TestCase):
    """source -> relay -> replica, where the replica is pointed from one to the other."""

    @classmethod
    def setUpClass(cls):
        cls.site = cls.enterClassContext(Site("repoint"))
        cls.source = cls.site.server("source", 1, options=SMALL)
        seed_small(cls.source)
        cls.source.sql("SET sql_log_bin=0; CREATE TABLE lab.t02 SELECT * FROM lab.t01")
        cls.relay, cls.replica = (cls.site.server(n, i, options=SMALL) for n, i in (("relay", 2), ("replica", 3)))
        cls.source_agent, cls.relay_agent, cls.agent = (cls.site.agent(s) for s in (cls.source, cls.relay, cls.replica))
        cls.snapshot = cls.source_agent.call("get_replication_snapshot", {"snapshot_id": "one"})
        for agent in (cls.relay_agent, cls.agent):
            agent.call("attach_replication_slave", {"snapshot": cls.snapshot})
        cls.writer = Writer(cls.source, 1, pause=0.02)
        cls.writer.start()
        cls.site.stack.callback(cls.writer.stop)

    def attach(self, snapshot, **config):
        return self.agent.call(
            "attach_replication_slave", {"snapshot": snapshot, **({"slave_config": config} if config else {})}
        )

    def identity(self):
        """Of the data directory: a new copy would be another."""
        return (
            self.replica.pid(),
            (self.replica.data / "ibdata1").stat().st_ino,
            self.replica.value("SELECT @@server_id"),
        )

    def follows(self, server):
        self.assertEqual(self.site.healthy(self.agent)["source"]["port"], server.port)
        position, sums = at_one_position(self.source, [self.replica], lambda s: s.checksums())
        assert_same(f"checksums at {position}", [self.source, self.replica], sums)
        numbered(self.replica, 1)
        self.assertEqual(self.site.leftovers(self.agent), [])

    def test_1_a_new_snapshot_rotates_the_password(self):
        before, password = self.identity(), self.snapshot["replication_user"]["password"]
        new = self.source_agent.call("get_replication_snapshot", {"snapshot_id": "two"})
        self.assertNotEqual(new["replication_user"]["password"], password)
        plan = self.agent.call("attach_replication_slave", {"snapshot": new, "dry_run": True})
        self.assertIn("from where this replica is", str(plan))
        # As an agent wrote it that did not know the option yet.
        managed, line = Path(self.agent.config["mysql"]["managed_file"]), "skip_slave_start = OFF\n"
        now = managed.read_text()
        self.assertIn(line, now)
        managed.write_text(now.replace(line, ""))
        result = self.attach(new)
        self.assertEqual(managed.read_text(), now)
        self.assertEqual((result["state"], result["read_only"]), ("replica", True))
        self.assertEqual(self.replica.slave_status()["Master_User"], new["replication_user"]["name"])
        self.assertEqual(self.identity(), before)
        self.follows(self.source)
        # The relay still uses the old account: only this one's user changed, so the old one can go once the relay has moved, too.
        self.relay_agent.call("attach_replication_slave", {"snapshot": new})
        self.source_agent.call(
            "cleanup_replication_source", {"replication_user": self.snapshot["replication_user"]["name"]}
        )
        self.replica.sql("STOP SLAVE; START SLAVE")
        self.follows(self.source)
        type(self).snapshot = new

    def test_2_the_old_source_may_be_gone(self):
        before = self.identity()
        through = self.relay_agent.call("get_replication_snapshot", {"snapshot_id": "relay"})
        self.replica.sql("STOP SLAVE IO_THREAD")
        self.attach(through)
        self.assertEqual(self.identity(), before)
        self.follows(self.relay)
        # And back, by the snapshot of the first source.
        self.attach(self.snapshot)
        self.follows(self.source)
        self.assertEqual(self.identity(), before)

    def test_3_a_source_that_refuses_leaves_it_as_it_was(self):
        before, status = self.identity(), self.replica.slave_status()
        through = self.relay_agent.call("get_replication_snapshot", {"snapshot_id": "bad"})
        through["replication_user"]["password"] = "wrong-" + "x" * 20
        with self.assertRaises(RpcError) as refused:
            self.attach(through)
        self.assertEqual(refused.exception.code, "FAILED_PRECONDITION", str(refused.exception))
        self.assertNotIn("wrong-x", str(refused.exception))
        after = self.replica.slave_status()
        self.assertEqual(
            [after[k] for k in ("Master_Port", "Master_User")], [status[k] for k in ("Master_Port", "Master_User")]
        )
        self.assertEqual(self.identity(), before)
        self.follows(self.source)

    def test_4_a_crash_in_the_middle_leaves_it_as_it_was(self):
        through = self.relay_agent.call("get_replication_snapshot", {"snapshot_id": "crash"})
        for place in ("journal:repoint.begin", "journal:replica.start"):
            with self.subTest(place=place):
                before = self.identity()
                self.agent.stop()
                self.agent.start(env={"GUESTAGENT_FAILPOINT": place})
                self.agent.call(
                    "attach_replication_slave", {"snapshot": through, "async": True, "job_id": place.replace(":", "-")}
                )
                self.agent.process.wait(60)
                self.agent.process = None
                self.agent.start()
                record = wait_for(
                    "the job's end",
                    lambda: (r := self.agent.call("get_job", {"job_id": place.replace(":", "-")}))["state"] != "running"
                    and r,
                    60,
                )
                self.assertEqual(record["state"], "failed", record)
                self.assertEqual(self.identity(), before)
                self.follows(self.source)
        # A source that goes away after it was chosen: the journal's other end, an error in place of a crash.
        self.agent.stop()
        self.agent.start(env={"GUESTAGENT_FAILPOINT": "journal:replica.start=error"})
        with self.assertRaises(RpcError):
            self.attach(through)
        self.follows(self.source)
        self.agent.stop()
        self.agent.start()

    def test_5_what_the_source_has_not_is_no_reason_to_lose_it(self):
        through = self.relay_agent.call("get_replication_snapshot", {"snapshot_id": "behind"})
        self.relay.sql("STOP SLAVE SQL_THREAD")
        try:
            n = self.writer.done
            wait_for("more transactions", lambda: self.writer.done > n + 5, 10)
            with self.assertRaises(RpcError) as refused:
                self.attach(through)
            self.assertEqual(refused.exception.code, "FAILED_PRECONDITION")
            self.assertIn("has not", str(refused.exception))
        finally:
            self.relay.sql("START SLAVE SQL_THREAD")
        self.follows(self.source)

    def test_6_transactions_of_its_own_are_no_reason_to_hide_them(self):
        self.replica.sql("INSERT INTO lab.t01 VALUES (800000, 'own', 1)")
        with self.assertRaises(RpcError) as refused:
            self.attach(self.snapshot)
        self.assertEqual(refused.exception.code, "FAILED_PRECONDITION")
        self.assertIn("of its own", str(refused.exception))
        before = self.identity()
        self.attach(self.snapshot, overwrite=True)
        self.assertNotEqual(self.identity()[1], before[1], "overwrite is a new copy")
        self.follows(self.source)


class Received(unittest.TestCase):
    """What a replica has received and not applied may be the only copy: its source is gone. No call may throw it away."""

    ENGINE = "mariadb"

    @classmethod
    def setUpClass(cls):
        if cls.ENGINE != "mariadb":
            try:
                fetch(ENGINES[cls.ENGINE][0])
            except Unavailable as e:
                raise unittest.SkipTest(str(e))
        cls.site = cls.enterClassContext(Site("received", engine=cls.ENGINE))
        options = SMALL if cls.ENGINE == "mariadb" else SMALL[:1]
        cls.source = cls.site.server("source", 1, options=options)
        seed_small(cls.source)
        # The relay has not loaded the plugin that its snapshots need.
        plain = {} if cls.ENGINE == "mariadb" else {"clone": False}
        cls.relay = cls.site.server("relay", 2, role="replica", options=options, **plain)
        cls.replica = cls.site.server("replica", 3, role="replica", options=options)
        cls.source_agent, cls.relay_agent, cls.agent = (cls.site.agent(s) for s in (cls.source, cls.relay, cls.replica))
        cls.snapshot = cls.source_agent.call("get_replication_snapshot", {"snapshot_id": "one"})
        for agent in (cls.relay_agent, cls.agent):
            agent.call("attach_replication_slave", {"snapshot": cls.snapshot})
        cls.through = cls.relay_agent.call("get_replication_snapshot", {"snapshot_id": "relay"})
        cls.word = "SLAVE" if cls.ENGINE == "mariadb" else "REPLICA"

    def attach(self, snapshot, job=None):
        return self.agent.call(
            "attach_replication_slave", {"snapshot": snapshot, **({"async": True, "job_id": job} if job else {})}
        )

    def insert(self, server, n):
        server.sql(f"INSERT INTO lab.t01 VALUES ({n}, 'only copy', 1)")

    def has(self, n, server=None):
        return (server or self.replica).sql(f"SELECT 1 FROM lab.t01 WHERE id={n}") == [("1",)]

    def wait_row(self, n, server=None):
        wait_for(f"row {n}", lambda: self.has(n, server), 60)

    def phase(self, job, *names):
        return wait_for(
            f"phase {names}",
            lambda: (r := self.agent.call("get_job", {"job_id": job}))["phase"] in names and r,
            60,
            0.05,
        )

    def received(self, position):
        def there():
            mine = dict(
                g.rsplit(":" if ":" in g else "-", 1)
                for g in self.replica.slave_status()["Gtid_IO_Pos"].split(",")
                if g
            )
            return all(
                mine.get(g.rsplit(":" if ":" in g else "-", 1)[0]) == g.rsplit(":" if ":" in g else "-", 1)[1]
                for g in position.split(",")
            )

        wait_for(f"{position} received", there, 60)

    def only_received(self, n):
        """Row n is in the replica's relay log, held up there by the session that is answered, and its source is dead."""
        self.relay.sql(f"STOP {self.word} IO_THREAD")
        hold = self.replica.session()
        self.replica.hold_rows(hold, "lab.t01")
        self.insert(self.source, n)
        self.received(self.source.position())
        self.source.kill9()
        self.assertFalse(self.has(n))
        return hold

    def source_back(self):
        self.source.start()
        self.relay.sql(f"START {self.word} IO_THREAD")
        for agent in (self.relay_agent, self.agent):
            self.assertEqual(self.site.healthy(agent)["source"]["port"], self.source.port)
        _, rows = at_one_position(
            self.source, [self.relay, self.replica], lambda s: s.sql("SELECT * FROM lab.t01 ORDER BY id")
        )
        assert_same("rows", [self.source, self.relay, self.replica], rows)
        self.assertEqual(self.site.leftovers(self.agent), [])

    def test_1_a_relay_that_has_applied_nothing_may_be_the_source(self):
        self.attach(self.through)
        self.insert(self.source, 900000)
        self.wait_row(900000)
        self.assertEqual(self.site.healthy(self.agent)["source"]["port"], self.relay.port)
        self.attach(self.snapshot)
        self.assertEqual(self.site.healthy(self.agent)["source"]["port"], self.source.port)

    def test_2_a_source_that_lacks_it_is_refused_and_it_is_applied(self):
        hold = self.only_received(900001)
        call = Calls(self.attach, self.through)
        wait_for(
            "the call", lambda: not call.is_alive() or self.agent.call("list_jobs")["jobs"][-1]["phase"] == "drain", 30
        )
        hold.close()
        with self.assertRaises(RpcError) as refused:
            call.result()
        self.assertEqual(refused.exception.code, "FAILED_PRECONDITION", str(refused.exception))
        self.assertIn("has not", str(refused.exception))
        self.wait_row(900001)
        self.source_back()

    def test_3_cancelled_while_it_is_applied(self):
        # The new source has it, so the check lets the call go on to the drain.
        hold = self.replica.session()
        self.replica.hold_rows(hold, "lab.t01")
        self.insert(self.source, 900002)
        self.wait_row(900002, self.relay)
        self.received(self.source.position())
        self.attach(self.through, "cancelled")
        self.phase("cancelled", "drain")
        self.relay.stop()
        self.source.kill9()
        self.agent.call("cancel_job", {"job_id": "cancelled"})
        self.assertEqual(self.agent.call("wait_job", {"job_id": "cancelled", "timeout_s": 60})["state"], "cancelled")
        hold.close()
        self.wait_row(900002)
        self.relay.start()
        self.source_back()

    def test_4_an_applying_thread_that_is_stopped(self):
        self.replica.sql(f"STOP {self.word} SQL_THREAD")
        self.insert(self.source, 900003)
        self.wait_row(900003, self.relay)
        self.received(self.source.position())
        with self.assertRaises(RpcError) as refused:
            self.attach(self.through)
        self.assertEqual(refused.exception.code, "FAILED_PRECONDITION", str(refused.exception))
        self.source.kill9()
        self.relay.stop()
        self.replica.sql(f"START {self.word} SQL_THREAD")
        self.wait_row(900003)
        self.relay.start()
        self.source_back()

    def test_5_undone_after_the_new_source_has_died(self):
        # What the replica gets from the relay alone: it does not receive from the source any more.
        self.replica.sql(f"STOP {self.word} IO_THREAD")
        self.insert(self.source, 900004)
        self.wait_row(900004, self.relay)
        hold = self.replica.session()
        self.replica.hold_rows(hold, "lab.t01")
        self.attach(self.through, "undone")
        self.phase("undone", "catch up")
        self.received(self.source.position())
        self.source.kill9()
        self.relay.stop()
        self.agent.call("cancel_job", {"job_id": "undone"})
        self.phase("undone", "undo")
        hold.close()
        record = self.agent.call("wait_job", {"job_id": "undone", "timeout_s": 120})
        self.assertEqual(record["state"], "cancelled", record)
        self.wait_row(900004)
        self.relay.start()
        self.replica.sql(f"START {self.word} IO_THREAD")  # it did not run before the call
        self.source_back()

    def test_6_a_detach_that_fails_while_the_source_is_gone(self):
        self.replica.sql(f"SET sql_log_bin=0; {self.writable()} INSERT INTO lab.t01 VALUES (900006, 'in the way', 0)")
        hold = self.replica.session()
        self.replica.hold_rows(hold, "lab.t01")
        self.insert(self.source, 900006)
        self.insert(self.source, 900007)
        wanted = self.source.position()
        self.received(wanted)
        self.source.kill9()
        self.agent.call("detach_replication_slave", {"async": True, "job_id": "detach"})
        # The job's phase is "drain" before it has looked at the replica: an applying thread that stops by then makes it a call
        # that is refused (below).
        wait_for("the drain", lambda: self.replica.slave_status()["Slave_IO_Running"] == "No", 60, 0.05)
        hold.close()
        record = self.agent.call("wait_job", {"job_id": "detach", "timeout_s": 60})
        self.assertEqual(record["state"], "failed", record)
        status = self.replica.slave_status()
        self.assertEqual(status["Slave_SQL_Running"], "No")
        self.received(wanted)
        if self.ENGINE == "mariadb":
            self.assertEqual(status["Slave_IO_Running"], "No", "MariaDB would throw its relay log away")
            self.assertIn("left stopped", str(record["warnings"]))
        self.replica.sql(f"SET sql_log_bin=0; {self.writable()} DELETE FROM lab.t01 WHERE id=900006")
        self.source.start()
        self.replica.sql(f"START {self.word}")
        self.wait_row(900007)
        self.site.healthy(self.agent)

    def test_7_a_new_copy_that_fails_before_the_switch_goes_on_receiving(self):
        self.agent.stop()
        self.agent.start(env={"GUESTAGENT_FAILPOINT": "journal:install.stop=error"})
        with self.assertRaises(RpcError):
            self.agent.call(
                "attach_replication_slave", {"snapshot": self.snapshot, "slave_config": {"overwrite": True}}
            )
        self.agent.stop()
        self.agent.start()
        self.assertEqual(self.site.leftovers(self.agent), [])
        status = self.replica.slave_status()
        self.assertEqual((status["Slave_IO_Running"], status["Slave_SQL_Running"]), ("Yes", "Yes"))
        self.insert(self.source, 900008)
        self.wait_row(900008)

    def test_8_a_detach_that_is_refused_stops_no_thread(self):
        self.replica.sql(f"SET sql_log_bin=0; {self.writable()} INSERT INTO lab.t01 VALUES (900010, 'in the way', 0)")
        self.insert(self.source, 900010)
        self.insert(self.source, 900011)
        wanted = self.source.position()
        self.received(wanted)
        wait_for("the error", lambda: self.replica.slave_status()["Slave_SQL_Running"] == "No", 60)
        self.source.kill9()
        with self.assertRaises(RpcError) as refused:
            self.agent.call("detach_replication_slave")
        self.assertEqual(refused.exception.code, "FAILED_PRECONDITION", str(refused.exception))
        # It still tries to reach its source: were both stopped, MariaDB would throw the relay log away at the next start.
        self.assertNotEqual(self.replica.slave_status()["Slave_IO_Running"], "No")
        self.received(wanted)
        self.replica.sql(f"SET sql_log_bin=0; {self.writable()} DELETE FROM lab.t01 WHERE id=900010")
        self.replica.sql(f"START {self.word} SQL_THREAD")
        self.wait_row(900011)
        self.source.start()
        self.site.healthy(self.agent)

    def writable(self):
        return "" if self.ENGINE == "mariadb" else "SET GLOBAL super_read_only=0;"


class ReceivedMysql(Received):
    ENGINE = "mysql-clone"
    test_2_a_source_that_lacks_it_is_refused_and_it_is_applied = test_4_an_applying_thread_that_is_stopped = None

    def strict(self):
        return self.relay.sql("SELECT @@super_read_only, @@read_only") == [("1", "1")]

    def test_0_a_replica_that_refuses_every_writer_is_a_source(self):
        self.assertTrue(self.strict(), "the snapshot of setUpClass was of a replica, which is so again")
        self.assertEqual(self.relay.value("SELECT COUNT(*) FROM mysql.user WHERE User='repl_relay'"), "1")
        self.assertEqual(self.relay.value("SELECT @@binlog_expire_logs_seconds"), "0")

        def recovered(job):
            record = lambda: self.relay_agent.call("get_job", {"job_id": job})  # noqa: E731
            return wait_for("the recovery", lambda: (r := record())["state"] != "running" and r, 60)

        # The agent dies with the server open.
        self.relay_agent.stop()
        self.relay_agent.start(env={"GUESTAGENT_FAILPOINT": "journal:source.account"})
        self.relay_agent.call("get_replication_snapshot", {"snapshot_id": "dies", "async": True, "job_id": "dies"})
        self.relay_agent.process.wait(60)
        self.relay_agent.start(env={"GUESTAGENT_FAILPOINT": "journal:source.writable.done"})
        recovered("dies")  # until then the host is busy
        self.relay_agent.call("get_replication_snapshot", {"snapshot_id": "dies", "async": True, "job_id": "dies-2"})
        self.relay_agent.process.wait(60)
        self.relay.sql("SET GLOBAL super_read_only=0")  # as if it had died a statement earlier
        journal = self.relay_agent.state_dir / "jobs/dies-2.journal"
        lines = journal.read_text().splitlines(keepends=True)
        self.assertIn("source.writable.done", lines[-1])
        journal.write_text("".join(lines[:-1]))
        self.relay_agent.start()
        for job in ("dies", "dies-2"):
            self.assertEqual(recovered(job)["state"], "failed")
        self.assertTrue(self.strict())
        self.assertEqual(self.relay.sql("SELECT User FROM mysql.user WHERE User LIKE 'repl\\_dies%'"), [])
        # A failure leaves it as it was, and a release needs the same.
        self.relay_agent.stop()
        self.relay_agent.start(env={"GUESTAGENT_FAILPOINT": "journal:source.clone=error"})
        with self.assertRaises(RpcError):
            self.relay_agent.call("get_replication_snapshot", {"snapshot_id": "fails"})
        self.relay_agent.stop()
        self.relay_agent.start()
        made = self.relay_agent.call("get_replication_snapshot", {"snapshot_id": "again"})
        self.assertTrue(self.strict())
        self.relay_agent.call("cleanup_replication_source", {"replication_user": made["replication_user"]["name"]})
        self.assertTrue(self.strict())
        self.assertEqual(self.relay.sql("SELECT User FROM mysql.user WHERE User IN ('repl_again', 'repl_fails')"), [])
        self.assertEqual(self.relay.errant(), "")
        self.assertEqual(self.site.leftovers(self.relay_agent), [])


class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.site = cls.enterClassContext(Site("tls"))
        cls.dir = cls.site.scratch.dir / "tls"
        cls.dir.mkdir()
        for ca in ("ca", "other"):
            cls.certificate(ca)
        cls.certificate("server", "ca")
        tls = [f"ssl-ca={cls.dir}/ca.pem", f"ssl-cert={cls.dir}/server.pem", f"ssl-key={cls.dir}/server.key"]
        cls.source = cls.site.server("source", 1, options=(*SMALL, *tls))
        cls.plain = cls.site.server("plain", 2, options=SMALL)
        cls.replica = cls.site.server("replica", 3, options=SMALL)
        for s in (cls.source, cls.plain):
            seed_small(s)
        cls.source_agent, cls.plain_agent, cls.agent = (cls.site.agent(s) for s in (cls.source, cls.plain, cls.replica))

    @classmethod
    def certificate(cls, name, ca=None):
        def run(*argv):
            subprocess.run(argv, check=True, cwd=cls.dir, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        if ca is None:
            run(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                f"/CN=ga {name}",
                "-keyout",
                f"{name}.key",
                "-out",
                f"{name}.pem",
            )
            return
        run(
            "openssl",
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.csr",
        )
        (cls.dir / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        run(
            "openssl",
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            f"{name}.csr",
            "-CA",
            f"{ca}.pem",
            "-CAkey",
            f"{ca}.key",
            "-CAcreateserial",
            "-extfile",
            "san",
            "-out",
            f"{name}.pem",
        )

    def configured(self, agent, **mysql):
        agent.stop()
        agent.write_config({"mysql": {"require_tls": None, "replication_ca_file": None}})
        agent.write_config({"mysql": mysql})
        return agent.start()

    def snapshot(self, agent, snapshot_id):
        return agent.call("get_replication_snapshot", {"snapshot_id": snapshot_id})

    def attach(self, snapshot):
        return self.agent.call("attach_replication_slave", {"snapshot": snapshot, "slave_config": {"overwrite": True}})

    def requires(self, server, snapshot):
        return "REQUIRE SSL" in server.value(f"SHOW CREATE USER {snapshot['replication_user']['name']}@'%'")

    def over_tls(self):
        status = self.replica.slave_status()
        return status["Master_SSL_Allowed"] == "Yes", status["Master_SSL_Verify_Server_Cert"] == "Yes"

    def test_auto_with_certificates_requires_and_uses_it(self):
        self.configured(self.source_agent, require_tls="auto")
        snapshot = self.snapshot(self.source_agent, "auto")
        self.assertTrue(snapshot["replication_user"]["require_tls"])
        self.assertTrue(self.requires(self.source, snapshot))
        for ca, verified in ((None, False), ("ca.pem", True)):
            with self.subTest(ca=ca):
                self.configured(self.agent, **({"replication_ca_file": str(self.dir / ca)} if ca else {}))
                self.attach(snapshot)
                self.assertEqual(self.over_tls(), (True, verified))
                self.site.healthy(self.agent)

    def test_another_ca_is_refused_and_the_old_data_served(self):
        self.configured(self.source_agent, require_tls="yes")
        snapshot = self.snapshot(self.source_agent, "verified")
        self.configured(self.agent, replication_ca_file=str(self.dir / "other.pem"))
        if self.replica.slave_status():
            self.agent.call("detach_replication_slave")
        before = server_state(self.replica)
        with self.assertRaises(RpcError) as refused:
            self.attach(snapshot)
        self.assertIn(
            refused.exception.code, ("FAILED_PRECONDITION", "UNAVAILABLE", "PERMISSION_DENIED"), str(refused.exception)
        )
        self.assertTrue(refused.exception.hint)
        assert_unchanged(before, server_state(self.replica), str(refused.exception))

    def test_auto_and_no_without_certificates(self):
        for mode in ("auto", "no"):
            with self.subTest(mode=mode):
                self.configured(self.plain_agent, require_tls=mode)
                self.configured(self.agent)
                snapshot = self.snapshot(self.plain_agent, f"plain-{mode}")
                self.assertFalse(snapshot["replication_user"]["require_tls"])
                self.assertFalse(self.requires(self.plain, snapshot))
                self.attach(snapshot)
                self.assertEqual(self.over_tls()[0], False)
                self.site.healthy(self.agent)

    def test_yes_without_certificates_is_refused(self):
        self.configured(self.plain_agent, require_tls="yes")
        before = server_state(self.plain)
        with self.assertRaises(RpcError) as refused:
            self.snapshot(self.plain_agent, "impossible")
        self.assertEqual(refused.exception.code, "FAILED_PRECONDITION")
        self.assertTrue(refused.exception.hint)
        assert_unchanged(before, server_state(self.plain), "a refused snapshot")

    def test_no_with_certificates_does_without(self):
        self.configured(self.source_agent, require_tls="no")
        self.configured(self.agent)
        snapshot = self.snapshot(self.source_agent, "no")
        self.assertFalse(self.requires(self.source, snapshot))
        self.attach(snapshot)
        self.assertEqual(self.over_tls()[0], False)
        self.site.healthy(self.agent)


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
