#!/usr/bin/python3
"""A set of replicas that gets another source, on real servers under writers that ask the controller where to write: promoted round and
round, refused, undone, and ejected when the source is dead. Not one acknowledged transaction may be lost or done twice.
roles.py [ROUNDS]"""

import json
import statistics
import sys
import threading
import time

from control import log, wait_for  # first: it finds the others
from agent import RpcError
from end_to_end import check_equal, document, same_data
from hosts import Hosts, source_accounts
from load import AppAccount, seed_small
from mariadb import SqlError


class Client(threading.Thread):
    """Inserts rows of its own numbers at whoever the controller says is the source; `acknowledged` has the numbers that were."""

    def __init__(self, number, apps, where):
        super().__init__(daemon=True)
        self.number, self.apps, self.where, self.halt = number, apps, where, threading.Event()
        self.acknowledged, self.at, self.unknown = [], [], []

    def run(self):
        n, session = 0, None
        while not self.halt.is_set():
            n += 1
            try:
                session = session or self.apps[self.where()].session()
                session.run(f"INSERT INTO lab.acked VALUES ({self.number * 10**7 + n})")
                self.acknowledged.append(self.number * 10**7 + n)
                self.at.append(time.monotonic())
            except SqlError as e:
                # Of a lost connection nobody knows whether the last statement was done.
                if "connection lost" in str(e):
                    self.unknown.append(self.number * 10**7 + n)
                if session:
                    session.close()
                session = None
                time.sleep(0.02)
            time.sleep(0.005)


def outage(clients, since):
    """The longest time after `since` in which no client's transaction was acknowledged."""
    times = sorted(t for c in clients for t in c.at if t >= since - 1)
    return max((b - a for a, b in zip(times, times[1:])), default=0)


class Set:
    def __init__(self, lab, count):
        self.lab, self.c = lab, lab.controller
        self.hosts = {n: lab.add(n, i) for i, n in enumerate(("one", "two", "three", "four")[:count], 11)}
        self.source = "one"
        first = self.hosts["one"].server
        seed_small(first)
        first.sql("CREATE TABLE lab.acked (n INT PRIMARY KEY)")
        AppAccount(first).create()
        self.apps = {n: AppAccount(h.server) for n, h in self.hosts.items()}
        self.ids = {}
        for name, host in self.hosts.items():
            out, _ = lab.command("register", host.url, "--name", name, "--json")
            self.ids[name] = json.loads(out)["instance"]["id"]
        lab.command("replicate", "one", str(count - 1))
        self.clients = [Client(n + 1, self.apps, lambda: self.source) for n in range(4)]
        for client in self.clients:
            client.start()
        self.outages = []

    def topology(self, *names):
        want = document(self.ids[self.source], *((self.ids[n], n) for n in names)).replace(
            '"name":"master"', f'"name":"{self.source}"'
        )
        for name in (self.source, *names):
            got = self.c.request("GET", f"/instances/{self.ids[name]}/topology")[1].decode()
            check_equal(json.loads(got), json.loads(want), f"the topology from {name}")

    def events(self):
        return self.c.call("GET", "/events", headers={"Accept": "application/json"})["events"]

    def task(self, *words, expect=0):
        out, _ = self.lab.command(*words, "--json", expect=expect)
        return json.loads(out)["task"]

    def promote(self, name):
        log(f"promoting {name}")
        began = time.monotonic()
        # Clients ask all the time; here the answer changes when the task says so, as for one that polls.
        watch = threading.Thread(target=self.follow_the_source, args=(name,), daemon=True)
        watch.start()
        task = self.task("promote-to-replica-source", name)
        check_equal((task["state"], task.get("warning")), ("succeeded", None), f"promotion of {name}")
        watch.join(30)
        time.sleep(0.5)
        self.outages.append(outage(self.clients, began))

    def follow_the_source(self, name):
        """As a client's driver that looks for the one that takes writes."""
        app = self.apps[name].server
        wait_for(f"{name} takes writes", lambda: app.value("SELECT @@read_only") == "0", 60, 0.01)
        self.source = name

    def rest(self):
        for client in self.clients:
            client.halt.set()
        for client in self.clients:
            client.join(30)

    def check_rows(self, names):
        acked = sorted(n for c in self.clients for n in c.acknowledged)
        unknown = {n for c in self.clients for n in c.unknown}
        for name in names:
            there = sorted(int(r[0]) for r in self.hosts[name].server.sql("SELECT n FROM lab.acked"))
            lost, invented = set(acked) - set(there), set(there) - set(acked) - unknown
            check_equal((sorted(lost)[:5], sorted(invented)[:5]), ([], []), f"lost and invented on {name}")
        return len(acked)


