"""The daemon at rest: memory, and how soon it answers."""

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lab"))

from agent import Agent  # noqa: E402
from mariadb import MariaDB  # noqa: E402
from scratch import Scratch  # noqa: E402

RUNS = 7


def memory(pid):
    """KiB by name from the kernel's account of the whole address space."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    table = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    # Clean ones are pages of files, such as the program's own, that no other process has mapped now: the kernel may drop them.
    return {
        "RSS": table["Rss"],
        "PSS": table["Pss"],
        "private": table["Private_Clean"] + table["Private_Dirty"],
        "private and dirty": table["Private_Dirty"],
    }


def run():
    """Rows for bench/run: name, value, unit, against (the target's name), ratio (value / target), runs."""
    ready, kinds = [], {"RSS": [], "PSS": [], "private": [], "private and dirty": []}
    with Scratch("idle") as scratch:
        server = MariaDB(scratch, "server", 1).initialise().start()
        agent = Agent(scratch, server, scratch.dir / "store").create_account()
        for _ in range(RUNS):
            begun = time.monotonic()
            agent.start()
            ready.append((time.monotonic() - begun) * 1000)
            for _ in range(5):
                agent.call("get_replication_status")
                agent.get("/metrics")
            time.sleep(1)
            for name, kib in memory(agent.process.pid).items():
                kinds[name].append(kib / 1024)
            agent.stop()
    rows = [("idle daemon, ready after", ready, "ms", 100)]
    rows += [
        (f"idle daemon, {name}", kinds[name], "MiB", target)
        for name, target in (("RSS", 20), ("PSS", None), ("private", 10), ("private and dirty", 10))
    ]
    return [
        {
            "name": name,
            "value": round(statistics.median(values), 2),
            "unit": unit,
            "against": f"target {target} {unit}" if target else None,
            "ratio": round(statistics.median(values) / target, 3) if target else None,
            "runs": [round(v, 2) for v in values],
        }
        for name, values, unit, target in rows
    ]


if __name__ == "__main__":
    for row in run():
        print(f"{row['name']:<30} {row['value']:>9} {row['unit']:<4} {row['against'] or ''}")
