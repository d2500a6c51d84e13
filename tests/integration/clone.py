#!/usr/bin/python3
"""MySQL by its Clone plugin beside the main job: what is refused, what a copy leaves on its source when it ends early, an attach that
fails and is undone, and a source without GTIDs and TLS."""

import argparse
import json
import sys
import time

from testsite import *  # noqa: F403


def refused(call, code, *words):
    try:
        call()
    except RpcError as e:
        check_equal(e.code, code, f"code of {e.message}")
        text = f"{e.message} {e.hint}"
        for word in words:
            check(word in text, f"the refusal does not say {word!r}: {text}")
        return
    raise AssertionError(f"not refused: {words}")


def accounts(server):
    return server.sql("SELECT user FROM mysql.user WHERE user LIKE 'repl%'")


def clean(site, agent, what):
    check_equal(site.leftovers(agent), [], f"left by {what}")
    check_equal(accounts(agent.server), [], f"accounts left by {what}")
    running = agent.server.value("SELECT COUNT(*) FROM performance_schema.processlist WHERE info LIKE 'CLONE LOCAL%'")
    check_equal(running, "0", f"clones that still run after {what}")


def has_plugin(server):
    return server.value("SELECT COUNT(*) FROM information_schema.plugins WHERE plugin_name='clone'") == "1"


def cloning(server):
    """The server writes into the directory of a clone right now."""
    return any(server.dir.glob("data.guestagent/clone*/data/*"))


def refusals(site, source, agent):
    snapshot = lambda: site.call(agent, "get_replication_snapshot")  # noqa: E731
    with step("tables that are not InnoDB"):
        source.sql(
            "CREATE TABLE lab.old_notes (id INT PRIMARY KEY) ENGINE=MyISAM; CREATE TABLE lab.short_lived (id INT) ENGINE=MEMORY"
        )
        plan = site.call(agent, "get_replication_snapshot", {"dry_run": True})
        check("lab.old_notes" in json.dumps(plan), f"the plan does not name the table: {plan}")
        refused(snapshot, "FAILED_PRECONDITION", "lab.old_notes (MyISAM)", "lab.short_lived (MEMORY)")
        clean(site, agent, "the refusal")
        source.sql("DROP TABLE lab.old_notes, lab.short_lived")
    with step("no plugin, and no right to load it"):
        check(not has_plugin(source), "the plugin is loaded")
        refused(snapshot, "PERMISSION_DENIED", "plugin-load-add=mysql_clone.so")
        clean(site, agent, "the refusal")


def ends(site, source, agent):
    """A copy that ends early leaves nothing, however it ends."""
    source.sql("GRANT INSERT, DELETE ON mysql.plugin TO guestagent@localhost")
    with step("cancelled while the server clones"):
        call = Calls(agent.call, "get_replication_snapshot", {"job_id": "cancelled"})
        wait_for("the clone", lambda: cloning(source) or call.error, 60, 0.01)
        agent.call("cancel_job", {"job_id": "cancelled"})
        refused(call.result, "CANCELLED")
        clean(site, agent, "a cancelled copy")
        check(not has_plugin(source), "the plugin that the copy loaded is still there")
    with step("the agent is killed while the server clones"):
        call = Calls(agent.call, "get_replication_snapshot", {"job_id": "killed"})
        wait_for("the clone", lambda: cloning(source) or call.error, 60, 0.01)
        agent.kill9()
        agent.start()
        job = wait_for(
            "the recovery", lambda: (j := agent.call("get_job", {"job_id": "killed"}))["state"] != "running" and j, 60
        )
        check_equal(job["state"], "failed", "state of the killed job")
        clean(site, agent, "a killed agent")
        check(not has_plugin(source), "the plugin that the copy loaded is still there")


def undone(site, snapshot, target, agent):
    with step("an attach that fails at its last step is undone"):
        target.sql("CREATE DATABASE mine; CREATE TABLE mine.t (id INT PRIMARY KEY); INSERT INTO mine.t VALUES (1), (2)")
        before = (
            target.checksums(),
            target.schema(),
            target.value("SELECT @@server_uuid"),
            target.value("SELECT @@server_id"),
        )
        params = {"snapshot": snapshot, "slave_config": {"overwrite": True}}
        refused(
            lambda: site.call(agent, "attach_replication_slave", {"snapshot": snapshot}),
            "FAILED_PRECONDITION",
            "overwrite",
        )
        agent.stop()
        agent.start(env={"GUESTAGENT_FAILPOINT": "journal:replica.start=error"})
        refused(lambda: site.call(agent, "attach_replication_slave", params), "INTERNAL")
        after = (
            target.checksums(),
            target.schema(),
            target.value("SELECT @@server_uuid"),
            target.value("SELECT @@server_id"),
        )
        check_equal(after, before, "the data from before")
        check_equal(target.slave_status(), {}, "replication settings")
        check_equal(target.value("SELECT @@super_read_only, @@read_only"), "0", "writable")
        check_equal(site.leftovers(agent), [], "left by the attach")
        agent.stop()
        agent.start()
    with step("the next attach"):
        site.call(agent, "attach_replication_slave", params)


