#!/usr/bin/python3
"""Two hosts and one store: who takes the same snapshot id as another, before, after and while the other does, and who comes back from the
dead. On a local store and on Swift: of two at most one succeeds, and nobody's finished snapshot is touched but on request. And places that
are none: a store behind a link to nowhere, and inside the data directory."""

import shutil
import sys
import threading

from safetysite import *  # noqa: F403

ID = "monday"


def attempt(agent, method, params):
    try:
        return agent.call(method, params), None
    except RpcError as e:
        return None, e


class Case:
    def __init__(self, site, one, two, store, objects):
        self.site, self.one, self.two, self.store, self.objects = site, one, two, store, objects
        for agent in (one, two):
            agent.stop()
            agent.config["storage"] = store
            agent.write_config({"snapshot": {"segment_size": "1MiB", "throttle": {"read": 0}}})
            agent.start()

    def take(self, agent):
        return agent.call("get_replication_snapshot", {"snapshot_id": ID})

    def verify(self, agent, snapshot, what):
        answer = agent.call("verify_replication_snapshot", {"snapshot_href": snapshot["dataset"]["snapshot_href"]})
        check(answer["ok"] and answer["segments"] == snapshot["snapshot"]["segments"], f"{what}: verify: {answer}")

    def delete(self, agent, href):
        answer = agent.call("delete_replication_snapshot", {"snapshot_href": href})
        check_equal(self.objects(), [], "objects after the deletion")
        return answer

    def drop_account(self, agent, snapshot):
        agent.call("cleanup_replication_source", {"replication_user": snapshot["replication_user"]["name"]})

    def die(self, agent, place, job_id):
        agent.stop()
        agent.start(env={"GUESTAGENT_FAILPOINT": f"{place}=kill"})
        agent.call("get_replication_snapshot", {"snapshot_id": ID, "async": True, "job_id": job_id})
        agent.process.wait(120)
        agent.process = None

    def journal(self, agent, job_id):
        return agent.state_dir / "jobs" / f"{job_id}.journal"

    def come_back(self, agent, job_id):
        agent.start()
        return wait_for(
            "the dead job's end",
            lambda: (r := agent.call("get_job", {"job_id": job_id}))["state"] != "running" and r,
            90,
            0.1,
        )


def comes_back(case, place, name):
    """The usual fail-over: a host dies in its nightly copy, the next one takes it, the first comes back."""
    case.die(case.one, place, name)
    snapshot, error = attempt(case.two, "get_replication_snapshot", {"snapshot_id": ID})
    if error:
        check_equal(error.code, "ALREADY_EXISTS", "over the remains")
        check("being made by 127.0.0.1 since 20" in error.message, error.message)
        check("delete_replication_snapshot" in error.hint, error.hint)
        href = error.hint.split('"snapshot_href": "')[1].split('"')[0]
        gone = case.two.call("delete_replication_snapshot", {"snapshot_href": href})
        check_equal(gone["claimed_by"]["host"], "127.0.0.1", "whose the remains were")
        snapshot = case.take(case.two)
    else:
        check(place == "journal:objects", f"{place}: the remains were overlooked")
    before = case.objects()
    record = case.come_back(case.one, name)
    check_equal(record["state"], "failed", "the dead job")
    check_equal(case.objects(), before, "the other's objects after the first came back")
    check(not case.journal(case.one, name).exists(), "the journal is done with")
    case.verify(case.two, snapshot, place)
    _, error = attempt(case.one, "get_replication_snapshot", {"snapshot_id": ID})
    check(error and "a complete snapshot of localhost since 20" in error.message, f"{error}")
    check_equal(
        case.delete(case.one, snapshot["dataset"]["snapshot_href"])["claimed_by"]["host"], "localhost", "claimed_by"
    )
    case.drop_account(case.two, snapshot)


def own_remains(case):
    case.die(case.one, "snapshot:segment@2", "own")
    check(case.objects() != [], "remains")
    case.come_back(case.one, "own")
    check_equal(case.objects(), [], "own remains after coming back")


