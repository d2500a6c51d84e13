"""A whole snapshot of a real server to a directory, by a daemon: its time against the stock pipe's, and whether memory follows the size."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lab"))

from agent import Agent  # noqa: E402
from load import seed  # noqa: E402
from mariadb import ME, MariaDB  # noqa: E402
from measure import MIB, RUNS, measure, row  # noqa: E402
from scratch import Scratch  # noqa: E402


def high_water(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM")


def snapshot(agent):
    """Seconds and the daemon's peak memory in MiB; the snapshot is removed again."""
    subprocess.run(["sync"], check=True)
    agent.start()
    begun = time.monotonic()
    taken = agent.call("get_replication_snapshot")
    wall = time.monotonic() - begun
    peak = high_water(agent.process.pid)
    agent.call("delete_replication_snapshot", {"snapshot_href": taken["dataset"]["snapshot_href"]})
    agent.call("cleanup_replication_source", {"replication_user": taken["replication_user"]["name"]})
    agent.stop()
    return wall, peak, taken["snapshot"]


def run():
    rows, peaks = [], {}
    for size in (512, MIB, 2 * MIB):
        with Scratch("snapshot") as scratch:
            server = MariaDB(scratch, "server", 1).initialise().start()
            agent = Agent(scratch, server, scratch.dir / "store").create_account()
            seed(server, size, quiet=True)
            server.restart()  # all is written: every way copies the same, and nothing is flushed meanwhile
            if size != MIB:
                measured = [snapshot(agent) for _ in range(2)]
            else:
                stock = (
                    f"mariadb-backup --no-defaults --socket={server.socket} --user={ME} --backup --stream=xbstream "
                    f"--parallel=2 --target-dir={scratch.dir}/tmp 2> {scratch.dir}/tool.log | zstd -1 -T2 -q > {scratch.dir}/stock.zst"
                )
                measured, theirs = [], []
                for _ in range(RUNS):
                    measured.append(snapshot(agent))
                    theirs.append(measure(stock, scratch.dir)["wall_s"])
                    (scratch.dir / "stock.zst").unlink()
                raw = statistics.median(taken["raw_bytes"] for _, _, taken in measured) / (1 << 30)
                rows.append(
                    row(
                        f"snapshot of {raw:.1f} GiB to a directory",
                        "s",
                        [wall for wall, _, _ in measured],
                        "mariadb-backup | zstd -1 -T2 > file",
                        theirs,
                    )
                )
            raw = measured[0][2]["raw_bytes"] / (1 << 30)
            peaks[size] = row(
                f"daemon's peak memory at {raw:.1f} GiB",
                "MiB",
                [peak for _, peak, _ in measured],
                "limit 192 MiB",
                192.0,
                1,
            )
    return rows + list(peaks.values())


if __name__ == "__main__":
    for one in run():
        print(one)
