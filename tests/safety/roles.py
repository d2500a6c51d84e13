#!/usr/bin/python3
"""The small verbs by which a set of replicas changes its source, each on real servers: what they promise, refuse and undo.
roles.py mariadb | mariadb-11.8 | mysql"""

import sys
import time
import unittest

from safetysite import *  # noqa: F403

from load import AppAccount  # noqa: E402, found by way of the site

ENGINE = sys.argv.pop(1).replace("mysql", "mysql-clone") if len(sys.argv) > 1 else "mariadb"
FAMILY = ENGINE.split("-")[0]


class Roles(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.site = cls.enterClassContext(Site("roles", engine=ENGINE))
        options = SMALL if FAMILY == "mariadb" else ()
        cls.servers = [cls.site.server(name, i + 1, options=options) for i, name in enumerate(("one", "two", "three"))]
        cls.agents = [cls.site.agent(s) for s in cls.servers]
        seed_small(cls.servers[0])
        cls.apps = [AppAccount(cls.servers[0]).create()]
        snapshot = cls.agents[0].call("get_replication_snapshot", {"snapshot_id": "first"})
        for agent in cls.agents[1:]:
            agent.call("attach_replication_slave", {"snapshot": snapshot})
        cls.apps += [AppAccount(server) for server in cls.servers[1:]]  # it comes with the copy
        cls.rows = 100000

    def setUp(self):
        self.one, self.two, self.three = self.servers
        self.agent, self.second, self.third = self.agents

    def next(self):
        type(self).rows += 1
        return self.rows

    def write(self, which):
        with self.apps[which].session() as session:
            session.run(f"INSERT INTO lab.t01 VALUES ({self.next()}, 'app', 1)")

    def refused(self, call, code, *words):
        with self.assertRaises(RpcError) as refused:
            call()
        self.assertEqual(refused.exception.code, code, str(refused.exception))
        for word in words:
            self.assertIn(word, str(refused.exception))

    def managed(self, agent):
        file = Path(agent.config["mysql"]["managed_file"])
        return file.read_text() if file.exists() else None

    def identity(self, server):
        return server.pid(), (server.data / "ibdata1").stat().st_ino, server.value("SELECT @@server_id")

    def same_everywhere(self, source):
        replicas = [s for s in self.servers if s is not source]
        position, sums = at_one_position(source, replicas, lambda s: s.checksums())
        assert_same(f"checksums at {position}", self.servers, sums)

    def test_1_read_only_holds_now_and_after_a_restart(self):
        # An event of who passes read_only writes all the time.
        self.one.sql(
            "CREATE TABLE lab.beat (id INT AUTO_INCREMENT PRIMARY KEY, at DATETIME(6)); SET GLOBAL event_scheduler=ON;"
            "CREATE EVENT lab.beat ON SCHEDULE EVERY 1 SECOND DO INSERT INTO lab.beat (at) VALUES (NOW(6))"
        )
        beats = "SELECT COUNT(*) FROM lab.beat"
        wait_for("beats", lambda: int(self.one.value(beats)) > 1, 30)
        plan = self.agent.call("set_read_only", {"read_only": True, "dry_run": True})
        self.assertTrue(plan["ok"], plan)
        if FAMILY == "mariadb":
            # By a role that is granted to a role: no list of privileges has it.
            self.one.sql(
                "CREATE ROLE passes; GRANT READ_ONLY ADMIN ON *.* TO passes; CREATE ROLE around; GRANT passes TO around;"
                "CREATE USER by_role@localhost; GRANT around TO by_role@localhost"
            )
        result = self.agent.call("set_read_only", {"read_only": True})
        self.assertTrue(result["read_only"])
        self.assertEqual("'by_role'@'localhost'" in result["may_still_write"], FAMILY == "mariadb", result)
        # Who administers MariaDB passes read_only; MySQL holds everybody back.
        passes = any(name.startswith("'root'@") for name in result["may_still_write"])
        self.assertEqual(passes, FAMILY == "mariadb", result)
        stands = self.one.position()
        for _ in range(2):
            time.sleep(1.5)
            self.assertEqual(self.one.position(), stands, "an event has written")
            with self.assertRaises(SqlError) as no:
                self.write(0)
            self.assertIn("read-only", str(no.exception).lower().replace("read_only", "read-only"))
            self.one.restart()
        self.assertEqual(self.site.healthy(self.second)["verdict"], "healthy")
        self.assertEqual(self.agent.call("set_read_only", {"read_only": False})["may_still_write"], [])
        for _ in range(2):
            self.write(0)
            now = int(self.one.value(beats))
            wait_for("beats again", lambda n=now: int(self.one.value(beats)) > n, 30)
            self.one.restart()
        self.one.sql("DROP EVENT lab.beat")
        self.assertEqual(self.site.leftovers(self.agent), [])

    def test_2_a_transaction_that_writes_is_waited_for_named_and_ended(self):
        before = self.managed(self.agent)
        with self.apps[0].session() as long:
            long.run(f"BEGIN; INSERT INTO lab.t01 VALUES ({self.next()}, 'long', 1)")
            self.refused(
                lambda: self.agent.call("set_read_only", {"read_only": True, "timeout_s": 1}),
                "DEADLINE_EXCEEDED",
                "app@localhost",
            )
            self.assertEqual(self.managed(self.agent), before)
            self.write(0)
            long.run("COMMIT")
        with self.apps[0].session() as short:
            n = self.next()
            short.run(f"BEGIN; INSERT INTO lab.t01 VALUES ({n}, 'short', 1)")
            call = Calls(self.agent.call, "set_read_only", {"read_only": True, "timeout_s": 20})
            time.sleep(1)
            short.run("COMMIT")
            self.assertTrue(call.result(30)["read_only"])
            self.assertEqual(self.one.value(f"SELECT COUNT(*) FROM lab.t01 WHERE id={n}"), "1")
            self.agent.call("set_read_only", {"read_only": False})
        with self.apps[0].session() as long:
            n = self.next()
            long.run(f"BEGIN; INSERT INTO lab.t01 VALUES ({n}, 'long', 1)")
            result = self.agent.call("set_read_only", {"read_only": True, "timeout_s": 0.5, "force": True})
            self.assertGreaterEqual(result["ended_sessions"], 1)
            with self.assertRaises(SqlError):
                long.run("COMMIT")
            self.assertEqual(self.one.value(f"SELECT COUNT(*) FROM lab.t01 WHERE id={n}"), "0")
        self.agent.call("set_read_only", {"read_only": False})

    def test_3_a_death_in_the_middle_lets_it_take_writes_as_before(self):
        before = self.managed(self.agent)
        for place, state in (("readonly.begin", "failed"), ("result", "succeeded")):
            with self.subTest(place=place):
                self.agent.stop()
                self.agent.start(env={"GUESTAGENT_FAILPOINT": f"journal:{place}"})
                self.agent.call("set_read_only", {"read_only": True, "async": True, "job_id": place})
                self.agent.process.wait(60)
                self.agent.process = None
                self.agent.start()
                ended = wait_for(
                    "the job's end",
                    lambda p=place: (r := self.agent.call("get_job", {"job_id": p}))["state"] != "running" and r,
                    60,
                )
                self.assertEqual(ended["state"], state, ended)
                if state == "failed":
                    self.assertEqual(self.managed(self.agent), before)
                    self.write(0)
        with self.assertRaises(SqlError):
            self.write(0)
        self.agent.call("set_read_only", {"read_only": False})
        self.write(0)

    def test_4_positions_are_told_and_waited_for(self):
        self.write(0)
        at = self.agent.call("get_replication_position")
        self.assertIsNone(at["received"])
        self.assertEqual(self.one.place(at["executed"]), self.one.position())
        told = self.second.call("wait_for_position", {"position": at["executed"], "timeout_s": 30})
        self.assertTrue(told["reached"])
        there = self.second.call("get_replication_position")
        self.assertIsNotNone(there["received"]["gtid"])
        # One that cannot come ends at once.
        never = dict(at["executed"], gtid=self.beyond(at["executed"]["gtid"]))
        began = time.monotonic()
        self.refused(
            lambda: self.agent.call("wait_for_position", {"position": never, "timeout_s": 60}), "FAILED_PRECONDITION"
        )
        self.second.server.sql(self.words("STOP SLAVE SQL_THREAD"))
        self.refused(
            lambda: self.second.call("wait_for_position", {"position": never, "timeout_s": 60}),
            "FAILED_PRECONDITION",
            "applying thread",
        )
        self.assertLess(time.monotonic() - began, 20)
        self.second.server.sql(self.words("START SLAVE SQL_THREAD"))
        self.refused(
            lambda: self.second.call("wait_for_position", {"position": never, "timeout_s": 2}), "DEADLINE_EXCEEDED"
        )

    @staticmethod
    def words(statement):
        return statement if FAMILY == "mariadb" else statement.replace("SLAVE", "REPLICA")

    @staticmethod
    def beyond(gtid):
        if FAMILY == "mariadb":
            domain, server, number = gtid.split(",")[0].split("-")
            return f"{domain}-{server}-{int(number) + 1000}"
        uuid = gtid.split(",")[0].split(":")[0]
        return f"{uuid}:1-{10**6}"

    def hand_over(self, old, new, others):
        """The switch of a source as a controller does it; the metadata without data by which they follow."""
        old.call("set_read_only", {"read_only": True})
        last = old.call("get_replication_position")["executed"]
        new.call("wait_for_position", {"position": last, "timeout_s": 30})
        new.call("detach_replication_slave")
        source = new.call("open_replication_source")
        self.assertNotIn("dataset", source)
        for agent in others:
            agent.call("attach_replication_slave", {"snapshot": source})
        return source

    def test_5_the_source_changes_and_comes_back(self):
        before = [self.identity(s) for s in self.servers]
        self.refused(
            lambda: self.agent.call("demote_replication_source"), "FAILED_PRECONDITION", "replicas are connected"
        )
        source = self.hand_over(self.agent, self.second, [self.third])
        # Nobody has told the old source yet: it refuses writes, and has nothing that the new one has not.
        plan = self.agent.call("attach_replication_slave", {"snapshot": source, "dry_run": True})
        self.assertIn("from where this server is", str(plan))
        self.write(1)
        for place in ("journal:join.begin", "journal:replica.start"):
            with self.subTest(place=place):
                state = self.managed(self.agent)
                self.agent.stop()
                self.agent.start(env={"GUESTAGENT_FAILPOINT": place})
                job = place.replace(":", "-")
                self.agent.call("attach_replication_slave", {"snapshot": source, "async": True, "job_id": job})
                self.agent.process.wait(60)
                self.agent.process = None
                self.agent.start()
                wait_for("the job's end", lambda: self.agent.call("get_job", {"job_id": job})["state"] == "failed", 60)
                self.assertEqual(self.managed(self.agent), state)
                self.assertNotEqual(self.agent.call("get_replication_status")["role"], "replica")
                with self.assertRaises(SqlError):
                    self.write(0)
        result = self.agent.call("attach_replication_slave", {"snapshot": source})
        self.assertEqual((result["state"], result["read_only"]), ("replica", True))
        dropped = self.agent.call("demote_replication_source")["dropped_accounts"]
        self.assertEqual(dropped, ["repl_first"])
        self.assertEqual(self.agent.call("demote_replication_source")["dropped_accounts"], [])
        self.write(1)
        for agent in (self.agent, self.third):
            self.assertEqual(self.site.healthy(agent)["source"]["port"], self.two.port)
        self.same_everywhere(self.two)
        self.assertEqual([self.identity(s) for s in self.servers], before)
        # It takes part in the set as any other: after a restart, too, and as the source again.
        self.one.restart()
        self.write(1)
        self.site.healthy(self.agent)
        again = self.hand_over(self.second, self.agent, [self.third])
        self.write(0)
        self.second.call("attach_replication_slave", {"snapshot": again})
        self.second.call("demote_replication_source")
        self.same_everywhere(self.one)
        for agent in self.agents:
            self.assertEqual(self.site.leftovers(agent), [])

    def test_6_a_source_with_transactions_of_its_own_is_refused_and_they_are_counted(self):
        source = self.hand_over(self.agent, self.second, [])
        for _ in range(3):
            self.write(1)
        # Somebody takes read_only away, and writes less than the new source did: by number alone that is behind, not apart.
        self.agent.call("set_read_only", {"read_only": False})
        self.write(0)
        self.write(0)
        before = self.identity(self.one)
        attach = {"snapshot": source}
        self.refused(
            lambda: self.agent.call("attach_replication_slave", attach), "FAILED_PRECONDITION", "2 transactions: "
        )
        self.refused(
            lambda: self.agent.call("attach_replication_slave", {**attach, "slave_config": {"overwrite": True}}),
            "FAILED_PRECONDITION",
            "no copy",
        )
        self.assertEqual(self.identity(self.one), before)
        self.write(0)
        # The third follows the old source still, and has what only that has.
        self.refused(lambda: self.third.call("attach_replication_slave", attach), "FAILED_PRECONDITION", "has not")
        self.site.healthy(self.third)
        snapshot = self.second.call("get_replication_snapshot", {"snapshot_id": "over"})
        for agent in (self.agent, self.third):
            agent.call("attach_replication_slave", {"snapshot": snapshot, "slave_config": {"overwrite": True}})
        self.same_everywhere(self.two)

    def test_7_a_stranger_whose_gtids_look_alike_is_refused(self):
        """Both are servers number 1 of domain 0, as MariaDB's default has it: by numbers the stranger is merely behind."""
        stranger = self.site.server("stranger", 1, options=SMALL if FAMILY == "mariadb" else ())
        agent = self.site.agent(stranger)
        stranger.sql("CREATE DATABASE other; CREATE TABLE other.t (id INT PRIMARY KEY)")
        source = self.second.call("open_replication_source")
        self.refused(
            lambda: agent.call("attach_replication_slave", {"snapshot": source}),
            "FAILED_PRECONDITION",
            "that source's set",
        )
        self.assertEqual(stranger.value("SELECT COUNT(*) FROM other.t"), "0")
        # Nor does a replica go over to another set, whatever its GTIDs say.
        relay = self.agent.call("open_replication_source")
        other = {**relay, "source": {**relay["source"], "set": "another"}}
        self.refused(
            lambda: self.third.call("attach_replication_slave", {"snapshot": other}),
            "FAILED_PRECONDITION",
            "another set",
        )
        self.assertEqual(self.site.healthy(self.third)["source"]["port"], self.two.port)
        self.third.call("attach_replication_slave", {"snapshot": relay})
        self.assertEqual(self.site.healthy(self.third)["source"]["port"], self.one.port)
        self.assertEqual(agent.call("get_replication_status")["role"], "standalone")


if __name__ == "__main__":
    unittest.main(verbosity=2)
