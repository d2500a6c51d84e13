#!/usr/bin/python3
"""No password, key or token of a whole run is anywhere but where it must be: not in argv, environment, logs, answers of others, binary
and general logs, snapshots, or files that others can read."""

import base64
import os
import stat
import sys
import threading

from testsite import *  # noqa: F403


class ProcWatch(threading.Thread):
    """Reads argv and environment of every process of the lab, again and again."""

    def __init__(self, scratch):
        super().__init__(daemon=True)
        self.scratch, self.halt, self.seen = scratch, threading.Event(), {}
        self.start()

    def run(self):
        me = os.getpid()
        while not self.halt.is_set():
            for entry in os.listdir("/proc"):
                if not entry.isdigit() or int(entry) == me:
                    continue
                for name in ("cmdline", "environ"):
                    try:
                        with open(f"/proc/{entry}/{name}", "rb") as f:
                            text = f.read()
                    except OSError:
                        continue
                    if text:
                        self.seen.setdefault(text, (entry, name))
            self.halt.wait(0.005)

    def stop(self):
        self.halt.set()
        self.join()
        return self.seen


def main():
    with Site("secret", store="swift") as site:
        options = ["general-log=ON", "slow-query-log=ON", "long-query-time=0"]
        source, target = site.server("source", 1, options=options), site.server("target", 2, options=options)
        seed_small(source)
        watch = ProcWatch(site.scratch)
        # The lab makes the agents' accounts in plain SQL: its own lines leave the logs before the agents start.
        agents = [site.agent(s, start=False, config={"agent": {"log": {"level": "debug"}}}) for s in (source, target)]
        for server in (source, target):
            server.sql("SET GLOBAL general_log=OFF; SET GLOBAL slow_query_log=OFF")
            for log_file in server.data.glob("*slow.log"):
                log_file.unlink()
            server.general_log.unlink()
            server.sql("SET GLOBAL general_log=ON; SET GLOBAL slow_query_log=ON")
        for a in agents:
            a.start()
        source_agent, target_agent = agents
        check(source_agent.command("check-config")[0] == 0, "check-config")
        snapshot = source_agent.call("get_replication_snapshot", {"snapshot_id": "one"})
        target_agent.oneshot("attach_replication_slave", {"snapshot": snapshot})
        log_lines = []
        try:
            target_agent.call("attach_replication_slave", {"snapshot": snapshot, "slave_config": {"server_id": 1}})
            check(False, "an attach with the source's own server_id was accepted")
        except RpcError as e:
            log_lines.append(str(e))
        source_agent.call("get_replication_status")
        target_agent.call("get_replication_status")
        shown = [target_agent.get("/metrics")[1], target_agent.get("/healthz")[1], *map(str.encode, log_lines)]
        target_agent.call("detach_replication_slave")
        source_agent.call("cleanup_replication_source", {"replication_user": snapshot["replication_user"]["name"]})
        argv_and_env = watch.stop()

        secrets = {
            "the password of the source's agent": source_agent.password,
            "the password of the target's agent": target_agent.password,
            "the replication password": snapshot["replication_user"]["password"],
            "the Swift key": site.swift.key,
        }
        secrets["a Swift token"] = site.swift.token  # tempauth answers the same one to whoever asks as this user
        forms = {}
        for what, secret in secrets.items():
            check(len(secret) >= 8, f"{what} is too short to be looked for")
            forms[secret.encode()] = what
            forms[base64.b64encode(secret.encode()).rstrip(b"=")[:-2]] = what + " in base64"
        check(len(argv_and_env) > 30, f"only {len(argv_and_env)} command lines and environments were seen")
        check(
            any(b"mariadb-backup" in text for text in argv_and_env), "the backup tool was not seen: the watch is blind"
        )
        found = [
            f"{what} in the {name} of process {pid}"
            for text, (pid, name) in argv_and_env.items()
            for s, what in forms.items()
            if s in text
        ]
        found += [f"{what} in an answer" for text in shown for s, what in forms.items() if s in text]
        found += in_files(site, agents, forms)
        check_equal(found, [], "secrets that can be seen")
        check(source.general_log.stat().st_size > 1000, "the general log is empty: nothing was looked at")
    log("secrets: good")


def in_files(site, agents, forms):
    """Every file of the run. Allowed, if nobody else can read it: the files that hold the secrets by configuration, the agents' job
    records (a result holds the replication password), and what the server itself keeps to replicate by."""
    allowed = {a.password_file for a in agents} | {site.scratch.dir / "swift/user.key"}
    found, files = [], 0
    for path in site.scratch.dir.rglob("*"):
        try:
            if not path.is_file() or path.is_symlink():
                continue
            content = path.read_bytes()
        except OSError:
            continue
        files += 1
        inside = sorted({what for s, what in forms.items() if s in content})
        if not inside:
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        kept = (
            path in allowed
            or (path.parent.name == "jobs" and path.suffix in (".json", ".journal"))
            or path.name == "master.info"
        )
        swift_s_own = site.scratch.dir / "swift/etc" in path.parents
        if (
            not (kept and mode & 0o077 == 0)
            and not (path.name == "master.info" and mode & 0o007 == 0)
            and not swift_s_own
        ):
            found.append(f"{', '.join(inside)} in {path} (mode {mode:04o})")
    check(files > 100, f"only {files} files were looked at")
    return found


if __name__ == "__main__":
    sys.exit(main())
