#!/usr/bin/python3
"""A snapshot and an attach that take longer than the tokens they begin with: a real Keystone, a real Swift, real servers."""

import argparse
import sys
import time

from testsite import *  # noqa: F403


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=int, default=45, help="about how long snapshot and attach take, each")
    options.add_argument("--token-life", type=int, default=20)
    o = options.parse_args()
    with Site("tokens", "swift", auth="keystone", token_life=o.token_life) as site:
        run(site, o.seconds, o.token_life)
    log("tokens: 2 cases, 0 failed")


def timed(what, work, life):
    started = time.monotonic()
    result = work()
    took = time.monotonic() - started
    log(f"{what}: {took:.0f} s with tokens of {life} s")
    check(took > 2 * life, f"{what}: took {took:.0f} s: too short to show anything")
    return result


def run(site, seconds, life):
    with step("servers, data"):
        source, replica = site.server("source", 1), site.server("replica", 101)
        # Before the tool's own compression; about a gigabyte would only make the link faster, not the test better.
        megabytes = seed(source, 100)
        # zstd makes the copy some 2.9 times smaller, and it has some 30 MB beside the data.
        rate = f"{(megabytes + 30) * 1024 * 10 // 29 // seconds}KiB"
        limits = {"snapshot": {"segment_size": "1MiB", "throttle": {"upload": rate, "download": rate}}}
        agents = [site.agent(server, config=limits) for server in (source, replica)]
        writer = Writer(source, 1, pause=0.02)
        writer.start()
    snapshot = timed(
        "snapshot", lambda: site.call(agents[0], "get_replication_snapshot", {"snapshot_id": "long"}), life
    )
    timed("attach", lambda: site.call(agents[1], "attach_replication_slave", {"snapshot": snapshot}), life)
    site.healthy(agents[1])
    position, sums = at_one_position(source, [replica], lambda s: s.checksums())
    assert_same(f"checksums at {position}", [source, replica], sums)
    writer.stop()
    gone = site.call(agents[0], "delete_replication_snapshot", {"snapshot_href": snapshot["dataset"]["snapshot_href"]})
    check(gone["objects"] >= snapshot["snapshot"]["segments"] + 2, f"delete answered {gone}")
    check_equal(site.swift.objects("replicas"), [], "objects left on the store")
    for agent in agents:
        check_equal(site.leftovers(agent), [], "leftovers")


if __name__ == "__main__":
    sys.exit(main())
