#!/usr/bin/python3
"""A scripted xtrabackup for MySQL 5.6 and 5.7: command line, option groups, phases, messages, info files and ends are those of the real
2.4.8; the copy is one of a server that stands still, and its xtrabackup_logfile has the whole redo log. The real tool is in no package
registry.

    xtrabackup.py DIR ARGUMENT…     DIR/xtrabackup.json: {"version": "2.4.29", "fault": …, "log": FILE}; each call is a line in FILE

It is strict where the real tool is lenient: an argument that the documentation of its series does not have ends it.
`install(dir, …)` puts it there with its xbstream.
"""

import ctypes
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

BACKUP = {
    "defaults-file",
    "backup",
    "stream",
    "target-dir",
    "extra-lsndir",
    "parallel",
    "ftwrl-wait-timeout",
    "ftwrl-wait-threshold",
    "ftwrl-wait-query-type",
}
PREPARE = {"prepare", "target-dir", "use-memory"}
COPIED = {
    ".frm",
    ".isl",
    ".MYD",
    ".MYI",
    ".MRG",
    ".TRG",
    ".TRN",
    ".ARM",
    ".ARZ",
    ".CSM",
    ".CSV",
    ".opt",
    ".par",
    ".ibd",
}
CHUNK = 1 << 20
# What a statement begins with that the tool waits for before it asks for its lock.
WAITED_FOR = (
    "insert",
    "update",
    "delete",
    "replace",
    "alter",
    "load",
    "select",
    "do",
    "handler",
    "call",
    "execute",
    "begin",
    "(select",
)
PDEATHSIG = 1  # prctl
LOG_HEADER = 2048  # of ib_logfile0: where the last checkpoint is


def install(tools, version="2.4.29", fault=None, log=None):
    tools = Path(tools)
    tools.mkdir(exist_ok=True)
    (tools / "xtrabackup.json").write_text(
        json.dumps({"version": version, "fault": fault, "log": str(log or tools / "calls.log")})
    )
    script = tools / "xtrabackup"
    script.write_text(f'#!/bin/sh\nexec /usr/bin/python3 {Path(__file__).resolve()} {tools} "$@"\n')
    script.chmod(0o755)
    # Of 2.x: no --parallel before 2.4.7.
    stream = tools / "xbstream"
    stream.write_text(
        '#!/bin/sh\n[ "$#" = 3 ] && [ "$1" = -x ] && [ "$2" = -C ] || { echo "xbstream: wrong arguments: $*" >&2; exit 1; }\n'
        f'echo "xbstream $*" >> {log or tools / "calls.log"}\nexec mbstream "$@"\n'
    )
    stream.chmod(0o755)
    return tools


def calls(tools):
    """The argument lists of the calls so far."""
    tools = Path(tools)
    log = Path(json.loads((tools / "xtrabackup.json").read_text())["log"])
    return [line.split("\t") for line in log.read_text().splitlines()] if log.exists() else []


def say(text, end="\n"):
    print(f"{time.strftime('%y%m%d %H:%M:%S')} {text}", end=end, file=sys.stderr, flush=True)


def die(text):
    print(f"xtrabackup: error: {text}", file=sys.stderr, flush=True)
    sys.exit(1)


def read_options(file, groups):
    """Options of these groups, the last one wins, as the server's programs read option files."""
    out, group = {}, None
    for line in Path(file).read_text().splitlines():
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("!includedir "):
            for each in sorted(Path(line.split(None, 1)[1]).glob("*.cnf")):
                out.update(read_options(each, groups))
        elif line.startswith("!include "):
            out.update(read_options(line.split(None, 1)[1], groups))
        elif line.startswith("["):
            group = line[1 : line.index("]")]
        elif group in groups:
            name, _, value = (part.strip() for part in line.partition("="))
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            value = re.sub(
                r"\\(.)", lambda m: {"n": "\n", "t": "\t", "s": " ", "b": "\b", "r": "\r"}.get(m[1], m[1]), value
            )
            out[name.replace("_", "-")] = value
    return out


