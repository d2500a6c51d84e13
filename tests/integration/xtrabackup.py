#!/usr/bin/python3
"""The copy by xtrabackup on a real MySQL 5.6: command lines, phases, and what goes wrong, with a scripted tool."""

import os
import sys
import threading

from testsite import *  # noqa: F403
from xtrabackup import calls, install

# What the tool does wrong -> the error's code and words.
FAULTS = {
    "no-word": ("INTERNAL", "without saying that it completed"),
    "fail-late": ("INTERNAL", "exit status 1"),
    "wrapped": ("RESOURCE_EXHAUSTED", "wrapped around"),
    "partial": ("FAILED_PRECONDITION", "partial"),
    "no-binlog-info": ("DATA_LOSS", "xtrabackup_binlog_info"),
    "bad-binlog-info": ("DATA_LOSS", "xtrabackup_binlog_info"),
    "other-position": ("DATA_LOSS", "not what"),
    "cut": ("DATA_LOSS", "ends within a chunk"),
    "crash": ("INTERNAL", "exit status 2"),
    "index": ("UNAVAILABLE", "an index was built"),
    "connections": ("UNAVAILABLE", "max_connections"),
}


def refused(call, code, *words):
    try:
        call()
    except RpcError as e:
        check_equal(e.code, code, f"code of the error ({e})")
        for word in words:
            check(word in f"{e.message} {e.hint}", f"the error does not say {word!r}: {e}")
        return e
    raise AssertionError(f"no error: {code} {words}")


def untouched(site, agent, source):
    check_equal(source.value("SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'repl\\_%'"), "0", "replication accounts")
    check_equal(site.leftovers(agent), [], "leftovers")
    check_equal(site.store_files(), {}, "files in the store")


def command_lines(site, agent, source, target, target_agent):
    snapshot = site.call(agent, "get_replication_snapshot")
    backup = [c for c in calls(source.tools) if "--backup" in c][-1]
    check(backup[1].startswith("--defaults-file="), f"the option file comes first: {backup}")
    check_equal(
        [a.split("=")[0] for a in backup[2:]],
        [
            "--backup",
            "--stream",
            "--target-dir",
            "--extra-lsndir",
            "--parallel",
            "--ftwrl-wait-timeout",
            "--ftwrl-wait-threshold",
            "--ftwrl-wait-query-type",
        ],
        "options of the copy",
    )
    check(agent.password not in str(calls(source.tools)), "the password is in the command line")
    check(not Path(backup[1].split("=")[1]).exists(), "the option file with the password is still there")
    site.call(target_agent, "attach_replication_slave", {"snapshot": snapshot})
    said = calls(target.tools)
    prepare = [c for c in said if "--prepare" in c]
    check_equal(len(prepare), 1, "how often it was prepared")
    check_equal(
        [a.split("=")[0] for a in prepare[0][1:]], ["--prepare", "--target-dir", "--use-memory"], "options of prepare"
    )
    check(not any("stream" in Path(c[0].split()[0]).name for c in said), f"no tool is to extract: {said}")
    _, sums = at_one_position(source, [target], lambda s: s.checksums())
    assert_same("checksums", [source, target], sums)
    site.call(target_agent, "detach_replication_slave")
    site.call(agent, "cleanup_replication_source", {"replication_user": snapshot["replication_user"]["name"]})
    site.call(agent, "delete_replication_snapshot", {"snapshot_href": snapshot["dataset"]["snapshot_href"]})


def faults(site, agent, source):
    for fault, (code, words) in FAULTS.items():
        install(source.tools, fault=fault, log=source.dir / "log/tool.log")
        refused(lambda: site.call(agent, "get_replication_snapshot"), code, words)
        untouched(site, agent, source)
        log(f"{fault}: {code}")
    for version, words in (("8.0.35-31", "2.3 or 2.4"), ("2.2.12", "2.3 or 2.4"), ("8.4.0-1", "2.3 or 2.4")):
        install(source.tools, version=version, log=source.dir / "log/tool.log")
        refused(
            lambda: site.call(agent, "get_replication_snapshot"),
            "FAILED_PRECONDITION",
            version,
            "does not fit mysql-5.6",
            words,
        )
        untouched(site, agent, source)
    (source.tools / "xtrabackup").unlink()
    refused(lambda: site.call(agent, "get_replication_snapshot"), "NOT_FOUND", "xtrabackup")
    untouched(site, agent, source)
    install(source.tools, log=source.dir / "log/tool.log")