def first():
    """With GTIDs and TLS; the plugin is loaded for the copy alone."""
    with Site("clone", engine="mysql-clone") as site:
        with step("two servers"):
            source, target = site.server("source", 1, clone=False), site.server(
                "target", 2, role="replica", clone=False
            )
            seed_small(source)
            source.sql("SET sql_log_bin=0; CREATE TABLE lab.large (id INT PRIMARY KEY, body LONGTEXT)")
            source.sql(
                f"SET sql_log_bin=0; INSERT INTO lab.large SELECT seq, REPEAT(SHA2(seq, 256), 4000) FROM {source.numbers(400)} "
            )
            agent = site.agent(source, grants=told_rights("mysql"))
            target_agent = site.agent(target, grants=told_rights("mysql"))
        refusals(site, source, agent)
        ends(site, source, agent)
        with step("snapshot"):
            snapshot = site.call(agent, "get_replication_snapshot", {"snapshot_id": "one"})
            check(not has_plugin(source), "the plugin that the copy loaded is still there")
            check_equal(site.leftovers(agent), [], "left by the snapshot")
        undone(site, snapshot, target, target_agent)
        with step("digests by the agents"):
            at = site.call(agent, "checksum_tables")
            there = site.call(target_agent, "checksum_tables", {"at": at["at"]})
            key = lambda tables: sorted((t["table"], t["rows"], t["digest"]) for t in tables)  # noqa: E731
            check_equal(key(there["tables"]), key(at["tables"]), "digests of the replica")
        follows(site, source, agent, target, target_agent, "1")


def follows(site, source, agent, target, target_agent, tls):
    with step("it follows, detaches, and lives on its own"):
        status = site.healthy(target_agent)
        check_equal((status["role"], status["source"]["server_id"]), ("replica", 1), "status")
        check(
            target.value("SELECT @@server_uuid") != source.value("SELECT @@server_uuid"),
            "the source's server_uuid was copied",
        )
        check_equal(
            target.sql("SELECT @@super_read_only, @@read_only, @@event_scheduler"),
            [("1", "1", "OFF")],
            "a replica's settings",
        )
        check_equal(target.slave_status()["Master_SSL_Allowed"], "Yes" if tls == "1" else "No", "TLS")
        check_equal(target.errant(), "", "transactions born on the replica")
        source.sql("CREATE TABLE lab.later (id INT PRIMARY KEY); INSERT INTO lab.later VALUES (1), (2), (3)")
        wait_for(
            "the replica to have it", lambda: dict(target.checksums()) == source_without_events(source, target), 30
        )
        result = site.call(target_agent, "detach_replication_slave")
        check_equal(result["state"], "standalone", "detach's result")
        check_equal(target.slave_status(), {}, "replication settings after detach")
        check_equal(
            target.sql("SELECT @@super_read_only, @@read_only, @@event_scheduler"),
            [("0", "0", "ON")],
            "settings after detach",
        )
        target.restart()
        target.sql("INSERT INTO lab.later VALUES (4)")


def source_without_events(source, target):
    """The source's checksums once the event has run nowhere in between."""
    source.sql("SET GLOBAL event_scheduler=OFF")
    time.sleep(1)
    return source.checksums()


def second():
    """By file and position, and by a public key instead of TLS."""
    with Site("plain", engine="mysql-clone") as site:
        with step("two servers without GTIDs and certificates"):
            source = site.server("source", 1, gtid=False, certificates=False)
            target = site.server("target", 2, role="replica", gtid=False, certificates=False)
            seed_small(source)
            source.sql(
                "INSERT INTO lab.t01 VALUES (9001, 'logged', 1); FLUSH BINARY LOGS; INSERT INTO lab.t01 VALUES (9002, 'logged', 1)"
            )
            agent, target_agent = site.agent(source), site.agent(target)
        with step("snapshot and attach"):
            snapshot = site.call(agent, "get_replication_snapshot", {"snapshot_id": "plain"})
            check_equal(
                (snapshot["binlog_position"]["known"], snapshot["lease_position"]["gtid"]),
                ("restored", None),
                "positions",
            )
            check_equal(snapshot["replication_user"]["require_tls"], False, "require_tls")
            source.sql("INSERT INTO lab.t01 VALUES (9003, 'after the copy', 1)")
            site.call(target_agent, "attach_replication_slave", {"snapshot": snapshot})
            check_equal(target.slave_status()["Auto_Position"], "0", "Auto_Position")
        follows(site, source, agent, target, target_agent, "0")
        with step("a second snapshot takes it back"):
            params = {"snapshot": site.call(agent, "get_replication_snapshot"), "slave_config": {"overwrite": True}}
            site.call(target_agent, "attach_replication_slave", params)
            site.healthy(target_agent)


def main():
    parts = {"gtid": first, "plain": second}
    options = argparse.ArgumentParser()
    options.add_argument("part", choices=list(parts))
    part = options.parse_args().part

    def row(_):
        parts[part]()
        log(f"clone, {part}: good")

    return run_row("mysql-clone", row)


if __name__ == "__main__":
    sys.exit(main())
