#!/usr/bin/python3
"""docs/tutorial.md, typed as it stands by somebody who stops at the first command that fails; then the lines by which
docs/snapshot-format.md restores with standard tools, on the snapshot that the tutorial took."""

import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

from agent import binary  # noqa: E402
from scratch import Scratch, free_port, log  # noqa: E402

DOCS = Path(__file__).resolve().parents[2] / "docs"
AFTER = "## 5."  # the snapshot is there until then
OPTIONS = "set -eu -o pipefail\n"


def blocks(name):
    """(line number, text) of each shell block."""
    text = (DOCS / name).read_text()
    return [
        (text[: m.start()].count("\n") + 2, m.group(1)) for m in re.finditer(r"^```sh\n(.*?)^```$", text, re.S | re.M)
    ]


def marked(name, mark):
    found = re.search(rf"<!-- run: {re.escape(mark)} -->\n```sh\n(.*?)^```$", (DOCS / name).read_text(), re.S | re.M)
    if not found:
        raise AssertionError(f"docs/{name} has no block marked <!-- run: {mark} -->")
    return found.group(1)


def type_in(scratch, script, **env):
    done = scratch.run(
        ["bash", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=scratch.dir,
        timeout=200,
        env={**scratch.env, **env},
    )
    return done.returncode, done.stdout


def tutorial(copy_to):
    """One script of all blocks; each says where it begins. Before the replica is detached the store is copied to `copy_to`."""
    parts, copied = [OPTIONS], False
    before = (DOCS / "tutorial.md").read_text().index(AFTER)
    line_of_copy = (DOCS / "tutorial.md").read_text()[:before].count("\n") + 1
    for line, text in blocks("tutorial.md"):
        if line > line_of_copy and not copied:
            parts.append(f'cp -a "$LAB/store" "{copy_to}"\n')
            copied = True
        parts.append(f"echo '--- docs/tutorial.md, line {line}'\n{text}")
    return "".join(parts)


def main():
    with Scratch("tutorial") as scratch:
        programs = scratch.dir / "bin"
        programs.mkdir()
        (programs / "guestagent").symlink_to(os.path.abspath(binary()))
        scratch.env["PATH"] = f"{programs}:{scratch.env['PATH']}"
        kept = scratch.dir / "kept"
        status, said = type_in(scratch, tutorial(kept), SOURCE_PORT=str(free_port()), REPLICA_PORT=str(free_port()))
        if status:
            raise AssertionError(f"the tutorial's shell ended with {status}:\n{said[-6000:]}")
        for word in (
            '"healthy"',
            '["replica","healthy",true]',
            "standalone",
            '"dropped":true',
            '"deleted":true',
            "switch",
        ):
            if word not in said:
                raise AssertionError(f"the tutorial never showed {word}:\n{said[-6000:]}")
        log(f"tutorial: {len(blocks('tutorial.md'))} blocks")

        snapshot = next(kept.rglob("manifest.json")).parent
        check = marked("snapshot-format.md", "check")
        for name in ("by-hand", "curl"):
            to = scratch.dir / name
            script = OPTIONS + check + marked("snapshot-format.md", name)
            status, said = type_in(scratch, script, SNAPSHOT=str(snapshot), URL=f"file://{snapshot}", TO=str(to))
            if status or not (to / "shop/orders.ibd").exists() or "completed OK!" not in said:
                raise AssertionError(f"restore by {name}: exit status {status}\n{said[-3000:]}")
        damaged = next(snapshot.glob("segment-*"))
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        status, said = type_in(scratch, OPTIONS + check, SNAPSHOT=str(snapshot))
        if status == 0 or damaged.name not in said:
            raise AssertionError(f"the check took a damaged segment: exit status {status}\n{said}")
        log("restore by hand: good")


if __name__ == "__main__":
    sys.exit(main())
