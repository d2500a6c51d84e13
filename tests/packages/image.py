#!/usr/bin/python3
"""The recipe for a database image, built and used as a root file system: what is in it, and the agent beside its own MariaDB."""

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from roots import Root, engines  # noqa: E402
from deb import one  # noqa: E402
from testsite import *  # noqa: E402,F403

RECIPE = Path(__file__).resolve().parents[2] / "packaging/image/build"


class Image(Root):
    """A Root that is unpacked already."""

    def __init__(self, scratch, path):
        self.scratch, self.name, self.path = scratch, "image", path


def main():
    with Scratch("image") as scratch:
        image = Image(scratch, scratch.dir / "image")
        with step("build"):
            done = subprocess.run(
                [str(RECIPE), str(image.path), str(one("guestagent_*_amd64.deb")), "bookworm", engines.mirror()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            check(done.returncode == 0, done.stdout)
        with step("what is in it"):
            wants = image.path / "etc/systemd/system/multi-user.target.wants"
            for unit in ("mariadb.service", "guestagent.service"):
                check((wants / unit).is_symlink(), f"{unit} is not enabled")
            check(not (image.path / "root/guestagent.deb").exists(), "the package was left behind")
            refused = image.run("guestagent", "check-config", "--syntax-only", ok=False)
            check(refused.returncode == 2 and "advertised_address" in refused.stdout, refused.stdout)
        with step("first boot: configure, server and agent up"):
            config = image.path / "etc/guestagent/guestagent.yaml"
            text = config.read_text()
            check("\n  advertised_address:\n" in text, "the shipped file has no place for the address")
            # No systemd in a chroot: the agent starts the server itself.
            config.write_text(
                text.replace("\n  advertised_address:\n", "\n  advertised_address: 127.0.0.1\n").replace(
                    "    #control: systemd", "    control: process"
                )
            )
            image.run("install", "-d", "-o", "mysql", "/run/mysqld")
            port = free_port_line(image)
            image.spawn("mariadbd", "--user=mysql", log_name="server.out")
            wait_for(
                "the server",
                lambda: image.run("mariadb", "-N", "-e", "SELECT @@log_bin", ok=False).stdout.strip() == "1",
                60,
            )
            report = json.loads(image.run("guestagent", "doctor", "--json", ok=False).stdout)
            check_equal([c for c in report["checks"] if c["result"] == "failed"], [], f"doctor (port {port})")
            snapshot = json.loads(image.output("guestagent", "--oneshot", "get_replication_snapshot"))
            check(snapshot["snapshot"]["segments"] >= 1, "a snapshot of the image's server")
            verified = json.loads(
                image.output(
                    "guestagent",
                    "--oneshot",
                    "verify_replication_snapshot",
                    json.dumps({"snapshot_href": snapshot["dataset"]["snapshot_href"]}),
                )
            )
            check_equal(verified["ok"], True, "verify")
    log("image: good")


def free_port_line(image):
    """A port of the test's own: the machine's other servers have theirs."""
    from scratch import free_port

    port = free_port()
    (image.path / "etc/mysql/mariadb.conf.d/99-port.cnf").write_text(
        f"[mariadbd]\nport={port}\nbind-address=127.0.0.1\n"
    )
    return port


if __name__ == "__main__":
    main()
