#!/usr/bin/python3
"""Limits that are read again while a job runs: SIGHUP makes a throttled copy fast, and a fast one slow."""

import signal
import sys
import time

from testsite import *  # noqa: F403

KIB, MIB = 1 << 10, 1 << 20
# Four requests at a time of a segment each may be let through already.
UNDER_WAY = 6 * MIB


def main():
    with Site("throttle") as site:
        source = site.server("source", 1)
        seed(source, 60)
        agent = site.agent(
            source, config={"snapshot": {"segment_size": "1MiB", "compression": "none", "spill": {"max_size": 0}}}
        )
        for which in ("upload", "read"):
            with step(f"{which}: slow, then as fast as it goes"):
                speed_up(agent, which)
        with step("upload: as fast as it goes, then slow"):
            slow_down(agent)
        check_equal(site.leftovers(agent), [], "leftovers")
    log("throttle: good")


def reload(agent, **limits):
    said = agent.log_file.read_text(errors="replace").count("were read again")
    agent.write_config({"snapshot": {"throttle": limits}})
    agent.process.send_signal(signal.SIGHUP)
    wait_for("the reload", lambda: agent.log_file.read_text(errors="replace").count("were read again") > said, 30)


def done_bytes(agent, job):
    record = agent.call("get_job", {"job_id": job})
    return record["progress"].get("done_bytes", 0) if record["phase"] == "copy" else 0


def start(agent, job):
    agent.call("get_replication_snapshot", {"async": True, "job_id": job, "snapshot_id": job})
    return wait_for("the copy to begin", lambda: done_bytes(agent, job), 120)


def most_in(agent, job, rate, seconds):
    """Fails when more is stored than `rate` bytes per second allow."""
    before, begun = done_bytes(agent, job), time.monotonic()
    time.sleep(seconds)
    moved, took = done_bytes(agent, job) - before, time.monotonic() - begun
    log(f"{job}: {moved / MIB:.1f} MiB in {took:.1f} s at {rate / MIB:.2f} MiB/s")
    check(moved <= rate * took + UNDER_WAY, f"{moved} bytes in {took:.1f} s at {rate} bytes/s")


def speed_up(agent, which):
    job, rate = f"{which}-faster", 256 * KIB
    reload(agent, **{which: "256KiB"})
    start(agent, job)
    most_in(agent, job, rate, 4)
    reload(agent, **{which: 0})
    # At the old rate it would take more than five minutes.
    record = agent.call("wait_job", {"job_id": job, "timeout_s": 120})
    check_equal(record["state"], "succeeded", f"{job} without a limit")
    check(
        record["result"]["snapshot"]["raw_bytes"] > 300 * rate,
        f"too little to show anything: {record['result']['snapshot']}",
    )


def slow_down(agent):
    job, rate = "slower", 64 * KIB
    reload(agent, upload="8MiB")
    start(agent, job)
    reload(agent, upload="64KiB")
    most_in(agent, job, rate, 6)
    check_equal(agent.call("get_job", {"job_id": job})["state"], "running", "the job that was slowed down")
    agent.call("cancel_job", {"job_id": job})
    check_equal(agent.call("wait_job", {"job_id": job, "timeout_s": 60})["state"], "cancelled", "the slow job's end")
    reload(agent, upload=0)


if __name__ == "__main__":
    sys.exit(main())
