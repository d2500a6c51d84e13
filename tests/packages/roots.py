"""Root file systems of Debian releases, to install packages in as a user would."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

import engines  # noqa: E402
from scratch import log  # noqa: E402

SERVER = "mariadb-server-core,mariadb-client-core,mariadb-backup"


def base_tarball(suite):
    """A minimal root of that suite with MariaDB, made once and cached."""
    cache = engines.cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    tarball = cache / f"root-{suite}.tar"
    with open(cache / f".root-{suite}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tarball.exists():
            log(f"making a root of {suite} (once)")
            fresh = tarball.with_suffix(".new.tar")
            subprocess.run(
                ["mmdebstrap", "--quiet", "--variant=apt", f"--include={SERVER}", suite, str(fresh), engines.mirror()],
                check=True,
                stdin=subprocess.DEVNULL,
            )
            fresh.rename(tarball)
    return tarball


class Root:
    """One root file system below `scratch`, used by chroot in mount and pid namespaces of its own: what runs in it ends with it."""

    def __init__(self, scratch, name, suite, shared=None):
        self.scratch, self.name, self.suite = scratch, name, suite
        self.path = scratch.dir / name
        self.path.mkdir()
        subprocess.run(["tar", "-C", str(self.path), "-xf", str(base_tarball(suite))], check=True)
        (self.path / "etc/resolv.conf").unlink(missing_ok=True)
        shutil.copy("/etc/resolv.conf", self.path / "etc/resolv.conf")
        shutil.copy("/etc/hosts", self.path / "etc/hosts")
        policy = self.path / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        for node in ("null", "zero", "random", "urandom"):
            if not (self.path / "dev" / node).exists():
                subprocess.run(["cp", "-a", f"/dev/{node}", str(self.path / "dev" / node)], check=True)
        subprocess.run(["mount", "-t", "proc", "proc", str(self.path / "proc")], check=True)
        if shared:
            (self.path / "srv/store").mkdir(parents=True)
            subprocess.run(["mount", "--bind", str(shared), str(self.path / "srv/store")], check=True)

    def argv(self, *command):
        return [
            "chroot",
            str(self.path),
            "/usr/bin/env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL=C.UTF-8",
            "HOME=/root",
            "DEBIAN_FRONTEND=noninteractive",
            *command,
        ]

    def run(self, *command, ok=True, **kwargs):
        done = subprocess.run(
            self.argv(*command),
            stdin=kwargs.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **kwargs,
        )
        if ok and done.returncode:
            raise AssertionError(f"{self.name}: {' '.join(command)}: exit status {done.returncode}\n{done.stdout}")
        return done.stdout if ok else done

    def output(self, *command, **kwargs):
        """Standard output alone."""
        done = subprocess.run(self.argv(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)
        if done.returncode:
            raise AssertionError(f"{self.name}: {' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
        return done.stdout

    def spawn(self, *command, log_name):
        with open(self.path / "var/log" / log_name, "ab") as out:
            return self.scratch.spawn(self.argv(*command), stdout=out, stderr=out, cwd=str(self.path))

    def install(self, *debs):
        for deb in debs:
            shutil.copy(deb, self.path / "root")
        self.run("apt-get", "-q", "update")
        return self.run(
            "apt-get", "-q", "-y", "--no-install-recommends", "install", *(f"/root/{Path(d).name}" for d in debs)
        )

    def files(self):
        """Every path outside of what apt and dpkg keep for themselves."""
        skip = (
            "proc",
            "dev",
            "var/lib/dpkg",
            "var/lib/apt",
            "var/cache",
            "var/log",
            "root",
            "tmp",
            "run",
            "srv",
            "etc/ld.so.cache",
        )
        found = set()
        for folder, dirs, names in os.walk(self.path):
            relative = os.path.relpath(folder, self.path)
            dirs[:] = [d for d in dirs if os.path.normpath(os.path.join(relative, d)) not in skip]
            found.update(os.path.normpath(os.path.join(relative, n)) for n in dirs + names)
        return {f for f in found if f not in skip}
