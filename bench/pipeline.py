"""The data path alone: a stream from the page cache to a snapshot in a directory, and back, against the stock tool's way."""

import subprocess
import tempfile

from measure import MIB, PIPELINE, in_turns, row, values

WRITE = "cat input | zstd -1 -T2 -q -c > output.zst"
READ = "zstd -dcq input.zst > /dev/null"


def run():
    with tempfile.TemporaryDirectory(prefix="guestagent-bench-") as scratch:
        with open(f"{scratch}/input", "wb") as out:
            subprocess.run([PIPELINE, "generate", str(MIB << 20)], stdout=out, check=True)
        subprocess.run(["zstd", "-1", "-T2", "-q", "input", "-o", "input.zst"], cwd=scratch, check=True)
        subprocess.run(
            ["/bin/bash", "-c", f"{PIPELINE} write stored < input"], cwd=scratch, check=True, stdout=subprocess.DEVNULL
        )
        measured = in_turns(
            {
                "write": (f"cat input | {PIPELINE} write written", "rm -rf written"),
                "zstd write": (WRITE, "rm -f output.zst"),
                "write, nothing kept": f"cat input | {PIPELINE} write null",
                "zstd write, nothing kept": "cat input | zstd -1 -T2 -q -c > /dev/null",
                "read": f"{PIPELINE} read stored",
                "zstd read": READ,
            },
            scratch,
        )
    rows = []
    for ours, theirs, against in (
        ("write", "zstd write", "zstd -1 -T2 > file"),
        ("write, nothing kept", "zstd write, nothing kept", "zstd -1 -T2 > /dev/null"),
        ("read", "zstd read", "zstd -d > /dev/null"),
    ):
        rows.append(
            row(f"{ours}: wall", "s", values(measured[ours], "wall_s"), against, values(measured[theirs], "wall_s"))
        )
        rows.append(
            row(f"{ours}: processor", "s", values(measured[ours], "cpu_s"), against, values(measured[theirs], "cpu_s"))
        )
        rows.append(
            row(
                f"{ours}: peak memory", "MiB", values(measured[ours], "peak_rss", 1 / (1 << 20)), "limit 192 MiB", 192.0
            )
        )
    sizes = measured["write"][0]
    rows.append(row("compressed to 1/x", "", [sizes["raw_bytes"] / sizes["stored_bytes"]]))
    return rows
