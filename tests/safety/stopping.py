#!/usr/bin/python3
"""SIGTERM on a daemon in the middle of each kind of job, as at an upgrade: it comes to a safe point or cancels and undoes the job, ends
with status 0 within the unit's TimeoutStopSec, leaves no journal, and the next start finds all in order. And the log of all this: each
line of a job carries its id and its phase, in both formats."""

import json
import re
import sys

from killing import Case, Run, World
from testsite import *  # noqa: F403

UNIT = Path(__file__).resolve().parents[2] / "packaging/systemd/guestagent.service"
HOLD = "sleep:700"  # how long the job stays at its place, so that the signal comes while it is there
PLACES = {
    "snapshot": ["source.account", "objects"],
    "attach": [
        "staging",
        "install.begin",
        "switch.plan",
        "switch.in",
        "switch.done",
        "first-start",
        "install.start",
        "replica.start",
    ],
    "detach": ["detach.drain", "detach.options", "detach.end"],
    "cleanup": ["source.release"],
    "delete": ["objects"],
}
SLOW = [("snapshot", "backup"), ("attach", "extract")]  # in the middle of the bytes


def stop_timeout():
    return int(re.search(r"(?m)^TimeoutStopSec=(\d+)$", UNIT.read_text()).group(1))


class Stopped(Run):
    """A Run whose agent is stopped instead of killed."""

    def kill_agent(self):
        place = self.case.place.removeprefix("journal:")
        journal = self.agent.state_dir / "jobs" / f"{self.job_id}.journal"
        self.agent.start(env={"GUESTAGENT_FAILPOINT": f"{self.case.place}={HOLD}"})
        self.send()
        wait_for(f"step {place}", lambda: journal.exists() and f'"step":"{place}"' in journal.read_text(), 90, 0.005)
        self.stop()

    def kill_other(self):
        self.agent.start()
        self.send()
        phase = {"backup": "copy", "extract": "fetch"}[self.case.victim]
        wait_for(
            f"phase {phase}",
            lambda: self.look()["phase"] == phase and self.look()["progress"]["done_bytes"] > 0,
            60,
            0.01,
        )
        self.stop()

    def look(self):
        return self.agent.call("get_job", {"job_id": self.job_id})

    def stop(self):
        process = self.agent.process
        self.agent.stop(stop_timeout())
        check_equal(
            process.returncode, 0, f"exit status of a daemon that was stopped in mid-job:\n{self.agent.log_tail()}"
        )
        jobs = self.agent.state_dir / "jobs"
        check_equal([p.name for p in jobs.glob("*.journal")], [], "journals after the stop")
        record = json.loads((jobs / f"{self.job_id}.json").read_text())
        check(record["state"] in ("cancelled", "succeeded"), f"the job after the stop: {record}")
        self.states = record["state"]
        self.agent.start()
        check_equal(self.look()["state"], record["state"], "the record after the next start")


def fields_of(line):
    if line.startswith("{"):
        return json.loads(line)
    return {k: v for k, v in re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', line)}


def check_log(agent):
    """Between the first line of a job and its last, whatever is written is the job's: nobody else asks this agent for anything that it logs."""
    job, count = None, 0
    for line in agent.log_file.read_text().splitlines():
        fields = fields_of(line)
        message = fields.get("msg", "").strip('"')
        if message == "job started":
            job = fields.get("job_id")
        if job and message != "agent is stopping":
            count += 1
            check(
                fields.get("job_id") == job and fields.get("phase"),
                f"a line of job {job} without its id or phase: {line}",
            )
        if re.match(r"job (succeeded|failed|cancelled)", message):
            job = None
    check(count > 20, f"only {count} lines of jobs in {agent.log_file}")
    return count


def main():
    with Site("stopping") as site:
        world = World(site, 1)
        for name, kind in (("target", "json"), ("other", "logfmt")):
            agent = world.agents[name]
            agent.stop()
            agent.write_config({"agent": {"log": {"level": "debug", "format": kind}}})
            agent.log_file.unlink()
            agent.start()
        cases = [Case(job, "agent", f"journal:{place}") for job, places in PLACES.items() for place in places]
        cases += [Case(job, victim) for job, victim in SLOW]
        told = {}
        for case in cases:
            log(case.name)
            world.number += 1
            run = Stopped(world, case, f"job-{world.number}", f"k{world.number}")
            run.run()
            told.setdefault(run.states, []).append(case.name)
        check(told.get("cancelled"), "no job was cancelled by a stop")
        log(f"{len(cases)} stops: " + ", ".join(f"{len(v)} {k}" for k, v in told.items()))
        for name in ("target", "other"):
            log(f"{name}: {check_log(world.agents[name])} lines of jobs, each with id and phase")
        for writer in world.writers:
            writer.stop()


if __name__ == "__main__":
    sys.exit(main())
