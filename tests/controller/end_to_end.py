#!/usr/bin/python3
"""The design from one end to the other on real servers: four hosts with addresses of their own, TLS between controller and agents, a real
Swift, two commands from a shell, and the design's two documents."""

import json
import sys

from control import log, wait_for
from hosts import Hosts, source_accounts
from load import seed
from mariadb import assert_same, at_one_position

EXPIRY = "SELECT @@binlog_expire_logs_seconds"


def check_equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r}, should be {wanted!r}")


def document(source, *replicas):
    """As the design writes it, key for key."""
    members = [{"id": source, "name": "master"}]
    members += [
        {"id": i, "name": name, "mysql": {"slave_of": [{"id": source}], "read_only": True}} for i, name in replicas
    ]
    return json.dumps({"topology": {"members": members}}, separators=(",", ":")) + "\n"


def same_data(source, replicas):
    """All that is written on the source, its events' rows too, is on each replica."""
    _, sums = at_one_position(source, replicas, lambda server: server.checksums())
    assert_same("checksums", [source, *replicas], sums)


def run(lab):
    c = lab.controller
    hosts = [lab.add(name, n) for n, name in enumerate(("master", "slave1", "slave2", "slave3"), 11)]
    source, spares = hosts[0].server, hosts[1:]
    seed(source, 20, quiet=True)
    source.sql("SET GLOBAL binlog_expire_logs_seconds=3600")
    ids = {}
    for host in hosts:
        out, _ = lab.command("register", host.url, "--name", host.name, "--json")
        ids[host.name] = json.loads(out)["instance"]["id"]

    out, _ = lab.command("replicate", "master", "2", "--read-only=true", "--json")
    task = json.loads(out)["task"]
    check_equal(task["state"], "succeeded", "the task")
    made = [(r["id"], r["name"]) for r in task["replicas"]]
    replicas = [next(h for h in spares if h.name == name) for _, name in made]
    check_equal(len(replicas), 2, "replicas")
    for member in (ids["master"], *(i for i, _ in made)):
        check_equal(
            c.request("GET", f"/instances/{member}/topology")[1].decode(),
            document(ids["master"], *made),
            f"the topology from {member}",
        )
        check_equal(
            {"topology": c.instance(member)["topology"]},
            json.loads(document(ids["master"], *made)),
            f"the topology in {member}",
        )
    check_equal(lab.objects(), [], "left of the snapshot on Swift")
    check_equal(len(source_accounts(source)), 1, "accounts of one snapshot")
    if source.value(EXPIRY) == "3600":
        raise AssertionError("there is no lease on the binary logs while replicas follow")

    source.sql(
        "CREATE TABLE lab.seen (id INT PRIMARY KEY, word VARCHAR(30)); INSERT INTO lab.seen VALUES (1, 'by all')"
    )
    same_data(source, [host.server for host in replicas])
    for host in replicas:
        check_equal(host.server.value("SELECT word FROM lab.seen"), "by all", f"read on {host.name}")
        check_equal(host.server.value("SELECT @@read_only"), "1", f"read_only of {host.name}")
        status = host.server.slave_status()
        check_equal(
            (status["Master_Host"], status["Slave_IO_Running"], status["Slave_SQL_Running"]),
            (hosts[0].address, "Yes", "Yes"),
            host.name,
        )
    numbers = [h.server.value("SELECT @@server_id") for h in (hosts[0], *replicas)]
    check_equal(len(set(numbers)), 3, f"different server_ids of {numbers}")
    wait_for("verdicts", lambda: all(c.instance(i)["status"]["verdict"] == "healthy" for i, _ in made), 30)
    for _, name in made:
        if name not in lab.command("topology")[0]:
            raise AssertionError(f"{name} is not in the tree")

    gone, stays = replicas
    lab.command("detach_replication", gone.name)
    left = document(ids["master"], made[1])
    for member in (ids["master"], made[1][0]):
        check_equal(
            c.request("GET", f"/instances/{member}/topology")[1].decode(),
            left,
            f"the topology from {member} after the detach",
        )
    check_equal(gone.server.slave_status(), {}, "replication settings of the detached")
    gone.server.sql("INSERT INTO lab.seen VALUES (2, 'its own')")
    source.sql("INSERT INTO lab.seen VALUES (3, 'of the source')")
    same_data(source, [stays.server])
    check_equal(gone.server.sql("SELECT id FROM lab.seen ORDER BY id"), [("1",), ("2",)], "rows of the detached")
    check_equal(len(source_accounts(source)), 1, "accounts while one follows")

    lab.command("detach-replication", stays.name)
    check_equal(
        c.request("GET", f"/instances/{ids['master']}/topology")[1].decode(),
        document(ids["master"]),
        "the last topology",
    )
    check_equal(source_accounts(source), [], "accounts when nobody follows")
    check_equal(source.value(EXPIRY), "3600", "the lease when nobody follows")


def main():
    with Hosts("end") as lab:
        run(lab)
    log("end to end: good")


if __name__ == "__main__":
    sys.exit(main())
