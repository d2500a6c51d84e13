"""Runs benchmarks by name and shows what they measured. Each is a module beside this one with a function run() that answers rows:
{"name", "value", "unit", "against", "ratio", "runs"}; `against` and `ratio` are None where there is nothing to compare with."""

import argparse
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOT_BENCHMARKS = {"bench", "inputs", "measure"}


def names():
    return sorted(p.stem for p in HERE.glob("*.py") if p.stem not in NOT_BENCHMARKS)


def load(name):
    """By its file, under another name: the lab has modules of the same names."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine():
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / (1 << 20)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Linux {platform.release()}, load before {load}"


def table(rows):
    lines = [("", "median", "", "against", "ratio", "runs")]
    for row in rows:
        lines.append(
            (
                row["name"],
                f"{row['value']:g}",
                row["unit"],
                row["against"] or "",
                "" if row["ratio"] is None else f"{row['ratio']:.2f}",
                " ".join(f"{run:g}" for run in row["runs"]),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    for name, value, unit, against, ratio, runs in lines:
        print(
            f"{name:<{widths[0]}}  {value:>{widths[1]}} {unit:<{widths[2]}}  {against:<{widths[3]}}  {ratio:>{widths[4]}}  {runs}"
        )


def main():
    parser = argparse.ArgumentParser(prog="bench/run")
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"all, or some of: {' '.join(names())}")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    chosen = names() if args.names == ["all"] else args.names
    unknown = [name for name in chosen if name not in names()]
    if unknown:
        parser.error(f"no benchmark {' '.join(unknown)}; there are: {' '.join(names())}")
    sys.path.insert(0, str(HERE))
    print(machine())
    rows = []
    for name in chosen:
        print(f"\n{name}", flush=True)
        measured = load(name).run()
        table(measured)
        rows += measured
        if args.json:
            Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
