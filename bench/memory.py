"""Peak memory must not follow the size of the stream: bytes that cannot be compressed, which take the most."""

import tempfile

from measure import PIPELINE, in_turns, row, values

GIB = 1 << 30


def run():
    with tempfile.TemporaryDirectory(prefix="guestagent-bench-") as scratch:
        measured = in_turns(
            {size: f"{PIPELINE} synthetic {int(size * GIB)} null" for size in (0.5, 4)}, scratch, runs=3
        )
    peaks = {size: values(results, "peak_rss", 1 / (1 << 20)) for size, results in measured.items()}
    return [
        row("0.5 GiB: peak memory", "MiB", peaks[0.5], "limit 192 MiB", 192.0, 1),
        row("4 GiB: peak memory", "MiB", peaks[4], "0.5 GiB", peaks[0.5], 1),
    ]
