"""Times, processor seconds and memory of commands, in turns, so that what else the machine does hits all ways alike."""

import json
import os
import statistics
import subprocess
import threading
import time
from pathlib import Path

RUNS = int(os.environ.get("BENCH_RUNS", "5"))
MIB = int(os.environ.get("BENCH_MIB", "2048"))
PIPELINE = os.environ.get("BENCH_PIPELINE") or str(
    Path(__file__).resolve().parents[1] / "build/release/bench/bench_pipeline"
)


class Measured(dict):
    """wall_s and cpu_s (user and system, with all children) of a shell command, busy_cores (of the machine meanwhile, whoever kept
    them busy), memory (bytes: the most that its children had resident together, each with its own peak; looked at ten times a second),
    and the members of the JSON object that it printed."""


def children_of(pid):
    """All descendants that live now."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += [int(child), *children_of(int(child))]
    except OSError:
        pass
    return found


def peak_resident(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


class MemoryWatch(threading.Thread):
    """Of the children of a shell, without the shell."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.halt = pid, 0, threading.Event()
        self.start()

    def run(self):
        while not self.halt.wait(0.1):
            self.peak = max(self.peak, sum(peak_resident(pid) for pid in children_of(self.pid)))

    def stop(self):
        self.halt.set()
        self.join()
        return self.peak


def busy_seconds():
    """Of all cores since the machine was started, whoever used them."""
    user, nice, system, _, _, irq, softirq = (int(ticks) for ticks in Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def measure(command, cwd):
    os.sync()
    busy = busy_seconds()
    begun = time.monotonic()
    child = subprocess.Popen(
        ["/bin/bash", "-euc", f"set -o pipefail; {command}\n:"],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    watch = MemoryWatch(child.pid)
    out = child.stdout.read()
    child.stdout.close()
    _, status, used = os.wait4(child.pid, 0)
    wall = time.monotonic() - begun
    busy = (busy_seconds() - busy) / wall
    memory = watch.stop()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"exit status {child.returncode}: {command}")
    result = Measured(json.loads(out) if out.strip() else {})
    result.update(wall_s=wall, cpu_s=used.ru_utime + used.ru_stime, memory=memory, busy_cores=busy)
    return result


def in_turns(ways, cwd, runs=RUNS):
    """name -> shell command, or a pair of that and one that cleans up (not measured). Answers name -> [Measured]."""
    results = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            command, clean_up = way if isinstance(way, tuple) else (way, "true")
            results[name].append(measure(command, cwd))
            subprocess.run(["/bin/bash", "-euc", clean_up], cwd=cwd, check=True)
    return results


def median(values):
    return statistics.median(values)


def row(name, unit, runs, against=None, base=None, digits=2):
    """`base`: the runs (or the one number) to compare with."""
    value = median(runs)
    compared = None if base is None else median(base) if isinstance(base, list) else base
    return {
        "name": name,
        "value": round(value, digits),
        "unit": unit,
        "against": against,
        "ratio": None if not compared else round(value / compared, 3),
        "runs": [round(run, digits) for run in runs],
    }


def values(results, key, scale=1.0):
    return [result[key] * scale for result in results]
