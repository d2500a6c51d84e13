#!/usr/bin/python3
"""What an attach calls healthy is still good at the first read of every table, and after the next restart of the server: on targets with
odd but lawful configurations, and where a copy, a cluster or missing keys would make it otherwise.

    first_read.py [mariadb|mysql]"""

import shutil
import subprocess
import sys
import unittest

from safetysite import *  # noqa: F403


def attach(agent, snapshot, **how):
    return agent.call("attach_replication_slave", {"snapshot": snapshot, "slave_config": {"overwrite": True}, **how})


class OddTarget:
    """What the tests of both families have in common."""

    def refused(self, code, *words, **how):
        with self.assertRaises(RpcError) as refusal:
            attach(self.agent, self.snapshot, **how)
        self.assertEqual(refusal.exception.code, code, str(refusal.exception))
        for word in words:
            self.assertIn(word, str(refusal.exception))
        return refusal.exception

    def plan(self, option="", name="60-odd.cnf"):
        """The checks of a dry run with this line in an option file of the target's: [(name, result, message)]."""
        file = self.target.conf_d / name
        file.write_text(f"[mysqld]\n{option}\n")
        try:
            plan = attach(self.agent, self.snapshot, dry_run=True)
        finally:
            file.unlink()
        return [(c["name"], c["result"], c.get("message", "")) for c in plan["checks"]]

    def judged(self, option, name, result, word):
        found = [c for c in self.plan(option) if c[0] == name and c[1] == result and word in c[2]]
        self.assertTrue(found, f"{option}: {self.plan(option)}")

    def goes_on_after_a_restart(self):
        self.target.restart()
        self.source.sql("INSERT INTO lab.t01 (id, name) SELECT MAX(id) + 1, 'after the restart' FROM lab.t01")
        self.site.healthy(self.agent)
        self.assertTrue(self.target.reached(self.source.position(), 30), self.target.slave_status())


