"""Runs a case of tests/heavy/options: two fresh servers with the case's options, and the whole job on them.

What must come out is decided by a rule, not by what is seen: either every step is right, or a call is refused clearly (a code other
than INTERNAL, a hint, the option or the reason named) before anything was touched, and options_table.py has declared that reason."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from safetysite import *  # noqa: E402,F403
from engines import galera, mariadb_plugins  # noqa: E402
from scratch import free_port  # noqa: E402

# Of their own accord these differ from one moment to the next.
RESTLESS = re.compile(
    r"gtid_|.*_gtid|last_|timestamp|rand_seed|pseudo_|insert_id|identity|error_count|warning_count|innodb_buffer_pool_(dump|load)|"
    r"server_uid|innodb_lsn|in_transaction|.*_now$|hostname|wsrep_"
)
# What a data directory has beside databases: logs, tablespaces, marks of processes.
RESTLESS_FILES = re.compile(
    r".*bin\.|.*\.(pid|err|info|index|state|log|sock|lock|pem|0000\d\d|dblwr)$|ib|undo|aria|relay|#|auto\.cnf|multi-master|mysqld-auto|"
    r"ddl_recovery|tc\.log|binlog|more_|mysql_upgrade|mariadb_upgrade|own|.*-relay"
)
SMALL_SERVER = {
    "mariadb": (
        "innodb-buffer-pool-size=24M",
        "innodb-log-file-size=8M",
        "aria-pagecache-buffer-size=8M",
        "key-buffer-size=2M",
    ),
    "mysql": ("innodb-buffer-pool-size=32M", "innodb-redo-log-capacity=16M"),
}
# The lab's own sessions must not depend on what a case sets.
CALM = {
    "mariadb": "SET SESSION autocommit=1, sql_mode='', max_statement_time=0, sql_select_limit=18446744073709551615, "
    "max_join_size=18446744073709551615, sql_safe_updates=0, tx_read_only=0, completion_type=0, group_concat_max_len=1048576, "
    "lc_messages='en_US', sql_quote_show_create=1, max_sort_length=1024, lock_wait_timeout=50, innodb_lock_wait_timeout=50, "
    "wait_timeout=28800, net_read_timeout=60, net_write_timeout=60, idle_transaction_timeout=0, idle_readonly_transaction_timeout=0, "
    "idle_write_transaction_timeout=0, foreign_key_checks=1, time_zone='+00:00', character_set_filesystem='binary', sql_auto_is_null=0; "
    "SET NAMES utf8mb4;",
    "mysql": "SET SESSION autocommit=1, sql_mode='', max_execution_time=0, sql_select_limit=18446744073709551615, "
    "max_join_size=18446744073709551615, sql_safe_updates=0, transaction_read_only=0, completion_type=0, group_concat_max_len=1048576, "
    "lc_messages='en_US', sql_quote_show_create=1, lock_wait_timeout=50, innodb_lock_wait_timeout=50, wait_timeout=28800, "
    "net_read_timeout=60, net_write_timeout=60, time_zone='+00:00', character_set_filesystem='binary', sql_require_primary_key=0, "
    "information_schema_stats_expiry=0, sql_auto_is_null=0; SET NAMES utf8mb4;",
}
MY_TABLES = """
CREATE TABLE lab.t02 (id INT PRIMARY KEY, body TEXT, amount INT, KEY (amount));
INSERT INTO lab.t02 SELECT * FROM lab.t01 WHERE id <= 200;
CREATE TABLE lab.big (id INT PRIMARY KEY, body LONGTEXT);
CREATE TABLE lab.audit (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(60));
CREATE TABLE lab.logins (who VARCHAR(200));
CREATE TABLE lab.boots (id INT AUTO_INCREMENT PRIMARY KEY, at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE lab.heartbeat (id INT AUTO_INCREMENT PRIMARY KEY, at DATETIME(6), host INT UNSIGNED);
CREATE TABLE lab.parent (id INT PRIMARY KEY); CREATE TABLE lab.child (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES lab.parent (id));
INSERT INTO lab.parent VALUES (1), (2); INSERT INTO lab.child VALUES (1, 1), (2, 2);
CREATE DATABASE `größe 日本`; CREATE TABLE `größe 日本`.`tafel ü` (id INT PRIMARY KEY, `wörter` VARCHAR(60));
INSERT INTO `größe 日本`.`tafel ü` VALUES (1, 'größer'), (2, '高い');
CREATE VIEW lab.some AS SELECT id, amount FROM lab.t01 WHERE amount > 1000;
CREATE TRIGGER lab.note_change AFTER UPDATE ON lab.t02 FOR EACH ROW INSERT INTO lab.audit (what) VALUES (CONCAT('t02 ', NEW.id));
CREATE EVENT lab.beat ON SCHEDULE EVERY 1 SECOND DO INSERT INTO lab.heartbeat (at, host) VALUES (NOW(6), @@server_id);
CREATE USER app@localhost IDENTIFIED BY 'app-Pass-1'; GRANT ALL ON lab.* TO app@localhost;
"""
MINE = (
    "SET sql_log_bin=0; CREATE DATABASE mine; USE mine; CREATE TABLE mine.kept (id INT PRIMARY KEY, body TEXT);"
    "INSERT INTO mine.kept SELECT seq, SHA2(seq, 256) FROM {numbers};"
)


# The servers


class Skipped(Exception):
    """This machine cannot have what the case needs."""


class Templates:
    """Data directories that are made once and copied for each case, and the keys and plugins that options name."""

    def __init__(self, site):
        self.site, self.family = site, "mysql" if site.engine.startswith("mysql") else "mariadb"
        self.dir = site.scratch.dir / "made"
        self.dir.mkdir()
        self.password = {"s": "Lab-pw-1-of-a-source", "t": "Lab-pw-2-of-a-target"}
        self.tls = self.dir / "tls"
        self._certificates()
        self.plugins, self.no_plugins = None, ""
        self.keyring_tools = with_local_manifests(site)[0] if site.engine == "mysql-clone" else None
        if site.engine == "mariadb":
            try:
                self.plugins = mariadb_plugins()
            except Unavailable as e:
                self.no_plugins = str(e)
        for side in "st":
            server = self.server(f"template-{side}", side, ())
            self.fill(server, side)
            server.stop()
            shutil.move(server.data, self.dir / side)
            shutil.rmtree(server.dir)
        log(f"{site.engine}: templates made")

    def _certificates(self):
        self.tls.mkdir()
        run = lambda *a: subprocess.run(
            ["openssl", *a], check=True, cwd=self.tls, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )  # noqa: E731
        run(
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=lab CA",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        )
        run(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "request.pem",
        )
        (self.tls / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
        run(
            "x509",
            "-req",
            "-in",
            "request.pem",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "30",
            "-extfile",
            "extensions",
            "-out",
            "cert.pem",
        )
        (self.tls / "keys.txt").write_text("1;a7addd9adea9978fda19f21e6be987880e68ac92632ca052e5bb42b1a506939a\n")

    def server(self, name, side, options, log_bin=False):
        """Initialised with these options, and running."""
        kind = MySQL if self.family == "mysql" else MariaDB
        role = "source" if side == "s" else "replica"
        server = kind(
            self.site.scratch,
            name,
            1 if side == "s" else 2,
            log_bin=log_bin,
            options=(*SMALL_SERVER[self.family], *options),
            tools=self.site.tools[role],
        )
        return server.initialise().start()

    def fill(self, server, side):
        sql = server.sql
        if side == "s":
            seed_small(server)
            sql("SET SESSION sql_log_bin=0; SET SESSION sql_mode='';" + MY_TABLES)
            if self.family == "mysql":
                sql("SET SESSION sql_log_bin=0; GRANT SELECT ON mysql.* TO app@localhost")
        else:
            sql(MINE.format(numbers=server.numbers(500)))
        server.create_agent_account("guestagent", self.password[side], grants=told_rights(server.RIGHTS))

    def for_option(self, text):
        text = text.replace("{tls}", str(self.tls))
        if "{galera}" in text:  # fetched for the few cases that name it
            try:
                text = text.replace("{galera}", str(galera()))
            except Unavailable as e:
                raise Skipped(f"Galera for this machine's server: {e}") from None
        return text.replace("{port}", str(free_port())) if "{port}" in text else text


def of_family(line, family):
    """MySQL's words of today."""
    if family == "mariadb":
        return line
    key, equals, value = line.partition("=")
    return key.replace("slave", "replica").replace("master-", "source-") + equals + value


class Host:
    """One side of a case: a server with the case's options, and its agent."""

    def __init__(self, site, templates, number, side, chosen):
        self.site, self.side, self.chosen = site, side, chosen
        self.family = templates.family
        values = [v for _, v in chosen]
        kind = MySQL if self.family == "mysql" else MariaDB
        name = f"c{number}{side}"
        self.extra = self.site.scratch.dir / name / "extra"
        self.extra.mkdir(parents=True)
        place = lambda text: templates.for_option(text.replace("{dir}", str(self.extra)))  # noqa: E731
        lines = []
        if any(o.needs == "plugins" for o, _ in chosen):
            if not templates.plugins:
                raise Skipped(f"plugins of this machine's server: {templates.no_plugins}")
            lines.append(f"plugin-dir={templates.plugins}")
        keyring = any(o.needs == "keyring" for o, _ in chosen)
        for value in values:
            for line in value.option_lines():
                if "={dir}/" in line:
                    path = Path(place(line.split("=", 1)[1]))
                    (path if line.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
                lines.append(of_family(place(line), self.family))
            for file, contents in value.all_files():
                (self.extra / file).write_text(contents)
        role = "source" if side == "s" else "replica"
        self.server = kind(
            self.site.scratch,
            name,
            1 if side == "s" else 2,
            options=(*SMALL_SERVER[self.family], *lines),
            tools=templates.keyring_tools if keyring else self.site.tools[role],
        )
        self.lines = lines
        if any(o.init for o, _ in chosen):
            self.server._initialise() if self.family == "mysql" else self.server.initialise()
            self.start()
            templates.fill(self.server, side)
        else:
            subprocess.run(["cp", "-a", str(templates.dir / side), str(self.server.data)], check=True)
            if keyring:
                write_keyring(self.server)
            self.start()
        for value in values:
            if value.sql:
                self.calm(value.sql)
        self.agent = Agent(self.site.scratch, self.server, self.site.store_dir / f"c{number}")
        self.agent.password = templates.password[side]
        self.agent.password_file.write_text(self.agent.password + "\n")
        self.agent.start()

    def start(self):
        try:
            self.server.start()
        except RuntimeError as e:
            raise RuntimeError(f"the row is wrong, its server does not start: {str(e)[-1500:]}") from None

    def restart(self):
        self.server.stop()
        self.server.start()

    def calm(self, statements, timeout=120):
        """By the lab, whatever the options are."""
        return self.server.sql(CALM[self.family] + statements, timeout=timeout)

    def value(self, statement):
        rows = self.calm(statement)
        return rows[0][0] if rows else None

    def as_application(self, statements, user=None):
        """In a session that has all the globals, as an application has them; it says when it is done."""
        argv = self.server.client()
        env = dict(self.site.scratch.env)
        if user:
            argv = [a for a in argv if not str(a).startswith("--user")] + [f"--user={user}"]
            env["MYSQL_PWD"] = "app-Pass-1"
        text = "SET SESSION TRANSACTION READ WRITE; SET NAMES utf8mb4;" + statements + ";COMMIT;"
        done = self.site.scratch.run(
            argv, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, env=env
        )
        if done.returncode:
            raise SqlError(f"{self.server.name}: {done.stderr.decode(errors='replace').strip()}")

    # what is compared

    def variables(self):
        return {k: v for k, v in self.calm("SHOW GLOBAL VARIABLES") if not RESTLESS.match(k)}

    def accounts(self):
        if self.family == "mysql":
            return self.calm(
                "SELECT user, host, HEX(authentication_string), plugin, account_locked FROM mysql.user ORDER BY 1, 2"
            )
        return self.calm("SELECT user, host, priv FROM mysql.global_priv ORDER BY 1, 2")

    def files(self):
        server = self.server
        found = [p.name for p in server.data.iterdir() if not RESTLESS_FILES.match(p.name)]
        found += [f"../{p.name}" for p in server.dir.iterdir()]
        return sorted(found)

    def outside(self):
        """What must be as before on a source at the end, and on any host after a refusal."""
        return {
            "pid": self.server.pid(),
            "variables": self.variables(),
            "accounts": self.accounts(),
            "files": self.files(),
            "options": {p.name: p.read_text() for p in self.server.conf_d.iterdir()},
            "replication": self.replication(),
            "plugins": self.calm("SELECT plugin_name, plugin_status FROM information_schema.plugins ORDER BY 1"),
            "checksums": None,
        }

    def whole(self):
        return {**self.outside(), "checksums": self.checksums(), "schema": self.schema()}

    def replication(self):
        status = self.slave_status()
        return [status.get(k) for k in ("Master_Host", "Master_Port", "Master_User")]

    def slave_status(self):
        rows = self.server.columns("SHOW SLAVE STATUS" if self.family == "mariadb" else "SHOW REPLICA STATUS")
        return {k.replace("Source", "Master").replace("Replica", "Slave"): v for k, v in rows.items()}

    def checksums(self):
        tables = self._tables()
        # The first look at a MEMORY table after a start writes to the binary log: not by the one who checks.
        return (
            dict((t, c) for t, c in self.calm(f"SET SESSION sql_log_bin=0; CHECKSUM TABLE {','.join(tables)}"))
            if tables
            else {}
        )

    def _tables(self):
        with self._calm_server():
            return self.server.user_tables()

    def schema(self):
        with self._calm_server():
            return self.server.schema()

    @contextlib.contextmanager
    def _calm_server(self):
        """The lab's own methods, asked in calm sessions."""
        plain = type(self.server).sql
        self.server.sql = lambda s, timeout=300: plain(self.server, CALM[self.family] + s, timeout)
        try:
            yield self.server
        finally:
            del self.server.sql

    def with_calm(self, look):
        with self._calm_server() as server:
            return look(server)

    def end(self):
        self.agent.stop()
        self.server.kill9()
        with contextlib.suppress(Exception):
            for pid in processes_of(self.server.dir, spare=(self.site.scratch.watchdog.pid,)):
                os.kill(pid, 9)
            wait_for(
                "its processes to end",
                lambda: not processes_of(self.server.dir, spare=(self.site.scratch.watchdog.pid,)),
                20,
            )
        for child in list(self.site.scratch.children):
            if child.poll() is not None:
                self.site.scratch.children.remove(child)

    def remove(self):
        for d in (self.server.dir, self.agent.dir):
            shutil.rmtree(d, ignore_errors=True)

    def tails(self):
        return (
            f"--- end of the log of the agent of {self.server.name}:\n{self.agent.log_tail(16)}\n"
            f"--- end of the error log of {self.server.name} ({'; '.join(self.lines)}):\n{self.server.log_tail(12)}"
        )


# A case


class Failure(AssertionError):
    pass


def differences(before, after):
    out = []
    for part in before:
        b, a = before[part], after.get(part)
        if a == b:
            continue
        if isinstance(b, dict) and isinstance(a, dict):
            out += [f"{part}: {k}: {b.get(k)} / {a.get(k)}" for k in sorted(set(a) | set(b)) if a.get(k) != b.get(k)]
        elif isinstance(b, list) and isinstance(a, list):
            out += [f"{part}: gone {x}" for x in b if x not in a] + [f"{part}: new {x}" for x in a if x not in b]
        else:
            out.append(f"{part}: {b} / {a}")
    return out


class Run:
    def __init__(self, site, templates, number, case):
        self.site, self.templates, self.number, self.case = site, templates, number, case
        self.mysql = templates.family == "mysql"
        self.source = self.target = None
        self.changes = 0

    def run(self):
        """What came of it: "good" or "refused: why"; Failure or another error otherwise."""
        self.target = Host(self.site, self.templates, self.number, "t", self.case.target)
        self.source = Host(self.site, self.templates, self.number, "s", self.case.source)
        for first in sorted({o.first for o, _ in self.case.source if o.first} & {o.first for o, _ in self.case.target}):
            getattr(self, first)()
        self.source_before = self.source.outside()
        try:
            snapshot = self.source.agent.call("get_replication_snapshot", {"snapshot_id": f"c{self.number}"})
        except RpcError as e:
            why = self.refusal("snapshot", e)
            self.same("the source after the refusal", self.source_before, self.source.outside())
            self.nothing_left(self.source.agent)
            return why
        self.change()
        target_before = self.target.whole()
        try:
            self.target.agent.call(
                "attach_replication_slave",
                {"snapshot": snapshot, "slave_config": {"overwrite": True}, "job_id": f"attach-{self.number}"},
            )
        except RpcError as e:
            why = self.refusal("attach", e)
            self.same("the target after the refusal", target_before, self.target.whole())
            self.nothing_left(self.target.agent)
            self.clean_up(snapshot)
            return why
        self.told_of_filters()
        self.follows("after the attach")
        self.target.restart()
        self.follows("after a restart")
        self.change()
        self.hooks()
        self.follows("after more changes")
        self.digests()
        self.detach(target_before)
        self.clean_up(snapshot)
        return "good"

    def told_of_filters(self):
        """A filter of the operator's is no reason for a refusal, but whoever attaches has to hear that the replica will lack the rest."""
        if self.case.filter():
            warnings = str(self.target.agent.call("get_job", {"job_id": f"attach-{self.number}"})["warnings"])
            if "replicate_do_db" not in warnings:
                raise Failure(f"no word of the filter in the job's warnings: {warnings}")

    def share_keys(self):
        """The source's keys beside the target's own."""
        keys, others = (json.loads((h.server.data / "keyring").read_text()) for h in (self.target, self.source))
        keys["elements"] += others["elements"]
        self.target.server.stop()
        (self.target.server.data / "keyring").write_text(json.dumps(keys))
        self.target.server.start()

    def refusal(self, what, error):
        text = f"{what} refused: {error.code}: {error.message} [hint: {error.hint}]"
        told = f"{error.message} {error.hint}".lower().replace("-", "_")
        may = self.case.may_refuse()
        if error.code == "INTERNAL" or not error.hint or not may:
            raise Failure(("" if may else "needless: ") + text)
        if not any(word.lower().replace("-", "_") in told for word, _ in may):
            raise Failure(f"none of {sorted({w for w, _ in may})} is named: {text}")
        return text

    def same(self, what, before, after):
        found = differences(before, after)
        if found:
            raise Failure(f"{what}: " + "; ".join(found[:8]))

    def nothing_left(self, agent):
        found = self.site.leftovers(agent)
        if found:
            raise Failure(f"left over: {found}")

    def clean_up(self, snapshot):
        agent = self.source.agent
        agent.call("cleanup_replication_source", {"replication_user": snapshot["replication_user"]["name"]})
        agent.call("delete_replication_snapshot", {"snapshot_href": snapshot["dataset"]["snapshot_href"]})
        self.same("the source after clean-up", self.source_before, self.source.outside())
        for a in (agent, self.target.agent):
            self.nothing_left(a)
        stored = [str(p) for p in (self.site.store_dir / f"c{self.number}").rglob("*") if p.is_file()]
        if stored:
            raise Failure(f"objects after delete: {stored}")

    def spoken(self, *parts):
        """Statements of (database, text). A filter goes by the session's database, which is therefore chosen where one is set."""
        return ";".join(f"USE {database};{text}" if self.case.filter() else text for database, text in parts)

    def change(self):
        """Rows and definitions of most kinds, in a session of an application's and in the lab's."""
        self.changes += 1
        n, source = self.changes, self.source
        frozen = self.mysql and source.value("SELECT @@super_read_only") == "1"
        if frozen:  # what comes to such a source comes from its own source
            source.calm("SET GLOBAL super_read_only=OFF")
        lab, größe, more = "lab", "`größe 日本`", f"more_{n}"
        source.as_application(
            self.spoken(
                (
                    lab,
                    f"INSERT INTO lab.t01 VALUES ({100000 + n}, 'después {n}', {n}); UPDATE lab.t01 SET amount = amount + 1 WHERE id BETWEEN 1 AND 20;"
                    f"UPDATE lab.t02 SET amount = amount + 1 WHERE id = {n}; DELETE FROM lab.t01 WHERE id = {50 + n}",
                ),
                (größe, f"INSERT INTO `größe 日本`.`tafel ü` VALUES ({100 + n}, 'größer 高い {n}')"),
                (
                    lab,
                    f"REPLACE INTO lab.aria_notes (id, `body`) VALUES ({n}, 'later');"
                    f"INSERT INTO lab.big VALUES ({n}, REPEAT('x', LEAST(1500000, @@max_allowed_packet DIV 2)));"
                    f"CREATE TABLE lab.new_{n} (id INT PRIMARY KEY, at TIMESTAMP NULL, word VARCHAR(40)) ENGINE=InnoDB; INSERT INTO lab.new_{n} VALUES (1, '2026-01-02 03:04:05', 'wörter');"
                    f"ALTER TABLE lab.new_{n} ADD COLUMN more INT; CREATE DATABASE more_{n}",
                ),
                (
                    more,
                    f"CREATE TABLE more_{n}.x (id INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO more_{n}.x VALUES (1)",
                ),
                (lab, f"DELETE FROM lab.child WHERE id = {n}"),
                (more, f"TRUNCATE TABLE more_{n}.x"),
            )
        )
        source.calm(
            self.spoken(
                (lab, f"CREATE FUNCTION lab.f_{n}() RETURNS INT DETERMINISTIC RETURN {n}"),
                (more, f"GRANT SELECT ON more_{n}.* TO app@localhost"),
                (
                    lab,
                    f"CREATE TRIGGER lab.t_{n} AFTER INSERT ON lab.new_{n} FOR EACH ROW INSERT INTO lab.audit (what) VALUES (CONCAT('new ', NEW.id));"
                    f"INSERT INTO lab.new_{n} VALUES (2, NOW(), NULL, 1); ANALYZE TABLE lab.t02",
                ),
            )
        )
        if frozen:
            source.calm("SET GLOBAL super_read_only=ON")
        if not any(o.name in ("log_bin.off",) for o, _ in self.case.source):
            source.calm("FLUSH BINARY LOGS; FLUSH BINARY LOGS")

    def healthy(self, when):
        seen = {}

        def look():
            seen.update(self.target.agent.call("get_replication_status"))
            return seen.get("verdict") in ("healthy", "diverged")

        with contextlib.suppress(TimeoutError):
            wait_for("healthy", look, 40, 0.2)
        if seen.get("verdict") != "healthy":
            raise Failure(f"{when}: not healthy but {seen.get('verdict')}: {seen.get('reasons')} {seen.get('errors')}")

    def follows(self, when):
        """Healthy, everything there is on the source, and nothing of its own."""
        self.healthy(when)
        source, target = self.source, self.target
        by_position = self.mysql and source.value("SELECT @@gtid_mode") != "ON"
        event_free = "ALTER EVENT lab.beat DISABLE" if by_position else ""
        if event_free:
            source.calm(event_free)
        with source.server.session() as freeze:
            freeze.run(CALM[source.family].split(";")[0])
            freeze.run("FLUSH TABLES WITH READ LOCK")
            rows = lambda host: self.let_through(host.checksums())  # noqa: E731
            if by_position:
                wait_for("the same rows", lambda: rows(source) == rows(target), 60, 0.3)
            else:
                position = source.value(
                    "SELECT @@gtid_binlog_pos" if not self.mysql else "SELECT @@gtid_executed"
                ).replace("\n", "")
                waits = (
                    f"SELECT MASTER_GTID_WAIT('{position}', 60)"
                    if not self.mysql
                    else f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', 60)"
                )
                if target.value(waits) != "0":
                    raise Failure(f"{when}: did not reach {position}: {target.slave_status()}")
            self.equal(f"{when}: rows", rows(source), rows(target))
            self.equal(
                f"{when}: definitions",
                self.let_through({r: 1 for r in map(tuple, source.schema())}),
                self.let_through({r: 1 for r in map(tuple, target.schema())}),
            )
        if event_free:
            source.calm("ALTER EVENT lab.beat ENABLE")
        own = target.with_calm(lambda s: s.errant())
        if own:
            raise Failure(f"{when}: transactions of its own: {own}")
        if target.value("SELECT @@event_scheduler") == "ON":
            raise Failure(f"{when}: events run on the replica")

    def let_through(self, found):
        """Of what is found by table names or as lines of definitions, that which a filter lets through."""
        only = self.case.filter()
        within = lambda k: only == (k[1] if isinstance(k, tuple) else k.replace("`", "").split(".")[0])  # noqa: E731
        return {k: v for k, v in found.items() if not only or within(k)}

    def equal(self, what, there, here):
        wrong = [
            f"{k}: {there.get(k)} / {here.get(k)}"
            for k in sorted(set(there) | set(here), key=str)
            if there.get(k) != here.get(k)
        ]
        if wrong or not there:
            raise Failure(f"{what} differ: " + "; ".join(wrong[:5]))

    def digests(self):
        at = self.source.agent.call("checksum_tables")
        if at["at"] is None or not at["at"].get("gtid"):
            return
        there = self.target.agent.call("checksum_tables", {"at": at["at"]})
        moving = {"`lab`.`heartbeat`", "lab.heartbeat"}
        key = lambda a: {
            t["table"]: (t.get("rows"), t.get("digest")) for t in a["tables"] if t["table"] not in moving
        }  # noqa: E731
        self.equal("digests by the agents", self.let_through(key(at)), self.let_through(key(there)))
        if not any("größe 日本" in t["table"] for t in at["tables"]):
            raise Failure(f"a table is missing in checksum_tables: {[t['table'] for t in at['tables']]}")
        own = self.target.with_calm(lambda s: s.errant())
        if own:
            raise Failure(f"checksum_tables wrote on the replica: {own}")

    def hooks(self):
        for hook in sorted({o.hook for o in self.case.options().values() if o.hook}):
            getattr(self, hook)()

    def age_passwords(self):
        """A year goes by for every account that the agents made, and for their own, which are made as README says."""
        for host in (self.source, self.target):
            if self.mysql:
                host.calm(
                    "SET SESSION sql_log_bin=0; SET @f=@@GLOBAL.super_read_only; SET GLOBAL super_read_only=OFF; UPDATE mysql.user SET password_last_changed = "
                    "NOW() - INTERVAL 365 DAY WHERE user LIKE 'repl%' OR user='guestagent'; FLUSH PRIVILEGES; SET GLOBAL super_read_only=@f"
                )
            else:
                host.calm(
                    "SET SESSION sql_log_bin=0; UPDATE mysql.global_priv SET priv = JSON_SET(priv, '$.password_last_changed', "
                    "UNIX_TIMESTAMP() - 365 * 86400) WHERE user LIKE 'repl%' OR user='guestagent'; FLUSH PRIVILEGES"
                )
        self.target.restart()

    def change_memory(self):
        self.source.calm("UPDATE lab.mem SET n = n + 1")

    def detach(self, before):
        target = self.target
        result = target.agent.call("detach_replication_slave")
        if (result["state"], result["status"]["verdict"]) != ("standalone", "standalone"):
            raise Failure(f"detach: {result['state']}, {result['status']['verdict']} {result['status'].get('reasons')}")
        for when in ("after the detach", "after the detach and a restart"):
            if target.slave_status():
                raise Failure(f"{when}: replication settings are left: {target.slave_status()}")
            read_only = target.value("SELECT @@read_only") + (
                target.value("SELECT @@super_read_only") if self.mysql else ""
            )
            if "1" in read_only:
                raise Failure(f"{when}: read-only")
            if target.value("SELECT @@log_bin") != "1":
                raise Failure(f"{when}: no binary log")
            if not any(o.name == "offline_mode" for o, _ in self.case.target):
                target.as_application(f"INSERT INTO lab.t01 VALUES ({200000 + len(when)}, 'mine', 1)", user="app")
            else:
                target.calm(f"INSERT INTO lab.t01 VALUES ({200000 + len(when)}, 'mine', 1)")
            scheduler = target.value("SELECT @@event_scheduler")
            # DISABLED is for a process's whole life: it holds again from the next start on.
            if scheduler != before["variables"]["event_scheduler"] and (scheduler, when) != ("OFF", "after the detach"):
                raise Failure(f"{when}: event_scheduler {scheduler}, was {before['variables']['event_scheduler']}")
            if when == "after the detach":
                target.restart()
        self.kept(before["variables"], target.variables())

    def kept(self, before, after):
        """What its operator set on the target still holds."""
        overruled = {name for o, _ in self.case.target for name in o.overruled}
        set_here = {line.split("=")[0].replace("-", "_") for line in self.target.lines} - overruled
        for name in sorted(set_here | {n.removeprefix("skip_") for n in set_here}):
            if name in before and name not in overruled and before[name] != after.get(name):
                raise Failure(
                    f"{name} was {before[name]} on the target, and is {after.get(name)} after attach and detach"
                )

    def end(self, failed):
        for host in (self.source, self.target):
            if not host:
                continue
            if failed:
                log(host.tails())
            host.end()
            if not (failed and os.environ.get("GUESTAGENT_KEEP")):
                host.remove()
        shutil.rmtree(self.site.store_dir / f"c{self.number}", ignore_errors=True)
