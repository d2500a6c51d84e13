#!/usr/bin/python3
"""Status, preflight, rollback and detach on each engine, with little data."""

import argparse
import sys

from testsite import *  # noqa: F403


def refused(call, code, *words):
    try:
        call()
    except RpcError as e:
        check_equal(e.code, code, f"code of the refusal ({e})")
        for word in words:
            check(word in f"{e.message} {e.hint}", f"the refusal does not say {word!r}: {e}")
        return
    raise AssertionError(f"not refused: {code} {words}")


def state_of(server):
    return (
        server.checksums(),
        server.schema(),
        server.value("SELECT @@server_id"),
        sorted(p.name for p in server.data.iterdir() if p.is_dir()),
    )


# What each server knows of globals that a session takes over.
GLOBALS = {
    "": [
        "sql_select_limit=1",
        "max_join_size=1",
        "sql_big_selects=0",
        "autocommit=0",
        "sql_safe_updates=1",
        "group_concat_max_len=4",
        "time_zone='+09:00'",
        "completion_type=2",
        "sql_mode='ANSI,NO_BACKSLASH_ESCAPES'",
        "wait_timeout=1",
        "sql_auto_is_null=1",
        "init_connect='this is no SQL'",
    ],
    "mariadb-11.8": ["tx_read_only=1", "max_statement_time=0.5", "idle_transaction_timeout=1"],
    "mysql-5.6": ["tx_read_only=1", "tx_isolation='READ-UNCOMMITTED'"],
    "mysql-clone": ["transaction_read_only=1", "transaction_isolation='READ-UNCOMMITTED'", "max_execution_time=1"],
}
FIXED_DIGEST = "2c97f8ffee84c2e321ed5051393a64c3-74711291017"  # of the table lab.fixed, on every engine


def own_session(site, engine, source, agent):
    source.sql(
        "SET sql_log_bin=0; CREATE TABLE lab.fixed (id INT PRIMARY KEY, v VARCHAR(20), at TIMESTAMP NULL);"
        "SET time_zone='+00:00';"
        + "".join(
            f"INSERT INTO lab.fixed VALUES ({n}, 'row {n}', '2026-01-0{n % 9 + 1} 00:00:00');" for n in range(1, 40)
        )
    )
    for changed in (False, True):
        if changed:
            source.sql(";".join(f"SET GLOBAL {each}" for each in GLOBALS[""] + GLOBALS[engine]))
        sums = site.call(agent, "checksum_tables", {"tables": ["lab.fixed"]})["tables"]
        check_equal(
            [(t["rows"], t["digest"]) for t in sums], [(39, FIXED_DIGEST)], f"the digest, globals changed: {changed}"
        )
        check(site.call(agent, "get_info")["reachable"], "get_info")
        plan = site.call(agent, "get_replication_snapshot", {"snapshot_id": "dry", "dry_run": True})
        check_equal([c for c in plan["checks"] if c["result"] == "failed"], [], "failed checks")
    if engine == "mysql-clone":  # a backup tool of others takes them over and stumbles
        made = site.call(agent, "get_replication_snapshot", {"snapshot_id": "odd"})
        site.call(agent, "cleanup_replication_source", {"replication_user": made["replication_user"]["name"]})


