"""Over slow and long links: how much of the link an upload and a download use. The client runs in a network namespace of its own,
behind a veth pair that `tc tbf` limits both ways; a relay adds the delay. Needs root."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lab"))

from agent import to_yaml  # noqa: E402
from inputs import xbstream  # noqa: E402
from measure import MIB, PIPELINE, RUNS, in_turns, row  # noqa: E402
from scratch import Scratch  # noqa: E402
from swift import Swift  # noqa: E402

RATES = (50, 200, 1000)  # Mbit/s
DELAYS = (0, 20)  # ms each way
SECONDS = int(
    os.environ.get("BENCH_LINK_SECONDS", "20")
)  # about how long one transfer takes where the link is the bound
# Of each 1514 bytes on an Ethernet, TCP carries this many.
CARRIED = 1448 / 1514


def sh(*words):
    subprocess.run([str(word) for word in words], check=True)


@contextlib.contextmanager
def link(number):
    """(name of the namespace, this side's address, a function that sets the rate)."""
    name, near, far = f"ga-{os.getpid()}-{number}", f"gan{os.getpid() % 10000}", f"gaf{os.getpid() % 10000}"
    here, there = f"10.213.{os.getpid() % 250}.1", f"10.213.{os.getpid() % 250}.2"
    sh("ip", "netns", "add", name)
    try:
        sh("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        inside = ("ip", "netns", "exec", name)
        sh("ip", "addr", "add", f"{here}/30", "dev", near)
        sh("ip", "link", "set", near, "up")
        sh(*inside, "ip", "addr", "add", f"{there}/30", "dev", far)
        sh(*inside, "ip", "link", "set", far, "up")

        def limit(mbit):
            shape = ("root", "tbf", "rate", f"{mbit}mbit", "burst", max(32, mbit // 2) * 1024, "latency", "50ms")
            sh("tc", "qdisc", "replace", "dev", near, *shape)
            sh(*inside, "tc", "qdisc", "replace", "dev", far, *shape)

        yield name, here, limit
    finally:
        sh("ip", "netns", "del", name)


def relay(scratch, here, swift, delay):
    """The port of a relay to Swift."""
    program = str(Path(PIPELINE).parent / "delay_proxy")
    child = scratch.spawn([program, here, swift.ports["proxy"], delay], stdout=subprocess.PIPE, cwd=scratch.dir)
    return int(child.stdout.readline())


def run():
    """Rows for bench/run."""
    rows = []
    with Scratch("bench-links") as scratch, Swift(scratch.dir / "swift") as swift, link(1) as (namespace, here, limit):
        xbstream(scratch, scratch.dir / "input", MIB)
        for delay in DELAYS:
            port = relay(scratch, here, swift, delay)
            storage = swift.storage("links", f"delay-{delay}")
            storage["swift"] |= {
                "auth_url": f"http://{here}:{port}/auth/v1.0",
                "storage_url": f"http://{here}:{port}/v1/AUTH_{swift.account}",
            }
            config = scratch.dir / f"delay-{delay}.yaml"
            config.write_text(to_yaml({"storage": storage, "mysql": {"advertised_address": "127.0.0.1"}}) + "\n")
            for rate in RATES:
                limit(rate)
                # It shrinks to less than a half.
                size = min(MIB << 20, int(rate * 1e6 / 8 * SECONDS * 2.5))
                inside = f"ip netns exec {namespace} {PIPELINE}"
                upload = f"head -c {size} input | {inside} write {config}"
                measured = in_turns({"upload": (upload, f"{inside} remove {config}")}, scratch.dir, RUNS)
                subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", upload], cwd=scratch.dir, check=True, stdout=subprocess.DEVNULL
                )
                measured |= in_turns({"download": f"{inside} read {config}"}, scratch.dir, RUNS)
                subprocess.run(["bash", "-euc", f"{inside} remove {config}"], cwd=scratch.dir, check=True)
                for direction, results in measured.items():
                    speeds = [r["stored_bytes"] * 8 / 1e6 / r["wall_s"] for r in results]
                    rows.append(
                        row(
                            f"{direction}, {rate} Mbit/s, {delay} ms each way",
                            "Mbit/s",
                            speeds,
                            "what TCP carries on it",
                            rate * CARRIED,
                            1,
                        )
                    )
    return rows
