"""Data to copy, and writers that never rest."""

import threading
import time

from mariadb import Session, SqlError
from scratch import log

# Half random, half not, as pages of real tables are: zstd gets about 2.5 out of them.
TEXT = "CONCAT(SHA2(CONCAT(seq, @salt), 512), REPEAT(CHAR(65 + seq % 26), 60), SHA2(CONCAT(@salt, seq, 'b'), 512), SHA2(seq + 1, 512))"


def seed(server, megabytes=300, quiet=False):
    """About `megabytes` in 20 tables of every kind that a physical copy must bring over, without a line in the binary log."""
    started = time.monotonic()
    kinds = [(f"t{i:02d}", "") for i in range(1, 12)]
    kinds += [
        *server.NOTES.items(),
        (
            "parts",
            " PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (1000), PARTITION p1 VALUES LESS THAN (10000), "
            "PARTITION p2 VALUES LESS THAN MAXVALUE)",
        ),
        ("Größen und Maße", ""),
        ("表", ""),
        ("squeezed", " ROW_FORMAT=COMPRESSED"),
    ]
    rows = int(megabytes * 1024 * 1024 / len(kinds) / 550)
    sql = [
        "SET sql_log_bin=0; SET NAMES utf8mb4; CREATE DATABASE lab; CREATE DATABASE empty_one; CREATE DATABASE `зоопарк`; USE lab;",
        "SET unique_checks=0, foreign_key_checks=0;",
    ]
    for number, (name, options) in enumerate(kinds):
        n = rows if number != len(kinds) - 1 else rows // 4
        sql.append(
            f"CREATE TABLE `{name}` (id INT NOT NULL PRIMARY KEY, body TEXT NOT NULL, emoji VARCHAR(20), amount DECIMAL(12,4), "
            f"seen DATETIME(6){server.GENERATED}, KEY (amount)){options};"
        )
        sql.append(
            f"SET @salt='{name}{number}'; INSERT INTO `{name}` (id, body, emoji, amount, seen) SELECT seq, {TEXT}, "
            f"IF(seq % 5, NULL, '🐬🌲'), seq / 7, '2026-01-01' + INTERVAL seq SECOND FROM {server.numbers(n)};"
        )
    sql.append(
        """
      CREATE TABLE audit (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(60));
      CREATE TABLE heartbeat (id INT AUTO_INCREMENT PRIMARY KEY, at DATETIME(6), host INT UNSIGNED);
      CREATE TABLE `зоопарк`.`жираф` (id INT PRIMARY KEY, `имя` VARCHAR(50), FULLTEXT (`имя`)) ;
      INSERT INTO `зоопарк`.`жираф` VALUES (1, 'высокий'), (2, '高い');
      CREATE VIEW big_ones AS SELECT id, amount FROM t01 WHERE amount > 1000;
      CREATE TRIGGER note_change AFTER UPDATE ON t02 FOR EACH ROW INSERT INTO audit (what) VALUES (CONCAT('t02 ', NEW.id));
      CREATE DEFINER=CURRENT_USER EVENT beat ON SCHEDULE EVERY 1 SECOND DO INSERT INTO lab.heartbeat (at, host) VALUES (NOW(6), @@server_id);
    """
    )
    server.sql("\n".join(sql))
    server.write_peculiar()
    size = server.value(
        "SELECT SUM(data_length+index_length) DIV 1048576 FROM information_schema.tables WHERE table_schema='lab'"
    )
    if not quiet:
        log(f"{server.name}: {len(server.user_tables())} tables, {size} MiB in {time.monotonic() - started:.1f} s")
    return int(float(size))


def seed_small(server):
    """A few rows, for tests whose subject is not the data."""
    server.sql(
        "SET sql_log_bin=0; CREATE DATABASE lab; USE lab; CREATE TABLE t01 (id INT PRIMARY KEY, body TEXT, amount INT);"
        f"INSERT INTO t01 SELECT seq, SHA2(seq, 256), seq FROM {server.numbers(2000)};"
        f"CREATE TABLE aria_notes (id INT PRIMARY KEY, body TEXT){server.NOTES['aria_notes']};"
        f"INSERT INTO aria_notes SELECT seq, SHA2(seq, 256) FROM {server.numbers(100)};"
    )