def at_once(case, rounds):
    """Both start together; each undoes its failure itself."""
    successes = 0
    for _ in range(rounds):
        results = {}
        start = threading.Barrier(2)

        def run(agent):
            start.wait()
            results[agent] = attempt(agent, "get_replication_snapshot", {"snapshot_id": ID})

        threads = [threading.Thread(target=run, args=(a,)) for a in (case.one, case.two)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        good = [(a, s) for a, (s, _) in results.items() if s]
        for _, error in results.values():
            check(error is None or error.code in ("ALREADY_EXISTS", "FAILED_PRECONDITION", "UNAVAILABLE"), f"{error}")
        check(len(good) <= 1, "two successes of one id")
        for agent, snapshot in good:
            case.verify(agent, snapshot, "the winner's")
            case.delete(agent, snapshot["dataset"]["snapshot_href"])
            case.drop_account(agent, snapshot)
        check_equal(case.objects(), [], "objects after a round")
        successes += len(good)
    return successes


def deleted_while_made(case):
    case.one.write_config({"snapshot": {"throttle": {"read": 4000000}}})
    case.one.stop()
    case.one.start()
    case.one.call("get_replication_snapshot", {"snapshot_id": ID, "async": True, "job_id": "deleted"})
    wait_for("segments", lambda: sum("segment-" in o for o in case.objects()) > 2, 60, 0.05)
    href = case.two.call("list_replication_snapshots")["snapshots"][0]
    check_equal((href["id"], href["complete"]), (ID, False), "listed while it is made")
    case.two.call("delete_replication_snapshot", {"snapshot_href": href["href"]})
    record = case.one.call("wait_job", {"job_id": "deleted", "timeout_s": 120})
    check_equal((record["state"], record["error"]["data"]["code"]), ("failed", "FAILED_PRECONDITION"), "the maker")
    check("deleted while it was made" in record["error"]["message"], record["error"]["message"])
    check_equal(case.objects(), [], "objects after that")
    case.one.write_config({"snapshot": {"throttle": {"read": 0}}})
    case.one.stop()
    case.one.start()


def another_store(case, elsewhere):
    """A dead job's agent comes back with another store, where somebody has a snapshot of that id."""
    case.two.stop()
    case.two.config["storage"] = elsewhere
    case.two.write_config()
    case.two.start()
    snapshot = case.take(case.two)
    case.die(case.one, "snapshot:segment@2", "moved")
    remains = case.objects()
    case.one.config["storage"] = elsewhere
    case.one.write_config()
    record = case.come_back(case.one, "moved")
    check(
        "are left" in record["error"]["message"] and "another store" in record["error"]["message"],
        record["error"]["message"],
    )
    check_equal(case.objects(), remains, "the remains on the first store")
    case.verify(case.two, snapshot, "the other's on the second store")
    case.one.stop()
    case.one.config["storage"] = case.store
    case.one.write_config()
    case.one.start()
    wait_for("the remains to go", lambda: case.objects() == [], 60, 0.1)
    case.two.call("delete_replication_snapshot", {"snapshot_href": snapshot["dataset"]["snapshot_href"]})
    case.drop_account(case.two, snapshot)


def no_places(site, agent):
    agent.stop()
    nowhere = site.scratch.dir / "to nowhere"
    nowhere.symlink_to(site.scratch.dir / "not" / "mounted")
    inside = site.scratch.dir / "to data"
    inside.symlink_to(agent.server.data)
    for path, words in (
        (nowhere, "is a link to a place that is not there: is it mounted?"),
        (inside / "store", "leads into mysql.data_dir"),
    ):
        agent.config["storage"] = {"store": "local", "local": {"path": str(path)}}
        agent.write_config()
        try:
            agent.oneshot("get_replication_snapshot", {"snapshot_id": ID})
            raise AssertionError(f"{path}: a success")
        except OneshotError as e:
            check(words in str(e), str(e))
        for command in ("doctor", "check-config"):
            done = subprocess.run(
                [binary(), "--config", str(agent.config_file), command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=site.scratch.env,
                timeout=120,
                check=False,
            )
            check(
                done.returncode != 0 and words in done.stdout, f"{command} of {path}: {done.returncode}\n{done.stdout}"
            )
    check(not (agent.server.data / "store").exists(), "nothing was made in the data directory")


def main():
    with Site("owners", "swift") as site:
        with step("two servers, two agents"):
            servers = [site.server(n, i, options=SMALL) for n, i in (("one", 1), ("two", 2))]
            for server in servers:
                seed_small(server)
            one, two = (
                site.agent(s, start=False, config={"mysql": {"advertised_address": a}})
                for s, a in zip(servers, ("127.0.0.1", "localhost"))
            )
        base = site.scratch.dir / "stores"
        local = {"store": "local", "local": {"path": str(base / "a")}}

        def files():
            return sorted(p.name for p in (base / "a").rglob("*") if p.is_file())

        for name, store, objects in (
            ("local", local, files),
            ("swift", site.store, lambda: site.swift.objects("replicas")),
        ):
            case = Case(site, one, two, store, objects)
            for place in ("journal:objects", "journal:objects@2", "snapshot:segment@1", "snapshot:manifest")[
                0 if name == "local" else 2 :
            ]:
                with step(f"{name}: one dies at {place}, two takes the id, one comes back"):
                    comes_back(case, place, "dead-" + place.replace(":", "-").replace("@", "-") + "-" + name)
            if name == "local":
                with step("local: its own remains"):
                    own_remains(case)
                with step("local: another store"):
                    another_store(case, {"store": "local", "local": {"path": str(base / "b")}})
                case = Case(site, one, two, store, objects)
            with step(f"{name}: both at once"):
                log(f"{at_once(case, 3)} of 3 rounds had a winner")
            if name == "local":
                with step("local: deleted while it is made"):
                    deleted_while_made(case)
        with step("places that are none"):
            no_places(site, one)
        shutil.rmtree(base)
    return 0


if __name__ == "__main__":
    sys.exit(main())
