#!/usr/bin/python3
"""kill -9 of the controller at every state of every task: it completes after the restart, exactly once, with nothing left over.

kill.py [--random N] [--seed S] [--only WORD]   ends with "controller kill: N cases, F failed"
"""
import argparse
import random
import sys
import time
import traceback

from control import Site, log, wait_for

STEPS = [
    "state:start_replicate",
    "rpc:get_replication_snapshot",
    "rpc:stage_replication_snapshot",
    "state:snapshot_taken",
    "state:replica_attaching",
    "rpc:attach_replication_slave",
    "state:replica_serving",
    "state:replicas_ended",
    "rpc:delete_replication_snapshot",
    "state:cleanup_done",
    "state:finish",
]
DETACH = [
    "state:start_detach",
    "state:replica_detaching",
    "rpc:detach_replication_slave",
    "state:detached",
    "rpc:cleanup_replication_source",
    "state:cleanup_done",
    "state:finish",
]


def submit(site, path, body, key):
    """As a careful client does: again with the same key until there is an answer."""

    def answer():
        try:
            return site.controller.call("POST", path, body, headers={"Idempotency-Key": key})
        except OSError:
            revive(site, died=True)
            return None

    return wait_for("an answer", answer, 30)


def revive(site, died=False):
    """`died`: it did not answer, so it is about to be gone if it is not yet."""
    if died:
        site.controller.process.wait(10)
    if site.controller.process.poll() is not None:
        site.killed += 1
        site.controller.process = None
        site.controller.start()


def finish(site, task_id):
    def ended():
        try:
            task = site.controller.task(task_id)
            return task if task["state"] != "running" else None
        except OSError:
            revive(site, died=True)

    task = wait_for(f"the end of {task_id}", ended, 60)
    time.sleep(0.05)  # the failpoint after the last commit
    revive(site)
    return task


def once(site, agent, method, count):
    jobs = site.done(agent, method)
    if len(jobs) != count or len(set(jobs)) != count:
        raise AssertionError(f"{agent.name}: {method} was done {len(jobs)} times: {jobs}")


def must_be_killed(site):
    if site.killed != 1:
        raise AssertionError(f"the controller was killed {site.killed} times: the place was not reached")


def replicate(site, failpoint):
    if "stage" in failpoint:
        site.source.seconds = 0.5  # so that the hosts are asked while it lasts
    site.controller.start(env={"GUESTAGENT_FAILPOINT": failpoint})
    site.killed = 0
    site.register()
    task = finish(site, submit(site, "/instances/m/action", {"replicate": {"count": 2}}, "k")["task"]["id"])
    must_be_killed(site)
    assert task["state"] == "succeeded", task
    once(site, site.source, "get_replication_snapshot", 1)
    once(site, site.source, "delete_replication_snapshot", 1)
    for host in site.hosts[:2]:
        once(site, host, "attach_replication_slave", 1)
        assert len([job for job in host.jobs.values() if job["method"] == "stage_replication_snapshot"]) <= 1, host.jobs
        assert "stage" not in failpoint or host.resumed, host.name
    assert site.hosts[2].jobs == {}
    assert len(site.controller.get("/tasks")["tasks"]) == 1
    assert site.controller.topology("m")["topology"]["members"] == [{"id": "m", "name": "master"}] + [
        site.member(h) for h in site.hosts[:2]
    ]
    site.nothing_left(accounts=1)


def detach(site, failpoint):
    site.start()
    site.controller.wait_task(site.controller.replicate("m", 1)["task"]["id"])
    site.controller.stop()
    site.source.done.clear()
    site.killed = 0
    site.controller.start(env={"GUESTAGENT_FAILPOINT": failpoint})
    task = finish(site, submit(site, "/instances/s1/topology/action", {"detach": {}}, "k")["task"]["id"])
    must_be_killed(site)
    assert task["state"] == "succeeded", task
    once(site, site.hosts[0], "detach_replication_slave", 1)
    once(site, site.source, "cleanup_replication_source", 1)
    assert site.controller.topology("m")["topology"]["members"] == [{"id": "m", "name": "master"}]
    site.nothing_left(accounts=0)