class OnMariadb(OddTarget, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.site = cls.enterClassContext(Site("first-read"))
        cls.source = cls.site.server("source", 1, options=SMALL)
        cls.source.sql(
            "CREATE DATABASE lab; CREATE TABLE lab.t01 (id INT PRIMARY KEY, name VARCHAR(40)); INSERT INTO lab.t01 VALUES (1, 'one');"
            "CREATE TABLE lab.gone (a INT) ENGINE=Aria; CREATE TABLE lab.also_gone (a INT PRIMARY KEY); CREATE TABLE lab.before (a INT PRIMARY KEY);"
            "CREATE TABLE lab.discarded (a INT PRIMARY KEY); ALTER TABLE lab.discarded DISCARD TABLESPACE; CREATE SEQUENCE lab.s;"
            "CREATE TABLE lab.memory (a INT) ENGINE=MEMORY; CREATE TABLE lab.parts (a INT) PARTITION BY HASH (a) PARTITIONS 3;"
            "CREATE DATABASE `größe 日本`; CREATE TABLE `größe 日本`.`tafel ü %` (a INT PRIMARY KEY)"
        )
        # A table that is broken where the copy comes from.
        cls.source.stop()
        (cls.source.data / "lab/before.ibd").unlink()
        cls.source.start()
        cls.source_agent = cls.site.agent(cls.source)
        cls.snapshot = cls.source_agent.call("get_replication_snapshot", {"snapshot_id": "one"})

        cls.target = target = cls.site.server("target", 2, options=SMALL)
        tools, cls.scripts = cls.site.scratch.dir / "tools", cls.site.scratch.dir / "scripts"
        for made in (tools, cls.scripts, target.dir / "elsewhere", target.data / "tmp"):
            made.mkdir()
        # The tool of a copy that loses tables, and a server that takes other data when it starts, once these files are there.
        cls.loses, cls.takes = cls.scripts / "loses", cls.scripts / "takes"
        for name in ("mbstream", "mariadb-upgrade"):
            if shutil.which(name):
                (tools / name).symlink_to(shutil.which(name))
        cls.script(
            tools / "mariadb-backup",
            f'{shutil.which("mariadb-backup")} "$@"; done=$?\n'
            f'for a in "$@"; do case "$a" in --target-dir=*) [ -e {cls.loses} ] && rm -f "${{a#*=}}"/lab/gone.MA? "${{a#*=}}"/lab/also_gone.ibd;; esac; done; exit $done',
        )
        cls.script(
            cls.scripts / "server",
            f'case "$*" in *--skip-networking*) ;; *) if [ -e {cls.takes} ]; then rm {cls.takes}\n'
            f'  find {target.data} -mindepth 1 -delete; cp -a {cls.scripts}/cluster/. {target.data}; fi;; esac\nexec {target.mysqld} "$@"',
        )
        cls.agent = cls.site.agent(
            target, config={"mysql": {"tools_dir": str(tools), "server": {"command": [str(cls.scripts / "server")]}}}
        )
        target.stop()
        shutil.copytree(target.data, cls.scripts / "cluster", symlinks=True)
        # In the data directory, as an installer of MySQL's does it: a server whose options name them does not start without them.
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=target",
                "-keyout",
                target.data / "server-key.pem",
                "-out",
                target.data / "server-cert.pem",
            ],
            check=True,
            capture_output=True,
        )
        for made in ("server-key.pem", "server-cert.pem"):
            shutil.copy2(target.data / made, cls.scripts / "cluster")
        (target.conf_d / "50-odd.cnf").write_text(
            "[mysqld]\nskip-slave-start\nskip-character-set-client-handshake\ncharacter-set-server=latin1\nbinlog-format=STATEMENT\n"
            f"ssl-key={target.data / 'server-key.pem'}\nssl-cert={target.data / 'server-cert.pem'}\nlog-bin-index={target.dir / 'elsewhere/bi.index'}\ntmpdir={target.data / 'tmp'}\n"
        )
        target.start()
        for _ in range(3):
            target.sql("FLUSH BINARY LOGS")

    @staticmethod
    def script(path, text):
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def test_1_what_would_not_last_is_told_before(self):
        self.judged("", "source", "ok", "answers")
        for option, name, result, word in (
            ("wsrep_cluster_address=gcomm://10.0.0.1", "cluster", "failed", "wsrep_cluster_address"),
            ("loose-wsrep-on=ON", "cluster", "failed", "wsrep_on"),
            ("replicate-rewrite-db=a->b", "filters", "failed", "replicate_rewrite_db"),
            ("one.replicate-do-db=a", "filters", "warning", "replicate_do_db"),
            ("innodb-force-recovery=1", "replica options", "failed", "innodb_force_recovery"),
            ("slave-skip-errors=1062", "replica options", "warning", "slave_skip_errors"),
        ):
            with self.subTest(option=option):
                self.judged(option, name, result, word)
        (self.target.conf_d / "zzz-last.cnf").write_text("[mysqld]\nskip-slave-start\n")
        try:
            self.refused("FAILED_PRECONDITION", "skip_slave_start", "zzz-last.cnf")
        finally:
            (self.target.conf_d / "zzz-last.cnf").unlink()

    def test_2_an_odd_target_goes_on_after_a_restart(self):
        attach(self.agent, self.snapshot, job_id="odd")
        self.assertEqual(self.target.sql("SELECT @@binlog_format, @@read_only"), [("MIXED", "1")])
        self.assertTrue((self.target.dir / "elsewhere/bi.index").exists())
        self.assertTrue((self.target.data / "server-key.pem").exists() and (self.target.data / "tmp").is_dir())
        self.goes_on_after_a_restart()
        warnings = str(self.agent.call("get_job", {"job_id": "odd"})["warnings"])
        self.assertIn("lab.before", warnings)
        self.assertNotIn("lab.discarded", warnings)
        self.assertEqual(self.target.errant(), "", "opening tables wrote something")
        self.assertEqual(self.site.leftovers(self.agent), [])

    def test_3_tables_without_their_files_are_no_success(self):
        before = server_state_of(self.target)
        self.loses.touch()
        try:
            self.refused("DATA_LOSS", "lab.gone", "lab.also_gone", "2 cannot be opened")
        finally:
            self.loses.unlink()
        self.assertEqual(server_state_of(self.target), before)
        self.goes_on_after_a_restart()

    def test_4_other_data_than_the_copy_is_no_success(self):
        before = server_state_of(self.target)
        self.takes.touch()
        self.refused("DATA_LOSS", "does not run on the restored data")
        self.assertFalse(self.takes.exists(), "the server did not take other data")
        self.assertEqual(server_state_of(self.target), before)
        self.goes_on_after_a_restart()

    def test_5_a_server_that_does_not_start_says_why(self):
        # What only the normal start meets: the private one has no managed file.
        self.script(
            self.scripts / "server",
            f'case "$*" in *--skip-networking*) exec {self.target.mysqld} "$@";; *) '
            f'exec {self.target.mysqld} "$@" $(cat {self.scripts}/more 2>/dev/null);; esac',
        )
        (self.scripts / "more").write_text("--no-such-option")
        try:
            error = None
            try:
                attach(self.agent, self.snapshot, job_id="no-start")
            except RpcError as e:
                error = str(e)
            self.assertIsNotNone(error)
            self.assertIn("no-such-option", error)
            self.assertIn("start the server by hand", error + str(self.try_again()))
        finally:
            (self.scripts / "more").unlink()
        self.target.start()
        self.agent.call("detach_replication_slave", {"force": True})
        self.assertEqual(self.site.leftovers(self.agent), [])

    def try_again(self):
        with self.assertRaises(RpcError) as refusal:
            self.agent.call("detach_replication_slave", {"force": True})
        return refusal.exception


