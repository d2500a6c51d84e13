#!/usr/bin/python3
"""The .deb on fresh roots of a Debian release: install with only what it declares, run the main job between two of them, upgrade in
mid-life, remove, purge."""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from roots import Root  # noqa: E402
from testsite import *  # noqa: E402,F403
from scratch import free_port  # noqa: E402

DIST = Path(os.environ.get("GUESTAGENT_DIST") or Path(__file__).resolve().parents[2] / "dist")

MY_CNF = """[mariadbd]
user=mysql
datadir=/var/lib/mysql
socket=/run/mysqld/mysqld.sock
pid-file=/run/mysqld/mysqld.pid
port={port}
bind-address=127.0.0.1
skip-name-resolve
server-id={server_id}
log-bin=binlog
log-error=/var/log/mariadb-error.log
innodb-buffer-pool-size=64M
innodb-log-file-size=32M
performance-schema=OFF
!includedir /etc/mysql/conf.d
"""

CONFIG = """agent:
  allow_groups: [guestagent]
storage:
  local:
    path: /srv/store
mysql:
  advertised_address: 127.0.0.1
  defaults_file: /etc/mysql/test.cnf
  server:
    control: process
    command: [mariadbd, --defaults-file=/etc/mysql/test.cnf]
"""


class Host:
    def __init__(self, scratch, name, suite, server_id, store):
        self.root = Root(scratch, name, suite, shared=store)
        self.server_id, self.port = server_id, free_port()

    def make_server(self):
        root = self.root
        root.run("sh", "-c", "getent passwd mysql || useradd --system --home-dir /nonexistent --shell /bin/false mysql; "
                 "mkdir -p /run/mysqld /var/lib/mysql /etc/mysql/conf.d && chown mysql: /run/mysqld /var/lib/mysql && "
                 "touch /var/log/mariadb-error.log && chown mysql: /var/log/mariadb-error.log")
        (root.path / "etc/mysql/test.cnf").write_text(MY_CNF.format(port=self.port, server_id=self.server_id))
        root.run("mariadb-install-db", "--defaults-file=/etc/mysql/test.cnf", "--user=mysql", "--skip-test-db",
                 "--auth-root-authentication-method=socket")
        root.spawn("mariadbd", "--defaults-file=/etc/mysql/test.cnf", log_name="mariadbd.out")
        wait_for(f"the server of {root.name}", lambda: self.sql_or_none("SELECT 1") == "1", 60)

    def sql(self, statement):
        return self.root.output("mariadb", "--no-defaults", "-u", "root", "-S", "/run/mysqld/mysqld.sock", "-N", "-B", "-e", statement).strip()

    def sql_or_none(self, statement):
        try:
            return self.sql(statement)
        except AssertionError:
            return None

    def start_agent(self):
        self.root.run("mkdir", "-p", "/run/guestagent")
        self.agent = self.root.spawn("guestagent", "daemon", log_name="guestagent.log")
        wait_for(f"the agent of {self.root.name}", lambda: self.root.run("guestagent", "call", "get_info", ok=False).returncode == 0, 30)

    def stop_agent(self):
        self.agent.terminate()
        check_equal(self.agent.wait(60), 0, "exit status of the daemon on SIGTERM")

    def call(self, method, params=None):
        arguments = [method] if params is None else [method, "-"]
        return json.loads(self.root.output("guestagent", "call", *arguments, input="" if params is None else json.dumps(params)))


def one(pattern):
    found = sorted(DIST.glob(pattern))
    check(len(found) == 1, f"dist/ should hold one {pattern}, found {found}")
    return found[0]


