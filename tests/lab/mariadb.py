"""A real MariaDB server in a directory of its own."""

import getpass
import os
import re
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

from scratch import free_port, is_running, log, read_proc, wait_for

SYSTEM_SCHEMAS = "('mysql','sys','information_schema','performance_schema')"
ME = getpass.getuser()


class SqlError(Exception):
    pass


def _unescape(field):
    if "\\" not in field:
        return field
    out, i = [], 0
    while i < len(field):
        if field[i] == "\\" and i + 1 < len(field):
            out.append({"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}.get(field[i + 1], field[i + 1]))
            i += 2
        else:
            out.append(field[i])
            i += 1
    return "".join(out)


class MariaDB:
    """`name` is the directory below the scratch directory. Files: my.cnf, conf.d/ (included: the agent's managed option file goes
    there), data/, run/mysqld.sock, run/mysqld.pid, log/error.log. The lab's own account is this user's, by the socket's peer.
    `tools`: a directory with the programs of another version than the machine's own; the client is the machine's in any case.
    """

    FAMILY = "mariadb"
    NOTES = {"myisam_notes": " ENGINE=MyISAM", "aria_notes": " ENGINE=Aria TRANSACTIONAL=1"}
    GENERATED = ", half INT AS (id DIV 2) VIRTUAL"
    LOG_UPDATES = "log_slave_updates"
    TOOL = "mariadb-backup"
    RIGHTS = "mariadb"  # which list of docs/accounts.md the agent's account has
    GTIDS = True
    # Not of information_schema, which does not answer while the event scheduler is DISABLED.
    EVENTS = "SELECT 'event', db, name, CONVERT(body_utf8 USING utf8mb4) FROM mysql.event"

    def __init__(self, scratch, name, server_id, log_bin=True, options=(), mysqld="mariadbd", tools=None):
        self.scratch, self.name, self.server_id, self.tools = scratch, name, server_id, tools
        self.mysqld = str(tools / "mariadbd") if tools else mysqld
        self._lay_out(scratch)
        self.port = free_port()
        lines = [
            "[mariadbd]",
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
            "innodb-log-file-size=96M",
            "innodb-flush-log-at-trx-commit=2",
            "sync-binlog=0",
            "max-allowed-packet=256M",
            "performance-schema=OFF",
            "event-scheduler=ON",
        ]
        if log_bin:
            lines += ["log-bin=binlog", "binlog-format=ROW"]
        lines += list(options)
        lines += ["", f"!includedir {self.conf_d}", ""]
        self.defaults_file.write_text("\n".join(lines))

    def _lay_out(self, scratch):
        self.dir = scratch.dir / self.name
        self.data, self.conf_d = self.dir / "data", self.dir / "conf.d"
        self.socket, self.pid_file = self.dir / "run/mysqld.sock", self.dir / "run/mysqld.pid"
        self.error_log, self.general_log = self.dir / "log/error.log", self.dir / "log/general.log"
        self.defaults_file = self.dir / "my.cnf"
        for d in (self.dir, self.conf_d, self.dir / "run", self.dir / "log", self.dir / "tmp"):
            d.mkdir(exist_ok=True)

    # life

    def initialise(self):
        done = self.scratch.run(
            [
                self.tools / "mariadb-install-db" if self.tools else "mariadb-install-db",
                f"--defaults-file={self.defaults_file}",
                f"--user={ME}",
                "--skip-test-db",
                "--auth-root-authentication-method=socket",
                f"--auth-root-socket-user={ME}",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db for {self.name}:\n{done.stdout}")
        return self

    def start(self, timeout=60):
        output = open(self.dir / "log/stdout.log", "ab")
        child = self.scratch.spawn(
            [self.mysqld, f"--defaults-file={self.defaults_file}"], stdout=output, stderr=output, cwd=self.dir
        )
        output.close()

        def up():
            if child.poll() is not None:
                raise RuntimeError(f"server {self.name} ended with {child.returncode}:\n{self.log_tail()}")
            return self.answers()

        wait_for(f"server {self.name}", up, timeout)
        return self

    def pid(self):
        """Of the server that runs on this directory now, whoever started it; None if there is none."""
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        ours = os.fsencode(str(self.dir)) in read_proc(pid, "cmdline")
        return pid if ours and is_running(pid) else None

    def _end(self, sig, timeout):
        pid = self.pid()
        if pid:
            os.kill(pid, sig)
            wait_for(f"the end of server {self.name}", lambda: not is_running(pid), timeout)
        for child in self.scratch.children:
            # Its threads may still be ending. Until it is waited for its pid counts as alive, and MySQL would not start on its socket.
            child.wait(timeout) if child.pid == pid else child.poll()

    def stop(self, timeout=120):
        self._end(signal.SIGTERM, timeout)

    def kill9(self):
        self._end(signal.SIGKILL, 30)

    def restart(self):
        self.stop()
        return self.start()

    def answers(self):
        try:
            return self.value("SELECT 1") == "1"
        except SqlError:
            return False

    def log_tail(self, lines=30):
        try:
            return "\n".join(self.error_log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no error log)"

    # statements

    def client(self):
        return [
            "mariadb",
            "--no-defaults",
            "--batch",
            "--skip-column-names",
            "--default-character-set=utf8mb4",
            f"--socket={self.socket}",
            f"--user={ME}",
        ]

    def sql(self, statements, timeout=300):
        """Runs statements by the stock client; rows as tuples of strings (NULL is the word)."""
        done = self.scratch.run(
            self.client(), input=statements.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout
        )
        if done.returncode:
            raise SqlError(f"{self.name}: {done.stderr.decode(errors='replace').strip()}")
        rows = done.stdout.decode(errors="replace").split("\n")
        return [tuple(_unescape(f) for f in row.split("\t")) for row in rows[:-1]]

    def value(self, statement):
        rows = self.sql(statement)
        return rows[0][0] if rows else None

    def columns(self, statement):
        """The first row of a SHOW … STATUS as a dict; empty when there is no row."""
        done = self.scratch.run(
            [a for a in self.client() if a != "--skip-column-names"],
            input=statement.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if done.returncode:
            raise SqlError(f"{self.name}: {done.stderr.decode(errors='replace').strip()}")
        lines = done.stdout.decode(errors="replace").split("\n")
        if len(lines) < 3:
            return {}
        return dict(zip(lines[0].split("\t"), (_unescape(f) for f in lines[1].split("\t"))))

    def session(self):
        return Session(self)

    # replication

    def slave_status(self):
        return self.columns("SHOW SLAVE STATUS")

    def position(self):
        """Where its own binary log is, as a set of GTIDs."""
        return self.value("SELECT @@gtid_binlog_pos")

    def applied(self):
        """Where it is as a replica."""
        return self.value("SELECT @@gtid_slave_pos")

    def reached(self, position, timeout):
        """Waits until `position` is applied; False when that did not happen in time."""
        return self.value(f"SELECT MASTER_GTID_WAIT('{position}', {timeout})") == "0"

    def apply_by(self, threads, delay=0):
        """Goes on applying with so many threads, so many seconds after the source."""
        self.sql(
            f"STOP SLAVE; SET GLOBAL slave_parallel_threads={threads}; CHANGE MASTER TO MASTER_DELAY={delay}; START SLAVE"
        )

    @staticmethod
    def hold_rows(session, table):
        """Lets nobody change a table's rows until release_rows()."""
        session.run("BEGIN")
        session.run(f"SELECT * FROM {table} FOR UPDATE")

    @staticmethod
    def release_rows(session):
        session.run("ROLLBACK")

    @staticmethod
    def place(position):
        """A position of the agent's in the spelling of position()."""
        return position["gtid"]

    def check_all_received(self, last_applied, received):
        """AssertionError unless a replica of this source has applied just what it had received whole."""
        if sorted(last_applied.split(",")) != sorted(received.split(",")):
            raise AssertionError(f"applied up to {last_applied}, received up to {received}")

    @staticmethod
    def transactions(gtid):
        """A number that grows by one with each."""
        return max(int(g.split("-")[2]) for g in gtid.split(","))

    def create_agent_account(self, user, password, grants="ALL PRIVILEGES ON *.*", grant_option=True):
        option = " WITH GRANT OPTION" if grant_option else ""
        self.sql(
            f"SET sql_log_bin=0; CREATE OR REPLACE USER '{user}'@'localhost' IDENTIFIED BY '{password}' PASSWORD EXPIRE NEVER;"
            f"GRANT {grants} TO '{user}'@'localhost'{option};"
        )

    # what is in it

    @staticmethod
    def numbers(n):
        """A table of the numbers 1 to n in the column seq."""
        return f"seq_1_to_{n}"

    def write_peculiar(self):
        """What only this kind of server has: nothing."""

    def user_tables(self):
        rows = self.sql(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type='BASE TABLE' AND "
            f"table_schema NOT IN {SYSTEM_SCHEMAS} ORDER BY 1, 2"
        )
        return [f"`{s.replace('`', '``')}`.`{t.replace('`', '``')}`" for s, t in rows]

    def checksums(self):
        tables = self.user_tables()
        return dict((t, c) for t, c in self.sql(f"CHECKSUM TABLE {','.join(tables)}")) if tables else {}

    def schema(self):
        """Everything beside the rows that a copy must have too, as comparable lines."""
        queries = [
            f"SELECT 'schema', schema_name, default_collation_name FROM information_schema.schemata WHERE schema_name NOT IN {SYSTEM_SCHEMAS}",
            f"SELECT 'table', table_schema, table_name, table_type, engine FROM information_schema.tables WHERE table_schema NOT IN {SYSTEM_SCHEMAS}",
            f"SELECT 'column', table_schema, table_name, ordinal_position, column_name, column_type FROM information_schema.columns WHERE table_schema NOT IN {SYSTEM_SCHEMAS}",
            f"SELECT 'index', table_schema, table_name, index_name, seq_in_index, column_name FROM information_schema.statistics WHERE table_schema NOT IN {SYSTEM_SCHEMAS}",
            "SELECT 'partition', table_schema, table_name, partition_name FROM information_schema.partitions WHERE partition_name IS NOT NULL",
            f"SELECT 'view', table_schema, table_name, view_definition FROM information_schema.views WHERE table_schema NOT IN {SYSTEM_SCHEMAS}",
            "SELECT 'trigger', trigger_schema, trigger_name, action_statement FROM information_schema.triggers",
            self.EVENTS,
        ]
        return sorted(self.sql(";".join(queries)))

    def errant(self):
        """GTIDs that were born on this server, by its binary log's own account; '' is what a replica must say."""
        rows = self.sql("SELECT @@gtid_binlog_state, @@server_id")
        if not rows:
            return ""
        state, own = rows[0]
        return ",".join(g for g in state.split(",") if g and g.split("-")[1] == own)


class Session:
    """A connection that stays: for locks, open transactions and writers. Not thread-safe."""

    def __init__(self, server):
        self.server = server
        self.process = server.scratch.spawn(
            server.client() + ["--unbuffered", "--force"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )
        self.count = 0

    def run(self, statements):
        """Rows as lists of strings; SqlError on an error or when the connection is gone."""
        self.count += 1
        mark = f"--done {self.count}--"
        try:
            self.process.stdin.write(f"{statements};\nSELECT '{mark}';\n")
            self.process.stdin.flush()
        except (OSError, ValueError) as e:
            raise SqlError(f"{self.server.name}: connection lost") from e
        rows, error = [], None
        for line in self.process.stdout:
            line = line.rstrip("\n")
            if line == mark:
                break
            if line.startswith("ERROR "):
                error = error or line
                # The client's own errors are of its connection (with TLS "reset by peer" is 2026), and on a lost one it never
                # says the mark.
                if re.match(r"ERROR 2\d\d\d ", line):
                    break
            else:
                rows.append(line.split("\t"))
        else:
            error = error or "connection lost"
        if error:
            raise SqlError(f"{self.server.name}: {error}")
        return rows

    def start(self, statements):
        """Sends without waiting for the answer; the session is used up by it."""
        self.process.stdin.write(f"{statements};\n")
        self.process.stdin.flush()

    def close(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def at_one_position(source, replicas, look, timeout=120):
    """Freezes the source, waits until each replica has exactly its position, and answers (position, [look(server) for each server])."""
    with source.session() as freeze:
        freeze.run("FLUSH TABLES WITH READ LOCK")
        position = source.position()
        for replica in replicas:
            if not replica.reached(position, timeout):
                raise AssertionError(
                    f"{replica.name} did not reach {position} in {timeout} s: {replica.slave_status()}"
                )
            at = replica.applied()
            if sorted(at.split(",")) != sorted(position.split(",")):
                raise AssertionError(f"{replica.name} is at {at}, the frozen source at {position}")
        with ThreadPoolExecutor(len(replicas) + 1) as pool:
            return position, list(pool.map(look, [source, *replicas]))


def assert_same(what, servers, values):
    """`values`: one dict or list of lines for each server; all must equal the first's."""
    if not values[0]:
        raise AssertionError(f"{what}: nothing to compare")
    for server, value in zip(servers[1:], values[1:]):
        if value == values[0]:
            continue
        if isinstance(value, dict):
            keys = sorted(set(value) | set(values[0]))
            wrong = [f"{k}: {values[0].get(k)} / {value.get(k)}" for k in keys if value.get(k) != values[0].get(k)]
        else:
            wrong = [f"only on one: {line}" for line in sorted(set(map(tuple, value)) ^ set(map(tuple, values[0])))]
        raise AssertionError(f"{what}: {servers[0].name} and {server.name} differ:\n  " + "\n  ".join(wrong[:20]))
    log(f"{what}: {len(values[0])} equal on {', '.join(s.name for s in servers)}")


class ErrantWatch(threading.Thread):
    """Looks at the replicas all the time for transactions that were born on them. stop() answers them (and must be empty)."""

    def __init__(self):
        super().__init__(daemon=True)
        self.servers, self.found, self.looks, self.halt = {}, [], 0, threading.Event()
        self.lock = threading.Lock()
        self.start()

    def add(self, server):
        with self.lock:
            self.servers[server.name] = server

    def drop(self, server):
        """Looks once more. When this returns no look at it is under way, so it may have transactions of its own from here on."""
        with self.lock:
            self.servers.pop(server.name, None)
            self._look(server)

    def _look(self, server):
        try:
            errant = server.errant()
        except SqlError:
            return
        self.looks += 1
        if errant:
            self.found.append(f"{server.name}: {errant}")

    def run(self):
        while not self.halt.wait(0.3):
            with self.lock:
                for server in self.servers.values():
                    self._look(server)

    def stop(self):
        self.halt.set()
        self.join()
        return self.found