def long_query(site, agent, source):
    """The tool waits for it before it asks for its lock, so that nobody waits for the tool."""
    agent.stop()
    agent.write_config({"mysql": {"lock_wait": "3s"}})
    agent.start()
    with source.session() as slow, source.session() as writer:
        slow.start("SELECT SLEEP(60),\n'geheim' FROM lab.t01 LIMIT 1")
        time.sleep(1.5)
        longest, done = [0.0], threading.Event()

        def write():
            n = 5_000_000
            while not done.is_set():
                began = time.monotonic()
                writer.run(f"INSERT INTO lab.t01 VALUES ({n}, 'x', 1)")
                longest[0], n = max(longest[0], time.monotonic() - began), n + 1

        beside = threading.Thread(target=write)
        beside.start()
        error = refused(lambda: site.call(agent, "get_replication_snapshot"), "DEADLINE_EXCEEDED", "lock_wait")
        done.set()
        told = f"{error} {site.call(agent, 'list_jobs')} {agent.log_tail(1000)}"
        check(
            "Waiting for query" in told and "geheim" not in told,
            "the text of somebody's query was told, or nothing of it",
        )
        beside.join()
        log(f"longest write meanwhile: {longest[0]:.2f} s")
        check(longest[0] < 3, "a writer stood still")
    untouched(site, agent, source)


def own_sessions(source, agent):
    return source.sql(
        f"SELECT id, time, state, info FROM information_schema.processlist WHERE user='{agent.user}' AND info LIKE 'FLUSH%'"
    )


def still_served(source, agent, what):
    """The query runs on; nothing of the tool's is left behind it, and a writer is served at once."""
    check_equal(
        source.value(
            "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%SLEEP(600)%' AND id <> CONNECTION_ID()"
        ),
        "1",
        f"{what}: the long query, which must still run for this to say anything",
    )
    check_equal(own_sessions(source, agent), [], f"{what}: sessions of the tool on the server")
    source.sql("INSERT INTO lab.beside VALUES (NULL); CREATE TABLE lab.made (id INT); DROP TABLE lab.made", timeout=30)
    check_equal(
        source.value("SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'repl\\_%'"), "0", f"{what}: replication accounts"
    )


def left_waiting(site, agent, source):
    """Queries that the tool does not wait for politely: its lock waits behind them, and all writers behind the lock. They do not wait
    for longer than the limit, whatever becomes of tool and agent."""
    source.sql("CREATE TABLE lab.beside (id INT AUTO_INCREMENT PRIMARY KEY)")
    flushing = lambda: wait_for("the tool's lock to wait", lambda: own_sessions(source, agent), 60, 0.02)

    def ended(job):
        return wait_for(
            f"the end of {job}", lambda: (r := agent.call("get_job", {"job_id": job}))["state"] != "running" and r, 60
        )

    def give_up():
        refused(lambda: site.call(agent, "get_replication_snapshot"), "DEADLINE_EXCEEDED", "lock_wait")

    def cancel():
        agent.call("get_replication_snapshot", {"async": True, "job_id": "cancelled-one"})
        flushing()
        agent.call("cancel_job", {"job_id": "cancelled-one"})
        check_equal(ended("cancelled-one")["state"], "cancelled", "state of the job")

    def kill_tool():
        agent.call("get_replication_snapshot", {"async": True, "job_id": "killed-tool"})
        flushing()
        for pid, line in site.scratch.processes().items():
            if "xtrabackup.py" in line and "--backup" in line:
                os.kill(pid, 9)
        check_equal(ended("killed-tool")["error"]["data"]["code"], "INTERNAL", "code of the job's error")

    def kill_agent():
        agent.call("get_replication_snapshot", {"async": True, "job_id": "killed-agent"})
        flushing()
        agent.kill9()
        # No next start is needed for the writers to go on.
        wait_for("the server to give up the lock", lambda: not own_sessions(source, agent), 60)
        source.sql("INSERT INTO lab.beside VALUES (NULL)", timeout=30)
        agent.start()
        check(ended("killed-agent")["state"] != "succeeded", "a job whose agent was killed succeeded")

    cases = [
        ("give up", give_up, "SET @a=(SELECT SLEEP(600) FROM lab.t01 LIMIT 1)"),
        # As one that began in the second before the lock: not waited for.
        ("cancelled", cancel, "/*!50000 SELECT */ SLEEP(600) FROM lab.t01 LIMIT 1"),
        ("tool killed", kill_tool, "SET @a=(SELECT SLEEP(600) FROM lab.t01 LIMIT 1)"),
        ("agent killed", kill_agent, "/*!50000 SELECT */ SLEEP(600) FROM lab.t01 LIMIT 1"),
    ]
    for what, act, query in cases:
        agent.stop()
        agent.write_config({"mysql": {"lock_wait": "4s" if act is give_up else "600s", "freeze_limit": "1s"}})
        agent.start()
        with source.session() as slow:
            slow.start(query)
            time.sleep(1.2)
            act()
            still_served(source, agent, what)
            source.sql(
                "KILL "
                + source.value(
                    "SELECT id FROM information_schema.processlist WHERE info LIKE '%SLEEP(600)%' AND id <> CONNECTION_ID()"
                )
            )
        untouched(site, agent, source)
        log(f"{what}: good")
    # A statement of the tool's that locks nothing and waits.
    with source.session() as slow:
        slow.start("CREATE TABLE lab.slowly AS SELECT SLEEP(600) FROM lab.t01 LIMIT 1")
        time.sleep(0.5)
        agent.call("get_replication_snapshot", {"async": True, "job_id": "waiting-one"})
        wait_for(
            "the job to say that it waits",
            lambda: agent.call("get_job", {"job_id": "waiting-one"})["phase"] == "wait for the source",
            60,
        )
        agent.call("cancel_job", {"job_id": "waiting-one"})
        check_equal(ended("waiting-one")["state"], "cancelled", "state of the job")
        check_equal(
            source.sql(
                f"SELECT info FROM information_schema.processlist WHERE user='{agent.user}' AND info LIKE '%information_schema.tables%'"
            ),
            [],
            "sessions of the tool on the server",
        )
        source.sql(
            "KILL "
            + source.value(
                "SELECT id FROM information_schema.processlist WHERE info LIKE '%SLEEP(600)%' AND id <> CONNECTION_ID()"
            )
        )
    source.sql("DROP TABLE IF EXISTS lab.slowly; DROP TABLE lab.beside")
    untouched(site, agent, source)