def promoted(site, failpoint):
    """Whenever it dies, one server takes writes in the end, and the topology says who follows it."""
    site.start()
    site.controller.wait_task(site.controller.replicate("m", 2)["task"]["id"])
    site.controller.stop()
    site.killed = 0
    site.controller.start(env={"GUESTAGENT_FAILPOINT": failpoint})
    task = finish(site, submit(site, "/instances/s1/action", {"promote_to_replica_source": {}}, "k")["task"]["id"])
    must_be_killed(site)
    assert task["state"] == "succeeded", task
    new, other = site.hosts[0], site.hosts[1]
    once(site, new, "detach_replication_slave", 1)
    once(site, new, "open_replication_source", 1)
    for host in (site.source, other):
        assert host.following and host.following["source"] is new, host.name
    assert (site.source.refuses_writes, new.refuses_writes) == (True, False)
    members = site.controller.topology("s1")["topology"]["members"]
    assert [m["id"] for m in members] == ["s1", "s2", "m"], members
    assert site.source.accounts == set() and len(new.accounts) == 1, (site.source.accounts, new.accounts)
    assert all(host.violations == [] for host in (site.source, new, other))


def one_fails(site, failpoint):
    site.hosts[1].fail["attach_replication_slave"] = ("RESOURCE_EXHAUSTED", "disk full", 1)
    site.controller.start(env={"GUESTAGENT_FAILPOINT": failpoint})
    site.killed = 0
    site.register()
    task_id = submit(site, "/instances/m/action", {"replicate": {"count": 2}}, "k")["task"]["id"]
    task = finish(site, task_id)
    assert [r["state"] for r in task["replicas"]] == ["succeeded", "failed"], task
    try:
        site.controller.post(f"/tasks/{task_id}/action", {"retry": {}})
    except OSError:
        revive(site, died=True)
        if site.controller.task(task_id)["round"] == 1:
            site.controller.post(f"/tasks/{task_id}/action", {"retry": {}})
    task = finish(site, task_id)
    must_be_killed(site)
    assert task["state"] == "succeeded", task
    once(site, site.source, "get_replication_snapshot", 2)
    once(site, site.source, "delete_replication_snapshot", 2)
    once(site, site.hosts[0], "attach_replication_slave", 1)
    once(site, site.hosts[1], "attach_replication_slave", 1)
    assert len(site.controller.topology("m")["topology"]["members"]) == 3
    site.nothing_left(accounts=2)


def snapshot_fails(site, failpoint):
    site.source.fail["get_replication_snapshot"] = ("UNAVAILABLE", "no store")
    site.controller.start(env={"GUESTAGENT_FAILPOINT": failpoint})
    site.killed = 0
    site.register()
    task = finish(site, submit(site, "/instances/m/action", {"replicate": {"count": 2}}, "k")["task"]["id"])
    must_be_killed(site)
    assert task["state"] == "failed", task
    assert [i["state"] for i in site.controller.get("/instances")["instances"]] == ["active"] + ["spare"] * 3
    site.nothing_left(accounts=0)


def snapshot_fails_late(site, failpoint):
    """With hosts that follow it."""
    site.source.seconds = 0.5
    snapshot_fails(site, failpoint)
    for host in site.hosts[:2]:
        assert site.job(host, "stage_replication_snapshot")["state"] in ("cancelled", "failed"), host.jobs


def cancelled(site, failpoint):
    site.hosts[1].hold.clear()
    site.controller.start(env={"GUESTAGENT_FAILPOINT": failpoint})
    site.killed = 0
    site.register()
    task_id = submit(site, "/instances/m/action", {"replicate": {"count": 2}}, "k")["task"]["id"]
    wait_for("the first replica", lambda: site.controller.task(task_id)["replicas"][0]["state"] == "succeeded")
    wait_for("the second's job", lambda: any(name == "attach_replication_slave" for name, _ in site.hosts[1].calls))
    try:
        site.controller.post(f"/tasks/{task_id}/action", {"cancel": {}})
    except OSError:
        revive(site, died=True)
        if not site.controller.task(task_id)["cancel_requested"]:
            site.controller.post(f"/tasks/{task_id}/action", {"cancel": {}})
    task = finish(site, task_id)
    must_be_killed(site)
    assert [r["state"] for r in task["replicas"]] == ["succeeded", "cancelled"], task
    assert site.job(site.hosts[1], "attach_replication_slave")["state"] == "cancelled"
    site.nothing_left(accounts=1)


def detach_fails(site, failpoint):
    site.start()
    site.controller.wait_task(site.controller.replicate("m", 1)["task"]["id"])
    site.controller.stop()
    site.hosts[0].fail["detach_replication_slave"] = ("FAILED_PRECONDITION", "a transaction was received in part", 1)
    site.killed = 0
    site.controller.start(env={"GUESTAGENT_FAILPOINT": failpoint})
    task = finish(site, submit(site, "/instances/s1/topology/action", {"detach": {}}, "k")["task"]["id"])
    must_be_killed(site)
    assert task["state"] == "failed" and "received in part" in task["error"]["message"], task
    assert len(site.controller.topology("m")["topology"]["members"]) == 2
    assert site.source.accounts
    assert site.controller.wait_task(site.controller.detach("s1")["task"]["id"])["state"] == "succeeded"
    once(site, site.hosts[0], "detach_replication_slave", 1)
    site.nothing_left(accounts=0)


