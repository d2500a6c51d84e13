"""A real MySQL server in a directory of its own, with the interface of the lab's MariaDB."""

import shutil
import subprocess

from mariadb import ME, MariaDB, SqlError
from scratch import free_port


class MySQL(MariaDB):
    """`tools`: a directory with mysqld and mysql; `clone`: the plugin is loaded; without `certificates` it speaks no TLS. The lab's own
    account is root without a password, by the socket."""

    FAMILY = "mysql"
    TOOL, RIGHTS = "clone", "mysql"
    NOTES = {"aria_notes": ""}  # the engines of a MariaDB's tables of these names are not there
    LOG_UPDATES = "log_replica_updates"
    EVENTS = "SELECT 'event', event_schema, event_name, event_definition FROM information_schema.events"

    def __init__(
        self, scratch, name, server_id, log_bin=True, options=(), tools=None, clone=True, gtid=True, certificates=True
    ):
        self.scratch, self.name, self.server_id, self.tools = scratch, name, server_id, tools
        self.mysqld = str(tools / "mysqld")
        self._lay_out(scratch)
        self.port = free_port()
        lines = [
            "[mysqld]",
            f"datadir={self.data}",
            f"socket={self.socket}",
            f"pid-file={self.pid_file}",
            f"port={self.port}",
            "bind-address=127.0.0.1",
            "skip-name-resolve",
            f"log-error={self.error_log}",
            f"tmpdir={self.dir / 'tmp'}",
            f"server-id={server_id}",
            f"user={ME}",
            f"general-log-file={self.general_log}",
            "mysqlx=OFF",
            "secure-file-priv=NULL",
            "innodb-buffer-pool-size=96M",
            "innodb-redo-log-capacity=96M",
            "innodb-flush-log-at-trx-commit=2",
            "sync-binlog=0",
            "max-allowed-packet=256M",
            "event-scheduler=ON",
            "cte-max-recursion-depth=100000000",
            "information-schema-stats-expiry=0",
        ]
        if clone:
            lines.append("plugin-load-add=mysql_clone.so")
        switch = "ON" if gtid else "OFF"  # which is the default depends on the version
        lines += [f"gtid-mode={switch}", f"enforce-gtid-consistency={switch}"]
        if not certificates:
            lines.append("auto-generate-certs=OFF")
        lines.append("log-bin=binlog" if log_bin else "skip-log-bin")
        lines += list(options)
        lines += ["", f"!includedir {self.conf_d}", ""]
        self.defaults_file.write_text("\n".join(lines))

    def initialise(self):
        """The first server of a scratch directory makes its data, the others take that: it takes seconds."""
        template = self.scratch.dir / f"template-{self.tools.parent.name}"
        if template.exists():
            shutil.copytree(template, self.data)
            return self
        self._initialise()
        shutil.copytree(self.data, template, ignore=shutil.ignore_patterns("auto.cnf", "*.pem"))
        return self

    def _initialise(self):
        done = self.scratch.run(
            [self.mysqld, f"--defaults-file={self.defaults_file}", "--initialize-insecure"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"initialising {self.name}:\n{done.stdout}{self.log_tail()}")

    def client(self):
        return [
            self.tools / "mysql",
            "--no-defaults",
            "--batch",
            "--skip-column-names",
            "--default-character-set=utf8mb4",
            f"--socket={self.socket}",
            "--user=root",
        ]

    def create_agent_account(self, user, password, grants="ALL PRIVILEGES ON *.*", grant_option=True):
        option = " WITH GRANT OPTION" if grant_option else ""
        self.sql(
            f"SET sql_log_bin=0; DROP USER IF EXISTS '{user}'@'localhost'; CREATE USER '{user}'@'localhost' IDENTIFIED BY "
            f"'{password}' PASSWORD EXPIRE NEVER; GRANT {grants} TO '{user}'@'localhost'{option};"
        )

    # replication

    def slave_status(self):
        """SHOW REPLICA STATUS under the names that a MariaDB gives."""
        status = self.columns("SHOW REPLICA STATUS")
        if not status:
            return {}
        out = {k.replace("Source", "Master").replace("Replica", "Slave"): v for k, v in status.items()}
        # All that it has whole: what it had and what it received.
        out["Gtid_IO_Pos"] = self.value(
            f"SELECT GTID_SUBTRACT('{one_line(status['Executed_Gtid_Set'])},"
            f"{one_line(status['Retrieved_Gtid_Set'])}', '')"
        )
        out["Gtid_Slave_Pos"] = status["Executed_Gtid_Set"]
        return {k: one_line(v) if k.startswith("Gtid") else v for k, v in out.items()}

    def position(self):
        return one_line(self.value("SELECT @@gtid_executed"))

    applied = position

    def reached(self, position, timeout):
        return self.value(f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', {timeout})") == "0"

    def errant(self):
        """GTIDs that were born on this server; '' is what a replica must say."""
        rows = self.sql("SELECT @@gtid_executed, @@server_uuid")
        if not rows:
            return ""
        executed, own = rows[0]
        return ",".join(part for part in one_line(executed).split(",") if part.startswith(own))

    def apply_by(self, threads, delay=0):
        """Goes on applying with so many threads, so many seconds after the source."""
        self.sql(
            f"STOP REPLICA SQL_THREAD; SET GLOBAL replica_parallel_workers={threads}; CHANGE REPLICATION SOURCE TO SOURCE_DELAY={delay}; START REPLICA SQL_THREAD"
        )

    @staticmethod
    def hold_rows(session, table):
        # super_read_only refuses the locking of rows.
        session.run(f"LOCK TABLES {table} READ")

    @staticmethod
    def release_rows(session):
        session.run("UNLOCK TABLES")

    @staticmethod
    def transactions(gtid):
        """How many a set has."""
        count = 0
        for part in one_line(gtid).split(","):
            for interval in part.split(":")[1:]:
                ends = interval.split("-")
                if ends[0].isdigit():
                    count += int(ends[-1]) - int(ends[0]) + 1
        return count

    # data

    @staticmethod
    def numbers(n):
        """A table of the numbers 1 to n in the column seq."""
        return f"(WITH RECURSIVE s (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM s WHERE seq < {n}) SELECT seq FROM s) numbers"

    def write_peculiar(self):
        """What only this kind of server has: a transaction with a tag in its GTID, which a position must carry on."""
        self.sql(
            "SET SESSION gtid_next='AUTOMATIC:blue'; INSERT INTO lab.audit (what) VALUES ('tagged'); SET SESSION gtid_next='AUTOMATIC'"
        )
        if ":blue:" not in self.position():
            raise SqlError(f"{self.name}: no tag in {self.position()}")


def one_line(gtid):
    return "".join(gtid.split())