def option_files(site, agent, source, other):
    """What the server's own option files say to clients and to the tool."""
    extra = source.conf_d / "site.cnf"
    # A proxy's address, say; the same account is there too.
    other.sql(f"SET sql_log_bin=0; GRANT ALL ON *.* TO '{agent.user}'@'127.0.0.1' IDENTIFIED BY '{agent.password}'")
    other.sql(
        "CREATE DATABASE elsewhere; CREATE TABLE elsewhere.t (id INT); " + "INSERT INTO elsewhere.t VALUES (1);" * 20
    )
    groups = "".join(
        f"[{group}]\nhost=127.0.0.1\nport={other.port}\nprotocol=tcp\nssl-ca=/nonexistent.pem\n"
        for group in ("client", "xtrabackup")
    )
    extra.write_text(groups)
    flushes = other.value("SELECT VARIABLE_VALUE FROM information_schema.global_status WHERE VARIABLE_NAME='COM_FLUSH'")
    snapshot = site.call(agent, "get_replication_snapshot")
    check_equal(source.place(snapshot["binlog_position"]), source.position(), "position of the copy")
    check_equal(
        other.value("SELECT VARIABLE_VALUE FROM information_schema.global_status WHERE VARIABLE_NAME='COM_FLUSH'"),
        flushes,
        "locks on the other server",
    )
    other.sql(f"SET sql_log_bin=0; DROP USER '{agent.user}'@'127.0.0.1'")
    other.sql("DROP DATABASE elsewhere")
    site.call(agent, "cleanup_replication_source", {"replication_user": snapshot["replication_user"]["name"]})
    site.call(agent, "delete_replication_snapshot", {"snapshot_href": snapshot["dataset"]["snapshot_href"]})
    for option in ("compress", "encrypt"):
        extra.write_text(f"[xtrabackup]\n{option}=AES256\n")
        refused(lambda: site.call(agent, "get_replication_snapshot"), "FAILED_PRECONDITION", option, "[xtrabackup]")
        untouched(site, agent, source)
    extra.unlink()


def rights(site, agent, source):
    """Each right that a snapshot needs is asked for by name before anything is made or copied."""
    source.sql("SET GLOBAL expire_logs_days=5")
    before = len([c for c in calls(source.tools) if "--backup" in c])
    for right in (
        "RELOAD",
        "PROCESS",
        "CREATE USER",
        "REPLICATION SLAVE",
        "REPLICATION CLIENT",
        "SUPER",
        "GRANT OPTION",
    ):
        source.sql(f"SET sql_log_bin=0; REVOKE {right} ON *.* FROM '{agent.user}'@'localhost'")
        error = refused(lambda: site.call(agent, "get_replication_snapshot"), "PERMISSION_DENIED", "lacks")
        check_equal(error.message.split("lacks ")[1].split(";")[0].strip(), right, "what is missing")
        source.sql(f"SET sql_log_bin=0; GRANT ALL ON *.* TO '{agent.user}'@'localhost' WITH GRANT OPTION")
    check_equal(len([c for c in calls(source.tools) if "--backup" in c]), before, "calls of the tool")
    source.sql("SET GLOBAL expire_logs_days=0")
    untouched(site, agent, source)


