"""One, two and four replicas from one snapshot, by a controller, on hosts that are network namespaces with a real Swift: how long it takes, and
what is read on the source. Once with nothing between them but this machine, once with links that are the bound. Needs root."""

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/controller"))

from control import log, wait_for  # noqa: E402
from hosts import Hosts, source_accounts  # noqa: E402
from load import seed  # noqa: E402
from measure import RUNS, row  # noqa: E402

MEGABYTES = 150
COUNTS = (1, 2, 4)
LINK = 20  # Mbit/s of each host, both ways


def read_by(process):
    """Bytes that a process and its ended children have read, from files and pipes."""
    lines = Path(f"/proc/{process.pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


def measure(lab, source, count, link, number):
    """Seconds from the request to the last replica that serves, MiB read by the source's agent and its tools; the replicas are gone again."""
    c = lab.controller
    hosts = [lab.add(f"r{number}-{n}", 100 * number + n, link=link) for n in range(1, count + 1)]
    ids = [c.register(host.url, name=host.name) for host in hosts]
    before = read_by(source.agent.process)
    subprocess.run(["sync"], check=True)
    began = time.monotonic()
    task_id = c.replicate("m", count)["task"]["id"]
    served = wait_for("the replicas", lambda: c.task(task_id)["state"] != "running" and time.monotonic(), 600, 0.02)
    task = c.task(task_id)
    if task["state"] != "succeeded":
        raise RuntimeError(f"{count} replicas: {task.get('error')}")
    read = (read_by(source.agent.process) - before) / (1 << 20)
    for one, host in zip(ids, hosts):
        c.wait_task(c.detach(one)["task"]["id"])
        c.call("DELETE", f"/instances/{one}")
        host.agent.stop()
        host.server.stop()
        lab.hosts.remove(host)
        subprocess.run(["rm", "-rf", host.server.dir, host.agent.dir], check=True)
    if source_accounts(source.server):
        raise RuntimeError("accounts are left on the source")
    return served - began, read


def run():
    """Rows for bench/run."""
    rows, number = [], 1
    for link in (None, LINK):
        with Hosts(
            "replicas", {"agents": {"lost_after": "5m", "call_timeout": "15s"}, "monitor": {"interval": "5s"}}
        ) as lab:
            source = lab.add("master", 1, link=link)
            seed(source.server, MEGABYTES, quiet=True)
            source.server.restart()
            lab.controller.register(source.url, name="master", id="m")
            runs = {count: [] for count in COUNTS}
            for _ in range(RUNS):
                for count in COUNTS:
                    number += 1
                    runs[count].append(measure(lab, source, count, link, number))
                    log(f"{count} replicas, link {link}: {runs[count][-1][0]:.1f} s")
        where = f"links of {link} Mbit/s" if link else "one machine"
        seconds = {count: [wall for wall, _ in runs[count]] for count in COUNTS}
        read = {count: [mib for _, mib in runs[count]] for count in COUNTS}
        for count in COUNTS:
            rows.append(row(f"{count} serving, {where}", "s", seconds[count], "1 replica", seconds[1]))
        for count in COUNTS:
            rows.append(
                row(f"read on the source for {count}, {where}", "MiB", read[count], "for 1 replica", read[1], 1)
            )
    return rows