def planned(lab, rounds):
    team = Set(lab, 3)
    names = ["one", "two", "three"]
    for n in range(rounds):
        name = names[(n + 1) % 3]
        team.promote(name)
        others = sorted((x for x in names if x != name), key=names.index)
        got = team.c.instance(team.ids[name])["topology"]["members"]
        check_equal(sorted(m["name"] for m in got), sorted(names), "members")
        check_equal(got[0]["name"], name, "the source")
        for other in others:
            check_equal(team.hosts[other].server.value("SELECT @@read_only"), "1", f"read_only of {other}")
            wait_for(
                f"{other} healthy",
                lambda o=other: team.c.instance(team.ids[o])["status"]["verdict"] == "healthy",
                30,
            )
    # What cannot be: no replica; a replica whose applying thread stands. Nothing is changed by it.
    out, err = lab.command("promote-to-replica-source", team.source, expect=19)
    check_equal("not a replica" in err, True, err)
    behind = next(n for n in names if n != team.source)
    team.hosts[behind].server.sql("STOP SLAVE SQL_THREAD")
    task = team.task("promote-to-replica-source", behind, expect=19)
    check_equal(task["state"], "failed", "promotion of one that does not apply")
    wait_for("the source takes writes", lambda: team.hosts[team.source].server.value("SELECT @@read_only") == "0", 30)
    check_equal(
        team.c.instance(team.ids[team.source])["topology"]["members"][0]["name"], team.source, "still the source"
    )
    team.hosts[behind].server.sql("START SLAVE SQL_THREAD")
    # A replica that has parted from its source is made anew in its place, under the same number.
    server, number = team.hosts[behind].server, team.hosts[behind].server.value("SELECT @@server_id")
    server.sql("DELETE FROM lab.acked LIMIT 1")
    wait_for("diverged", lambda: team.c.instance(team.ids[behind])["status"]["verdict"] in ("diverged", "broken"), 30)
    members = team.c.instance(team.ids[behind])["topology"]["members"]
    task = team.task("rebuild", behind)
    check_equal(task["state"], "succeeded", "the rebuild")
    check_equal(server.value("SELECT @@server_id"), number, "server_id")
    check_equal(team.c.instance(team.ids[behind])["topology"]["members"], members, "its place")
    wait_for("healthy", lambda: team.c.instance(team.ids[behind])["status"]["verdict"] == "healthy", 30)
    team.rest()
    source = team.hosts[team.source].server
    same_data(source, [h.server for n, h in team.hosts.items() if n != team.source])
    count = team.check_rows(names)
    for name, host in team.hosts.items():
        # That of the last promotion, and that of the rebuild.
        check_equal(len(source_accounts(host.server)), 2, f"replication accounts on {name}")
    log(
        f"{rounds} promotions, {count} transactions acknowledged, none lost; write outage median "
        f"{statistics.median(team.outages):.2f} s, longest {max(team.outages):.2f} s"
    )
    return team


def ejected(lab, team):
    """The source dies; the most advanced replica takes over, and the old source is fenced when it comes back."""
    names = ["one", "two", "three"]
    old, ahead, behind = team.source, *(n for n in names if n != team.source)
    lab.command("eject-replica-source", old, expect=19)
    wait_for("tasks", lambda: all(t["state"] != "running" for t in team.c.get("/tasks")["tasks"]), 30)
    server = team.hosts[old].server
    team.hosts[behind].server.sql("STOP SLAVE IO_THREAD")
    server.sql("INSERT INTO lab.acked VALUES (1)")
    wait_for("row 1", lambda: team.hosts[ahead].server.value("SELECT COUNT(*) FROM lab.acked WHERE n=1") == "1", 30)
    # Received by one, applied by none: its applying thread was stopped by somebody.
    team.hosts[ahead].server.sql("STOP SLAVE SQL_THREAD")
    server.sql("INSERT INTO lab.acked VALUES (2)")
    last = server.position()
    wait_for("row 2 there", lambda: last in team.hosts[ahead].server.slave_status()["Gtid_IO_Pos"], 30)
    server.kill9()
    team.hosts[behind].server.sql("START SLAVE IO_THREAD")
    task = team.task("eject-replica-source", old)
    check_equal((task["state"], task["target_id"]), ("succeeded", team.ids[ahead]), "the eject")
    team.source = ahead
    team.topology(behind)
    team.hosts[ahead].server.sql("INSERT INTO lab.acked VALUES (3)")
    same_data(team.hosts[ahead].server, [team.hosts[behind].server])
    check_equal(
        team.hosts[ahead].server.sql("SELECT n FROM lab.acked WHERE n < 10 ORDER BY n"),
        [("1",), ("2",), ("3",)],
        "rows",
    )
    server.start()
    wait_for("the fence", lambda: server.value("SELECT @@read_only") == "1", 60)
    wait_for("its word", lambda: any("refuses writes" in e["message"] for e in team.events()), 30)
    server.restart()
    check_equal(server.value("SELECT @@read_only"), "1", "the fence after a restart")
    # What it has for itself alone is counted, not taken along.
    server.sql("INSERT INTO lab.acked VALUES (4)")
    source = team.hosts[ahead].agent.call("open_replication_source")

    def refusal():
        try:
            team.hosts[old].agent.call("attach_replication_slave", {"snapshot": source})
            raise AssertionError("a source with a transaction of its own was attached")
        except RpcError as e:
            return e if e.code != "BUSY" else None  # its accounts are being dropped

    refused = wait_for("a refusal", refusal, 30)
    check_equal((refused.code, "1 transaction: " in str(refused)), ("FAILED_PRECONDITION", True), str(refused))
    log("ejected: the most advanced took over, the old source is fenced")


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    with Hosts("roles") as lab:
        ejected(lab, planned(lab, rounds))
    print(f"roles: {rounds + 4} cases, 0 failed")


if __name__ == "__main__":
    sys.exit(main())