class Server:
    """A session by the stock client, where host, port and socket of the option groups say; the password goes by a file."""

    def __init__(self, options):
        tcp = options.get("host", "localhost") != "localhost"
        where = (
            f'host="{options["host"]}"\nport={options.get("port", 3306)}\nprotocol=tcp'
            if tcp
            else f'socket="{options["socket"]}"'
        )
        with tempfile.NamedTemporaryFile("w", suffix=".cnf") as file:
            quoted = options.get("password", "").replace("\\", "\\\\").replace('"', '\\"')
            file.write(f'[client]\n{where}\nuser="{options["user"]}"\npassword="{quoted}"\n')
            file.flush()
            # The real tool has no second process: this one dies with it.
            self.process = subprocess.Popen(
                [
                    "mariadb",
                    f"--defaults-file={file.name}",
                    "--batch",
                    "--skip-column-names",
                    "--unbuffered",
                    "--force",
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=lambda: ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL),
            )
            self.rows("SELECT 1")

    def rows(self, sql):
        try:
            self.process.stdin.write(f"{sql};\nSELECT '--done--';\n")
            self.process.stdin.flush()
        except OSError:
            pass
        out = []
        for line in self.process.stdout:
            line = line.rstrip("\n")
            if line == "--done--":
                return out
            if line.startswith("ERROR "):
                die(f"failed to execute query '{sql}': {line}")
            out.append(line.split("\t"))
        die(f"failed to connect to MySQL server: {out}")

    def variable(self, name):
        found = self.rows(f"SHOW VARIABLES LIKE '{name}'")
        return found[0][1] if found else ""


class Stream:
    """xbstream on standard output; `ending` is what the options for compression and encryption put after every name."""

    def __init__(self, ending=""):
        self.out, self.ending = sys.stdout.buffer, ending

    def chunk(self, path, data, offset):
        name = os.fsencode(f"{path}{self.ending}")
        self.out.write(
            b"XBSTCK01\0P"
            + struct.pack("<I", len(name))
            + name
            + struct.pack("<QQI", len(data), offset, zlib.crc32(data))
            + data
        )

    def end(self, path):
        name = os.fsencode(f"{path}{self.ending}")
        self.out.write(b"XBSTCK01\0E" + struct.pack("<I", len(name)) + name)

    def text(self, path, text):
        self.chunk(path, text.encode(), 0)
        self.end(path)

    def files(self, root, names, parallel):
        """Chunk by chunk in turns, as threads do."""
        todo, open_ = list(names), []
        while todo or open_:
            while todo and len(open_) < parallel:
                name = todo.pop(0)
                say(f"[01] Streaming ./{name}")
                open_.append([name, open(root / name, "rb"), 0])
            for each in list(open_):
                data = each[1].read(CHUNK)
                if data:
                    self.chunk(each[0], data, each[2])
                    each[2] += len(data)
                else:
                    self.end(each[0])
                    each[1].close()
                    open_.remove(each)


def wait_for_no_updates(server, timeout, threshold):
    """It looks once a second, at statements that begin with certain words and are old enough, and says them whole, without a line end."""
    say(f"Waiting {timeout} seconds for queries running longer than {threshold} seconds to finish")
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        running = server.rows(
            "SELECT id, time, info FROM information_schema.processlist WHERE info IS NOT NULL AND "
            f"time >= {threshold} AND id <> CONNECTION_ID()"
        )
        waited_for = [
            row for row in running if re.match(r"[(]?[a-z]+", row[2].lower()) and row[2].lower().startswith(WAITED_FOR)
        ]
        if not waited_for:
            return
        for number, age, text in waited_for[:1]:
            text = text.replace("\\n", "\n")
            say(f"Waiting for query {number} (duration {age} sec): {text}", end="")
        time.sleep(1)
    say("Unable to obtain lock. Please try again later.", end="")
    sys.exit(1)


