#!/usr/bin/python3
"""The .rpm in a root of its own: installed by rpm, run with the libraries that the .deb names, verified, removed."""

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from roots import Root  # noqa: E402
from testsite import *  # noqa: E402,F403
from deb import one  # noqa: E402


def rpm(root, *words):
    done = subprocess.run(
        ["rpm", "--root", str(root.path), *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    check(done.returncode == 0, f"rpm {' '.join(map(str, words))}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def main():
    packages = [one("guestagent-[0-9]*.rpm"), one("guestagent-controller-[0-9]*.rpm")]
    with Scratch("rpm") as scratch:
        with step("a root with the libraries"):
            root = Root(scratch, "root", "bookworm")
            depends = subprocess.run(
                ["dpkg-deb", "-f", str(one("guestagent_*_amd64.deb")), "Depends"],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
            root.run("apt-get", "-q", "update")
            root.run(
                "apt-get",
                "-q",
                "-y",
                "--no-install-recommends",
                "install",
                *(re.match(r"[^ ,]+", d).group() for d in depends.split(", ")),
            )
        before = root.files()
        with step("install, verify, run"):
            # Another packager's database knows of no library here: the loader, below, says whether they are there.
            rpm(root, "-i", "--nodeps", *packages)
            check_equal(rpm(root, "-V", "--nodeps", "guestagent", "guestagent-controller"), "", "rpm -V")
            check("guestagent" in root.run("guestagent", "--version"), "--version")
            check_equal(root.run("guestagent", "check-config", "--syntax-only", ok=False).returncode, 2, "unconfigured")
            root.run("getent", "group", "guestagent")
            root.run("getent", "passwd", "guestagent-controller")
        with step("remove: what was changed stays beside, the rest goes"):
            config = root.path / "etc/guestagent/guestagent.yaml"
            config.write_text(config.read_text() + "# mine\n")
            rpm(root, "-e", "guestagent-controller", "guestagent")
            left = sorted(f for f in root.files() - before if "guestagent" in f and "rpm/" not in f)
            check_equal(
                [f for f in left if not f.startswith("var/lib/guestagent")],
                ["etc/guestagent", "etc/guestagent/guestagent.yaml.rpmsave"],
                "left",
            )
    log("rpm: good")


if __name__ == "__main__":
    main()
