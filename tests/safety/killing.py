"""What the kill matrix is made of: the world of servers and agents, the cases, and what must hold after each."""

import contextlib
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from testsite import *  # noqa: E402,F403
from scratch import read_proc  # noqa: E402

SMALL = ("innodb-buffer-pool-size=32M", "innodb-log-file-size=16M")

# The places of each job, as the journal and the failpoints of the test build name them. The number: the how-manieth time.
PLACES = {
    "snapshot": [
        "journal:source.work",
        "journal:source.account",
        "journal:job",
        "journal:objects",
        "snapshot:segment@1",
        "snapshot:segment@3",
        "snapshot:manifest",
        "journal:result",
    ],
    "attach": [
        "journal:job",
        "journal:staging",
        "receive:piece@1",
        "receive:piece@3",
        "journal:install.begin",
        "journal:install.stop",
        "journal:switch.plan",
        "switch:out@1",
        "switch:out@6",
        "journal:switch.in",
        "switch:in@1",
        "switch:in@8",
        "journal:switch.done",
        "journal:install.record",
        "journal:first-start",
        "journal:install.start",
        "journal:install.done",
        "journal:replica.start",
        "journal:result",
        "journal:install.settled",
    ],
    "detach": ["journal:job", "journal:detach.drain", "journal:detach.options", "journal:detach.end", "journal:result"],
    "cleanup": ["journal:job", "journal:source.release", "journal:result"],
    "delete": ["journal:job", "journal:objects", "journal:result"],
}
# Killed once more while the recovery of the first kill is at work.
TWICE = [
    ("journal:replica.start", "switch:clear@3"),
    ("journal:replica.start", "journal:switch.back"),
    ("journal:install.start", "switch:back@2"),
    ("switch:in@5", "switch:back@7"),
    ("switch:out@4", "switch:back@2"),
    ("journal:install.done", "journal:switch.undone"),
    ("journal:switch.in", "journal:install.back"),
    ("journal:replica.start", "journal:install.settled"),
]
# About how long each takes here: random instants are drawn from it.
SECONDS = {"snapshot": 1.6, "attach": 4.0, "detach": 1.0, "cleanup": 0.08, "delete": 0.08}
METHODS = {
    "snapshot": "get_replication_snapshot",
    "attach": "attach_replication_slave",
    "detach": "detach_replication_slave",
    "cleanup": "cleanup_replication_source",
    "delete": "delete_replication_snapshot",
}


@dataclass(frozen=True)
class Case:
    job: str
    victim: str  # agent, server, backup, prepare
    place: str = ""  # a failpoint; empty: after `instant` of the usual time
    again: str = ""  # a failpoint of the recovery
    instant: float = 0.0

    @property
    def name(self):
        where = self.place or f"{self.instant:.2f}"
        return f"{self.job}/{self.victim}/{where}" + (f"+{self.again}" if self.again else "")


def matrix(seed, instants=4):
    """Every case, in the order of this seed: one of each kind first, so that the beginning is a fair sample."""
    rng = random.Random(seed)
    kinds = {}

    def add(case):
        kinds.setdefault((case.job, case.victim), []).append(case)

    for job, places in PLACES.items():
        for place in places:
            add(Case(job, "agent", place))
        for _ in range(instants):
            add(Case(job, "agent", instant=rng.uniform(0, 1)))
    for place, again in TWICE:
        add(Case("attach", "agent", place, again))
    for job in ("snapshot", "attach", "detach"):
        for _ in range(instants):
            add(Case(job, "server", instant=rng.uniform(0, 1)))
    for job, tool in (("snapshot", "backup"), ("attach", "prepare")):
        for _ in range(instants - 1):
            add(Case(job, tool, instant=rng.uniform(0, 1)))
    out = []
    for cases in kinds.values():
        rng.shuffle(cases)
    while any(kinds.values()):
        for cases in kinds.values():
            if cases:
                out.append(cases.pop())
    return out