def lsns(server):
    status = "\n".join("\t".join(r) for r in server.rows("SHOW ENGINE INNODB STATUS")).replace("\\n", "\n")
    return (
        int(re.search(r"Last checkpoint at\s+(\d+)", status)[1]),
        int(re.search(r"Log sequence number\s+(\d+)", status)[1]),
    )


def backup(given, options, config):
    fault = config["fault"]
    if given.get("stream") != "xbstream" or "target-dir" not in given:
        die("wrong --stream or no --target-dir")
    server = Server(options)
    version = server.rows("SELECT VERSION()")[0][0]
    print(
        f"{given['argv0']} version {config['version']} based on MySQL server 5.7.44 Linux (x86_64) (revision id: scripted)",
        file=sys.stderr,
    )
    say(
        f"Connecting to MySQL server host: localhost, user: {options['user']}, password: set, port: not set, socket: {options['socket']}"
    )
    print(f"Using server version {version}", file=sys.stderr)
    if not version.startswith(("5.5.", "5.6.") if config["version"].startswith("2.3") else ("5.5.", "5.6.", "5.7.")):
        die(
            f"Unsupported server version: '{version}'. Please report a bug at https://bugs.launchpad.net/percona-xtrabackup"
        )
    data, told = Path(options["datadir"]), Path(server.variable("datadir"))
    if told.resolve() != data.resolve():
        print(
            f"Warning: option 'datadir' has different values:\n  '{data}/' in defaults file\n  '{told}/' in SHOW VARIABLES",
            file=sys.stderr,
        )
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    # As with its tables, for their number alone.
    server.rows("SELECT COUNT(*) FROM information_schema.tables WHERE engine = 'MyISAM' OR engine = 'RocksDB'")
    stream = Stream((".qp" if "compress" in options else "") + (".xbcrypt" if "encrypt" in options else ""))
    log_size, log_files = int(server.variable("innodb_log_file_size")), int(
        server.variable("innodb_log_files_in_group")
    )
    stream.text(
        "backup-my.cnf",
        "# This MySQL options file was generated by innobackupex.\n\n# The MySQL server\n[mysqld]\n"
        f"innodb_checksum_algorithm=innodb\ninnodb_log_checksum_algorithm=innodb\ninnodb_data_file_path={server.variable('innodb_data_file_path')}\n"
        f"innodb_log_files_in_group={log_files}\ninnodb_log_file_size={log_size}\ninnodb_fast_checksum=false\n"
        f"innodb_page_size={server.variable('innodb_page_size')}\ninnodb_log_block_size=512\ninnodb_undo_directory=.\n"
        f"innodb_undo_tablespaces=0\nserver_id={server.variable('server_id')}\n\nredo_log_version=0\n",
    )
    timeout = int(given.get("ftwrl-wait-timeout", 0))
    print(f".{time.strftime('%y%m%d %H:%M:%S')} >> log scanned up to ({lsns(server)[1]})", file=sys.stderr)
    if fault == "crash":
        print(
            "xtrabackup: got signal 11; this could be because you hit a bug\nxtrabackup(my_print_stacktrace+0x2c) [0xd0a5bc]",
            file=sys.stderr,
        )
        sys.exit(2)
    if fault == "index":
        die(
            "An optimized (without redo logging) DDLoperation has been performed. All modified pages may not have been flushed to the disk "
            "yet. \n    PXB will not be able take a consistent backup. Retry the backup operation"
        )
    if fault == "connections":
        die("failed to connect to MySQL server: Too many connections.")
    if timeout:
        wait_for_no_updates(server, timeout, int(given.get("ftwrl-wait-threshold", 60)))
    else:
        say("Executing FLUSH NO_WRITE_TO_BINLOG TABLES...")
        server.rows("FLUSH NO_WRITE_TO_BINLOG TABLES")
    say("Executing FLUSH TABLES WITH READ LOCK...")
    server.rows("SET SESSION lock_wait_timeout=31536000")
    server.rows("FLUSH TABLES WITH READ LOCK")
    locked = time.monotonic()
    # Where the real tool follows the log while it copies, this one lets the server come to rest.
    while server.rows("SHOW STATUS LIKE 'Innodb_buffer_pool_pages_dirty'")[0][1] != "0":
        time.sleep(0.1)
    header = (data / "ib_logfile0").read_bytes()[:LOG_HEADER]
    names = sorted(
        p.relative_to(data)
        for p in data.rglob("*")
        if p.is_file() and (p.suffix in COPIED or p.name.startswith("ibdata"))
    )
    say("Starting to backup non-InnoDB tables and files")
    stream.files(data, names, max(1, int(given.get("parallel", 1))))
    say("Finished backing up non-InnoDB tables and files")
    logs = b"".join((data / f"ib_logfile{i}").read_bytes() for i in range(log_files))
    redo = header + logs[LOG_HEADER:]
    for at in range(0, len(redo), CHUNK):
        stream.chunk("xtrabackup_logfile", redo[at : at + CHUNK], at)
    stream.end("xtrabackup_logfile")
    status = server.rows("SHOW MASTER STATUS")[0]
    file, position = status[0], int(status[1])
    gtid = status[4].replace("\\n", "\n") if len(status) > 4 and server.variable("gtid_mode") == "ON" else None
    where = f"filename '{file}', position '{position}'" + (
        f", GTID of the last change '{gtid}'" if gtid is not None else ""
    )
    info = f"{file}\t{position}\n" if gtid is None else f"{file}\t{position}\t{gtid}\n"
    if fault == "bad-binlog-info":
        info = f"{file}\n"
    if fault == "other-position":
        info = info.replace(str(position), str(position + 1))
    if fault != "no-binlog-info":
        stream.text("xtrabackup_binlog_info", info)
    checkpoint, last = lsns(server)
    say("Executing FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS...")
    server.rows("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS")
    if fault == "wrapped":
        print(
            "xtrabackup: error: log block numbers mismatch:\nxtrabackup: error: expected log block no. 20481, but got no. 24577 from the log "
            "file.\nxtrabackup: error: it looks like InnoDB log has wrapped around before xtrabackup could process all records due to either "
            "log copying being too slow, or  log files being too small.",
            file=sys.stderr,
        )
        die("xtrabackup_copy_logfile() failed.")
    print(
        f"xtrabackup: The latest check point (for incremental): '{checkpoint}'\nxtrabackup: Stopping log copying thread.",
        file=sys.stderr,
    )
    say("Executing UNLOCK TABLES")
    server.rows("UNLOCK TABLES")
    say("All tables unlocked")
    say(f"Backup created in directory '{given['target-dir']}/'")
    print(f"MySQL binlog position: {where}", file=sys.stderr)
    partial = "Y" if fault == "partial" else "N"
    command = " ".join(a if "password" not in a else "--password=..." for a in given["argv"])
    stream.text(
        "xtrabackup_checkpoints",
        f"backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = {checkpoint}\nlast_lsn = {last}\n"
        "compact = 0\nrecover_binlog_info = 0\n",
    )
    stream.text(
        "xtrabackup_info",
        f"uuid = 00000000-0000-0000-0000-000000000001\nname = \ntool_name = xtrabackup\ntool_command = {command}\n"
        f"tool_version = {config['version']}\nibbackup_version = {config['version']}\nserver_version = {version}\n"
        f"start_time = {started}\nend_time = {time.strftime('%Y-%m-%d %H:%M:%S')}\nlock_time = {int(time.monotonic() - locked)}\n"
        f"binlog_pos = {where}\ninnodb_from_lsn = 0\ninnodb_to_lsn = {checkpoint}\npartial = {partial}\nincremental = N\n"
        "format = xbstream\ncompact = N\ncompressed = N\nencrypted = N\n",
    )
    if given.get("extra-lsndir"):
        (Path(given["extra-lsndir"]) / "xtrabackup_checkpoints").write_text("backup_type = full-backuped\n")
    if fault == "cut":
        stream.out.write(b"XBSTCK01\0P")
    stream.out.flush()
    if fault == "fail-late":
        die("failed to write the last file")
    print(f"xtrabackup: Transaction log of lsn ({checkpoint}) to ({last}) was copied.", file=sys.stderr)
    if fault != "no-word":
        say("completed OK!")


