"""From a stored snapshot to a prepared data directory: `guestagent restore` against the stock tools in one pipe, and against an
earlier build of itself where BENCH_PEER names one."""

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lab"))

from agent import Agent  # noqa: E402
from load import Writer, seed  # noqa: E402
from mariadb import MariaDB  # noqa: E402
from scratch import Scratch  # noqa: E402

RUNS = int(os.environ.get("BENCH_RUNS", 5))
PEER = os.environ.get("BENCH_PEER")
MEGABYTES = int(os.environ.get("BENCH_MIB", 1500))


def measured(scratch, argv, what):
    """Seconds, and seconds of the processors."""

    def used():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    begun, before = time.monotonic(), used()
    done = scratch.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError(f"{what}: exit status {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}")
    return time.monotonic() - begun, used() - before


def take(scratch, mb):
    """A source that is written to while it is copied, so that there is redo to apply. Answers its agent and the snapshot."""
    server = MariaDB(scratch, "server", 1).initialise().start()
    seed(server, mb, quiet=True)
    agent = Agent(scratch, server, scratch.dir / "store").create_account().start()
    writers = [Writer(server, n, pause=0, body_bytes=8000) for n in (1, 2)]
    for writer in writers:
        writer.start()
    snapshot = agent.call("get_replication_snapshot")
    for writer in writers:
        writer.stop()
    agent.stop()
    server.stop()
    return agent, snapshot


def run():
    """Rows for bench/run; the ways alternate."""
    with Scratch("restore") as scratch:
        agent, snapshot = take(scratch, MEGABYTES)
        href = snapshot["dataset"]["snapshot_href"]
        segments = Path(href.removeprefix("file://")).parent
        to = scratch.dir / "to"
        stock = (
            f"set -euo pipefail; mkdir {to}; cat {segments}/segment-* | zstd -d | mbstream -x -C {to}; sync -f {to};"
            f"mariadb-backup --no-defaults --prepare --use-memory=1G --target-dir={to}"
        )
        restore = agent.argv("restore", href, "--to", str(to))
        ways = {"guestagent": restore, "the stock pipe": ["bash", "-c", stock]}
        if PEER:
            ways["the build before"] = [PEER, *restore[1:]]
        taken = {way: [] for way in ways}
        for _ in range(RUNS):
            for way, argv in ways.items():
                taken[way].append(measured(scratch, argv, way))
                subprocess.run(["rm", "-rf", to], check=True)
        raw = snapshot["snapshot"]["raw_bytes"]
    rows = []
    for part, unit in ((0, "s"), (1, "s of processors")):
        of = {way: [round(run[part], 2) for run in runs] for way, runs in taken.items()}
        mine = statistics.median(of["guestagent"])
        for way in list(ways)[1:]:
            other = statistics.median(of[way])
            rows.append(
                {
                    "name": f"restore and prepare {raw / 1e9:.1f} GB",
                    "value": round(mine, 2),
                    "unit": unit,
                    "against": f"{way}: {other:.2f}",
                    "ratio": round(mine / other, 3),
                    "runs": of["guestagent"],
                }
            )
    return rows


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']:<45} {row['value']:>7} {row['unit']}  {row['ratio']} of {row['against']}")