class World:
    """A source that a target follows now and then, and a second source for what only happens on a source: its lease can be seen to
    end, since nobody else holds one there."""

    def __init__(self, site, seed):
        self.site, self.rng, self.number, self.kills = site, random.Random(seed), 0, 0
        self.source = site.server("source", 1, options=SMALL)
        self.other = site.server("other", 2, options=(*SMALL, "expire-logs-days=7"))
        self.target = site.server("target", 3, options=SMALL)
        for server in (self.source, self.other):
            seed_small(server)
            server.sql("SET sql_log_bin=0; CREATE TABLE lab.t02 SELECT * FROM lab.t01")
        small = {"snapshot": {"segment_size": "1MiB"}}
        self.agents = {s.name: site.agent(s, config=small) for s in (self.source, self.other, self.target)}
        self.writers = [Writer(self.source, 1, 0.02), Writer(self.source, 2, 0.02), Writer(self.other, 1, 0.02)]
        for writer in self.writers:
            writer.start()
        self.base = self.agents["source"].call("get_replication_snapshot", {"snapshot_id": "base"})
        self.free_lease = self.lease()

    def lease(self):
        return self.other.sql("SELECT @@expire_logs_days, @@binlog_expire_logs_seconds")

    # what must be before each job

    def make_standalone(self):
        if self.target.slave_status():
            self.agents["target"].call("detach_replication_slave")
        self.target.sql(
            "CREATE DATABASE IF NOT EXISTS own_; CREATE TABLE IF NOT EXISTS own_.t (id INT AUTO_INCREMENT PRIMARY KEY);"
            "INSERT INTO own_.t VALUES ()"
        )

    def make_replica(self):
        if not self.target.slave_status():
            self.agents["target"].call("attach_replication_slave", self.attach_params())

    def attach_params(self):
        return {"snapshot": self.base, "slave_config": {"overwrite": True}}

    def new_snapshot(self):
        self.number += 1
        return self.agents["other"].call("get_replication_snapshot", {"snapshot_id": f"s{self.number}"})

    def target_state(self):
        t = self.target
        return {
            "checksums": t.checksums(),
            "schema": t.schema(),
            "options": {p.name: p.read_text() for p in t.conf_d.iterdir()},
            "settings": t.sql("SELECT @@server_id, @@read_only, @@log_bin, @@event_scheduler, @@gtid_binlog_state"),
            "replication": t.slave_status().get("Master_Host"),
            "accounts": t.sql(
                "SELECT user, host, JSON_VALUE(priv, '$.authentication_string') FROM mysql.global_priv ORDER BY 1, 2"
            ),
        }

    # the case

    def run(self, case):
        self.number += 1
        return Run(self, case, f"job-{self.number}", f"k{self.number}").run()