def prepare(given, config):
    root = Path(given["target-dir"])
    options = read_options(root / "backup-my.cnf", {"mysqld"})
    print(
        f"{given['argv0']} version {config['version']} based on MySQL server 5.7.44 Linux (x86_64) (revision id: scripted)",
        file=sys.stderr,
    )
    print(f"xtrabackup: cd to {root}", file=sys.stderr)
    checkpoints = root / "xtrabackup_checkpoints"
    text = checkpoints.read_text()
    if "full-backuped" not in text:
        die("This target seems to be already prepared.")
    if config["fault"] == "keyring":
        print(
            "[ERROR] InnoDB: Encryption can't find master key, please check the keyring plugin is loaded.",
            file=sys.stderr,
        )
        die("InnoDB: innodb_init(): Error occured.")
    if config["fault"] == "prepare":
        die("InnoDB: Database page corruption on disk")
    log, size = (root / "xtrabackup_logfile").read_bytes(), int(options["innodb-log-file-size"])
    if len(log) != size * int(options["innodb-log-files-in-group"]):
        die("xtrabackup_logfile has another size than backup-my.cnf says")
    for number in range(int(options["innodb-log-files-in-group"])):
        (root / f"ib_logfile{number}").write_bytes(log[number * size : (number + 1) * size])
    (root / "ibtmp1").write_bytes(bytes(12 << 20))
    (root / "xtrabackup_binlog_pos_innodb").write_text("binlog.000001\t4\n")
    checkpoints.write_text(text.replace("full-backuped", "full-prepared"))
    print("InnoDB: Starting shutdown...", file=sys.stderr)
    say("completed OK!")


