"""A real MySQL 5.6 server: without GTIDs, followed by file and position, and copied by a scripted xtrabackup."""

import shutil
import struct

from mariadb import ME, SqlError
from mysql import MySQL
from scratch import free_port
from xtrabackup import install

QUERY, XID = 2, 16  # types of events in a binary log
OF_THE_FILE = {3, 4, 15, 35}  # stop, rotate, format, GTIDs before it: each server writes its own


class MySQL56(MySQL):
    """`tools`: a directory with mysqld, from engines.py; the client is the machine's own, of MariaDB. The lab's own account is root without
    a password. self.tools is a directory of the server's own, with the scripted tool."""

    NOTES = {"myisam_notes": " ENGINE=MyISAM", "aria_notes": " ENGINE=MyISAM"}
    GENERATED = ""
    LOG_UPDATES = "log_slave_updates"
    TOOL, RIGHTS = "xtrabackup", "mysql-5"
    GTIDS = False

    def __init__(self, scratch, name, server_id, log_bin=True, options=(), tools=None, version="2.4.29", fault=None):
        self.scratch, self.name, self.server_id = scratch, name, server_id
        self.mysqld = str(tools / "mysqld")
        self.package = next(tools.parent.glob("package/**/mysqld")).parent
        self._lay_out(scratch)
        self.tools = install(self.dir / "tools", version, fault, self.dir / "log/tool.log")
        self.port, self.looked = free_port(), {}
        lines = [
            "[mysqld]",
            f"basedir={self.package}",
            f"lc-messages-dir={self.package / 'share'}",
            f"character-sets-dir={self.package / 'share/charsets'}",
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
            "character-set-server=utf8mb4",
            "innodb-buffer-pool-size=96M",
            "innodb-log-file-size=48M",
            "innodb-flush-log-at-trx-commit=2",
            "sync-binlog=0",
            # The scripted tool waits for the server to come to rest; the default may take long for that.
            "innodb-io-capacity=10000",
            "innodb-io-capacity-max=20000",
            "innodb-file-format=Barracuda",
            "innodb-large-prefix=ON",
            "max-allowed-packet=256M",
            "performance-schema=OFF",
            "event-scheduler=ON",
        ]
        if log_bin:
            lines += ["log-bin=binlog", "binlog-format=ROW"]
        lines += list(options)
        lines += ["", f"!includedir {self.conf_d}", ""]
        self.defaults_file.write_text("\n".join(lines))

    def initialise(self):
        shutil.copytree(
            self.package / "data/mysql", self.data, ignore=shutil.ignore_patterns("auto.cnf", "*.index", "ib_logfile*")
        )
        (self.data / "test").mkdir(exist_ok=True)
        shutil.rmtree(self.data / "test")
        self.start()
        self.sql("SET sql_log_bin=0; DELETE FROM mysql.user WHERE User=''; DELETE FROM mysql.db; FLUSH PRIVILEGES")
        self.stop()
        return self

    def client(self):
        return [
            "mariadb",
            "--no-defaults",
            "--batch",
            "--skip-column-names",
            "--default-character-set=utf8mb4",
            f"--socket={self.socket}",
            "--user=root",
        ]

    def create_agent_account(self, user, password, grants="ALL PRIVILEGES ON *.*", grant_option=True):
        option = " WITH GRANT OPTION" if grant_option else ""
        self.sql(f"SET sql_log_bin=0; GRANT {grants} TO '{user}'@'localhost' IDENTIFIED BY '{password}'{option};")

    # replication: a position is "FILE:OFFSET"

    def slave_status(self):
        status = self.columns("SHOW SLAVE STATUS")
        if status:
            status["Gtid_IO_Pos"] = f"{status['Master_Log_File']}:{status['Read_Master_Log_Pos']}"
        return status

    def position(self):
        status = self.columns("SHOW MASTER STATUS")
        return f"{status['File']}:{status['Position']}"

    def applied(self):
        status = self.columns("SHOW SLAVE STATUS")
        return f"{status['Relay_Master_Log_File']}:{status['Exec_Master_Log_Pos']}"

    def reached(self, position, timeout):
        file, offset = position.split(":")
        return int(self.value(f"SELECT COALESCE(MASTER_POS_WAIT('{file}', {offset}, {timeout}), -1)")) >= 0

    def errant(self):
        """What it wrote itself, by the server ids in its own binary log; looked at only once."""
        if not self.answers():
            raise SqlError(f"{self.name} does not answer")
        own, found = int(self.value("SELECT @@server_id")), set()
        for file in sorted(self.data.glob("binlog.0*")):
            with open(file, "rb") as log:
                at = self.looked.get(file.name, 4)
                log.seek(at)
                while len(header := log.read(19)) == 19:
                    _, kind, server_id, size, _, _ = struct.unpack("<IBIIIH", header)
                    if server_id == own and kind not in OF_THE_FILE:
                        found.add(f"{file.name}:{at}")
                    at += size
                    log.seek(at)
            self.looked[file.name] = at
        return ",".join(sorted(found))

    @staticmethod
    def transactions(position):
        """A number that grows with each: of bytes here, some hundreds for each."""
        file, offset = position.split(":")
        return int(file.rsplit(".", 1)[1]) << 40 | int(offset)

    @staticmethod
    def place(position):
        return f"{position['file']}:{position['position']}"

    def check_all_received(self, last_applied, received):
        """AssertionError unless everything of this source's up to `received` that was whole is in what ends at `last_applied`."""
        file, offset = last_applied.split(":")
        limit_file, limit = received.split(":")
        if file != limit_file or int(offset) > int(limit):
            raise AssertionError(f"applied up to {last_applied}, received up to {received}")
        end = self.group_end(file, int(offset))
        if end and end <= int(limit):
            raise AssertionError(
                f"applied up to {last_applied}, received up to {received}, where a whole transaction ends at {end}"
            )

    def group_end(self, file, offset):
        """Where the first group at or after `offset` ends in this server's binary log, or None."""
        with open(self.data / file, "rb") as log:
            while True:
                log.seek(offset)
                header = log.read(19)
                if len(header) < 19:
                    return None
                _, kind, _, size, _, _ = struct.unpack("<IBIIIH", header)
                body = log.read(size - 19)[:-4]  # without its checksum
                offset += size
                if kind == XID or (kind == QUERY and not body.endswith(b"BEGIN")):
                    return offset

    # data

    def apply_by(self, threads, delay=0):
        self.sql(
            f"STOP SLAVE; SET GLOBAL slave_parallel_workers={threads}; CHANGE MASTER TO MASTER_DELAY={delay}; START SLAVE"
        )

    @staticmethod
    def hold_rows(session, table):
        session.run("BEGIN")
        session.run(f"SELECT COUNT(*) FROM {table} FOR UPDATE")

    @staticmethod
    def release_rows(session):
        session.run("ROLLBACK")

    @staticmethod
    def numbers(n):
        digit = (
            "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 UNION ALL SELECT 6 "
            "UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)"
        )
        places = range(len(str(n)))
        total = " + ".join(f"d{i}.d * {10 ** i}" for i in places)
        return f"(SELECT seq FROM (SELECT 1 + {total} AS seq FROM {', '.join(f'{digit} d{i}' for i in places)}) every_one WHERE seq <= {n}) numbers"

    def write_peculiar(self):
        """What only this kind of server has: nothing."""
