#!/usr/bin/python3
"""Fetches that are interrupted, and go on where they ended: the agent killed at random instants, a store that is away for longer than the
retries, a staging directory that somebody had his hands in; and snapshots that are staged before they are attached. On real servers
and real Swift, whose bytes are counted on the way."""

import argparse
import random
import sys
import time
import traceback

from safetysite import *  # noqa: F403
from slow_link import Counted  # noqa: E402

TRANSFERS = 4
OTHER_BYTES = 200_000  # manifests, indexes, listings and heads of a call
BUFFERS = 2 << 20  # what the kernel has of a connection, which is counted and reaches nobody


class Fetches:
    """A snapshot of a source, and a host that is to become its replica."""

    def __init__(self, site, mb):
        self.site = site
        self.link = site.stack.enter_context(Counted(site.swift.ports["proxy"]))
        url = f"http://127.0.0.1:{self.link.port}/v1/AUTH_test"
        store = {**site.store, "swift": {**site.store["swift"], "storage_url": url}}
        store["retry"] = {"tries": 3, "first_delay": "100ms", "max_delay": "500ms"}
        with step(f"a source with {mb} MB, its snapshot, and an empty host"):
            self.source = site.server("source", 1)
            seed(self.source, mb, quiet=True)
            small = {"snapshot": {"segment_size": "16MiB"}} if mb < 1000 else None
            self.source_agent = site.agent(self.source, store=store, config=small)
            self.target = site.server("target", 2, role="replica")
            # Twenty kills of one fetch are nearer to each other than four transfers are long.
            self.transfers = TRANSFERS if mb < 1000 else 1
            self.agent = site.agent(self.target, store=store, config={"snapshot": {"transfers": self.transfers}})
            self.snapshot = self.source_agent.call("get_replication_snapshot")
        self.told = self.snapshot["snapshot"]
        self.stored = self.told["stored_bytes"]
        self.rate = max(20_000_000, self.stored // 4)
        self.jobs = 0

    def begin(self, method="attach_replication_slave"):
        """The job's id. It runs; the link is slow enough to find it fetching."""
        self.jobs += 1
        job = f"fetch-{self.jobs}"
        params = {"snapshot": self.snapshot, "job_id": job, "async": True}
        if method == "attach_replication_slave":
            params["slave_config"] = {"overwrite": True}
        self.agent.call(method, params)
        return job

    def fetched(self, part, job):
        """Waits until that part of the stored bytes has come since the link began to count, or the job has gone further."""

        def far_enough():
            told = self.agent.call("get_job", {"job_id": job})
            fetching = told["phase"] in (None, "", "check", "fetch", "check what is here")
            return self.link.bytes >= part * self.stored or not fetching

        return wait_for(f"{part:.0%} fetched", far_enough, 120, 0.005)

    def killed_at(self, part):
        job = self.begin()
        self.fetched(part, job)
        self.agent.kill9()
        self.agent.start()
        wait_for(
            "the recovery", lambda: self.agent.call("get_job", {"job_id": job})["state"] in ("failed", "succeeded"), 60
        )

    def staged(self):
        return self.agent.call("get_info")["staged"]

    def staging(self):
        found = self.staged()
        check(len(found) == 1, f"staged: {found}")
        return Path(found[0]["dir"])

    def attach(self):
        """A whole attach, with its equality; answers what it says."""
        params = {"snapshot": self.snapshot, "slave_config": {"overwrite": True}}
        result = self.agent.call("attach_replication_slave", params)
        self.site.healthy(self.agent)
        _, sums = at_one_position(self.source, [self.target], lambda s: s.checksums())
        assert_same("checksums", [self.source, self.target], sums)
        check_equal(self.staged(), [], "what stays staged after an attach")
        check_equal(self.site.leftovers(self.agent), [], "leftovers")
        return result

    def again(self):
        """The host is as before: whoever was attached is detached."""
        self.link.rate = None
        if self.agent.call("get_replication_status").get("role") == "replica":
            self.agent.call("detach_replication_slave")
        self.link.bytes = 0


def kills(fetches, count, random_):
    with step(f"{count} kills while it fetches"):
        fetches.again()
        fetches.link.rate = fetches.rate
        before = 0
        died = 0
        # Few kills are far enough from each other that something is whole each time.
        least = 0.8 if count < 10 else 0.4
        for _ in range(count):
            fetches.killed_at(before / fetches.stored + (least + 0.8 * random_.random()) / (count + 1))
            before = fetches.link.bytes
            died += 1
            if not fetches.staged():
                break
        result = fetches.attach()
    # Each transfer has a part of a segment; one was just written and is told with the next, one waits for its turn.
    segment = fetches.stored / fetches.told["segments"]
    in_flight = died * ((fetches.transfers + 2) * segment + fetches.transfers * BUFFERS)
    limit = 1.10 * fetches.stored + in_flight + (died + 1) * OTHER_BYTES
    log(
        f"{died} kills: {fetches.link.bytes / fetches.stored:.3f} of the stored bytes fetched, "
        f"{result['resumed_bytes'] / fetches.told['raw_bytes']:.0%} resumed by the last"
    )
    check(
        fetches.link.bytes <= limit,
        f"{fetches.link.bytes} bytes fetched of {fetches.stored} stored, {limit:.0f} allowed",
    )
    check(result["resumed_bytes"] > 0, f"nothing was resumed: {result['resumed_bytes']}")
    return died


def away(fetches, seconds):
    with step(f"a store that is away for {seconds} s"):
        fetches.again()
        fetches.link.rate = fetches.rate
        job = fetches.begin()
        fetches.fetched(0.5, job)
        fetches.link.go_away()
        told = fetches.agent.call("wait_job", {"job_id": job, "timeout_s": 300})
        check_equal((told["state"], told["error"]["data"]["code"]), ("failed", "UNAVAILABLE"), "the job")
        check(any("stays in" in w for w in told["warnings"]), f"warnings: {told['warnings']}")
        time.sleep(seconds)
        fetches.link.away = False
        result = fetches.attach()
        check(result["resumed_bytes"] > 0, "nothing was resumed")
        check(fetches.link.bytes < 1.5 * fetches.stored, f"{fetches.link.bytes} bytes for {fetches.stored}")


def cancelled(fetches):
    with step("a cancelled one leaves nothing"):
        fetches.again()
        fetches.link.rate = fetches.rate
        job = fetches.begin()
        fetches.fetched(0.4, job)
        fetches.agent.call("cancel_job", {"job_id": job})
        told = fetches.agent.call("wait_job", {"job_id": job, "timeout_s": 60})
        check_equal(told["state"], "cancelled", "the job")
        check_equal(fetches.staged(), [], "staged")
        check_equal(fetches.site.leftovers(fetches.agent), [], "leftovers")


def flip(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 1]))


