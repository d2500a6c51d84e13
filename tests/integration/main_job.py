#!/usr/bin/python3
"""The main job on real servers: snapshot a source under load, attach two replicas at once, hold all three side by side, detach one,
then lose the source in the middle of a large transaction while the other detaches."""

import argparse
import sys
import time

from testsite import *  # noqa: F403


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--store", choices=["local", "swift"], default="local")
    options.add_argument("--by", choices=["daemon", "oneshot"], default="daemon")
    options.add_argument("--mb", type=int, default=320)
    options.add_argument("--engine", choices=list(ENGINES), default="mariadb")
    o = options.parse_args()

    def row(engine):
        with Site("main", o.store, o.by, engine) as site:
            run(site, o.mb)
        log(f"main job, {engine}: good")

    return run_row(o.engine, row)


def run(site, megabytes):
    with step("three servers, three agents, data"):
        source = site.server("source", 1)
        seed(source, megabytes)
        proxy = site.stack.enter_context(Proxy(source.port))
        rights = told_rights(source.RIGHTS)
        source_agent = site.agent(source, grants=rights, config={"mysql": {"advertised_port": proxy.port}})
        replicas = [site.server("replica1", 101, role="replica"), site.server("replica2", 102, role="replica")]
        # Where the row upgrades, either tool prepares the copy: that of the replicas' series, and that of the source's.
        upgrades = site.tools["replica"] != site.tools["source"]
        with_tools = [{}, {"mysql": {"tools_dir": None}} if upgrades else {}]
        agents = [site.agent(r, grants=rights, config=c) for r, c in zip(replicas, with_tools)]
        writers = [Writer(source, 1), Writer(source, 2)]
        for w in writers:
            w.start()
    watch = ErrantWatch()

    with step("snapshot"):
        before = [w.done for w in writers]
        snapshot = site.call(source_agent, "get_replication_snapshot", {"snapshot_id": "first"})
        check_metadata(snapshot, source, proxy)
        check(all(w.done > b for w, b in zip(writers, before)), "the writers stood still during the snapshot")
        check_equal(site.leftovers(source_agent), [], "left by the snapshot")

    with step("attach two replicas at once"):
        calls = [Calls(site.call, a, "attach_replication_slave", {"snapshot": snapshot}) for a in agents]
        results = [c.result() for c in calls]
        log(f"attach took {', '.join(f'{c.seconds:.1f} s' for c in calls)}")
        for r in replicas:
            watch.add(r)
        for result, replica in zip(results, replicas):
            check_equal((result["state"], result["read_only"]), ("replica", True), "attach's result")
            check_equal(str(result["server_id"]), replica.value("SELECT @@server_id"), "server_id told and used")
            check_equal(replica.value("SELECT @@read_only"), "1", "read_only of a replica")
            check(replica.value("SELECT @@event_scheduler") != "ON", "the event scheduler is on on a replica")
            check_equal(
                replica.sql(f"SELECT @@log_bin, @@{replica.LOG_UPDATES}"), [("1", "1")], "binary log of a replica"
            )
            check(replica.pid(), "no server runs")
            if upgrades:
                version = replica.value("SELECT @@version").split("-")[0]
                check(
                    (replica.data / "mariadb_upgrade_info").read_text().startswith(version),
                    "the system tables are not upgraded",
                )
        ids = {"1", *(r.value("SELECT @@server_id") for r in replicas)}
        check_equal(len(ids), 3, f"different server ids ({ids})")
        for a in agents:
            status = site.healthy(a)
            check_equal(
                (status["role"], status["io_thread"], status["sql_thread"]), ("replica", "running", "running"), "status"
            )
            check_equal(status["source"]["port"], proxy.port, "source in the status")
            check_equal(site.leftovers(a), [], "left by the attach")
        check_equal(site.call(source_agent, "get_replication_status")["verdict"], "source", "verdict of the source")

    def compare(what, followers):
        position, sums = at_one_position(source, followers, lambda s: s.checksums())
        assert_same(f"checksums at {position} {what}", [source, *followers], sums)
        _, schemas = at_one_position(source, followers, lambda s: s.schema())
        assert_same("schema", [source, *followers], schemas)

    with step("compare all tables at one position"):
        time.sleep(3)
        compare("after attach", replicas)
        for r in replicas:
            check_equal(r.value("SELECT COUNT(DISTINCT host) FROM lab.heartbeat"), "1", "servers that ran the event")

    with step("detach the first while it has received more than it has applied"):
        first, first_agent = replicas[0], agents[0]
        server_id = first.value("SELECT @@server_id")
        result, received = detach_with_backlog(site, first, first_agent, watch)
        check_equal(result["state"], "standalone", "detach's result")
        source.check_all_received(source.place(result["last_applied"]), received)
        check_equal(result["status"]["verdict"], "standalone", "verdict after detach")
        for n in (1, 2):
            numbered(first, n)
        check_standalone(first, server_id)
        first.restart()
        check_standalone(first, server_id)
        wait_for(
            "the event to run on the detached server",
            lambda: first.value(f"SELECT COUNT(*) FROM lab.heartbeat WHERE host={server_id}") != "0",
            20,
        )

    with step("the other still follows"):
        site.healthy(agents[1])
        compare("after the other's detach", [replicas[1]])

    with step("the source dies inside a large transaction while the other's detach drains"):
        second, second_agent = replicas[1], agents[1]
        source.sql("CREATE TABLE lab.big (id INT PRIMARY KEY, body LONGTEXT)")
        check(second.reached(source.position(), 60), "the table did not reach the second replica")
        result, received = detach_while_source_dies(site, source, second, second_agent, proxy, watch)
        check_equal(result["state"], "standalone", "detach's result")
        source.check_all_received(source.place(result["last_applied"]), received)
        check_equal(second.value("SELECT COUNT(*) FROM lab.big"), "0", "rows of the half transaction")
        for n in (1, 2):
            numbered(second, n)
        check_standalone(second, str(results[1]["server_id"]))
    check_equal(watch.stop(), [], "errant transactions")
    check(watch.looks > 20, f"only {watch.looks} looks for errant transactions")

    with step("put away"):
        proxy.limit(None)
        source.start()
        wait_for("the writers to go on", lambda: all(w.is_alive() for w in writers), 5)
        for w in writers:
            w.stop()
        for n in (1, 2):
            numbered(source, n)
        listed = site.call(source_agent, "list_replication_snapshots")
        entries = listed if isinstance(listed, list) else listed["snapshots"]
        check_equal([(e["id"], e["complete"]) for e in entries], [("first", True)], "snapshots")
        user = snapshot["replication_user"]["name"]
        check_equal(source.value(f"SELECT COUNT(*) FROM mysql.user WHERE user='{user}'"), "1", "replication account")
        site.call(source_agent, "cleanup_replication_source", {"replication_user": user})
        check_equal(
            source.value(f"SELECT COUNT(*) FROM mysql.user WHERE user='{user}'"),
            "0",
            "replication account after clean-up",
        )
        href = snapshot["dataset"]["snapshot_href"]
        gone = site.call(source_agent, "delete_replication_snapshot", {"snapshot_href": href})
        check(
            gone["deleted"] is True and gone["objects"] >= snapshot["snapshot"]["segments"] + 2,
            f"delete answered {gone}",
        )
        again = site.call(source_agent, "delete_replication_snapshot", {"snapshot_href": href})
        check_equal(again, {"deleted": True, "objects": 0}, "second delete")
        if site.store_kind == "local":
            check_equal(site.store_files(), {}, "files left in the store")
        for a in (source_agent, *agents):
            check_equal(site.leftovers(a), [], "leftovers")