def server_state_of(server):
    return {
        "tables": server.user_tables(),
        "settings": server.sql("SELECT @@server_id, @@read_only, @@log_bin"),
        "source": server.slave_status().get("Master_Port"),
        "options": {p.name: p.read_text() for p in server.conf_d.iterdir()},
    }


class OnMysql(OddTarget, unittest.TestCase):
    """Keys of MySQL 8.4 and later are a component's, which a manifest in the data directory may name."""

    @classmethod
    def setUpClass(cls):
        cls.site = cls.enterClassContext(Site("first-read", engine="mysql-clone"))
        tools, base = with_local_manifests(cls.site)
        cls.site.tools = {"source": tools, "replica": tools}
        cls.source, cls.target = (cls.site.server(n, i) for n, i in (("source", 1), ("target", 2)))
        cls.give_keyring(cls.source)
        cls.source.sql(
            "CREATE DATABASE lab; CREATE TABLE lab.t01 (id INT PRIMARY KEY, name VARCHAR(40)) ENCRYPTION='Y'; INSERT INTO lab.t01 VALUES (1, 'one');"
            "CREATE TABLE lab.plain (a INT PRIMARY KEY)"
        )
        cls.source_agent, cls.agent = cls.site.agent(cls.source), cls.site.agent(cls.target)
        # Nothing of the tables in the redo log: then no server notices at its start that it lacks the keys.
        cls.source.restart()
        cls.snapshot = cls.source_agent.call("get_replication_snapshot", {"snapshot_id": "one"})

    @staticmethod
    def give_keyring(server, keys=None):
        server.stop()
        write_keyring(server, keys)
        server.start()

    def test_1_keys_that_this_server_has_not_are_refused_before(self):
        self.refused("FAILED_PRECONDITION", "component_keyring_file", "lab/t01")
        self.judged(
            "group_replication_group_name=aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa".replace(
                "group_replication_g", "loose-group_replication_g"
            ),
            "cluster",
            "failed",
            "group",
        )
        self.judged("replicate-rewrite-db=a->b", "filters", "failed", "replicate_rewrite_db")

    def test_2_other_keys_are_no_success(self):
        self.give_keyring(self.target)
        before = server_state_of(self.target)
        error = self.refused("FAILED_PRECONDITION", "keys")
        self.assertIn("key", error.hint)
        self.assertEqual(server_state_of(self.target), before)
        self.assertTrue((self.target.data / "mysqld.my").exists())

    def test_3_the_same_keys_stay_beside_the_new_data(self):
        self.give_keyring(self.target, self.source.data / "keyring")
        (self.target.conf_d / "50-odd.cnf").write_text("[mysqld]\nskip-replica-start=ON\n")
        self.target.restart()
        attach(self.agent, self.snapshot)
        self.assertEqual(self.target.sql("SELECT name FROM lab.t01 WHERE id = 1"), [("one",)])
        self.goes_on_after_a_restart()
        self.assertEqual(self.target.errant(), "")
        self.assertEqual(self.site.leftovers(self.agent), [])


def engine_is_here():
    try:
        fetch("mysql-new")
        return True
    except Unavailable as e:
        log(f"SKIPPED: {e}")
        return False


if __name__ == "__main__":
    which = sys.argv.pop(1) if len(sys.argv) > 1 and sys.argv[1] in ("mariadb", "mysql") else "mariadb"
    if which == "mysql" and not engine_is_here():
        sys.exit(SKIPPED)
    names = {"mariadb": "OnMariadb", "mysql": "OnMysql"}
    unittest.main(argv=[sys.argv[0], *(sys.argv[1:] or [names[which]])], verbosity=2)
