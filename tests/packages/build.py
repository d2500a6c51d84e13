#!/usr/bin/python3
"""Makes the .deb and .rpm files of a tree that is built, and checks what they hold: file list, owners, modes, dependencies, size, that the
same tree gives the same .deb again, and what lintian and rpmlint say."""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

from scratch import Scratch  # noqa: E402

SOURCE = Path(__file__).resolve().parents[2]
LIBRARIES = {
    "libarchive13",
    "libc6",
    "libcurl4",
    "libgcc-s1",
    "libmariadb3",
    "libsqlite3-0",
    "libssl3",
    "libstdc++6",
    "libsystemd0",
    "libxxhash0",
    "passwd",
    "zlib1g",  # the CRC-32 of a copy's chunks; every Debian has it
}
FILES = {
    "guestagent": {
        "/etc/guestagent/guestagent.yaml",
        "/usr/bin/guestagent",
        "/usr/lib/systemd/system/guestagent.service",
        "/usr/lib/systemd/system/guestagent.socket",
        "/usr/share/bash-completion/completions/guestagent",
        "/usr/share/doc/guestagent/errors.md",
        "/usr/share/doc/guestagent/howto.md",
        "/usr/share/doc/guestagent/alerts.yaml",
        "/usr/share/man/man1/guestagent.1.gz",
        "/usr/share/man/man5/guestagent.yaml.5.gz",
        "/usr/share/zsh/vendor-completions/_guestagent",
    },
    "guestagent-controller": {
        "/etc/guestagent/controller.yaml",
        "/usr/lib/systemd/system/guestagent-controller.service",
        "/usr/share/man/man8/guestagent-controller.8.gz",
    },
}
MOST_BYTES = 8 << 20


def run(*argv, ok=True, **kwargs):
    done = subprocess.run(
        [str(a) for a in argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )
    if ok and done.returncode:
        raise AssertionError(f"{' '.join(map(str, argv))}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def make(tree, out, kind):
    """The packages of that kind, in `out`."""
    epoch = subprocess.run(
        ["git", "-C", str(SOURCE), "log", "-1", "--format=%ct"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    env = {
        **os.environ,
        "SOURCE_DATE_EPOCH": epoch.stdout.strip() or str(int((SOURCE / "CHANGELOG.md").stat().st_mtime)),
    }
    old = os.umask(0o022)
    try:
        run("cpack", "-G", kind, "-B", out, cwd=tree, env=env)
    finally:
        os.umask(old)
    return sorted(p for p in out.glob(f"*.{kind.lower()}"))


class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = cls.enterClassContext(Scratch("packages"))
        run("cmake", "--build", cls.tree, "--target", "compressed_docs")
        shutil.rmtree(cls.dist, ignore_errors=True)
        cls.dist.mkdir(parents=True)
        made = make(cls.tree, cls.scratch.dir / "a", "DEB") + make(cls.tree, cls.scratch.dir / "r", "RPM")
        for path in made:
            shutil.copy(path, cls.dist)
        cls.debs = {p.name.split("_")[0]: p for p in cls.dist.glob("*.deb")}
        cls.rpms = {re.match(r"(.+?)-\d", p.name).group(1): p for p in cls.dist.glob("*.rpm")}

    def test_two_of_each(self):
        self.assertEqual(sorted(self.debs), sorted(FILES))
        self.assertEqual(sorted(self.rpms), sorted(FILES))

    def test_the_same_tree_gives_the_same_deb(self):
        for path in make(self.tree, self.scratch.dir / "another directory", "DEB"):
            self.assertEqual(
                hashlib.sha256(path.read_bytes()).hexdigest(),
                hashlib.sha256((self.dist / path.name).read_bytes()).hexdigest(),
                path.name,
            )

    def test_files_are_there_and_roots(self):
        for name, deb in self.debs.items():
            lines = [line.split(None, 5) for line in run("dpkg-deb", "-c", deb).splitlines()]
            paths = {line[5].lstrip(".").split(" -> ")[0] for line in lines}
            usr_merged = {
                p.replace("/lib/systemd", "/usr/lib/systemd", 1) if p.startswith("/lib/") else p for p in paths
            }
            self.assertEqual(FILES[name] - usr_merged, set(), name)
            self.assertEqual([line for line in lines if line[1] != "root/root"], [], name)
            self.assertEqual([line for line in lines if "w" in line[0][4:]], [], f"{name}: writable by others")

    def test_configuration_is_marked_as_such(self):
        for name, deb in self.debs.items():
            config = [p for p in FILES[name] if p.startswith("/etc")]
            self.assertEqual(run("dpkg-deb", "-I", deb, "conffiles").split(), config)
            self.assertEqual(run("rpm", "-qp", "--configfiles", self.rpms[name]).split(), config)

    def test_dependencies_are_few(self):
        needed = {
            d.split()[0].removesuffix("t64")
            for d in run("dpkg-deb", "-f", self.debs["guestagent"], "Depends").split(", ")
        }
        self.assertEqual(needed - LIBRARIES, set())
        self.assertTrue(
            run("dpkg-deb", "-f", self.debs["guestagent-controller"], "Depends").startswith("guestagent (>= ")
        )
        rpm = run("rpm", "-qp", "--requires", self.rpms["guestagent"])
        self.assertRegex(rpm, r"libc\.so\.6\(GLIBC_2\.\d+\)")
        self.assertRegex(rpm, r"libstdc\+\+\.so\.6\(GLIBCXX_")
        for static in ("boost", "yaml", "mysqlcppconn", "spdlog", "fmt"):
            self.assertNotIn(static, rpm)

    def test_the_program_is_small_and_stripped(self):
        root = self.scratch.dir / "root"
        run("dpkg-deb", "-x", self.debs["guestagent"], root)
        program = root / "usr/bin/guestagent"
        self.assertLess(program.stat().st_size, MOST_BYTES)
        self.assertEqual(run("nm", program, ok=False).strip().rpartition(": ")[2], "no symbols")
        print(
            f"program: {program.stat().st_size} bytes; installed: {sum(p.stat().st_size for p in root.rglob('*') if p.is_file())}",
            file=sys.stderr,
        )

    def test_lintian(self):
        for deb in self.debs.values():
            said = run("lintian", "--allow-root", "--fail-on", "error,warning", deb, ok=False)
            self.assertEqual([line for line in said.splitlines() if line.startswith(("E:", "W:"))], [], said)

    def test_rpmlint(self):
        for rpm in self.rpms.values():
            said = run("rpmlint", "--config", SOURCE / "packaging/rpm/rpmlint.toml", rpm, ok=False)
            self.assertEqual([line for line in said.splitlines() if re.search(r": [EW]: ", line)], [], said)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--tree", type=Path, required=True)
    options.add_argument("--dist", type=Path, required=True)
    o, rest = options.parse_known_args()
    Packages.tree, Packages.dist = o.tree.resolve(), o.dist.resolve()
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
