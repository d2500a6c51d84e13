"""From a stored snapshot to a prepared data directory: `guestagent restore` against the stock tools in one pipe."""

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

RUNS = 5
MEGABYTES = 1500


def seconds(scratch, argv, what):
    begun = time.monotonic()
    done = scratch.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError(f"{what}: exit status {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}")
    return time.monotonic() - begun


def run():
    """Rows for bench/run. The source is written to while it is copied, so that there is redo to apply; the two ways alternate."""
    ours, stock = [], []
    with Scratch("restore") as scratch:
        server = MariaDB(scratch, "server", 1).initialise().start()
        seed(server, MEGABYTES, quiet=True)
        agent = Agent(scratch, server, scratch.dir / "store").create_account().start()
        writers = [Writer(server, n, pause=0, body_bytes=8000) for n in (1, 2)]
        for writer in writers:
            writer.start()
        snapshot = agent.call("get_replication_snapshot")
        for writer in writers:
            writer.stop()
        agent.stop()
        server.stop()
        href = snapshot["dataset"]["snapshot_href"]
        segments = Path(href.removeprefix("file://")).parent
        for number in range(RUNS):
            to = scratch.dir / f"ours-{number}"
            ours.append(seconds(scratch, agent.argv("restore", href, "--to", str(to)), "guestagent restore"))
            subprocess.run(["rm", "-rf", to], check=True)
            to = scratch.dir / f"stock-{number}"
            to.mkdir()
            script = (
                f"set -euo pipefail; cat {segments}/segment-* | zstd -d | mbstream -x -C {to}; sync -f {to};"
                f"mariadb-backup --no-defaults --prepare --use-memory=1G --target-dir={to}"
            )
            stock.append(seconds(scratch, ["bash", "-c", script], "the stock pipe"))
            subprocess.run(["rm", "-rf", to], check=True)
        raw = snapshot["snapshot"]["raw_bytes"]
    mine, other = statistics.median(ours), statistics.median(stock)
    return [
        {
            "name": f"restore and prepare {raw / 1e9:.1f} GB, guestagent",
            "value": round(mine, 2),
            "unit": "s",
            "against": f"cat | zstd -d | mbstream -x, sync, prepare: {other:.2f} s",
            "ratio": round(mine / other, 3),
            "runs": [round(v, 2) for v in ours],
        }
    ]


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']:<45} {row['value']:>7} {row['unit']}  {row['ratio']} of {row['against']}")
