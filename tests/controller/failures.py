#!/usr/bin/python3
"""One of three replicas fails on real servers: the other two serve, the third's host is as it was, the snapshot is removed, and when the cause
is mended `retry` completes the task.

failures.py [CAUSE…]   of disk, agent, version (all); ends with "replicate: N cases, F failed"
"""

import argparse
import json
import os
import sys
import threading
import time
import traceback

from control import log, wait_for
from engines import fetch
from hosts import Hosts, source_accounts
from load import seed
from mariadb import assert_same, at_one_position
from mysql56 import MySQL56
from network import sh


def check_equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r}, should be {wanted!r}")


def as_it_is(server):
    return (
        server.checksums(),
        server.value("SELECT @@server_id"),
        server.slave_status(),
        sorted(p.name for p in server.data.iterdir() if p.is_dir()),
    )


class FullDisk:
    """The third host's file system fills up as soon as the copy arrives there, and again with what is given up of it: neither what is
    fetched while the snapshot is made comes to its end, nor the attach."""

    CODE = "RESOURCE_EXHAUSTED"
    SPARE = 4 << 20  # for the server

    def host(self, lab):
        return lab.add(
            "slave3", 14, prepare=lambda directory: sh("mount", "-t", "tmpfs", "-o", "size=700m", "tmpfs", directory)
        )

    def strike(self, lab, host):
        self.filler, self.halt = host.server.dir / "filler", threading.Event()
        before = set(host.server.dir.iterdir())

        def fill():
            full = False
            while not self.halt.wait(0.002):
                full = full or bool(set(host.server.dir.iterdir()) - before)
                free = os.statvfs(host.server.dir)
                room = free.f_bavail * free.f_frsize - self.SPARE
                if not full or room <= 0:
                    continue
                with open(self.filler, "ab") as out:
                    try:
                        os.posix_fallocate(out.fileno(), out.seek(0, 2), room)
                    except OSError:
                        pass  # the copy was faster

        self.thread = threading.Thread(target=fill, daemon=True)
        self.thread.start()

    def afterwards(self, lab, host):
        self.halt.set()
        self.thread.join(30)
        if not self.filler.exists():
            raise AssertionError("the copy never came so far: nothing was tested")
        check_equal(lab.controller.instance("s3")["state"], "spare", "the third host's state")

    def mend(self, lab, host):
        self.filler.unlink()
        return []


class DeadAgent:
    """The third host's agent is killed while it attaches, and does not come back until the cause is mended."""

    CODE = "UNAVAILABLE"

    def host(self, lab):
        return lab.add("slave3", 14)

    def strike(self, lab, host):
        def kill():
            wait_for(
                "the third's job",
                lambda: [
                    j
                    for j in host.agent.call("list_jobs", {})["jobs"]
                    if j["method"] == "attach_replication_slave" and j["state"] == "running"
                ],
                60,
                0.005,
            )
            host.agent.kill9()

        self.thread = threading.Thread(target=kill, daemon=True)
        self.thread.start()

    def afterwards(self, lab, host):
        self.thread.join(30)
        if host.agent.process is not None:
            raise AssertionError("the agent was not killed: nothing was tested")
        check_equal(lab.controller.instance("s3")["state"], "lost", "the third host's state")
        check_equal(lab.controller.instance("s3")["status"]["verdict"], "unreachable", "the third host's verdict")

    def mend(self, lab, host):
        host.agent.start()
        wait_for("the third host to be free", lambda: lab.controller.instance("s3")["state"] == "spare", 60)
        return []


class WrongVersion:
    """The third host has a server that cannot take this copy."""

    CODE = "FAILED_PRECONDITION"

    def host(self, lab):
        return lab.add("slave3", 14, kind=MySQL56, tools=fetch("mysql-5.6").tools)

    def strike(self, lab, host):
        pass

    def afterwards(self, lab, host):
        check_equal(lab.controller.instance("s3")["state"], "spare", "the third host's state")

    def mend(self, lab, host):
        """Another host, and this one taken out."""
        better = lab.add("slave4", 15)
        lab.controller.call("DELETE", "/instances/s3")
        lab.controller.register(better.url, name="slave4", id="s4")
        return [better]


