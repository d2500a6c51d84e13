#!/usr/bin/python3
"""The copy by xtrabackup on a real MySQL 5.6: command lines, phases, and what goes wrong, with a scripted tool."""

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
    check_equal([a.split("=")[0] for a in backup[2:]],
                ["--backup", "--stream", "--target-dir", "--extra-lsndir", "--parallel", "--ftwrl-wait-timeout", "--ftwrl-wait-threshold",
                 "--ftwrl-wait-query-type"], "options of the copy")
    check(agent.password not in str(calls(source.tools)), "the password is in the command line")
    check(not Path(backup[1].split("=")[1]).exists(), "the option file with the password is still there")
    site.call(target_agent, "attach_replication_slave", {"snapshot": snapshot})
    said = calls(target.tools)
    prepare = [c for c in said if "--prepare" in c]
    check_equal(len(prepare), 1, "how often it was prepared")
    check_equal([a.split("=")[0] for a in prepare[0][1:]], ["--prepare", "--target-dir", "--use-memory"], "options of prepare")
    check(any(c[0].startswith("xbstream -x -C ") for c in said), f"xbstream was not called as documented: {said}")
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
        refused(lambda: site.call(agent, "get_replication_snapshot"), "FAILED_PRECONDITION", version, "does not fit mysql-5.6", words)
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
        slow.start("SELECT SLEEP(60) FROM lab.t01 LIMIT 1")
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
        refused(lambda: site.call(agent, "get_replication_snapshot"), "DEADLINE_EXCEEDED", "lock_wait")
        done.set()
        beside.join()
        log(f"longest write meanwhile: {longest[0]:.2f} s")
        check(longest[0] < 3, "a writer stood still")
    untouched(site, agent, source)


def failed_prepare(site, agent, source, target, target_agent):
    target.sql("CREATE DATABASE mine; CREATE TABLE mine.kept (id INT PRIMARY KEY); INSERT INTO mine.kept VALUES (1)")
    snapshot = site.call(agent, "get_replication_snapshot", {"snapshot_id": "second"})
    before, pid = target.checksums(), target.pid()
    wish = {"snapshot": snapshot, "slave_config": {"overwrite": True}}
    install(target.tools, fault="prepare", log=target.dir / "log/tool.log")
    refused(lambda: site.call(target_agent, "attach_replication_slave", wish), "INTERNAL", "preparing the copy", "corruption")
    install(target.tools, fault="keyring", log=target.dir / "log/tool.log")
    refused(lambda: site.call(target_agent, "attach_replication_slave", wish), "FAILED_PRECONDITION", "master key", "keyring, with the same keys")
    check_equal((target.checksums(), target.pid()), (before, pid), "the target after a failed prepare")
    install(target.tools, version="8.0.35-31", log=target.dir / "log/tool.log")
    refused(lambda: site.call(target_agent, "attach_replication_slave", wish), "FAILED_PRECONDITION", "2.3 or 2.4")
    check_equal((target.checksums(), target.pid()), (before, pid), "the target after a misfit")
    check_equal(site.leftovers(target_agent), [], "leftovers")


def with_gtids():
    """The same by GTIDs, which this series has where it is told to."""
    options = ["gtid-mode=ON", "enforce-gtid-consistency=ON", "log-slave-updates=ON"]
    with Site("gtids", engine="mysql-5.6") as site:
        source, target = site.server("source", 1, options=options), site.server("target", 2, role="replica", options=options)
        seed_small(source)
        # Of two servers, so that the tool writes the set in two lines.
        source.sql("SET gtid_next='3e11fa47-71ca-11e1-9e33-c80aa9429562:7'; INSERT INTO lab.t01 VALUES (1000001, 'x', 1); SET gtid_next='AUTOMATIC';"
                   "INSERT INTO lab.t01 VALUES (1000002, 'y', 2)")
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
            with step("faults of the tool"):
                faults(site, agent, source)
            with step("a failed prepare"):
                failed_prepare(site, agent, source, target, target_agent)
                site.call(agent, "cleanup_replication_source", {"replication_user": source.value(
                    "SELECT user FROM mysql.user WHERE user LIKE 'repl\\_%'")})
                site.call(agent, "delete_replication_snapshot", {"snapshot_href": f"file://{site.store_dir}/guestagent/snapshots/second/manifest.json"})
            with step("a long query"):
                long_query(site, agent, source)
        with step("with GTIDs"):
            with_gtids()
        log("xtrabackup: good")
    return run_row("mysql-5.6", row)


if __name__ == "__main__":
    sys.exit(main())
