"""The main job, told in plain words: what ./quickstart runs once the program is built."""

import contextlib
import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from agent import Agent, Calls, binary
from load import Writer, numbered, seed
from mariadb import ME, MariaDB, at_one_position
from scratch import Scratch, wait_for

LONG = 58


@contextlib.contextmanager
def step(words):
    """`words` may be filled in while the step runs: words.say("…")."""

    class Say:
        text = words

        def __call__(self, text):
            self.text = text

    say, started, terminal = Say(), time.monotonic(), sys.stdout.isatty()
    if terminal:
        print(f"{words} …", end="\r", flush=True)
    yield say
    print(f"{say.text:<{LONG}} {time.monotonic() - started:6.1f} s" + ("\033[K" if terminal else ""), flush=True)


def size(n):
    return f"{n / 1e9:.2f} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"


def table(rows):
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("    " + "  ".join(str(cell).ljust(w) for cell, w in zip(row, widths)).rstrip())


def status_table(agents):
    rows = [("HOST", "ROLE", "VERDICT", "READ ONLY", "LAG", "APPLIED")]
    for name, agent in agents.items():
        s = agent.call("get_replication_status")
        position = s.get("position") or {}
        at = position.get("applied") or position.get("source") or {}
        lag = f"{s['lag_seconds']:.1f} s" if isinstance(s.get("lag_seconds"), (int, float)) else "-"
        rows.append(
            (
                name,
                s["role"],
                s["verdict"],
                {True: "yes", False: "no"}.get(s.get("read_only"), "-"),
                lag,
                at.get("gtid") or "-",
            )
        )
    table(rows)


def tell(scratch, keep):
    servers = {}
    with step("Started three MariaDB servers: source, replica1, replica2"):
        for number, name in enumerate(("source", "replica1", "replica2"), 1):
            servers[name] = MariaDB(scratch, name, 100 + number)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda s: s.initialise().start(), servers.values()))
    source, replica1, replica2 = servers.values()
    with step("Started a guestagent beside each"):
        agents = {
            name: Agent(scratch, s, scratch.dir / "store").create_account().start() for name, s in servers.items()
        }
    with step("Wrote data on the source") as say:
        megabytes = seed(source, 200, quiet=True)
        writers = [Writer(source, 1), Writer(source, 2)]
        for writer in writers:
            writer.start()
        say(f"Wrote {megabytes} MB in 20 tables on the source; two writers go on")
    with step("Took a snapshot of the source") as say:
        before = sum(w.done for w in writers)
        snapshot = agents["source"].call("get_replication_snapshot")
        s = snapshot["snapshot"]
        say(f"Took a snapshot: {size(s['raw_bytes'])}, stored as {size(s['stored_bytes'])} in {s['segments']} segments")
    print(
        f"    position {snapshot['binlog_position']['gtid']}; {sum(w.done for w in writers) - before} transactions were committed meanwhile"
    )
    with step("Attached both replicas at once"):
        calls = [
            Calls(agents[name].call, "attach_replication_slave", {"snapshot": snapshot})
            for name in ("replica1", "replica2")
        ]
        for call in calls:
            call.result()
    print("Rows arrive on the replicas; one table counted in turn:")
    rows = [("", "replica1", "replica2", "source")]
    for _ in range(3):
        rows.append(
            (
                f"at {time.strftime('%H:%M:%S')}",
                *(s.value("SELECT COUNT(*) FROM load_.w1_a") for s in (replica1, replica2, source)),
            )
        )
        time.sleep(1)
    table(rows)
    with step("Compared all tables at one position") as say:
        position, sums = at_one_position(source, [replica1, replica2], lambda s: s.checksums())
        for other in sums[1:]:
            if other != sums[0] or not other:
                raise AssertionError("the checksums differ")
        say(f"Checksums of {len(sums[0])} tables at {position} are equal on all three")
    status_table(agents)
    with step("Detached replica1: all it had received is applied") as say:
        result = agents["replica1"].call("detach_replication_slave")
    print(
        f"    last applied {result['last_applied']['gtid']}, {numbered(replica1, 1) + numbered(replica1, 2)} numbered transactions, none missing"
    )
    with step("Wrote on replica1: it is a server of its own now"):
        replica1.sql("CREATE TABLE lab.mine (id INT PRIMARY KEY); INSERT INTO lab.mine VALUES (1)")
    has = {
        name: s.value("SELECT COUNT(*) FROM information_schema.tables WHERE table_name='mine'")
        for name, s in servers.items()
    }
    counts = [replica1.value("SELECT COUNT(*) FROM load_.w1_a")]
    wait_for(
        "new rows on replica2", lambda: int(replica2.value("SELECT COUNT(*) FROM load_.w1_a")) > int(counts[0]) + 20
    )
    counts += [s.value("SELECT COUNT(*) FROM load_.w1_a") for s in (replica1, replica2)]
    if list(has.values()) != ["0", "1", "0"] or counts[0] != counts[1]:
        raise AssertionError(f"replica1 still follows: {has} {counts}")
    print(f"    its table is on no other server; it stays at {counts[1]} rows while replica2 has {counts[2]}")
    status_table(agents)
    for writer in writers:
        writer.stop()
    if keep:
        explain(scratch, servers, agents)


def explain(scratch, servers, agents):
    print(f"\nAll of it goes on running in {scratch.dir}. The writers have stopped. Talk to it:\n")
    agent = agents["replica2"]
    print(f"  mariadb --socket={servers['source'].socket} --user={ME}          # or replica1, replica2")
    print(
        f'  curl --unix-socket {agent.socket} -d \'{{"jsonrpc":"2.0","id":1,"method":"get_replication_status"}}\' http://agent/rpc'
    )
    print(f"  {binary()} --config {agent.config_file} call get_info")
    print(
        f"\nEnd it and remove it:\n\n  python3 {os.path.dirname(os.path.abspath(__file__))}/scratch.py --end {scratch.dir}"
    )


def main():
    keep = "--keep" in sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    scratch = Scratch("quickstart")
    try:
        tell(scratch, keep)
    except (Exception, KeyboardInterrupt) as e:
        logs = tempfile.mkdtemp(prefix="guestagent-quickstart-logs-")
        for log in [*scratch.dir.glob("*/agent.log"), *scratch.dir.glob("*/log/*.log")]:
            target = "-".join(log.relative_to(scratch.dir).parts)
            with contextlib.suppress(OSError):
                with open(os.path.join(logs, target), "wb") as out:
                    out.write(log.read_bytes())
        scratch.close()
        print(
            f"\nThat did not work: {type(e).__name__}: {e}\nThe logs of the servers and agents are in {logs}; every process was ended.",
            file=sys.stderr,
        )
        return 1
    if keep:
        scratch.detach()
        return 0
    with step("Stopped and removed everything"):
        scratch.close()
    print(f"Done in {time.monotonic() - started:.0f} s. ./quickstart --keep leaves it running; ./test runs the tests.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
