"""How long a server with data is away while it becomes a replica, after its snapshot was staged, beside the whole of an attach."""

import os
import socket
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lab"))

from agent import Agent  # noqa: E402
from load import seed  # noqa: E402
from mariadb import MariaDB  # noqa: E402
from scratch import Scratch  # noqa: E402

RUNS = int(os.environ.get("BENCH_RUNS", 5))
MEGABYTES = int(os.environ.get("BENCH_MIB", 2048))
EVERY = 0.01  # s between two looks


def greets(server):
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(2)
            s.connect(str(server.socket))
            return bool(s.recv(1))
    except OSError:
        return False


class Away(threading.Thread):
    """For how long a server did not answer a greeting, from the first failure to the last."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.first, self.last, self.halt = server, None, None, threading.Event()
        self.start()

    def run(self):
        while not self.halt.wait(EVERY):
            begun = time.monotonic()
            if not greets(self.server):
                self.first = self.first or begun
                self.last = time.monotonic()

    def stop(self):
        self.halt.set()
        self.join()
        return (self.last - self.first) if self.first else 0.0


def attached(agent, server, snapshot):
    away, begun = Away(server), time.monotonic()
    agent.call("attach_replication_slave", {"snapshot": snapshot, "slave_config": {"overwrite": True}})
    whole = time.monotonic() - begun
    return whole, away.stop()


def run():
    """Rows for bench/run. Each time the server has data of its own, which is given up."""
    fresh, staged, staging = [], [], []
    with Scratch("downtime") as scratch:
        source = MariaDB(scratch, "source", 1).initialise().start()
        seed(source, MEGABYTES, quiet=True)
        target = MariaDB(scratch, "target", 2).initialise().start()
        store = scratch.dir / "store"
        agents = [Agent(scratch, server, store).create_account().start() for server in (source, target)]
        snapshot = agents[0].call("get_replication_snapshot")
        for number in range(RUNS):
            for ways in (fresh, staged):
                target.sql(f"CREATE DATABASE IF NOT EXISTS own; CREATE OR REPLACE TABLE own.t AS SELECT {number} AS n")
                if ways is staged:
                    begun = time.monotonic()
                    href = snapshot["dataset"]["snapshot_href"]
                    agents[1].call("stage_replication_snapshot", {"snapshot_href": href})
                    staging.append(time.monotonic() - begun)
                ways.append(attached(agents[1], target, snapshot))
                agents[1].call("detach_replication_slave")
        raw = snapshot["snapshot"]["raw_bytes"]
    whole, away = ([round(run[part], 2) for run in staged] for part in (0, 1))
    other = statistics.median(run[0] for run in fresh)
    other_away = statistics.median(run[1] for run in fresh)
    name = f"re-attach of {raw / 1e9:.1f} GB after staging ({statistics.median(staging):.1f} s)"
    return [
        {
            "name": f"{name}, {what}",
            "value": statistics.median(values),
            "unit": "s",
            "against": f"{against}: {base:.2f} s",
            "ratio": round(statistics.median(values) / base, 3),
            "runs": values,
        }
        for what, values, against, base in (
            ("whole", whole, "an attach that was not staged", other),
            ("the server away", away, "the same of an attach that was not staged", other_away),
        )
    ]


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']:<70} {row['value']:>7} {row['unit']}  {row['ratio']} of {row['against']}")