class Run:
    def __init__(self, world, case, job_id, snapshot_id):
        self.world, self.case, self.job_id, self.snapshot_id = world, case, job_id, snapshot_id
        self.agent = world.agents["target" if case.job in ("attach", "detach") else "other"]
        self.server = self.agent.server
        self.before, self.snapshot = None, None

    def run(self):
        self.prepare()
        self.agent.stop()
        usual = self.agent.config
        try:
            self.slow_down()
            if self.case.victim == "agent":
                self.kill_agent()
            else:
                self.kill_other()
        finally:
            self.agent.config = usual
            self.agent.write_config()
            if self.agent.process is None:
                self.agent.start()
        record = self.record()
        log(f"  {record['state']}: {(record.get('error') or {}).get('message', '')[:200]}")
        getattr(self, "check_" + self.case.job)(record)
        with contextlib.suppress(TimeoutError):
            wait_for("no leftovers", lambda: not self.leftovers(), 5)
        check_equal(self.leftovers(), [], "left over")

    def prepare(self):
        world = self.world
        if self.case.job == "attach":
            world.make_standalone()
            self.before = world.target_state()
        elif self.case.job == "detach":
            world.make_replica()
        elif self.case.job in ("cleanup", "delete"):
            self.snapshot = world.new_snapshot()

    def params(self):
        if self.case.job == "snapshot":
            return {"snapshot_id": self.snapshot_id}
        if self.case.job == "attach":
            return self.world.attach_params()
        if self.case.job == "cleanup":
            return {"replication_user": self.snapshot["replication_user"]["name"]}
        if self.case.job == "delete":
            return {"snapshot_href": self.snapshot["dataset"]["snapshot_href"]}
        return {}

    def slow_down(self):
        """A tool that is to be killed must live long enough for it."""
        slow = {"backup": {"read": "8MiB"}}.get(self.case.victim)
        if slow:
            self.agent.write_config({"snapshot": {"throttle": slow}})

    def send(self):
        self.agent.call(METHODS[self.case.job], {**self.params(), "async": True, "job_id": self.job_id})

    def ended(self):
        try:
            record = self.agent.call("get_job", {"job_id": self.job_id})
        except RpcError as e:
            if e.code != "NOT_FOUND":
                raise
            return {"state": "never begun"}
        return record if record["state"] != "running" else None

    def record(self):
        return wait_for("the job to be done or undone", self.ended, 90, 0.05)

    def start_to_die(self, place):
        """A daemon that dies at `place`; it may do so before it is ready."""
        try:
            self.agent.start(env={"GUESTAGENT_FAILPOINT": place})
            return True
        except RuntimeError:
            return False

    def wait_for_death(self, place):
        process = self.agent.process

        def dead():
            if process.poll() is not None:
                return True
            try:
                record = self.ended()
            except (OSError, ValueError, RpcError):
                return None
            if record and record["state"] not in ("never begun",) and process.poll() is None:
                raise AssertionError(
                    f"the job ended ({record['state']}) without coming to {place}: {record.get('error')}"
                )
            return None

        # The record that says that the job has ended is read before the place is reached for the last of them.
        try:
            wait_for(f"the agent's death at {place}", dead, 90, 0.03)
        except AssertionError:
            try:
                process.wait(1)
            except Exception:
                raise
        check_equal(process.returncode, -signal.SIGKILL, "how the agent ended")
        self.agent.process = None
        self.world.kills += 1

    def kill_agent(self):
        if self.case.place:
            if self.start_to_die(self.case.place):
                try:
                    self.send()
                except (OSError, ValueError):
                    pass  # it died in the call
            self.wait_for_death(self.case.place)
        else:
            self.agent.start()
            self.send()
            time.sleep(self.case.instant * SECONDS[self.case.job])
            self.agent.kill9()
            self.world.kills += 1
        wait_for("the end of the dead agent's children", lambda: not self.tools(), 5)
        if self.case.again:
            self.start_to_die(self.case.again)
            self.wait_for_death(self.case.again)
        self.agent.start()

    def kill_other(self):
        self.agent.start()
        self.send()
        if self.case.victim == "server":
            time.sleep(self.case.instant * SECONDS[self.case.job])
            self.kill_server()
        else:
            self.kill_tool()
        record = self.record()
        if self.case.victim != "server":
            check_equal(record["state"], "failed", f"a job whose tool was killed ({record.get('result')})")
            return
        if not self.server.answers():
            # Somebody's supervisor starts it; the agent does so itself where it had stopped it.
            told = " ".join(record.get("warnings", []))
            check(
                "put the old data back" not in told,
                f"the agent says that it started the server, which does not answer: {told}",
            )
            self.server.start()
        self.agent.stop()
        self.agent.start()

    def kill_server(self):
        """The one that runs on the data now: the usual or the private one of the first start."""
        mark = os.fsencode(str(self.server.dir)) + b"/"
        for _ in range(200):
            for entry in os.listdir("/proc"):
                if not entry.isdigit():
                    continue
                words = read_proc(entry, "cmdline").split(b"\0")
                if words[0].endswith(b"mariadbd") and any(mark in w for w in words) and is_running(int(entry)):
                    os.kill(int(entry), signal.SIGKILL)
                    wait_for("its end", lambda: not is_running(int(entry)), 20)
                    self.world.kills += 1
                    return
            time.sleep(0.02)
        raise AssertionError("no server ran to be killed")

    def kill_tool(self):
        wanted = {"backup": b"--backup", "prepare": b"--prepare"}[self.case.victim]

        def tool():
            for pid in children(self.agent.process.pid):
                words = read_proc(pid, "cmdline").split(b"\0")
                if wanted in words and words[0].endswith(b"mariadb-backup"):
                    return pid
            if self.ended():
                raise AssertionError(f"the job ended before its {self.case.victim} was seen")
            return None

        pid = wait_for(f"the {self.case.victim} tool", tool, 60, 0.002)
        if self.case.victim != "prepare":
            time.sleep(self.case.instant)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            raise AssertionError(f"the {self.case.victim} tool had ended before it could be killed")
        self.world.kills += 1

    # what must hold afterwards

    def tools(self):
        return [line for line in self.world.site.scratch.processes().values() if "mariadb-backup" in line]

    def leftovers(self):
        world, found = self.world, []
        for agent in world.agents.values():
            found += world.site.leftovers(agent)
            work = agent.state_dir / "work"
            found += [str(p) for p in work.iterdir()] if work.exists() else []
        found += [
            str(p)
            for p in Path(world.site.scratch.env["TMPDIR"]).iterdir()
            if "guestagent" in p.name or "first-" in p.name
        ]
        for server in (world.source, world.other, world.target):
            mark = f"{server.dir}/"
            running = [
                pid
                for pid, line in world.site.scratch.processes().items()
                if line.split(" ")[0].endswith("mariadbd") and mark in line
            ]
            if len(running) != 1:
                found.append(f"{len(running)} servers of {server.name}")
            found += [str(p) for p in server.data.rglob("*guestagent*")]
        return found

    def stored(self, snapshot_id):
        return [n for n in self.world.site.store_files() if f"/{snapshot_id}/" in f"/{n}"]

    def account(self, snapshot_id):
        world = self.world
        there = world.other.value(f"SELECT COUNT(*) FROM mysql.user WHERE user='repl_{snapshot_id}'")
        file = world.agents["other"].state_dir / "accounts" / f"repl_{snapshot_id}.json"
        check_equal(there == "1", file.exists(), f"the account repl_{snapshot_id} and the agent's note of it")
        held = world.lease() != world.free_lease
        check_equal(held, there == "1", "the lease, held as long as there is an account")
        check_equal((world.agents["other"].state_dir / "lease.json").exists(), held, "the agent's note of the lease")
        return there == "1"

    def drop(self, snapshot_id, href):
        self.agent.call("cleanup_replication_source", {"replication_user": f"repl_{snapshot_id}"})
        self.agent.call("delete_replication_snapshot", {"snapshot_href": href})
        check(not self.account(snapshot_id), "the account is there after clean-up")
        check_equal(self.stored(snapshot_id), [], "objects after delete")

    def check_source(self):
        numbered(self.world.other, 1)
        check(
            self.world.other.slave_status() == {} and self.world.other.value("SELECT @@read_only") == "0",
            "the source is not what it was",
        )

    def check_snapshot(self, record):
        self.check_source()
        if record["state"] == "succeeded":
            snapshot = record["result"]
            check_equal(
                self.agent.call("verify_replication_snapshot", {"snapshot_href": snapshot["dataset"]["snapshot_href"]})[
                    "ok"
                ],
                True,
                "verify",
            )
            check(self.account(self.snapshot_id), "a snapshot without its account")
            self.drop(self.snapshot_id, snapshot["dataset"]["snapshot_href"])
        else:
            check_equal(self.stored(self.snapshot_id), [], "objects of a snapshot that failed")
            check(not self.account(self.snapshot_id), "the account of a snapshot that failed")

    def check_cleanup(self, record):
        self.check_source()
        snapshot_id, href = self.snapshot["snapshot"]["id"], self.snapshot["dataset"]["snapshot_href"]
        there = self.account(snapshot_id)
        check_equal(there, record["state"] != "succeeded", f"the account after a clean-up that {record['state']}")
        if there:
            self.agent.call("cleanup_replication_source", {"replication_user": f"repl_{snapshot_id}"})
        self.agent.call("delete_replication_snapshot", {"snapshot_href": href})

    def check_delete(self, record):
        self.check_source()
        snapshot_id, href = self.snapshot["snapshot"]["id"], self.snapshot["dataset"]["snapshot_href"]
        if record["state"] == "succeeded":
            check_equal(self.stored(snapshot_id), [], "objects after delete")
        else:
            check_equal(
                self.agent.call("verify_replication_snapshot", {"snapshot_href": href})["ok"],
                True,
                f"a snapshot whose delete {record['state']}",
            )
        self.drop(snapshot_id, href)

    def check_attach(self, record):
        world = self.world
        if record["state"] == "succeeded":
            self.check_follows()
            check_equal(
                world.target.value("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name='own_'"),
                "0",
                "old data in the new",
            )
            return
        after = world.target_state()
        for part in self.before:
            check_equal(after[part], self.before[part], f"{part} after an attach that {record['state']}")
        world.target.sql("INSERT INTO own_.t VALUES ()")

    def check_detach(self, record):
        world = self.world
        if record["state"] != "succeeded" and not self.was_finished_later(record):
            self.check_follows()
            return
        t = world.target
        check_equal(t.slave_status(), {}, "replication settings after detach")
        check_equal(
            t.sql("SELECT @@read_only, @@log_bin, @@event_scheduler"), [("0", "1", "ON")], "settings after detach"
        )
        for n in (1, 2):
            numbered(t, n)
        check_equal(self.agent.call("get_replication_status")["verdict"], "standalone", "verdict after detach")
        if record["state"] != "succeeded":
            return
        result = record["result"]
        check_equal(result["state"], "standalone", "detach's result")
        applied = set(result["last_applied"]["gtid"].split(","))
        check_equal(
            applied <= set(t.value("SELECT @@gtid_binlog_state").split(",")),
            True,
            f"last applied ({applied}) is on the server",
        )

    def was_finished_later(self, record):
        """Whether a job that failed past its point of no return, on a server that was down, has been brought to its end since: the
        record says so."""
        if "could not be undone" not in record["error"]["message"]:
            return False

        def later():
            told = self.agent.call("get_job", {"job_id": self.job_id})
            return [w for w in told.get("warnings", []) if w.startswith("later: ")]

        said = wait_for("the recovery's word", later, 90, 0.3)
        return any("finished ending replication" in w for w in said)

    def check_follows(self):
        world = self.world
        status = world.site.healthy(self.agent)
        check_equal(
            (status["io_thread"], status["sql_thread"], status["read_only"]),
            ("running", "running", True),
            "the replica",
        )
        position, sums = at_one_position(world.source, [world.target], lambda s: s.checksums())
        assert_same(f"checksums at {position}", [world.source, world.target], sums)
        for n in (1, 2):
            numbered(world.target, n)


def children(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += [int(c) for c in read_proc(pid, f"task/{task}/children").split()]
    except OSError:
        pass
    return found