class AppAccount:
    """A server as an application's account sees it: without the rights that pass read_only."""

    NAME, PASSWORD = "app", "App-1-app"

    def __init__(self, server):
        self.server, self.scratch, self.name = server, server.scratch, server.name

    def create(self):
        self.server.sql(
            f"CREATE USER {self.NAME}@localhost IDENTIFIED BY '{self.PASSWORD}';"
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO {self.NAME}@localhost"
        )
        return self

    def client(self):
        stock = [a for a in self.server.client() if not str(a).startswith("--user")]
        return stock + [f"--user={self.NAME}", f"-p{self.PASSWORD}"]

    def session(self):
        return Session(self)


class Writer(threading.Thread):
    """Numbered transactions over three tables, plus changes of the seeded ones. Transaction n is in w<k>_a and w<k>_b as row n and
    is counted in w<k>_count: lost ones leave a gap, doubled ones a count that is off. A lost connection is made again.
    """

    def __init__(self, server, number, pause=0.005, body_bytes=200):
        super().__init__(daemon=True)
        self.server, self.number, self.pause, self.body_bytes = server, number, pause, body_bytes
        self.done, self.errors, self.halt, self.failure = 0, 0, threading.Event(), None
        n = number
        server.sql(
            f"CREATE DATABASE IF NOT EXISTS load_; USE load_; CREATE TABLE w{n}_a (n INT PRIMARY KEY, body TEXT);"
            f"CREATE TABLE w{n}_b (n INT PRIMARY KEY, twice INT); CREATE TABLE w{n}_count (id INT PRIMARY KEY, n INT);"
            f"INSERT INTO w{n}_count VALUES (1, 0);"
        )

    def transaction(self, n):
        w = self.number
        return (
            f"BEGIN; INSERT INTO load_.w{w}_a VALUES ({n}, REPEAT(SHA2({n}, 256), {self.body_bytes // 64}));"
            f"INSERT INTO load_.w{w}_b VALUES ({n}, {2 * n}); UPDATE load_.w{w}_count SET n = n + 1; COMMIT"
        )

    def beside(self, n):
        statements = []
        if n % 10 == 0:
            statements.append(f"UPDATE lab.t02 SET amount = amount + 1 WHERE id = {n % 1000 + 1}")
        if n % 25 == 0:
            statements.append(f"REPLACE INTO lab.aria_notes (id, body) VALUES ({1000000 + n}, 'added while copying')")
        return ";".join(statements)

    def run(self):
        session, n = None, 1
        while not self.halt.is_set():
            try:
                if session is None:
                    session = self.server.session()
                    last = session.run(f"SELECT COALESCE(MAX(n), 0) FROM load_.w{self.number}_a")
                    n = int(last[0][0]) + 1
                session.run(self.transaction(n))
                self.done = n
                beside = self.beside(n)
                if beside:
                    session.run(beside)
                n += 1
            except SqlError as e:
                self.errors += 1
                self.failure = str(e)
                if session:
                    session.close()
                session = None
                time.sleep(0.1)
            time.sleep(self.pause)
        if session:
            session.close()

    def stop(self):
        self.halt.set()
        self.join()
        return self.done


def numbered(server, number):
    """How many transactions of a writer are on a server; AssertionError unless they are 1..n, each once."""
    w = f"load_.w{number}"
    row = server.sql(
        f"SELECT (SELECT COUNT(*) FROM {w}_a), (SELECT COALESCE(MAX(n), 0) FROM {w}_a), (SELECT COUNT(*) FROM {w}_b), "
        f"(SELECT COALESCE(MAX(n), 0) FROM {w}_b), (SELECT COALESCE(SUM(twice), 0) FROM {w}_b), (SELECT n FROM {w}_count)"
    )[0]
    a, a_max, b, b_max, twice, count = (int(v) for v in row)
    if not a == a_max == b == b_max == count or twice != a * (a + 1):
        raise AssertionError(
            f"{server.name}: writer {number}'s transactions are not 1..n: rows {a}, last {a_max}; rows {b}, last {b_max}; counted {count}"
        )
    return a