def run(site):
    source, target = site.server("source", 1), site.server("target", 2, role="replica")
    seed_small(source)
    target.sql(
        "CREATE DATABASE mine; CREATE TABLE mine.kept (id INT PRIMARY KEY); INSERT INTO mine.kept VALUES (1), (2), (3)"
    )
    rights = told_rights(source.RIGHTS)
    source_agent, agent = site.agent(source, grants=rights), site.agent(target, grants=rights)

    def attach(to=agent, **config):
        return site.call(to, "attach_replication_slave", {"snapshot": snapshot, "slave_config": config})

    with step("status and snapshot"):
        for a in (source_agent, agent):
            check_equal(site.call(a, "get_replication_status")["verdict"], "standalone", "verdict")
        info = site.call(agent, "get_info")
        check(target.value("SELECT @@version").split("-")[0] in str(info), f"the version in {info}")
        snapshot = site.call(source_agent, "get_replication_snapshot")
        check_equal(site.call(source_agent, "get_replication_status")["verdict"], "source", "verdict of the source")

    with step("preflight"):
        before = state_of(target)
        refused(attach, "FAILED_PRECONDITION", "user data", "overwrite")
        refused(lambda: attach(source_agent, overwrite=True), "FAILED_PRECONDITION", "this very server")
        refused(lambda: attach(overwrite=True, server_id=1), "FAILED_PRECONDITION", "the source has it")
        plan = site.call(
            agent,
            "attach_replication_slave",
            {"snapshot": snapshot, "slave_config": {"overwrite": True}, "dry_run": True},
        )
        check(plan["checks"] and not [c for c in plan["checks"] if c["result"] == "failed"], f"{plan}")
        check_equal(state_of(target), before, "the target after preflight")

    with step("rollback"):
        account = f"'{snapshot['replication_user']['name']}'@'%'"
        source.sql(f"REVOKE REPLICATION SLAVE ON *.* FROM {account}")
        try:
            attach(overwrite=True)
            raise AssertionError("it replicates without the right to")
        except RpcError as e:
            log(f"refused by the source: {e.code}: {str(e.message)[:160]}")
        check_equal(state_of(target), before, "the target after the rollback")
        check_equal(site.leftovers(agent), [], "left by the rollback")
        check_equal(site.call(agent, "get_replication_status")["verdict"], "standalone", "verdict after the rollback")
        source.sql(f"GRANT REPLICATION SLAVE ON *.* TO {account}")

    with step("attach, status"):
        attach(overwrite=True)
        status = site.healthy(agent)
        check_equal(
            (status["role"], status["read_only"], status["source"]["port"]), ("replica", True, source.port), "status"
        )
        check_equal(target.checksums(), source.checksums(), "checksums")
        if source.FAMILY == "mysql":
            check(
                source.value("SELECT @@server_uuid") != target.value("SELECT @@server_uuid"),
                "the source's server_uuid was copied",
            )
        check(target.value("SELECT @@event_scheduler") != "ON", "the event scheduler is on")
        if snapshot["lease_position"].get("gtid"):
            created = (target.data / "ibdata1").stat().st_ino
            check_equal(attach()["state"], "replica", "attach of a replica that has the data: it only follows anew")
            check_equal((target.data / "ibdata1").stat().st_ino, created, "the data, which needed no copy")
            site.healthy(agent)
        else:
            refused(attach, "FAILED_PRECONDITION", "overwrite")

    def still_to_apply(first, count):
        """That many transactions, received and not applied. By turns in two databases: some engines apply by database."""
        source.sql(
            ";".join(
                f"INSERT INTO {'more' if n % 2 else 'lab'}.t01 VALUES ({n}, 'late', {n})"
                for n in range(first, first + count)
            )
        )
        wait_for(
            "the transactions to be received", lambda: target.slave_status()["Gtid_IO_Pos"] == source.position(), 30
        )

    def late():
        return target.sql(
            "SELECT id FROM lab.t01 WHERE body='late' UNION ALL SELECT id FROM more.t01 WHERE body='late' ORDER BY 1"
        )

    with step("detach with several applying threads, one of which waits"):
        source.sql("CREATE DATABASE more; CREATE TABLE more.t01 LIKE lab.t01")
        check(target.reached(source.position(), 30), "the new table did not reach the replica")
        target.apply_by(threads=3)
        with target.session() as lock:
            target.hold_rows(lock, "lab.t01")
            still_to_apply(2000001, 10)
            # Longer than an applying thread must be idle to be believed.
            refused(
                lambda: site.call(agent, "detach_replication_slave", {"drain_timeout_s": 4}),
                "DEADLINE_EXCEEDED",
                "drain_timeout_s",
            )
            target.release_rows(lock)
        site.healthy(agent)
        check_equal(len(late()), 10, "transactions applied after the refusal")

    with step("detach of a delayed replica"):
        target.apply_by(threads=3, delay=8)
        still_to_apply(2000011, 10)
        refused(
            lambda: site.call(agent, "detach_replication_slave", {"drain_timeout_s": 1}),
            "DEADLINE_EXCEEDED",
            "delayed by 8 s on purpose",
        )
        check_equal(site.call(agent, "get_replication_status")["role"], "replica", "role after the refusal")
        check_equal(len(late()), 10, "transactions applied before their time")

    with step("detach, status"):
        result = site.call(agent, "detach_replication_slave")
        check_equal((result["state"], result["status"]["verdict"]), ("standalone", "standalone"), "detach's result")
        check_equal(
            [int(row[0]) for row in late()], list(range(2000001, 2000021)), "transactions that the detach waited for"
        )
        target.sql("INSERT INTO lab.t01 VALUES (1000001, 'own', 1)")
        refused(lambda: site.call(agent, "detach_replication_slave"), "FAILED_PRECONDITION", "not a replica")
        check_equal(site.leftovers(agent), [], "left by the detach")
        check_equal(
            result["dropped_accounts"],
            [snapshot["replication_user"]["name"]],
            "accounts of the source that are gone here",
        )

    with step("globals that a session would take over"):
        own_session(site, site.engine, source, source_agent)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--engine", choices=list(ENGINES), required=True)
    o = options.parse_args()

    def row(engine):
        with Site("each", engine=engine) as site:
            run(site)
        log(f"{engine}: good")

    return run_row(o.engine, row)


if __name__ == "__main__":
    sys.exit(main())