def main():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it has no handler
    home, argv = Path(sys.argv[1]), sys.argv[2:]
    config = json.loads((home / "xtrabackup.json").read_text())
    with open(config["log"], "a") as log:
        log.write("\t".join(["xtrabackup", *argv]) + "\n")
    given = {"argv0": str(home / "xtrabackup"), "argv": argv}
    if "--version" in argv:
        if config["version"] not in ("2.3.10", "2.4.8"):
            print("xtrabackup: recognized server arguments: ", file=sys.stderr)
        print(
            f"{given['argv0']} version {config['version']} based on MySQL server 5.7.44 Linux (x86_64) (revision id: scripted)",
            file=sys.stderr,
        )
        return
    for number, argument in enumerate(argv):
        name, _, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in (PREPARE if "--prepare" in argv else BACKUP):
            die(f"unknown argument: '{argument}'")
        if name.startswith("defaults-") and number:
            die("--defaults-file must be specified first on the command line")
        given[name] = value
    if "prepare" in given:
        prepare(given, config)
    elif "backup" in given:
        options = read_options(given["defaults-file"], {"mysqld", "client", "xtrabackup"})
        if os.stat(given["defaults-file"]).st_mode & 0o077:
            die("the option file with the password can be read by others")
        for needed in ("socket", "user", "password", "datadir"):
            if needed not in options:
                die(f"the option file has no {needed}")
        backup(given, options, config)
    else:
        die("either --backup or --prepare")


if __name__ == "__main__":
    main()
