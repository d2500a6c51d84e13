"""From a backup's stream to a real Swift and back, on one machine: the data path against what one would use instead."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lab"))

from agent import to_yaml  # noqa: E402
from inputs import xbstream  # noqa: E402
from measure import MIB, PIPELINE, in_turns, median, row, values  # noqa: E402
from scratch import Scratch  # noqa: E402
from swift import Swift  # noqa: E402

SEGMENT = 32 << 20
ZSTD = "zstd -1 -T2 -q -c input"
LIMIT = "zstd -1 -T2 > /dev/null"


def configuration(scratch, swift):
    config = scratch.dir / "ours.yaml"
    config.write_text(
        to_yaml({"storage": swift.storage("ours", "bench"), "mysql": {"advertised_address": "127.0.0.1"}}) + "\n"
    )
    return config


def peers(scratch, swift):
    """Gives the other programs what they need, and a container each: name -> (command that uploads, command that deletes)."""
    os.environ.update(
        {
            "ST_AUTH": swift.auth_url,
            "ST_USER": swift.user,
            "ST_KEY": swift.key,
            "RCLONE_SWIFT_AUTH": swift.auth_url,
            "RCLONE_SWIFT_USER": swift.user,
            "RCLONE_SWIFT_KEY": swift.key,
            "RCLONE_SWIFT_AUTH_VERSION": "1",
            "RCLONE_CONFIG": str(scratch.dir / "none.conf"),
        }
    )
    for container in ("rclone", "client", "curl", "stored"):
        swift.request("PUT", container)
    shared = Path("/dev/shm")
    parts = (shared if os.access(shared, os.W_OK) else scratch.dir) / f"{scratch.dir.name}-parts"
    parts.mkdir()
    curl = f"curl -sSf -H 'X-Auth-Token: {swift.token}'"
    put = f"{curl} -H Expect: -T {parts}/{{}} {swift.storage_url}/curl/{{}} -o /dev/null && rm {parts}/{{}}"
    delete = "for c in {0} {0}_segments; do swift -q delete $c 2> /dev/null || true; done; swift -q post {0}"
    return (
        curl,
        parts,
        {
            "rclone rcat": (
                f"{ZSTD} | rclone --log-level ERROR rcat :swift:rclone/stream.zst",
                delete.format("rclone"),
            ),
            "swift upload -": (
                f"{ZSTD} | swift -q upload --object-name stream.zst --segment-size {SEGMENT} --use-slo client -",
                delete.format("client"),
            ),
            "split + parallel curl": (
                f"{ZSTD} | split -b {SEGMENT} -a 4 --filter='cat > {parts}/$FILE && echo $FILE' | "
                f'xargs -P 4 -I{{}} sh -c "{put}"',
                delete.format("curl"),
            ),
            LIMIT: f"{ZSTD} > /dev/null",
        },
    )


def compared(what, ours, others, unit, digits=2):
    """A row for each comparison, then what was compared with."""
    rows = [row(f"{what}, guestagent", unit, ours, name, runs, digits) for name, runs in others.items()]
    return rows + [row(f"{what}, {name}", unit, runs, digits=digits) for name, runs in others.items()]


def rows_of(direction, measured, limit=None):
    others = [name for name in measured if name != "guestagent"]
    transfers = [name for name in others if name != limit]
    rows = compared(
        f"{direction}: wall",
        values(measured["guestagent"], "wall_s"),
        {n: values(measured[n], "wall_s") for n in others},
        "s",
    )
    best = min((values(measured[n], "wall_s") for n in transfers), key=median)
    rows.append(
        row(
            f"{direction}: wall, guestagent",
            "s",
            values(measured["guestagent"], "wall_s"),
            "the fastest of the others",
            best,
        )
    )
    rows += compared(
        f"{direction}: client processor",
        values(measured["guestagent"], "cpu_s"),
        {n: values(measured[n], "cpu_s") for n in others},
        "s",
    )
    # The store runs on the same machine: where all cores are busy, they and not the client's way of working are the bound.
    rows += [
        row(
            f"{direction}: cores busy, the store's work included, {n}",
            f"of {os.cpu_count()}",
            values(measured[n], "busy_cores"),
        )
        for n in measured
    ]
    rows.append(
        row(
            f"{direction}: peak memory, guestagent",
            "MiB",
            values(measured["guestagent"], "memory", 1 / (1 << 20)),
            "limit 192 MiB",
            192.0,
            1,
        )
    )
    rows += [
        row(f"{direction}: peak memory, {n}", "MiB", values(measured[n], "memory", 1 / (1 << 20)), digits=1)
        for n in others
    ]
    return rows


def run():
    """Rows for bench/run."""
    with Scratch("bench-swift") as scratch, Swift(scratch.dir / "swift") as swift:
        xbstream(scratch, scratch.dir / "input", MIB)
        config = configuration(scratch, swift)
        curl, parts, ways = peers(scratch, swift)
        try:
            ours = f"{PIPELINE} write {config} < input"
            uploads = in_turns({"guestagent": (ours, f"{PIPELINE} remove {config}"), **ways}, scratch.dir)
            store = f"{ours} > /dev/null; {ZSTD} | swift -q upload --object-name stream.zst --segment-size {SEGMENT} --use-slo stored -"
            scratch.run(["bash", "-euo", "pipefail", "-c", store], cwd=scratch.dir, env=os.environ, check=True)
            downloads = in_turns(
                {
                    "guestagent": f"{PIPELINE} read {config}",
                    "rclone cat | zstd -d": "rclone --log-level ERROR cat :swift:stored/stream.zst | zstd -dcq > /dev/null",
                    "curl | zstd -d": f"{curl} {swift.storage_url}/stored/stream.zst | zstd -dcq > /dev/null",
                },
                scratch.dir,
            )
        finally:
            for part in parts.iterdir():
                part.unlink()
            parts.rmdir()
    sizes = uploads["guestagent"][0]
    return [
        *rows_of("upload", uploads, LIMIT),
        *rows_of("download", downloads),
        row("compressed to 1/x", "", [sizes["raw_bytes"] / sizes["stored_bytes"]]),
    ]
