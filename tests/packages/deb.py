#!/usr/bin/python3
"""The .deb on fresh roots of a Debian release: install with only what it declares, run the main job between two of them, upgrade while
jobs run, remove, purge. With --to the second root is of another release: the main job goes from the one to the other."""

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

# So that a job is still at work when the package has been unpacked.
SLOW = """snapshot:
  throttle:
    read: 1MiB
    download: 32KiB
"""


class Host:
    def __init__(self, scratch, name, suite, server_id, store):
        self.root = Root(scratch, name, suite, shared=store)
        self.server_id, self.port = server_id, free_port()

    def make_server(self):
        root = self.root
        root.run(
            "sh",
            "-c",
            "getent passwd mysql || useradd --system --home-dir /nonexistent --shell /bin/false mysql; "
            "mkdir -p /run/mysqld /var/lib/mysql /etc/mysql/conf.d && chown mysql: /run/mysqld /var/lib/mysql && "
            "touch /var/log/mariadb-error.log && chown mysql: /var/log/mariadb-error.log",
        )
        (root.path / "etc/mysql/test.cnf").write_text(MY_CNF.format(port=self.port, server_id=self.server_id))
        root.run(
            "mariadb-install-db",
            "--defaults-file=/etc/mysql/test.cnf",
            "--user=mysql",
            "--skip-test-db",
            "--auth-root-authentication-method=socket",
        )
        root.spawn("mariadbd", "--defaults-file=/etc/mysql/test.cnf", log_name="mariadbd.out")
        wait_for(f"the server of {root.name}", lambda: self.sql_or_none("SELECT 1") == "1", 60)

    def sql(self, statement):
        return self.root.output(
            "mariadb", "--no-defaults", "-u", "root", "-S", "/run/mysqld/mysqld.sock", "-N", "-B", "-e", statement
        ).strip()

    def sql_or_none(self, statement):
        try:
            return self.sql(statement)
        except AssertionError:
            return None

    def start_agent(self):
        self.root.run("mkdir", "-p", "/run/guestagent")
        self.agent = self.root.spawn("guestagent", "daemon", log_name="guestagent.log")
        wait_for(
            f"the agent of {self.root.name}",
            lambda: self.root.run("guestagent", "call", "get_info", ok=False).returncode == 0,
            30,
        )

    def stop_agent(self):
        self.agent.terminate()
        check_equal(self.agent.wait(120), 0, "exit status of the daemon on SIGTERM")

    def kill_agent(self):
        """What systemd does with an agent that does not stop in time."""
        self.agent.kill()
        self.agent.wait()

    def configure(self, changes=""):
        (self.root.path / "etc/guestagent/guestagent.yaml").write_text(CONFIG + changes)

    def upgrade_in_mid_job(self, deb, method, params, phase, end):
        """As apt and systemd do it: the new files come while the old program works, then the daemon is ended by `end` and started. The
        record of the job that ran."""
        self.call(method, {**params, "async": True, "job_id": "early"})
        look = lambda: self.call("get_job", {"job_id": "early"})  # noqa: E731
        wait_for(f"phase {phase}", lambda: look()["phase"] == phase, 60, 0.02)
        self.root.install(deb)
        check_equal(look()["state"], "running", "the job while the package is unpacked")
        check_equal(
            (self.root.path / "etc/guestagent/guestagent.yaml").read_text().startswith(CONFIG),
            True,
            "the configuration was kept",
        )
        end()
        self.start_agent()
        return wait_for("the job's end", lambda: look() if look()["state"] != "running" else None, 60)

    def call(self, method, params=None):
        arguments = [method] if params is None else [method, "-"]
        return json.loads(
            self.root.output("guestagent", "call", *arguments, input="" if params is None else json.dumps(params))
        )


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
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(tree), str(out)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return out, f"{version}+next1"


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--suite", default="bookworm")
    options.add_argument("--to", help="the replica's release")
    o = options.parse_args()
    deb, controller = one("guestagent_*_amd64.deb"), one("guestagent-controller_*.deb")
    with Scratch(f"deb-{o.suite}") as scratch:
        store = scratch.dir / "store"
        store.mkdir()
        with step("two fresh roots"):
            source, replica = Host(scratch, "source", o.suite, 1, store), Host(
                scratch, "replica", o.to or o.suite, 2, store
            )
        with step("install with only the declared dependencies"):
            before = source.root.files()
            with ThreadPoolExecutor(2) as both:
                list(both.map(lambda host: host.root.install(deb, controller), (source, replica)))
            check_equal(
                source.root.run("stat", "-c", "%a %U", "/var/lib/guestagent").strip(), "700 root", "state directory"
            )
            check("guestagent" in source.root.run("guestagent", "--version"), "--version")
            unset = source.root.run("guestagent", "check-config", "--syntax-only", ok=False)
            check(unset.returncode != 0 and "mysql.advertised_address" in unset.stdout, f"unconfigured: {unset.stdout}")
        with step("configure, servers and daemons up"):
            for host in (source, replica):
                host.make_server()
                host.configure(SLOW)
                host.start_agent()
        newer, version = next_version(deb, scratch)
        with step("upgrade while jobs run"):
            source.sql(
                "CREATE DATABASE d; USE d; CREATE TABLE d.t (id INT PRIMARY KEY, v TEXT) ENGINE=InnoDB; "
                "INSERT INTO d.t SELECT seq, MD5(seq) FROM seq_1_to_50000"
            )
            record = source.upgrade_in_mid_job(
                newer, "get_replication_snapshot", {"snapshot_id": "half"}, "copy", source.kill_agent
            )
            check_equal(record["state"], "failed", "a snapshot whose agent was killed")
            check("recovered" in record["error"]["message"], f"the record does not say what became of it: {record}")
            check_equal([str(p) for p in store.rglob("*half*")], [], "what the snapshot left in the store")
            check_equal(
                source.sql("SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'repl%'"), "0", "replication accounts"
            )
            source.stop_agent()
            source.configure()
            source.start_agent()
            snapshot = source.call("get_replication_snapshot")
            replica.sql("CREATE DATABASE own")
            over = {"snapshot": snapshot, "slave_config": {"overwrite": True}}
            record = replica.upgrade_in_mid_job(newer, "attach_replication_slave", over, "fetch", replica.stop_agent)
            check_equal(record["state"], "cancelled", "an attach whose agent was stopped")
            check_equal(replica.sql("SHOW DATABASES LIKE 'own'"), "own", "the replica's own data")
            check_equal([p.name for p in (replica.root.path / "var/lib").glob("mysql?*")], [], "what the attach left")
            replica.sql("DROP DATABASE own")
            for host in (source, replica):
                check_equal(
                    host.root.run("dpkg-query", "-W", "-f", "${Version}", "guestagent"), version, "installed version"
                )
            jobs = replica.call("list_jobs")
            replica.stop_agent()
            replica.configure()
            replica.start_agent()
            check_equal(replica.call("list_jobs"), jobs, "the record of jobs")
        with step("the main job between the two"):
            attached = replica.call("attach_replication_slave", {"snapshot": snapshot})
            check_equal(attached["status"]["verdict"], "healthy", "verdict")
            source.sql("INSERT INTO d.t VALUES (0, 'after')")
            wait_for("the row on the replica", lambda: replica.sql("SELECT COUNT(*) FROM d.t") == "50001", 30)
            check_equal(replica.sql("CHECKSUM TABLE d.t"), source.sql("CHECKSUM TABLE d.t"), "checksum")
        with step("detach"):
            detached = replica.call("detach_replication_slave")
            check_equal(detached["state"], "standalone", "detach")
        with step("remove keeps state, purge leaves snapshots alone and nothing else"):
            source.call("cleanup_replication_source", {"replication_user": snapshot["replication_user"]["name"]})
            source.stop_agent()
            source.root.run("apt-get", "-q", "-y", "remove", "guestagent", "guestagent-controller")
            check((source.root.path / "etc/guestagent/guestagent.yaml").exists(), "removal took the configuration")
            check((source.root.path / "var/lib/guestagent/jobs").exists(), "removal took the state")
            kept = source.root.path / "var/lib/guestagent/store/monday/manifest.json"
            kept.parent.mkdir(parents=True)
            kept.write_text("{}")
            (source.root.path / "var/lib/guestagent/store/empty").mkdir()
            source.root.run("apt-get", "-q", "-y", "purge", "guestagent", "guestagent-controller")
            source.root.run("apt-get", "-q", "-y", "autoremove", "--purge")
            left = sorted(
                f
                for f in source.root.files() - before
                if "guestagent" in f and not f.startswith(("etc/mysql", "var/lib/mysql"))
            )
            check_equal(
                [f for f in left if not f"{f}/".startswith("var/lib/guestagent/store/") and f != "var/lib/guestagent"],
                [],
                "left after purge",
            )
            check_equal(sorted(p.name for p in kept.parents[1].rglob("*")), ["manifest.json", "monday"], "the store")
            check(source.root.run("getent", "group", "guestagent", ok=False).returncode != 0, "the group stayed")
    log(f"{o.suite} to {o.to or o.suite}: good")


if __name__ == "__main__":
    main()