def failed_prepare(site, agent, source, target, target_agent):
    target.sql("CREATE DATABASE mine; CREATE TABLE mine.kept (id INT PRIMARY KEY); INSERT INTO mine.kept VALUES (1)")
    snapshot = site.call(agent, "get_replication_snapshot", {"snapshot_id": "second"})
    before, pid = target.checksums(), target.pid()
    wish = {"snapshot": snapshot, "slave_config": {"overwrite": True}}
    install(target.tools, fault="prepare", log=target.dir / "log/tool.log")
    refused(
        lambda: site.call(target_agent, "attach_replication_slave", wish),
        "INTERNAL",
        "preparing the copy",
        "corruption",
    )
    install(target.tools, fault="keyring", log=target.dir / "log/tool.log")
    refused(
        lambda: site.call(target_agent, "attach_replication_slave", wish),
        "FAILED_PRECONDITION",
        "master key",
        "keyring, with the same keys",
    )
    check_equal((target.checksums(), target.pid()), (before, pid), "the target after a failed prepare")
    install(target.tools, version="8.0.35-31", log=target.dir / "log/tool.log")
    refused(lambda: site.call(target_agent, "attach_replication_slave", wish), "FAILED_PRECONDITION", "2.3 or 2.4")
    check_equal((target.checksums(), target.pid()), (before, pid), "the target after a misfit")
    check_equal(site.leftovers(target_agent), [], "leftovers")


def with_gtids():
    """The same by GTIDs, which this series has where it is told to."""
    options = ["gtid-mode=ON", "enforce-gtid-consistency=ON", "log-slave-updates=ON"]
    with Site("gtids", engine="mysql-5.6") as site:
        source, target = site.server("source", 1, options=options), site.server(
            "target", 2, role="replica", options=options
        )
        seed_small(source)
        # Of two servers, so that the tool writes the set in two lines.
        source.sql(
            "SET gtid_next='3e11fa47-71ca-11e1-9e33-c80aa9429562:7'; INSERT INTO lab.t01 VALUES (1000001, 'x', 1); SET gtid_next='AUTOMATIC';"
            "INSERT INTO lab.t01 VALUES (1000002, 'y', 2)"
        )
        agent, target_agent = site.agent(source), site.agent(target)
        snapshot = site.call(agent, "get_replication_snapshot")
        one = lambda text: sorted("".join(text.split()).split(","))
        check_equal(len(one(snapshot["binlog_position"]["gtid"])), 2, "histories in the position")
        source.sql("INSERT INTO lab.t01 VALUES (1000003, 'z', 3)")
        site.call(target_agent, "attach_replication_slave", {"snapshot": snapshot})
        check_equal(target.slave_status()["Auto_Position"], "1", "followed by GTIDs")
        site.healthy(target_agent)
        _, sums = at_one_position(source, [target], lambda s: s.checksums())
        assert_same("checksums by GTIDs", [source, target], sums)
        executed = source.value("SELECT @@global.gtid_executed")
        result = site.call(target_agent, "detach_replication_slave")
        check_equal(one(result["last_applied"]["gtid"]), one(executed), "last applied")


def main():
    def row(engine):
        with Site("xtra", engine=engine) as site:
            source, target = site.server("source", 1), site.server("target", 2, role="replica")
            seed_small(source)
            agent, target_agent = site.agent(source), site.agent(target)
            with step("command lines"):
                command_lines(site, agent, source, target, target_agent)
            with step("option files of the site"):
                option_files(site, agent, source, target)
            with step("rights"):
                rights(site, agent, source)
            with step("faults of the tool"):
                faults(site, agent, source)
            with step("a failed prepare"):
                failed_prepare(site, agent, source, target, target_agent)
                site.call(
                    agent,
                    "cleanup_replication_source",
                    {"replication_user": source.value("SELECT user FROM mysql.user WHERE user LIKE 'repl\\_%'")},
                )
                site.call(
                    agent,
                    "delete_replication_snapshot",
                    {"snapshot_href": f"file://{site.store_dir}/guestagent/snapshots/second/manifest.json"},
                )
            with step("a long query"):
                long_query(site, agent, source)
            with step("a lock that waits when all ends"):
                left_waiting(site, agent, source)
        with step("with GTIDs"):
            with_gtids()
        log("xtrabackup: good")

    return run_row("mysql-5.6", row)


if __name__ == "__main__":
    sys.exit(main())