def damages(staging):
    """name -> what is done to a part that was fetched."""
    largest = max((p for p in staging.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    record = staging.parent / (staging.name + ".placed")
    return {
        "a byte flipped": lambda: flip(largest, 5000),
        "a file cut": lambda: os.truncate(largest, 4096),
        "a file removed": largest.unlink,
        "a file more": lambda: (staging / "stranger.ibd").write_bytes(b"x"),
        "the record of another snapshot": lambda: flip(record, 50),
    }


def damaged(fetches, names):
    for name in names:
        with step(f"a part that was fetched, {name}"):
            fetches.again()
            fetches.link.rate = fetches.rate
            fetches.killed_at(0.5)
            damages(fetches.staging())[name]()
            result = fetches.attach()
            log(f"{name}: {result['resumed_bytes'] / fetches.told['raw_bytes']:.0%} resumed")


def stage(fetches, damage):
    with step("staged before it is attached" + (", and damaged meanwhile" if damage else "")):
        fetches.again()
        params = {"snapshot_href": fetches.snapshot["dataset"]["snapshot_href"]}

        def data():
            # An event writes there.
            return {k: v for k, v in fetches.target.checksums().items() if k != "lab.heartbeat"}

        before = data()
        told = fetches.agent.call("stage_replication_snapshot", params)
        check_equal(data(), before, "the running data")
        check_equal(told["raw_bytes"], fetches.told["raw_bytes"], "raw_bytes")
        found = fetches.staged()
        check(len(found) == 1 and found[0]["ready"], f"staged: {found}")
        check(found[0]["bytes"] > told["raw_bytes"] / 2, f"staged: {found}")
        if damage:
            largest = max((p for p in Path(told["dir"]).rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
            flip(largest, 5000)
        fetches.link.bytes = 0
        begun = time.monotonic()
        result = fetches.attach()
        log(f"attach after staging: {time.monotonic() - begun:.1f} s with the comparison")
        if damage:
            check(fetches.link.bytes > fetches.stored, "it was not fetched again")
        else:
            check_equal(result["resumed_bytes"], fetches.told["raw_bytes"], "resumed_bytes")
            check(fetches.link.bytes < OTHER_BYTES, f"{fetches.link.bytes} bytes were fetched again")


def follow(fetches, given_up):
    with step("followed while the source copies" + (", which is cancelled" if given_up else "")):
        fetches.again()
        fetches.link.rate = None
        fetches.source_agent.write_config({"snapshot": {"throttle": {"read": "40MiB"}}})
        fetches.source_agent.stop()
        fetches.source_agent.start()
        number = "given-up" if given_up else "followed"
        href = fetches.snapshot["dataset"]["snapshot_href"].replace(f"/{fetches.told['id']}/", f"/{number}/")
        fetches.agent.call(
            "stage_replication_snapshot", {"snapshot_href": href, "follow": True, "job_id": number, "async": True}
        )
        fetches.source_agent.call("get_replication_snapshot", {"snapshot_id": number, "job_id": number, "async": True})
        wait_for(
            "some of it", lambda: fetches.agent.call("get_job", {"job_id": number})["progress"]["done_bytes"] > 0, 60
        )
        if given_up:
            fetches.source_agent.call("cancel_job", {"job_id": number})
            told = fetches.agent.call("wait_job", {"job_id": number, "timeout_s": 120})
            check_equal(
                (told["state"], told["error"]["data"]["code"]), ("failed", "NOT_FOUND"), "what the follower says"
            )
            check_equal(fetches.staged(), [], "staged")
            check_equal(fetches.site.leftovers(fetches.agent), [], "leftovers")
        else:
            done = fetches.source_agent.call("wait_job", {"job_id": number, "timeout_s": 300})
            ended = time.monotonic()
            told = fetches.agent.call("wait_job", {"job_id": number, "timeout_s": 300})
            check_equal(told["state"], "succeeded", f"the follower: {told}")
            told = told["result"]
            log(f"staged {time.monotonic() - ended:.1f} s after the snapshot's end")
            check_equal(told["snapshot_id"], number, "snapshot_id")
            before, fetches.snapshot = fetches.snapshot, done["result"]
            fetches.link.bytes = 0
            result = fetches.attach()
            check_equal(result["resumed_bytes"], done["result"]["snapshot"]["raw_bytes"], "resumed_bytes")
            fetches.snapshot = before
        fetches.source_agent.write_config({"snapshot": {"throttle": {"read": 0}}})
        fetches.source_agent.stop()
        fetches.source_agent.start()


def restored(fetches, directory):
    with step("a restore that is killed, and one whose store goes away, go on"):
        fetches.again()
        fetches.link.rate = fetches.rate
        to = directory / "restored"
        argv = fetches.agent.argv("restore", fetches.snapshot["dataset"]["snapshot_href"], "--to", str(to))
        for kill in (True, False):
            running = fetches.site.scratch.spawn(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            until = fetches.link.bytes + 0.4 * fetches.stored
            wait_for("some of it", lambda: fetches.link.bytes > until or running.poll() is not None, 60, 0.005)
            check(running.poll() is None, "it ended too early")
            if kill:
                running.kill()
            else:
                fetches.link.go_away()
            said = running.communicate(timeout=60)[1].decode(errors="replace")
            check(running.returncode != 0, "it succeeded")
            check(kill or "goes on from there" in said, f"it said: {said}")
            fetches.link.away = False
        fetches.link.rate = None
        status, _, err = fetches.agent.command(*argv[argv.index("restore") :])
        check_equal(status, 0, f"the last: {err}")
        check(fetches.link.bytes < 1.8 * fetches.stored, f"{fetches.link.bytes} bytes for {fetches.stored}")
        check((to / "ibdata1").exists() and not Path(f"{to}.placed").exists(), "what is there")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mb", type=int, default=250)
    options.add_argument("--kills", type=int, default=3)
    options.add_argument("--away", type=int, default=3)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--all", action="store_true", help="each damage")
    o = options.parse_args()
    cases, failed = 0, 0
    with Site("resume", "swift") as site:
        fetches = Fetches(site, o.mb)
        names = list(damages(site.scratch.dir)) if o.all else ["a byte flipped", "the record of another snapshot"]
        for case in (
            lambda: kills(fetches, o.kills, random.Random(o.seed)),
            lambda: away(fetches, o.away),
            lambda: cancelled(fetches),
            *(lambda n=name: damaged(fetches, [n]) for name in names),
            lambda: stage(fetches, False),
            lambda: stage(fetches, True),
            lambda: restored(fetches, site.scratch.dir),
            lambda: follow(fetches, False),
            lambda: follow(fetches, True),
        ):
            cases += 1
            try:
                case()
            except Exception:
                failed += 1
                traceback.print_exc()
                fetches.link.away = False
        if failed:
            print(f"resume: {cases - 1 + o.kills} cases, {failed} failed")
            raise AssertionError(f"{failed} of {cases} parts failed")
    print(f"resume: {cases - 1 + o.kills} cases, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
