#!/usr/bin/python3
"""Hosts that fetch a snapshot while a slow source still makes it: what they have by then is not fetched again, and of a snapshot that never
came to be, or of a replica that never was, nothing stays on them. On real servers and a real Swift."""

import sys

from control import log, wait_for
from end_to_end import check_equal, same_data
from hosts import Hosts
from load import seed

SLOW = {"snapshot": {"segment_size": "1MiB", "throttle": {"read": "6MiB"}}}


def jobs_of(task):
    return [replica.get("job") or {} for replica in task["replicas"]]


def followed(lab, task_id):
    """Waits until all of the task's hosts have fetched something of the snapshot, which is not done yet."""

    def look():
        task = lab.controller.task(task_id)
        if task["step"] != "snapshot":
            raise AssertionError(f"the snapshot has ended: {task}")
        jobs = jobs_of(task)
        return all(j.get("phase") == "follow" and j["progress"]["done_bytes"] > 2 << 20 for j in jobs) and task

    task = wait_for("bytes on all hosts", look, 60)
    done = [job["progress"]["done_bytes"] for job in jobs_of(task)]
    log(f"fetched while the snapshot was at {task['snapshot_job']['progress']}: {done}")
    return task


def nothing_staged(hosts):
    for host in hosts:
        check_equal(host.agent.call("get_info")["staged"], [], f"staged on {host.name}")
        check_equal([str(p) for p in (host.agent.dir / "spill").glob("**/*")], [], f"followed on {host.name}")


def is_free(lab, host):
    return lab.controller.instance(host.name)["state"] == "spare"


def given_up(lab, host):
    task_id = lab.controller.replicate("master", 1)["task"]["id"]
    followed(lab, task_id)
    lab.controller.post(f"/tasks/{task_id}/action", {"cancel": {}})
    task = lab.controller.wait_task(task_id, 120)
    check_equal((task["state"], task["replicas"][0]["name"]), ("cancelled", host.name), "the cancelled task")
    job = host.agent.call("get_job", {"job_id": f"{task_id}-r1-stage-1"})
    if job["state"] == "succeeded":
        raise AssertionError(f"staged all the same: {job}")
    nothing_staged([host])
    check_equal((is_free(lab, host), lab.objects()), (True, []), "the host is free, and objects")


def refused(lab, host):
    """Data comes to the host while it fetches: its attach is refused, and what it has fetched is of no use."""
    task_id = lab.controller.replicate("master", 1)["task"]["id"]
    followed(lab, task_id)
    host.server.sql("CREATE DATABASE own; CREATE TABLE own.t (id INT PRIMARY KEY)")
    task = lab.controller.wait_task(task_id, 120)
    check_equal(task["replicas"][0]["error"]["code"], "FAILED_PRECONDITION", "why the attach was refused")
    job = host.agent.call("get_job", {"job_id": f"{task_id}-r1-discard-1"})
    if job["result"]["discarded_bytes"] < 10 << 20:
        raise AssertionError(f"discarded: {job}")
    nothing_staged([host])
    host.server.sql("DROP DATABASE own")


def two_replicas(lab, source, hosts):
    task_id = lab.controller.replicate("master", 2)["task"]["id"]
    followed(lab, task_id)
    task = lab.controller.wait_task(task_id, 180)
    check_equal(task["state"], "succeeded", f"the task: {task}")
    for n, replica in enumerate(task["replicas"], 1):
        host = next(h for h in hosts if h.name == replica["name"])
        staged, attached = (
            host.agent.call("get_job", {"job_id": f"{task_id}-r1-{step}-{n}"}) for step in ("stage", "attach")
        )
        check_equal(attached["result"]["resumed_bytes"], staged["result"]["raw_bytes"], "bytes that were there already")
    nothing_staged(hosts)
    check_equal(lab.objects(), [], "objects")
    events = lab.controller.call("GET", "/events", headers={"Accept": "application/json"})["events"]
    check_equal([e for e in events if e.get("task_id") == task_id and "has not fetched" in e["message"]], [], "events")
    same_data(source.server, [host.server for host in hosts])


def main():
    with Hosts("staging") as lab:
        source, first, second = (
            lab.add(name, n, config=SLOW if name == "master" else None)
            for n, name in enumerate(("master", "slave1", "slave2"), 11)
        )
        seed(source.server, 40, quiet=True)
        for host in (source, first):
            lab.controller.register(host.url, name=host.name)
        given_up(lab, first)
        refused(lab, first)
        lab.controller.register(second.url, name=second.name)
        two_replicas(lab, source, [first, second])
    log("staging: good")


if __name__ == "__main__":
    sys.exit(main())
