"""What the integration tests have in common: a source, empty targets, an agent for each, and a store."""

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

from agent import Agent, Calls, OneshotError, RpcError, binary  # noqa: E402,F401
from engines import Unavailable, fetch  # noqa: E402,F401
from load import Writer, numbered, seed, seed_small  # noqa: E402,F401
from mariadb import ErrantWatch, MariaDB, SqlError, assert_same, at_one_position  # noqa: E402,F401
from metrics import check_metrics  # noqa: E402,F401
from mysql import MySQL  # noqa: E402,F401
from mysql56 import MySQL56  # noqa: E402,F401
from proxy import Proxy  # noqa: E402,F401
from scratch import Scratch, is_running, log, processes_of, wait_for  # noqa: E402,F401


def check(condition, what):
    """A fact that must hold; unlike assert it cannot be switched off."""
    if not condition:
        raise AssertionError(what)


def check_equal(got, wanted, what):
    check(got == wanted, f"{what}: {got!r}, should be {wanted!r}")


DOCS = Path(__file__).resolve().parents[2] / "docs"


def told_rights(kind="mariadb"):
    """What docs/accounts.md says that the agent's account needs, as the text between GRANT and TO."""
    found = re.findall(
        r"GRANT ([A-Z_, \n]+ ON \*\.\*)\s+TO guestagent@localhost WITH GRANT OPTION;",
        (DOCS / "accounts.md").read_text(),
    )
    kinds = ("mariadb", "mysql", "mysql-5")
    check_equal(len(found), len(kinds), "how often docs/accounts.md says which rights the agent's account needs")
    return " ".join(found[kinds.index(kind)].split())


@contextlib.contextmanager
def step(what):
    started = time.monotonic()
    log(f"{what} …")
    yield
    log(f"{what}: {time.monotonic() - started:.1f} s")


# A row of the matrix: whose servers the source and the replicas are, by engines.py; None is what this machine has installed.
ENGINES = {
    "mariadb": (None, None),
    "mariadb-11.8": ("mariadb-next", "mariadb-next"),
    "10.11-to-11.8": (None, "mariadb-next"),
    "mysql-5.6": ("mysql-5.6", "mysql-5.6"),
    "mysql-clone": ("mysql-new", "mysql-new"),
    "11.8-to-10.11": ("mariadb-next", None),  # is refused
}
SKIPPED = 77  # ctest: not run; ./test names it, and fails on it where CI is set


def run_row(engine, test):
    """The exit status of `test(engine)`. A row whose servers can be had neither from the cache nor from the network is skipped."""
    try:
        test(engine)
        return 0
    except Unavailable as e:
        log(f"SKIPPED: row {engine}: {e}")
        return SKIPPED


def doing(server):
    """A server's sessions, for whoever reads why a test waited in vain."""
    try:
        return "\n".join("  ".join(row) for row in server.sql("SHOW FULL PROCESSLIST", timeout=10))
    except (SqlError, subprocess.TimeoutExpired) as e:
        return str(e)[:500]


def only_parts(work):
    """Whether the agent's directory has nothing but what interrupted attaches had fetched (safety/resume.py)."""
    if not work.is_dir():
        return False
    names = {p.name for p in work.iterdir()}
    parts = {n.removesuffix(".placed") for n in names if n.endswith(".placed")}
    return bool(parts) and names == parts | {p + ".placed" for p in parts}


class Site:
    """A context manager. `store`: "local" or "swift" (with the lab's options for it); `by`: "daemon" or "oneshot", how call()
    reaches the agents; `engine`: a row of ENGINES. When the test fails, the ends of all logs are printed."""

    def __init__(self, name, store="local", by="daemon", engine="mariadb", **swift_options):
        self.name, self.store_kind, self.by, self.engine, self.swift_options = name, store, by, engine, swift_options
        self.tools = {
            role: fetch(kind).tools if kind else None for role, kind in zip(("source", "replica"), ENGINES[engine])
        }
        self.stack = contextlib.ExitStack()
        self.servers, self.agents = [], {}

    def __enter__(self):
        self.scratch = self.stack.enter_context(Scratch(self.name))
        if self.store_kind == "swift":
            from swift import Swift

            self.swift = self.stack.enter_context(Swift(self.scratch.dir / "swift", **self.swift_options))
            self.store = self.swift.storage("replicas", "lab")
            self.scratch.secrets["the Swift key"] = self.swift.key
        else:
            self.store_dir = self.scratch.dir / "store"
            self.store = {"store": "local", "local": {"path": str(self.store_dir)}}
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            for agent in self.agents.values():
                log(f"--- end of the log of the agent of {agent.server.name}:\n{agent.log_tail(60)}")
            for server in self.servers:
                log(f"--- end of the error log of {server.name}:\n{server.log_tail(25)}")
                log(f"--- what {server.name} does:\n{doing(server)}")
        self.stack.__exit__(kind, error, trace)

    def server(self, name, server_id, role="source", **how):
        kind = {"mysql-clone": MySQL, "mysql-5.6": MySQL56}.get(self.engine, MariaDB)
        server = kind(self.scratch, name, server_id, tools=self.tools[role], **how).initialise().start()
        log(f"{name}: {server.value('SELECT @@version')}")
        self.servers.append(server)
        return server

    def agent(self, server, start=True, grants="ALL PRIVILEGES ON *.*", store=None, **how):
        agent = Agent(self.scratch, server, store or self.store, **how)
        if server.answers():
            agent.create_account(grants=grants)
        self.agents[agent.dir.name] = agent
        if self.by == "daemon" and start:
            agent.start()
        return agent

    def call(self, agent, method, params=None):
        return agent.call(method, params) if self.by == "daemon" else agent.oneshot(method, params)

    def store_files(self):
        """name -> digest of everything in a local store."""
        return {
            str(p.relative_to(self.store_dir)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(self.store_dir.rglob("*"))
            if p.is_file()
        }

    def healthy(self, agent, timeout=60):
        last = {}

        def verdict():
            last.update(self.call(agent, "get_replication_status"))
            return dict(last) if last.get("verdict") == "healthy" else None

        try:
            return wait_for(f"verdict healthy of {agent.server.name}", verdict, timeout, 0.3)
        except TimeoutError as e:
            raise TimeoutError(f"{e}; it is {last}") from None

    def leftovers(self, agent):
        """What a finished job of an agent must not leave behind: staging directories, spill, tool processes, open journals."""
        found = [str(p) for p in agent.server.dir.iterdir() if "guestagent" in p.name and not only_parts(p)]
        found += [
            str(p)
            for d in ("spill", "state")
            if (agent.dir / d).exists()
            for p in (agent.dir / d).rglob("*")
            if p.is_file() and (d == "spill" or p.suffix == ".journal")
        ]
        found += [
            line
            for line in self.scratch.processes().values()
            if any(t in line for t in ("mariadb-backup", "mbstream", "xtrabackup", "xbstream"))
        ]
        return found