def store_is_away(site, failpoint):
    site.source.fail["delete_replication_snapshot"] = ("UNAVAILABLE", "the store is away", 2)
    site.controller.start(env={"GUESTAGENT_FAILPOINT": failpoint})
    site.killed = 0
    site.register()
    task = finish(site, submit(site, "/instances/m/action", {"replicate": {"count": 1}}, "k")["task"]["id"])
    must_be_killed(site)
    assert task["state"] == "succeeded", task
    site.nothing_left(accounts=1)
    once(site, site.source, "delete_replication_snapshot", 1)


def until(site, what, condition):
    """As wait_for, and the controller is started anew where it died."""

    def look():
        try:
            return condition()
        except OSError:
            revive(site, died=True)
            return False

    wait_for(what, look, 60)


def comes_back(site, failpoint):
    """The agent that was given up answers again: what its job came to is learnt."""
    host = site.hosts[0]
    host.hold.clear()
    site.controller.start(env={"GUESTAGENT_FAILPOINT": failpoint})
    site.killed = 0
    site.register()
    task_id = submit(site, "/instances/m/action", {"replicate": {"count": 1}}, "k")["task"]["id"]
    wait_for("the attach", lambda: any(name == "attach_replication_slave" for name, _ in host.calls))
    host.down()
    assert finish(site, task_id)["state"] == "failed"
    assert site.controller.instance("s1")["state"] == "lost"
    host.hold.set()
    host.up()
    until(site, "the host to be free", lambda: site.controller.instance("s1")["state"] == "spare")
    time.sleep(0.05)
    revive(site)
    must_be_killed(site)
    site.nothing_left(accounts=0, staged=1)


def detached_now(site):
    return site.controller.wait_task(site.controller.detach("s1")["task"]["id"])["state"] == "succeeded"


def detach_lost(site, failpoint):
    """The replica's agent dies in the detach and comes back, which undoes it: the replica still follows, and can be detached again."""
    site.start()
    site.controller.wait_task(site.controller.replicate("m", 1)["task"]["id"])
    site.controller.stop()
    host = site.hosts[0]
    host.hold.clear()
    site.killed = 0
    site.controller.start(env={"GUESTAGENT_FAILPOINT": failpoint})
    task_id = submit(site, "/instances/s1/topology/action", {"detach": {}}, "k")["task"]["id"]
    wait_for("the detach", lambda: any(name == "detach_replication_slave" for name, _ in host.calls))
    host.down()
    assert finish(site, task_id)["state"] == "failed"
    host.hold.set()
    host.up()
    wait_for("the kill", lambda: site.controller.process.poll() is not None, 60)
    revive(site)
    must_be_killed(site)
    wait_for("the second detach", lambda: detached_now(site), 60, 1)
    assert site.controller.topology("m")["topology"]["members"] == [{"id": "m", "name": "master"}]
    site.nothing_left(accounts=0)


def snapshot_lost(site, failpoint):
    """The source's agent dies in the snapshot and comes back, which undoes it: nothing is left on it, and the next try serves."""
    site.source.hold.clear()
    site.controller.start(env={"GUESTAGENT_FAILPOINT": failpoint})
    site.killed = 0
    site.register()
    task_id = submit(site, "/instances/m/action", {"replicate": {"count": 1}}, "k")["task"]["id"]
    wait_for("the snapshot", lambda: any(name == "get_replication_snapshot" for name, _ in site.source.calls))
    site.source.down()
    assert finish(site, task_id)["state"] == "failed"
    site.source.hold.set()
    site.source.up()
    wait_for("the kill", lambda: site.controller.process.poll() is not None, 60)
    revive(site)
    must_be_killed(site)
    site.nothing_left(accounts=0)
    assert site.controller.wait_task(site.controller.replicate("m", 1)["task"]["id"])["state"] == "succeeded"


MAKE = """#!/usr/bin/python3
import json, sys, time, pathlib
action, instance = sys.argv[1], json.loads(sys.argv[2])
base = pathlib.Path({base!r})
made = base / ("made-" + instance["id"])
with open(base / "calls", "a") as out:
    out.write(action + " " + instance["id"] + "\\n")
if action == "delete":
    made.unlink(missing_ok=True)
    sys.exit(0)
if made.exists():
    sys.exit("made twice")
number = instance["id"].rsplit("-", 1)[1]
made.write_text("")
time.sleep(0.2)
print("unix:" + str(base / ("slave" + number + ".sock")))
"""