CAUSES = {"disk": FullDisk, "agent": DeadAgent, "version": WrongVersion}


def run(cause):
    # Until the time is up the agent may come back, and is waited for.
    with Hosts(f"fail-{cause}", {"agents": {"lost_after": "3s", "job_poll": "50ms", "call_timeout": "5s"}}) as lab:
        how, c = CAUSES[cause](), lab.controller
        hosts = [lab.add(name, n) for n, name in enumerate(("master", "slave1", "slave2"), 11)]
        third = how.host(lab)
        source = hosts[0].server
        seed(source, 60, quiet=True)
        for host, number in zip((*hosts, third), "m123"):
            c.register(
                host.url,
                name=host.name,
                id="m" if number == "m" else f"s{number}",
                **({} if number == "m" else {"pool": True}),
            )
        before = as_it_is(third.server)
        how.strike(lab, third)
        answer = c.replicate("m", 3)
        task_id = answer["task"]["id"]
        task = c.wait_task(task_id, 120)
        log(f"{cause}: {task['state']}: {json.dumps(task.get('error'))}")
        check_equal(task["state"], "failed", "the task")
        check_equal(
            [(r["name"], r["state"]) for r in task["replicas"]],
            [("slave1", "succeeded"), ("slave2", "succeeded"), ("slave3", "failed")],
            "the replicas",
        )
        error = task["replicas"][2]["error"]
        check_equal(error["code"], how.CODE, f"why ({error})")
        if not error.get("hint"):
            raise AssertionError(f"no hint: {error}")
        how.afterwards(lab, third)
        check_equal(as_it_is(third.server), before, "the third host's server")
        check_equal([m["id"] for m in c.topology("m")["topology"]["members"]], ["m", "s1", "s2"], "the topology")
        wait_for("the snapshot to be removed", lambda: lab.objects() == [], 30)
        same_data(source, [hosts[1].server, hosts[2].server])

        replicas = [*hosts[1:], *(how.mend(lab, third) or [third])]
        out, err = lab.command("retry", task_id)
        task = c.task(task_id)
        check_equal(task["state"], "succeeded", "the task after the retry")
        check_equal(len(c.topology("m")["topology"]["members"]), 4, "members after the retry")
        same_data(source, [h.server for h in replicas])
        wait_for("the second snapshot to be removed", lambda: lab.objects() == [], 30)
        check_equal(
            len({h.server.value("SELECT @@server_id") for h in (hosts[0], *replicas)}), 4, "different server_ids"
        )
        for host in replicas:
            lab.command("detach-replication", host.name)
        check_equal(source_accounts(source), [], "accounts when nobody follows")
        check_equal([m["id"] for m in c.topology("m")["topology"]["members"]], ["m"], "the last topology")


def same_data(source, replicas):
    source.sql(
        "CREATE TABLE IF NOT EXISTS lab.later (id INT AUTO_INCREMENT PRIMARY KEY, at DATETIME(6)); INSERT INTO lab.later (at) VALUES (NOW(6))"
    )
    _, sums = at_one_position(source, replicas, lambda server: server.checksums())
    assert_same("checksums", [source, *replicas], sums)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("causes", nargs="*", metavar="CAUSE")
    causes = parser.parse_args().causes or list(CAUSES)
    if set(causes) - set(CAUSES):
        parser.error(f"causes are {' '.join(CAUSES)}")
    failed = 0
    for cause in causes:
        began = time.monotonic()
        try:
            run(cause)
            log(f"ok      {cause}: {time.monotonic() - began:.0f} s")
        except Exception:
            failed += 1
            log(f"FAILED  {cause}\n{traceback.format_exc()}")
    print(f"replicate: {len(causes)} cases, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