def check_metadata(m, source, proxy):
    check_equal(m["master"], {"host": "127.0.0.1", "port": proxy.port}, "master")
    check_equal(m["dataset"]["datastore"], "mysql", "datastore")
    check_equal(
        m["dataset"]["datastore_version"],
        source.FAMILY + "-" + source.value("SELECT @@version").split("-")[0],
        "version",
    )
    data_bytes = m["dataset"]["dataset_bytes"]
    check_equal(m["dataset"]["dataset_size"], -(-data_bytes // (1 << 30)), "dataset_size in GiB, rounded up")
    check(m["dataset"]["snapshot_href"].endswith("/first/manifest.json"), m["dataset"]["snapshot_href"])
    lease, p, s = m["lease_position"], m["binlog_position"], m["snapshot"]
    clone = source.TOOL == "clone"
    if clone:
        check_equal(
            p, {"file": None, "position": None, "gtid": None, "known": "restored"}, "binlog_position of a clone"
        )
    else:
        check(
            source.transactions(source.place(p)) > source.transactions(source.place(lease)),
            "the lease begins before the copy ends",
        )
    for name, each in (("lease_position", lease), *([] if clone else [("binlog_position", p)])):
        check(each["file"].startswith("binlog.") and each["position"] > 0 and each["known"] == "now", f"{name}: {each}")
        check_equal(bool(each["gtid"]), source.GTIDS, f"a GTID in {name}")
    check_equal(
        (s["id"], s["format"], s["compression"], s["encryption"], s["format_version"], s["requires"]),
        ("first", "tar" if clone else "xbstream", "zstd", None, 1, []),
        "snapshot",
    )
    check(s["tool"].startswith(source.TOOL + " ") and s["digest"].startswith("sha256:"), f"{s}")
    # They end with a chunk of the tool's, of 10 MiB at most, where one fits.
    full = -(-s["raw_bytes"] // (32 << 20))
    check(s["raw_bytes"] > s["stored_bytes"] > 0 and full <= s["segments"] <= 1 + full * 3 // 2, f"{s}")
    check(
        m["replication_user"]["name"].startswith("repl_") and len(m["replication_user"]["password"]) >= 16,
        "replication_user",
    )


def io_stopped(server):
    status = server.slave_status()
    return status if status and status["Slave_IO_Running"] == "No" else None


def detach_with_backlog(site, replica, agent, watch):
    """Detaches while the SQL thread waits for a row lock, so that there is something to drain; answers the result and the GTID
    position that the IO thread had received when it was stopped."""
    with replica.session() as lock:
        replica.hold_rows(lock, "load_.w1_count")
        wait_for(
            "a backlog",
            lambda: replica.transactions(replica.slave_status()["Gtid_IO_Pos"])
            - replica.transactions(replica.applied())
            > 40,
            30,
        )
        detach = Calls(site.call, agent, "detach_replication_slave", {})
        received = wait_for("the IO thread to be stopped", lambda: detach.error or io_stopped(replica), 60)
        watch.drop(replica)
        check(detach.is_alive(), f"the detach ended before its backlog was applied: {detach.error or detach.value}")
        replica.release_rows(lock)
    return detach.result(), received["Gtid_IO_Pos"]


def detach_while_source_dies(site, source, replica, agent, proxy, watch):
    with replica.session() as lock, source.session() as writer:
        replica.hold_rows(lock, "load_.w1_count")
        time.sleep(1)
        proxy.limit(4_000_000)
        writer.start("USE lab")
        writer.start(f"INSERT INTO lab.big SELECT seq, REPEAT(SHA2(seq, 256), 1000) FROM {source.numbers(1000)}")
        wait_for(
            "the transaction to be committed on the source",
            lambda: source.value("SELECT COUNT(*) FROM lab.big") == "1000",
            60,
        )

        def inside():
            s = replica.slave_status()
            return int(s["Read_Master_Log_Pos"]) > 8_000_000 + inside.start

        inside.start = int(replica.slave_status()["Read_Master_Log_Pos"])
        wait_for("the replica to be inside the large transaction", inside, 60)
        detach = Calls(site.call, agent, "detach_replication_slave", {})
        time.sleep(0.2)
        source.kill9()
        received = wait_for("the IO thread to be stopped", lambda: detach.error or io_stopped(replica), 60)
        watch.drop(replica)
        check(detach.is_alive(), f"the detach ended before its backlog was applied: {detach.error or detach.value}")
        replica.release_rows(lock)
    return detach.result(), received["Gtid_IO_Pos"]


def check_standalone(server, server_id):
    check_equal(server.slave_status(), {}, "replication settings")
    check_equal(
        server.sql("SELECT @@read_only, @@server_id, @@log_bin, @@event_scheduler"),
        [("0", server_id, "1", "ON")],
        "read_only, server_id, log_bin, event_scheduler after detach",
    )
    before = server.position()
    server.sql("CREATE TABLE IF NOT EXISTS lab.own (id INT AUTO_INCREMENT PRIMARY KEY); INSERT INTO lab.own VALUES ()")
    check(server.position() != before, "a write did not reach the binary log")


if __name__ == "__main__":
    sys.exit(main())
