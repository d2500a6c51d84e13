#!/usr/bin/python3
"""A source with a small redo log under heavy writes, and a store of 5 MB/s. With the spill the snapshot succeeds; without it the same
run holds up the backup tool until its redo log is overrun, which is told as that, with nothing left. Depends on the machine's speed,
so it is a heavy run."""

import argparse
import sys
import threading
import time

from testsite import *  # noqa: F403
from slow_link import SlowLink  # noqa: E402

REDO = "innodb-log-file-size=16M"


class SpillWatch(threading.Thread):
    """The most bytes that waited on disk."""

    def __init__(self, directory):
        super().__init__(daemon=True)
        self.directory, self.most, self.halt = directory, 0, threading.Event()
        self.start()

    def run(self):
        while not self.halt.wait(0.2):
            total = 0
            for path in self.directory.rglob("*"):
                try:
                    total += path.stat().st_size if path.is_file() else 0
                except OSError:
                    pass
            self.most = max(self.most, total)

    def stop(self):
        self.halt.set()
        self.join()
        return self.most


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--mb", type=int, default=500)
    options.add_argument("--rate", type=int, default=5_000_000)
    o = options.parse_args()
    failed = 0
    with Site("slow-store", "swift") as site:
        with step("a server with 16 MiB of redo log, data, four writers"):
            source = site.server("source", 1, options=(REDO, "innodb-buffer-pool-size=256M"))
            seed(source, o.mb)
            link = site.stack.enter_context(SlowLink(site.swift.ports["proxy"], o.rate))
            store = {
                **site.store,
                "swift": {**site.store["swift"], "storage_url": f"http://127.0.0.1:{link.port}/v1/AUTH_test"},
            }
            writers = [Writer(source, n, pause=0, body_bytes=20000) for n in range(1, 5)]
            for writer in writers:
                writer.start()
            agent = site.agent(source, store=store)
        for what, spill in (("with the spill", "4GiB"), ("without it", 0)):
            agent.stop()
            agent.write_config({"snapshot": {"spill": {"max_size": spill}}})
            agent.start()
            try:
                run(site, source, agent, what, spill)
            except Exception as e:
                failed += 1
                log(f"{what}: FAILED: {e}")
        for writer in writers:
            writer.stop()
    print(f"slow_store: 2 cases, {failed} failed")
    return 1 if failed else 0


def lsn(source):
    return int(
        source.value(
            "SELECT variable_value FROM information_schema.global_status WHERE variable_name='innodb_lsn_current'"
        )
    )


def run(site, source, agent, what, spill):
    watch, redo, started, error, snapshot = SpillWatch(agent.dir / "spill"), lsn(source), time.monotonic(), None, None
    try:
        snapshot = agent.call("get_replication_snapshot", {"snapshot_id": "spilled" if spill else "held-up"})
    except RpcError as e:
        error = e
    took, waited = time.monotonic() - started, watch.stop()
    written = (lsn(source) - redo) / 1e6
    log(
        f"{what}: {'failed' if error else 'succeeded'} after {took:.0f} s; {written:.0f} MB of redo were written meanwhile; "
        f"at most {waited / 1e6:.0f} MB waited on disk"
    )
    check_equal(site.leftovers(agent), [], "leftovers")
    if spill:
        check(error is None, f"{error}")
        check(waited > 0, "nothing had to wait on disk: the store was not slow")
        href = snapshot["dataset"]["snapshot_href"]
        check_equal(agent.call("verify_replication_snapshot", {"snapshot_href": href})["ok"], True, "verify")
        agent.call("delete_replication_snapshot", {"snapshot_href": href})
    else:
        check(error is not None, "it succeeded: the source did not write enough to show anything")
        log(str(error))
        check_equal(error.code, "RESOURCE_EXHAUSTED", "code")
        check("redo" in f"{error.message} {error.hint}", str(error))
        check_equal(site.swift.objects("replicas"), [], "objects left on the store")


if __name__ == "__main__":
    sys.exit(main())
