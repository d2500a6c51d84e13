#!/usr/bin/python3
"""Restore without guestagent: runs exactly the lines that docs/howto.md prints, and holds the server they start beside the source."""

import re
import subprocess
import sys

from testsite import *  # noqa: F403


def page_lines():
    text = (DOCS / "howto.md").read_text()
    part = re.search(r"<!-- by-hand: begin -->\n```sh\n(.*?)```\n<!-- by-hand: end -->", text, re.S)
    check(part, "docs/howto.md has no lines between <!-- by-hand: begin --> and <!-- by-hand: end -->")
    return part.group(1)


def main():
    lines = page_lines()
    for word in ("cat segment-*", "zstd -d", "mbstream -x", "--prepare"):
        check(word in lines, f"the page's lines have no '{word}'")
    with Site("hand") as site:
        source = site.server("source", 1)
        seed(source, 120)
        agent = site.agent(source)
        snapshot = site.call(agent, "get_replication_snapshot")
        manifest = Path(snapshot["dataset"]["snapshot_href"].removeprefix("file://"))
        to = site.scratch.dir / "by-hand"
        log("running the page's lines")
        done = site.scratch.run(
            ["bash", "-euo", "pipefail", "-c", lines],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=site.scratch.dir,
            timeout=300,
            env={**site.scratch.env, "SNAPSHOT": str(manifest.parent), "TO": str(to)},
        )
        check_equal(done.returncode, 0, f"exit status of the page's lines; they said:\n{done.stdout[-3000:]}")
        gtid = snapshot["binlog_position"]["gtid"]
        check(gtid in done.stdout, f"the lines show the position {gtid}:\n{done.stdout[-1000:]}")
        by_hand = MariaDB(site.scratch, "hand-server", 7)
        by_hand.socket = to / "mysqld.sock"
        wait_for("the server started by hand", by_hand.answers, 60)
        # Nothing but the source's event wrote since the snapshot: its table is held side by side up to the copy's last row.
        last = by_hand.value("SELECT MAX(id) FROM lab.heartbeat")
        skip = "lab.heartbeat"
        sums = [{t: c for t, c in s.checksums().items() if t != skip} for s in (source, by_hand)]
        assert_same("checksums", [source, by_hand], sums)
        beats = [
            s.value(f"SELECT SHA2(GROUP_CONCAT(id, at, host ORDER BY id), 256) FROM lab.heartbeat WHERE id <= {last}")
            for s in (source, by_hand)
        ]
        check_equal(beats[1], beats[0], "rows of the event up to the copy")
        assert_same("schema", [source, by_hand], [source.schema(), by_hand.schema()])
    log("by hand: good")


if __name__ == "__main__":
    sys.exit(main())
