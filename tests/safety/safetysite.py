"""What the safety tests have in common, beside the integration tests' site."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from testsite import *  # noqa: E402,F401,F403

SMALL = ("innodb-buffer-pool-size=32M", "innodb-log-file-size=16M")


def server_state(server):
    """All that a failed job must leave as it was."""
    if not server.answers():
        return "down"
    return {
        "checksums": server.checksums(),
        "schema": server.schema(),
        "options": {p.name: p.read_text() for p in server.conf_d.iterdir()},
        "settings": server.sql("SELECT @@server_id, @@read_only, @@log_bin, @@event_scheduler, @@expire_logs_days"),
        "own transactions": server.errant(),
        "replication": [
            server.slave_status().get(k)
            for k in ("Master_Host", "Master_Port", "Master_User", "Slave_IO_Running", "Slave_SQL_Running")
        ],
        "accounts": server.sql(
            "SELECT user, host, JSON_VALUE(priv, '$.authentication_string') FROM mysql.global_priv ORDER BY 1, 2"
        ),
        "owner and mode": (server.data.stat().st_uid, oct(server.data.stat().st_mode)),
    }


def assert_unchanged(before, after, what):
    check(isinstance(before, dict), f"before: {before}")
    check(isinstance(after, dict), f"{what}: the server is {after}")
    for part in before:
        check_equal(after[part], before[part], f"{what}: {part}")


def mount_tmpfs(path, megabytes, options=""):
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m{options}", "tmpfs", str(path)], check=True)


def mount_ext4(image, path, megabytes):
    """A loop-mounted ext4 of its own; where a host (as many a container) has no loop devices, a tmpfs of that size."""
    path.mkdir(exist_ok=True)
    with open(image, "wb") as out:
        out.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
    mounted = subprocess.run(
        ["mount", "-o", "loop", str(image), str(path)], stderr=subprocess.PIPE, text=True, check=False
    )
    if mounted.returncode:
        log(f"no loop mount here ({mounted.stderr.strip()}): a tmpfs instead")
        mount_tmpfs(path, megabytes)


def unmount(path):
    subprocess.run(["umount", str(path)], check=True)


@contextlib.contextmanager
def filled(path, leave=0):
    """The file system of `path`, full but for `leave` bytes."""
    ballast = Path(path) / "ballast"
    free = os.statvfs(path)
    size = free.f_bavail * free.f_frsize - leave
    with open(ballast, "wb") as out:
        os.posix_fallocate(out.fileno(), 0, max(size, 1))
    try:
        yield
    finally:
        ballast.unlink(missing_ok=True)


def with_local_manifests(site):
    """The server's programs, which look for manifests in the data directory: for that, files stand beside them."""
    old, root = site.tools["source"], site.tools["source"].parent
    tools, place, plugins = (site.scratch.dir / n for n in ("tools", "sbin", "plugins"))
    for made in (tools, place, plugins):
        made.mkdir()
    (place / "mysqld").symlink_to(root / "usr/sbin/mysqld")
    (place / "mysqld.my").write_text('{"read_local_manifest": true}')
    for plugin in (root / "usr/lib/mysql/plugin").iterdir():
        (plugins / plugin.name).symlink_to(plugin)
    (plugins / "component_keyring_file.cnf").write_text('{"read_local_config": true}')
    for tool in old.iterdir():
        text = tool.read_text()
        if tool.name == "mysqld":
            loader = f"{root}/lib64/ld-linux-x86-64.so.2"
            text = text.replace(loader, f"{loader} --argv0 {place}/mysqld").replace(
                f"{root}/usr/lib/mysql/plugin", str(plugins)
            )
        (tools / tool.name).write_text(text)
        (tools / tool.name).chmod(0o755)
    return tools, root


def write_keyring(server, keys=None):
    """MySQL's keyring component for a stopped server, with the keys of that file or none."""
    for name in ("mysqld.my", "component_keyring_file.cnf", "keyring"):
        (server.data / name).unlink(missing_ok=True)
    (server.data / "mysqld.my").write_text('{"components": "file://component_keyring_file"}')
    (server.data / "component_keyring_file.cnf").write_text(
        f'{{"path": "{server.data / "keyring"}", "read_only": false}}'
    )
    if keys:
        shutil.copy(keys, server.data / "keyring")
