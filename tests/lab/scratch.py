"""One directory that holds everything a test makes, and the certainty that nothing outlives it.

Every process of the lab names the directory in its command line, environment or working directory: that is how clean-up finds
them, also those that the agent started itself. A small watchdog process does the same when the test dies without a word.
"""

import faulthandler
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def log(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def wait_for(what, condition, timeout=30.0, interval=0.05):
    """Answers the first true value of `condition`; TimeoutError says what was waited for."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(interval)


_ports_given = set()


def free_port():
    """A port that nobody listens on, below the range that the kernel gives to outgoing connections."""
    for _ in range(500):
        port = random.SystemRandom().randrange(12000, 32000)
        if port in _ports_given:
            continue
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        _ports_given.add(port)
        return port
    raise RuntimeError("no free port between 12000 and 32000")


def read_proc(pid, name):
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def is_running(pid):
    stat = read_proc(pid, "stat")
    return bool(stat) and stat.rsplit(b")", 1)[1].split()[0] not in (b"Z", b"X")


def processes_of(directory, spare=()):
    """pid -> command line of every process that belongs to `directory`."""
    mark = os.fsencode(str(directory))
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in spare or int(entry) == os.getpid():
            continue
        pid = int(entry)
        cmdline = read_proc(pid, "cmdline")
        try:
            cwd = os.fsencode(os.readlink(f"/proc/{pid}/cwd"))
        except OSError:
            cwd = b""
        belongs = mark in cmdline or cwd == mark or cwd.startswith(mark + b"/") or mark in read_proc(pid, "environ")
        if belongs and is_running(pid):
            found[pid] = cmdline.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def kill_all_of(directory, spare=()):
    for _ in range(200):
        found = processes_of(directory, spare)
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
    raise RuntimeError(f"could not end: {processes_of(directory, spare)}")


def unmount_all_below(directory):
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(str(directory) + "/")), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False)


def end_in_time():
    """Fails a script shortly before ctest would end it without a word: every thread's place is printed, and clean-up prints the logs."""
    seconds = int(os.environ.get("GUESTAGENT_TEST_SECONDS", "0"))
    if not seconds:
        return

    def late(*_):
        faulthandler.dump_traceback(all_threads=True)
        raise TimeoutError(f"not done in {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)


class Scratch:
    """The directory. A context manager: on leaving, all its processes are ended and it is removed. With GUESTAGENT_KEEP=1 in the
    environment a failed test leaves the files (never the processes) and says where."""

    def __init__(self, name, parent=None, prefix="ga"):
        parent = parent or os.environ.get("GUESTAGENT_LAB_DIR") or tempfile.gettempdir()
        self.dir = Path(tempfile.mkdtemp(prefix=f"{prefix}-{name}-", dir=parent))
        self.detached = False
        self.children = []
        self.secrets = {}  # what -> text that must be in no log and no command line; looked for on leaving
        end_in_time()
        (self.dir / "tmp").mkdir()
        self.env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "TMPDIR": str(self.dir / "tmp"),
            "HOME": str(self.dir),
        }
        for name_, value in os.environ.items():
            if name_.startswith(("GUESTAGENT_FAILPOINT", "ASAN_", "UBSAN_", "TSAN_", "LSAN_")):
                self.env[name_] = value
        self.watchdog = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--watch"],
            stdin=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
        )
        self.watchdog.stdin.write(f"{self.dir}\n".encode())
        self.watchdog.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        found = self.close(failed=kind is not None)
        if found and kind is None:
            raise AssertionError("secrets that can be seen: " + "; ".join(found))

    def spawn(self, argv, **kwargs):
        """A child in a session of its own, with the lab's small environment."""
        kwargs.setdefault("env", self.env)
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        child = subprocess.Popen([str(a) for a in argv], start_new_session=True, **kwargs)
        self.children.append(child)
        return child

    def run(self, argv, **kwargs):
        kwargs.setdefault("env", self.env)
        if "input" not in kwargs:
            kwargs.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([str(a) for a in argv], **kwargs)

    def processes(self):
        return processes_of(self.dir, spare=(self.watchdog.pid,))

    def detach(self):
        """Lets everything go on without this process; `python3 scratch.py --end DIR` ends it."""
        self.detached = True
        self.watchdog.stdin.write(b"let go\n")
        self.watchdog.stdin.close()
        self.watchdog.wait()

    def close(self, failed=False):
        """Answers where secrets were seen."""
        if self.detached:
            return []
        commands = self.processes()
        end(self.dir, spare=(self.watchdog.pid,), remove=False)
        found = self.secrets_seen(commands)
        for child in self.children:
            child.wait()
        if failed and os.environ.get("GUESTAGENT_KEEP"):
            log(f"kept: {self.dir}")
            self.detach()
            return found
        shutil.rmtree(self.dir, ignore_errors=True)
        self.watchdog.stdin.close()
        self.watchdog.wait()
        return found

    def secrets_seen(self, commands):
        """Where one of the secrets is, and of the replication passwords that job records hold, in the run's logs and in `commands` (pid ->
        command line). A server's general log has what the lab itself typed, so that one is looked at by the tests that turn it on.
        """
        secrets = {text.encode(): what for what, text in self.secrets.items()}
        logs = []
        for folder, dirs, names in os.walk(self.dir):
            if os.path.basename(folder) == "jobs":
                for name in names:
                    secrets.update(
                        (s, "a replication password")
                        for s in re.findall(rb'"password":\s*"([^"*]{8,})"', _content(folder, name))
                    )
            logs += [
                (folder, n)
                for n in names
                if n.endswith((".log", ".out", ".err")) and n != "general.log" and "slow" not in n
            ]
        seen = [
            f"{what} in the command line of {pid}"
            for pid, line in commands.items()
            for s, what in secrets.items()
            if s in line.encode()
        ]
        for folder, name in logs:
            text = _content(folder, name)
            seen += [f"{what} in {os.path.join(folder, name)}" for s, what in secrets.items() if s in text]
        return sorted(set(seen))


def _content(folder, name):
    path = os.path.join(folder, name)
    if not os.path.isfile(path):  # to open a pipe would wait for whoever writes to it
        return b""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def end(directory, spare=(), remove=True):
    kill_all_of(directory, spare)
    unmount_all_below(directory)
    if remove:
        shutil.rmtree(directory, ignore_errors=True)


def watch():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    directory = sys.stdin.readline().strip()
    if directory and not sys.stdin.readline():
        end(directory)


if __name__ == "__main__":
    if sys.argv[1:] == ["--watch"]:
        watch()
    elif len(sys.argv) == 3 and sys.argv[1] == "--end":
        end(os.path.abspath(sys.argv[2]))
    else:
        sys.exit("usage: scratch.py --end DIR")