def next_version(deb, scratch):
    """The same package with a higher version, as the release after this one would be."""
    tree = scratch.dir / "next"
    subprocess.run(["dpkg-deb", "-R", str(deb), str(tree)], check=True)
    control = tree / "DEBIAN/control"
    text = control.read_text()
    version = next(line.split()[1] for line in text.splitlines() if line.startswith("Version:"))
    control.write_text(text.replace(f"Version: {version}", f"Version: {version}+next1"))
    out = scratch.dir / "guestagent_next.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(out)], check=True, stdout=subprocess.DEVNULL)
    return out, f"{version}+next1"


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--suite", default="bookworm")
    o = options.parse_args()
    deb, controller = one("guestagent_*_amd64.deb"), one("guestagent-controller_*.deb")
    with Scratch(f"deb-{o.suite}") as scratch:
        store = scratch.dir / "store"
        store.mkdir()
        with step("two fresh roots"):
            source, replica = Host(scratch, "source", o.suite, 1, store), Host(scratch, "replica", o.suite, 2, store)
        with step("install with only the declared dependencies"):
            before = source.root.files()
            with ThreadPoolExecutor(2) as both:
                list(both.map(lambda host: host.root.install(deb, controller), (source, replica)))
            check_equal(source.root.run("stat", "-c", "%a %U", "/var/lib/guestagent").strip(), "700 root", "state directory")
            check("guestagent" in source.root.run("guestagent", "--version"), "--version")
            unset = source.root.run("guestagent", "check-config", "--syntax-only", ok=False)
            check(unset.returncode != 0 and "mysql.advertised_address" in unset.stdout, f"unconfigured: {unset.stdout}")
        with step("configure, servers and daemons up"):
            for host in (source, replica):
                host.make_server()
                (host.root.path / "etc/guestagent/guestagent.yaml").write_text(CONFIG)
                host.start_agent()
        with step("the main job between the two"):
            source.sql("CREATE DATABASE d; USE d; CREATE TABLE d.t (id INT PRIMARY KEY, v TEXT) ENGINE=InnoDB; "
                       "INSERT INTO d.t SELECT seq, MD5(seq) FROM seq_1_to_50000")
            snapshot = source.call("get_replication_snapshot")
            attached = replica.call("attach_replication_slave", {"snapshot": snapshot})
            check_equal(attached["status"]["verdict"], "healthy", "verdict")
            source.sql("INSERT INTO d.t VALUES (0, 'after')")
            wait_for("the row on the replica", lambda: replica.sql("SELECT COUNT(*) FROM d.t") == "50001", 30)
            check_equal(replica.sql("CHECKSUM TABLE d.t"), source.sql("CHECKSUM TABLE d.t"), "checksum")
        with step("upgrade in mid-life"):
            newer, version = next_version(deb, scratch)
            jobs = replica.call("list_jobs")
            replica.stop_agent()
            replica.root.install(newer)
            check_equal(replica.root.run("dpkg-query", "-W", "-f", "${Version}", "guestagent"), version, "installed version")
            check_equal((replica.root.path / "etc/guestagent/guestagent.yaml").read_text(), CONFIG, "the configuration")
            replica.start_agent()
            check_equal(replica.call("list_jobs"), jobs, "the record of jobs")
            check_equal(replica.call("get_replication_status")["verdict"], "healthy", "verdict after the upgrade")
            detached = replica.call("detach_replication_slave")
            check_equal(detached["state"], "standalone", "detach")
        with step("remove keeps state, purge leaves nothing"):
            source.call("cleanup_replication_source", {"replication_user": snapshot["replication_user"]["name"]})
            source.stop_agent()
            source.root.run("apt-get", "-q", "-y", "remove", "guestagent", "guestagent-controller")
            check((source.root.path / "etc/guestagent/guestagent.yaml").exists(), "removal took the configuration")
            check((source.root.path / "var/lib/guestagent/jobs").exists(), "removal took the state")
            source.root.run("apt-get", "-q", "-y", "purge", "guestagent", "guestagent-controller")
            source.root.run("apt-get", "-q", "-y", "autoremove", "--purge")
            left = sorted(f for f in source.root.files() - before if "guestagent" in f and not f.startswith(("etc/mysql", "var/lib/mysql")))
            check_equal(left, [], "left after purge")
            check(source.root.run("getent", "group", "guestagent", ok=False).returncode != 0, "the group stayed")
    log(f"{o.suite}: good")


if __name__ == "__main__":
    main()