def provisioned(site, failpoint):
    site.controller.start(env={"GUESTAGENT_FAILPOINT": failpoint})
    site.killed = 0
    site.controller.register(site.source.address, name="master", id="m")
    task = finish(site, submit(site, "/instances/m/action", {"replicate": {"count": 2}}, "k")["task"]["id"])
    must_be_killed(site)
    assert task["state"] == "succeeded", task
    made = sorted(p.name for p in site.scratch.dir.glob("made-*"))
    assert made == sorted("made-" + r["id"] for r in task["replicas"]), made
    for host in site.hosts[:2]:
        once(site, host, "attach_replication_slave", 1)
    site.nothing_left(accounts=1)


def provision_config(site):
    script = site.scratch.dir / "make-host"
    script.write_text(MAKE.format(base=str(site.scratch.dir)))
    script.chmod(0o755)
    return {"provisioner": {"kind": "exec", "command": [str(script)], "cleanup_command": [str(script)]}}


def both(steps):
    return [f"{step}:{side}" for step in steps for side in ("before", "after")]


CASES = (
    [(replicate, f) for f in both(STEPS)]
    + [(detach, f) for f in both(DETACH)]
    + [
        (promoted, f)
        for f in both(
            [
                "state:start_promote",
                "rpc:set_read_only",
                "rpc:wait_for_position",
                "state:replica_detaching",
                "rpc:detach_replication_slave",
                "rpc:open_replication_source",
                "state:handed_over",
                "rpc:attach_replication_slave",
                "state:follower_ended",
                "state:set_reshaped",
                "state:cleanup_done",
                "state:finish",
            ]
        )
    ]
    + [(one_fails, f) for f in both(["state:replica_failed", "state:retry"])]
    + [(snapshot_fails, f) for f in both(["state:snapshot_failed"])]
    + [(snapshot_fails_late, f) for f in both(["rpc:stage_replication_snapshot", "state:snapshot_failed"])]
    + [(cancelled, f) for f in both(["state:request_cancel", "state:replica_failed"])]
    + [(detach_fails, f) for f in both(["state:detach_failed"])]
    + [(store_is_away, f) for f in both(["state:cleanup_failed"])]
    + [(comes_back, f) for f in both(["state:lost_attach_resolved"])]
    + [(detach_lost, f) for f in both(["state:lost_detach_resolved"])]
    + [(snapshot_lost, f) for f in both(["state:lost_snapshot_resolved"])]
    + [
        (provisioned, f)
        for f in both(["state:replica_provisioning", "state:host_made", "rpc:attach_replication_slave"])
    ]
)


def run(case, failpoint):
    with Site("kill", config=None) as site:
        if case is provisioned:
            from control import Controller

            site.controller = Controller(site.scratch, provision_config(site), name="exec")
        site.killed = 0
        case(site, failpoint)


def run_random(generator):
    """Replicate, then detach all, killed again and again at moments of chance."""
    with Site("random") as site:
        for host in [site.source, *site.hosts]:
            host.seconds = 0.3
        site.killed = 0
        site.start()
        c = site.controller

        def torment(task_id):
            for _ in range(generator.randrange(1, 5)):
                time.sleep(generator.random() * 0.5)
                c.kill9()
                c.start()
            return c.wait_task(task_id)

        answer = submit(site, "/instances/m/action", {"replicate": {"count": 3}}, "k")
        task = torment(answer["task"]["id"])
        assert task["state"] == "succeeded", task
        once(site, site.source, "get_replication_snapshot", 1)
        for n, host in enumerate(site.hosts, 1):
            once(site, host, "attach_replication_slave", 1)
            assert (
                torment(submit(site, f"/instances/s{n}/topology/action", {"detach": {}}, f"d{n}")["task"]["id"])[
                    "state"
                ]
                == "succeeded"
            )
            once(site, host, "detach_replication_slave", 1)
        once(site, site.source, "cleanup_replication_source", 1)
        site.nothing_left(accounts=0)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--random", type=int, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    log(f"seed {options.seed}")
    failed = total = 0
    cases = [
        (f"{case.__name__} {failpoint}", lambda case=case, failpoint=failpoint: run(case, failpoint))
        for case, failpoint in CASES
    ]
    cases += [(f"random {n}", lambda: run_random(generator)) for n in range(options.random)]
    for name, call in cases:
        if options.only not in name:
            continue
        total += 1
        try:
            call()
            log(f"ok      {name}")
        except Exception:
            failed += 1
            log(f"FAILED  {name}\n{traceback.format_exc()}")
    print(f"controller kill: {total} cases, {failed} failed")
    return 1 if failed or not total else 0


if __name__ == "__main__":
    sys.exit(main())
