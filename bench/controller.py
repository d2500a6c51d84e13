"""The controller with 200 hosts, 190 of them replicas: how soon the API answers while every agent is polled and five pages are open, and its
memory and processor time. The agents have no databases; the client is a process of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/controller"))

from control import Site, UnixConnection  # noqa: E402
from measure import RUNS, row  # noqa: E402

SOURCES, REPLICAS = 10, 190
REST = 10  # seconds of looking at the controller at rest
REQUESTS = 400  # of each kind and run
PAGES = 5


def processor_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid, name):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name + ":"))


def ask(path_of_socket, paths):
    """Prints the milliseconds of each request, in turns over `paths`, every one on a connection that stays."""
    connection, taken = UnixConnection(path_of_socket, 30), {path: [] for path in paths}
    for _ in range(REQUESTS):
        for path in paths:
            began = time.monotonic()
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            taken[path].append((time.monotonic() - began) * 1000)
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status}")
    print(json.dumps(taken))


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def fill(site):
    """All hosts registered, each source with as many replicas."""
    for host in site.hosts:
        host.seconds = 0.02
    sources = [site.fleet.add(f"db{n}", data=True, server_id=n) for n in range(2, SOURCES + 1)]
    site.start()
    c = site.controller
    for source in sources:
        c.register(source.address, name=source.name, id=source.name)
    tasks = [c.replicate(name, REPLICAS // SOURCES)["task"]["id"] for name in ("m", *(s.name for s in sources))]
    if {c.wait_task(task, 120)["state"] for task in tasks} != {"succeeded"}:
        raise RuntimeError("the replicas were not made")


def run():
    """Rows for bench/run."""
    kinds = {
        "/instances": "all instances",
        "/instances/s7": "one instance",
        "/instances/s7/topology": "one topology",
        "/": "the page",
    }
    percentiles, cpu, resident = {path: [] for path in kinds}, [], []
    with Site(
        "bench",
        spares=REPLICAS,
        config={"agents": {"parallel_attaches": 16, "job_poll": "200ms"}, "monitor": {"interval": "5s"}},
    ) as site:
        fill(site)
        pid, path_of_socket = site.controller.process.pid, site.controller.socket
        pages = [
            subprocess.Popen(
                ["curl", "-sN", "--unix-socket", path_of_socket, "http://controller/events"], stdout=subprocess.DEVNULL
            )
            for _ in range(PAGES)
        ]
        try:
            for _ in range(RUNS):
                before = processor_seconds(pid)
                time.sleep(REST)
                cpu.append((processor_seconds(pid) - before) / REST * 100)
                done = subprocess.run(
                    [sys.executable, __file__, path_of_socket, *kinds], stdout=subprocess.PIPE, check=True
                )
                for path, taken in json.loads(done.stdout).items():
                    percentiles[path].append(percentile(taken, 0.99))
                resident.append(memory(pid, "VmRSS"))
        finally:
            for page in pages:
                page.kill()
                page.wait()
        peak = memory(pid, "VmHWM")
    rows = [row(f"{what}, 99 of 100 answered within", "ms", percentiles[path]) for path, what in kinds.items()]
    rows.append(row("controller with 200 hosts, polled every 5 s, of one core", "%", cpu))
    rows.append(row("controller with 200 hosts, resident", "MiB", resident, digits=1))
    rows.append(row("controller with 200 hosts, peak", "MiB", [peak], digits=1))
    return rows


if __name__ == "__main__":
    ask(sys.argv[1], sys.argv[2:])
