#!/usr/bin/python3
"""The V1 API and the task manager's flow, end to end over HTTP, on agents without databases."""

import json
import re
import socket
import unittest

from control import *  # noqa: F403

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}")


class Flow(SiteTest):
    def test_the_two_documents_of_the_design(self):
        site = self.site("design")
        c = site.controller
        # The design's own request, with its template.
        answer = c.post(
            "/instances/m/action",
            {
                "replicate": {
                    "count": 2,
                    "instance": {"availability_zone": "us-west-2", "flavorRef": "7", "volume": {"size": 1}},
                    "topology": {"slave_of": [{"id": "m"}], "read_only": True},
                }
            },
        )
        self.assertEqual([i["id"] for i in answer["instances"]], ["s1", "s2"])
        task = c.wait_task(answer["task"]["id"])
        self.assertEqual(task["state"], "succeeded", task)
        wanted = (
            '{"topology":{"members":[{"id":"m","name":"master"},'
            '{"id":"s1","name":"slave1","mysql":{"slave_of":[{"id":"m"}],"read_only":true}},'
            '{"id":"s2","name":"slave2","mysql":{"slave_of":[{"id":"m"}],"read_only":true}}]}}\n'
        )
        for member in ("m", "s1", "s2"):
            self.assertEqual(c.request("GET", f"/instances/{member}/topology")[1].decode(), wanted)
            self.assertEqual({"topology": c.instance(member)["topology"]}, json.loads(wanted))
        site.nothing_left(accounts=1)

        answer = c.post("/instances/s1/topology/action", {"detach": {}})
        self.assertEqual(c.wait_task(answer["task"]["id"])["state"], "succeeded")
        wanted = (
            '{"topology":{"members":[{"id":"m","name":"master"},'
            '{"id":"s2","name":"slave2","mysql":{"slave_of":[{"id":"m"}],"read_only":true}}]}}\n'
        )
        self.assertEqual(c.request("GET", "/instances/m/topology")[1].decode(), wanted)
        self.assertEqual(c.topology("s1")["topology"]["members"], [{"id": "s1", "name": "slave1"}])
        site.nothing_left(accounts=1)

        c.wait_task(c.detach("s2")["task"]["id"])
        self.assertEqual(c.topology("m")["topology"]["members"], [{"id": "m", "name": "master"}])
        site.nothing_left(accounts=0)

    def test_what_agents_are_asked(self):
        site = self.site("asked", source_id=4000000000)
        c = site.controller
        task = c.wait_task(c.replicate("m", 3, read_only=False)["task"]["id"])
        self.assertEqual(task["state"], "succeeded")
        self.assertEqual(len(site.done(site.source, "get_replication_snapshot")), 1)
        ids = {h.server_id for h in site.hosts} | {site.source.server_id}
        self.assertEqual(len(ids), 4)
        for host in site.hosts:
            method, params = next(call for call in host.calls if call[0] == "attach_replication_slave")
            self.assertEqual(params["slave_config"], {"read_only": False, "server_id": host.server_id})
            self.assertEqual(params["snapshot"]["master"]["host"], "master")
            self.assertEqual(c.instance(site.id_of(host))["server_id"], host.server_id)
            self.assertRegex(site.done(host, "attach_replication_slave")[0], r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
        # The number never changes: not by leaving and not by another controller process.
        before = {h.name: h.server_id for h in site.hosts}
        c.wait_task(c.detach("s2")["task"]["id"])
        c.stop()
        c.start()
        self.assertEqual({h.name: c.instance(site.id_of(h))["server_id"] for h in site.hosts}, before)

    def test_one_of_three_fails_and_retry_completes(self):
        site = self.site("third")
        c = site.controller
        site.hosts[2].fail["attach_replication_slave"] = ("RESOURCE_EXHAUSTED", "receiving: no space left on device", 1)
        task_id = c.replicate("m", 3)["task"]["id"]
        task = c.wait_task(task_id)
        self.assertEqual(task["state"], "failed")
        self.assertEqual([r["state"] for r in task["replicas"]], ["succeeded", "succeeded", "failed"])
        self.assertEqual(task["replicas"][2]["error"]["code"], "RESOURCE_EXHAUSTED")
        self.assertIn("no space left", task["replicas"][2]["error"]["message"])
        self.assertIn("1 of 3", task["error"]["message"])
        self.assertEqual(len(c.topology("m")["topology"]["members"]), 3)
        self.assertEqual(c.instance("s3")["state"], "spare")
        site.nothing_left(accounts=1)
        status, out, err = c.command("retry", task_id)
        self.assertEqual(status, 0, err)
        self.assertEqual(len(c.topology("m")["topology"]["members"]), 4)
        self.assertEqual(c.task(task_id)["state"], "succeeded")
        site.nothing_left(accounts=2)
        self.refused(409, "conflict", c.post, f"/tasks/{task_id}/action", {"retry": {}})
        # Both accounts go with their last user.
        for slave in ("s1", "s2", "s3"):
            c.wait_task(c.detach(slave)["task"]["id"])
        site.nothing_left(accounts=0)

    def test_snapshot_that_fails(self):
        site = self.site("nosnap")
        c = site.controller
        site.source.fail["get_replication_snapshot"] = ("UNAVAILABLE", "the store does not answer", 1)
        task_id = c.replicate("m", 2)["task"]["id"]
        task = c.wait_task(task_id)
        self.assertEqual(task["state"], "failed")
        self.assertEqual([r["state"] for r in task["replicas"]], ["failed", "failed"])
        self.assertIn("the store does not answer", task["error"]["message"])
        self.assertEqual([c.instance(i)["state"] for i in ("s1", "s2", "s3")], ["spare"] * 3)
        self.assertEqual([h.calls for h in site.hosts if any(n == "attach_replication_slave" for n, _ in h.calls)], [])
        c.post(f"/tasks/{task_id}/action", {"retry": {}})
        self.assertEqual(c.wait_task(task_id)["state"], "succeeded")
        site.nothing_left(accounts=1)

    def test_agent_that_dies_for_good_and_comes_back(self):
        site = self.site("lost")
        c = site.controller
        site.hosts[1].hold.clear()
        task_id = c.replicate("m", 2)["task"]["id"]
        wait_for("the attach", lambda: any(n == "attach_replication_slave" for n, _ in site.hosts[1].calls))
        site.hosts[1].down()
        task = c.wait_task(task_id)
        self.assertEqual([r["state"] for r in task["replicas"]], ["succeeded", "failed"])
        self.assertEqual(task["replicas"][1]["error"]["code"], "UNAVAILABLE")
        self.assertEqual(c.instance("s2")["state"], "lost")
        self.assertEqual(site.fleet.snapshots, {})
        # Another host takes its place.
        c.post(f"/tasks/{task_id}/action", {"retry": {}})
        self.assertEqual([r["id"] for r in c.wait_task(task_id)["replicas"]], ["s1", "s3"])
        self.assertEqual(c.task(task_id)["state"], "succeeded")
        # When it is there again, it has undone the job, and is free.
        site.hosts[1].hold.set()
        site.hosts[1].up()
        wait_for("the host", lambda: c.instance("s2")["state"] == "spare", 20)
        for slave in ("s1", "s3"):
            c.wait_task(c.detach(slave)["task"]["id"])
        site.nothing_left(accounts=0, staged=1)

    def test_agent_that_was_only_cut_off(self):
        """Its job ends well while the controller has given it up: the replica is taken in, with the account that it needs."""
        site = self.site("cut")
        c = site.controller
        host = site.hosts[0]
        host.hold.clear()
        task_id = c.replicate("m", 1)["task"]["id"]
        wait_for("the attach", lambda: any(n == "attach_replication_slave" for n, _ in host.calls))
        running = site.job(host, "attach_replication_slave")
        site.fleet.run(host._close())
        self.assertEqual(c.wait_task(task_id)["state"], "failed")
        self.assertEqual(len(site.source.accounts), 1)
        site.fleet.snapshots[site.fleet.snapshots_made[0]] = "restored from a copy read before"
        host.hold.set()
        wait_for("the job", lambda: running["state"] == "succeeded")
        site.fleet.snapshots.clear()
        site.fleet.run(host._listen())
        wait_for("the replica", lambda: len(c.topology("m")["topology"]["members"]) == 2, 20)
        self.assertEqual(c.task(task_id)["replicas"][0]["state"], "succeeded")
        c.wait_task(c.detach("s1")["task"]["id"])
        site.nothing_left(accounts=0)

    def test_hosts_fetch_while_the_snapshot_is_made(self):
        site = self.site("staging")
        c = site.controller
        site.hosts[1].lacks = {"stage_replication_snapshot", "discard_staged_snapshot"}
        site.source.hold.clear()
        task_id = c.replicate("m", 2)["task"]["id"]

        def follows():
            replicas = c.task(task_id)["replicas"]
            return replicas[0].get("job", {}).get("phase") == "follow" and replicas

        replicas = wait_for("the first to follow", follows)
        self.assertEqual([r["state"] for r in replicas], ["pending"] * 2)
        self.assertGreater(c.instance("s1")["job"]["progress"]["done_bytes"], 0)
        self.assertEqual(c.task(task_id)["snapshot_job"]["phase"], "copy")
        site.source.hold.set()
        self.assertEqual(c.wait_task(task_id)["state"], "succeeded")
        self.assertEqual([h.resumed for h in site.hosts[:2]], [True, False])
        events = [e["message"] for e in c.call("GET", "/events", headers={"Accept": "application/json"})["events"]]
        told = [e for e in events if "has not fetched the snapshot while it was made" in e]
        self.assertEqual([e.split()[0] for e in told], ["slave2"])
        site.nothing_left(accounts=1)

    def test_cancel(self):
        site = self.site("cancel")
        c = site.controller
        site.source.hold.clear()
        task_id = c.replicate("m", 2)["task"]["id"]
        wait_for("the snapshot", lambda: c.task(task_id).get("snapshot_job", {}).get("phase") == "copy")
        c.post(f"/tasks/{task_id}/action", {"cancel": {}})
        task = c.wait_task(task_id)
        self.assertEqual((task["state"], [r["state"] for r in task["replicas"]]), ("cancelled", ["cancelled"] * 2))
        site.source.hold.set()
        # In the middle of the replicas: one serves, one is stopped.
        site.hosts[1].hold.clear()
        task_id = c.replicate("m", 2)["task"]["id"]
        wait_for("the first", lambda: c.task(task_id)["replicas"][0]["state"] == "succeeded")
        c.post(f"/tasks/{task_id}/action", {"cancel": {}})
        task = c.wait_task(task_id)
        self.assertEqual(
            (task["state"], [r["state"] for r in task["replicas"]]), ("cancelled", ["succeeded", "cancelled"])
        )
        self.assertEqual(site.job(site.hosts[1], "attach_replication_slave")["state"], "cancelled")
        site.nothing_left(accounts=1)
        self.refused(409, "conflict", c.post, f"/tasks/{task_id}/action", {"cancel": {}})

    def test_busy_source_is_waited_for(self):
        site = self.site("busy")
        c = site.controller
        site.source.hold.clear()
        site.source.hold_jobs = "get_replication_snapshot"
        first = c.replicate("m", 1)["task"]["id"]
        wait_for("the first snapshot", lambda: "snapshot_job" in c.task(first))
        second = c.replicate("m", 1)["task"]["id"]
        wait_for("the second to wait", lambda: "waits" in c.task(second).get("snapshot_job", {}).get("note", ""))
        site.source.hold.set()
        self.assertEqual([c.wait_task(t)["state"] for t in (first, second)], ["succeeded"] * 2)
        site.nothing_left(accounts=2)

    def test_store_that_does_not_answer_when_the_snapshot_must_go(self):
        site = self.site("later")
        c = site.controller
        site.source.fail["delete_replication_snapshot"] = ("UNAVAILABLE", "the store is away", 4)
        task = c.wait_task(c.replicate("m", 1)["task"]["id"])
        self.assertEqual(task["state"], "succeeded")
        self.assertIn("still to be removed: snapshot file:///store/", task["warning"])
        self.assertIn("the store is away", task["warning"])
        site.nothing_left(accounts=1)

    def test_chain(self):
        site = self.site("chain")
        c = site.controller
        c.wait_task(c.replicate("m", 1)["task"]["id"])
        task = c.wait_task(c.replicate("s1", 1)["task"]["id"])
        self.assertEqual(task["state"], "succeeded")
        members = c.topology("s2")["topology"]["members"]
        self.assertEqual([m["id"] for m in members], ["m", "s1", "s2"])
        self.assertEqual(members[2]["mysql"]["slave_of"], [{"id": "s1"}])
        self.assertIn("└─ slave1", c.command("topology", "s2")[1])
        self.assertIn("   └─ slave2", c.command("topology")[1])
        self.refused(409, "conflict", c.call, "DELETE", "/instances/s1")
        # In the middle of the chain: it takes its own replica along.
        c.wait_task(c.detach("s1")["task"]["id"])
        self.assertEqual([m["id"] for m in c.topology("s2")["topology"]["members"]], ["s1", "s2"])
        self.assertEqual([m["id"] for m in c.topology("m")["topology"]["members"]], ["m"])

    def test_pool_says_what_none_fits(self):
        site = self.site("pool")
        c = site.controller
        cases = [
            ({"flavorRef": "8"}, 1, "flavor 8: no free host has it (there are: 7)"),
            ({"availability_zone": "eu"}, 1, "availability_zone eu: no free host has it (there are: us-west-2)"),
            ({"volume": {"size": 11}}, 1, "volume size 11 GiB or more: no free host has it (there are: 10 GiB)"),
            ({"nics": [{"net-id": "n1"}]}, 1, "nics"),
            ({"flavorRef": 7}, 4, "only 3 of the 3 free hosts fit"),
        ]
        for template, count, words in cases:
            self.assertIn(words, self.refused(409, "conflict", c.replicate, "m", count, template))
        self.assertEqual(c.get("/tasks")["tasks"], [])
        self.assertEqual([i["state"] for i in c.get("/instances")["instances"]], ["active"] + ["spare"] * 3)

    def test_too_small_a_volume(self):
        site = self.site("small")
        c = site.controller
        site.fleet.dataset_size = 11
        task = c.wait_task(c.replicate("m", 1)["task"]["id"])
        self.assertEqual(task["replicas"][0]["error"]["code"], "FAILED_PRECONDITION")
        self.assertIn("needs 11 GiB", task["replicas"][0]["error"]["message"])
        self.assertEqual([n for n, _ in site.hosts[0].calls if n == "attach_replication_slave"], [])
        site.nothing_left(accounts=0)

    def test_bad_requests(self):
        site = self.site("bad")
        c = site.controller
        bad = [
            ("/instances/m/action", {"replicate": {"count": 0}}, "replicate.count"),
            ("/instances/m/action", {"replicate": {"count": "2"}}, "replicate.count"),
            ("/instances/m/action", {"replicate": {"count": 2, "instanc": {}}}, "instanc"),
            ("/instances/m/action", {"replicate": {"instance": {"databases": []}}}, "databases"),
            ("/instances/m/action", {"replicate": {"topology": {"slave_of": [{"id": "s1"}]}}}, "slave_of"),
            ("/instances/m/action", {"replicate": {"topology": {"slave_of": []}}}, "slave_of"),
            ("/instances/m/action", {"replicate": {"topology": {"read_only": "yes"}}}, "read_only"),
            ("/instances/m/action", {}, "replicate"),
            ("/instances/m/action", {"replicate": {}, "detach": {}}, "detach"),
            ("/instances/m/topology/action", {"detach": {}}, "not a replica"),
            ("/instances/s1/topology/action", {"detach": {"now": True}}, "now"),
            ("/instances", {"instance": {"name": "x"}}, "address"),
            ("/instances", {"address": "http://192.0.2.1:80"}, "plain http"),
            ("/instances", {"address": "ftp://x"}, "unix:"),
            ("/tasks/nope/action", {"retry": []}, "retry"),
        ]
        for path, body, words in bad:
            with self.subTest(path=path, body=body):
                self.assertIn(words, self.refused(400, "badRequest", c.post, path, body))
        for path in ("/instances/nope", "/instances/nope/topology", "/tasks/nope", "/nothing"):
            self.refused(404, "itemNotFound", c.get, path)
        self.refused(404, "itemNotFound", c.replicate, "nope", 1)
        self.refused(405, "badMethod", c.call, "PUT", "/instances")
        self.refused(409, "conflict", c.register, site.hosts[0].address)
        self.refused(503, "serviceUnavailable", c.register, f"unix:{site.scratch.dir}/nobody.sock")
        self.assertEqual(c.request("POST", "/instances/m/action", '{"replicate": {"count": 2} "x"}')[0], 400)
        self.assertEqual(c.request("POST", "/instances/m/action", "")[0], 400)
        self.assertEqual(c.request("POST", "/instances", "x" * (2 << 20))[0], 413)
        # A page of another origin, or by another name, in a browser of this host.
        self.assertEqual(c.request("POST", "/instances/m/action", "{}", {"Origin": "http://evil.example"})[0], 403)
        self.assertEqual(c.tcp("POST", "/instances/m/action", "{}", {"Origin": "http://evil.example"})[0], 403)
        self.assertEqual(c.tcp("GET", "/instances", headers={"Host": "evil.example"})[0], 403)
        with socket.create_connection(("127.0.0.1", c.port)) as s:
            s.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
            self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 400"))

    def test_same_request_twice_is_one_task(self):
        site = self.site("twice")
        c = site.controller
        body = {"replicate": {"count": 1}}
        first = c.call("POST", "/instances/m/action", body, headers={"Idempotency-Key": "k1"})
        again = c.call("POST", "/instances/m/action", body, headers={"Idempotency-Key": "k1"})
        self.assertEqual(first, again)
        c.wait_task(first["task"]["id"])
        self.assertEqual(len(c.get("/tasks")["tasks"]), 1)
        # The same key with another request: whatever it is, nothing is done, and the answer names what the key came to.
        others = [
            ("POST", "/instances/m/action", {"replicate": {"count": 2}}),
            ("POST", "/instances/s1/topology/action", {"detach": {}}),
            ("POST", f"/tasks/{first['task']['id']}/action", {"cancel": {}}),
            ("POST", f"/tasks/{first['task']['id']}/action", {"retry": {}}),
            ("POST", "/instances", {"address": site.hosts[0].address}),
            ("DELETE", "/instances/s3", None),
            ("DELETE", "/instances/s1?force=true", None),
        ]
        for method, path, other in others:
            with self.subTest(method=method, path=path, body=other):
                with self.assertRaises(ApiError) as caught:
                    c.call(method, path, other, headers={"Idempotency-Key": "k1"})
                self.assertEqual(caught.exception.status, 409)
                self.assertIn(first["task"]["id"], caught.exception.body)
        self.assertEqual((len(c.get("/tasks")["tasks"]), len(c.get("/instances")["instances"])), (1, 4))
        self.assertIsNotNone(site.hosts[0].following)
        # And each of those calls, sent twice with a key of its own, is done once.
        extra = site.fleet.add("extra")
        for method, path, body in (
            ("POST", "/instances", {"instance": {"address": extra.address, "id": "x"}}),
            ("DELETE", "/instances/x", None),
        ):
            answers = [
                c.request(method, path, json.dumps(body) if body else None, {"Idempotency-Key": method})[:2]
                for _ in range(2)
            ]
            self.assertIn(answers[0][0], (201, 204))
            self.assertEqual(answers[0][0], answers[1][0], answers)
        # A replica that is being detached is not detached a second time.
        site.hosts[0].hold.clear()
        task = c.detach("s1")["task"]["id"]
        self.assertIn(task, self.refused(409, "conflict", c.detach, "s1"))
        site.hosts[0].hold.set()
        c.wait_task(task)

    def test_register_and_forget(self):
        site = self.site("register")
        c = site.controller
        extra = site.fleet.add("extra", data=True)
        new = c.register(extra.address)
        self.assertRegex(new, UUID)
        instance = c.instance(new)
        self.assertEqual((instance["name"], instance["state"], instance["volume"]), ("extra", "active", {"size": 100}))
        self.assertEqual(c.call("DELETE", f"/instances/{new}"), None)
        self.refused(404, "itemNotFound", c.get, f"/instances/{new}")
        c.wait_task(c.replicate("m", 1)["task"]["id"])
        self.refused(409, "conflict", c.call, "DELETE", "/instances/m")
        self.refused(409, "conflict", c.call, "DELETE", "/instances/s1")
        account = site.hosts[0].following["account"]
        c.call("DELETE", "/instances/s1?force=true")
        self.assertEqual(len(c.topology("m")["topology"]["members"]), 1)
        # It goes on following, so what it follows with stays: also when the last replica that is known is detached.
        events = c.call("GET", "/events", headers={"Accept": "application/json"})["events"]
        self.assertIn(
            f"its replication account {account} stays",
            next(e["message"] for e in events if e["kind"] == "forgotten" and "slave1" in e["message"]),
        )
        c.wait_task(c.replicate("m", 1)["task"]["id"])
        c.wait_task(c.detach("s2")["task"]["id"])
        site.nothing_left(accounts=1)
        self.assertEqual(site.source.accounts, {account})
        self.assertEqual(site.hosts[0].following["account"], account)

    def test_names_are_unique(self):
        site = self.site("names")
        c = site.controller
        extra = site.fleet.add("extra")
        for name, instance_id in (
            ("master", None),
            ("slave1", "other"),
            ("s2", None),
            ("free", "slave3"),
            ("free", "m"),
        ):
            with self.subTest(name=name, id=instance_id):
                self.assertIn(
                    "already",
                    self.refused(
                        409,
                        "conflict",
                        lambda: c.register(extra.address, name=name, **({"id": instance_id} if instance_id else {})),
                    ),
                )
        extra.name = "slave1"  # what its agent says of itself, where nobody gives it a name
        self.refused(409, "conflict", c.register, extra.address)
        extra.name = "x', MASTER_PORT=1"
        self.assertIn("neither a host name nor an address", self.refused(400, "badRequest", c.register, extra.address))

    def test_hosts_that_are_no_good_are_not_taken(self):
        site = self.site("good")
        c = site.controller
        site.hosts[0].has_data = True
        site.hosts[1].down()
        wait_for("unreachable", lambda: c.instance("s2")["status"]["verdict"] == "unreachable")
        self.assertRegex(c.command("instances")[1], r"(?m)^slave2 +spare, unreachable ")
        message = self.refused(409, "conflict", c.replicate, "m", 2)
        for words in ("slave1 has data of its own", "slave2 does not answer"):
            self.assertIn(words, message)
        status, out, err = c.command("replicate", "master", "2")
        self.assertEqual(status, 19)
        self.assertIn("--overwrite", err)
        self.assertEqual((c.get("/tasks")["tasks"], site.source.jobs), ([], {}))
        self.assertTrue(c.instance("s1")["has_user_data"])
        # The third is taken, though it was registered last.
        self.assertEqual([i["id"] for i in c.replicate("m", 1)["instances"]], ["s3"])
        # Nothing is overwritten unless it is said, and in words that are understood.
        for word in ("yes", 1, None):
            self.assertEqual(
                c.request("POST", "/instances/m/action", json.dumps({"replicate": {"count": 1, "overwrite": word}}))[0],
                409 if word is None else 400,
            )
        task = c.wait_task(c.post("/instances/m/action", {"replicate": {"count": 1, "overwrite": True}})["task"]["id"])
        self.assertEqual((task["state"], task["replicas"][0]["id"]), ("succeeded", "s1"))
        method, params = next(call for call in site.hosts[0].calls if call[0] == "attach_replication_slave")
        self.assertIs(params["slave_config"]["overwrite"], True)
        method, params = next(call for call in site.hosts[2].calls if call[0] == "attach_replication_slave")
        self.assertNotIn("overwrite", params["slave_config"])

    def test_retry_takes_no_host_that_is_no_good(self):
        site = self.site("again", spares=2)
        c = site.controller
        site.hosts[0].fail["attach_replication_slave"] = ("INTERNAL", "no", 1)
        site.hosts[1].has_data = True
        task_id = c.replicate("m", 1)["task"]["id"]
        self.assertEqual(c.wait_task(task_id)["state"], "failed")
        self.assertEqual(c.task(task_id)["progress"]["percent"], 0)
        site.hosts[0].down()
        snapshots = len(site.fleet.snapshots_made)
        self.assertIn(
            "slave2 has data of its own",
            self.refused(409, "conflict", c.post, f"/tasks/{task_id}/action", {"retry": {}}),
        )
        self.assertEqual(len(site.fleet.snapshots_made), snapshots)
        c.post(f"/tasks/{task_id}/action", {"retry": {"overwrite": True}})
        self.assertEqual([(r["id"], r["state"]) for r in c.wait_task(task_id)["replicas"]], [("s2", "succeeded")])

    def test_cancel_while_an_agent_is_silent(self):
        """No wait for lost_after: the task is cancelled, the host lost, and set right when its agent is back."""
        site = self.site("silent", config={"agents": {"lost_after": "10m"}})
        c = site.controller
        for host in (site.source, site.hosts[0]):
            with self.subTest(silent=host.name):
                host.hold.clear()
                method = "get_replication_snapshot" if host is site.source else "attach_replication_slave"
                task_id = c.replicate("m", 1)["task"]["id"]
                wait_for(
                    "the job",
                    lambda: any(j["method"] == method and j["state"] == "running" for j in host.jobs.values()),
                )
                host.down()
                c.post(f"/tasks/{task_id}/action", {"cancel": {}})
                task = c.wait_task(task_id)
                self.assertEqual((task["state"], task["replicas"][0]["state"]), ("cancelled", "cancelled"), task)
                self.assertEqual(c.instance("s1")["state"], "spare" if host is site.source else "lost")
                host.hold.set()
                host.up()
                wait_for("the host", lambda: c.instance("s1")["state"] == "spare", 20)
                site.nothing_left(accounts=0, staged=0 if host is site.source else 1)

    def test_status_is_of_now_when_a_task_has_ended(self):
        site = self.site("now", config={"monitor": {"interval": "3s"}})
        c = site.controller
        site.hosts[0].verdict = "restoring"
        wait_for("the first look", lambda: c.instance("s1")["status"]["verdict"] == "restoring")
        site.hosts[0].verdict = None
        c.wait_task(c.replicate("m", 1)["task"]["id"])
        self.assertEqual([c.instance(i)["status"]["verdict"] for i in ("m", "s1")], ["source", "healthy"])
        c.wait_task(c.detach("s1")["task"]["id"])
        self.assertEqual([c.instance(i)["status"]["verdict"] for i in ("m", "s1")], ["standalone", "standalone"])

    def test_metadata_with_a_host_that_is_none(self):
        site = self.site("nohost")
        c = site.controller
        site.source.name = "host=127.0.0.1;plugin-dir=/tmp;x=:"
        task = c.wait_task(c.replicate("m", 1)["task"]["id"])
        self.assertEqual(task["state"], "failed")
        self.assertIn("master.host", task["error"]["message"])
        self.assertEqual([n for n, _ in site.hosts[0].calls if n == "attach_replication_slave"], [])
        site.nothing_left(accounts=0)

    def test_a_replica_that_others_made_is_shown_as_one(self):
        site = self.site("outside")
        c = site.controller
        c.wait_task(c.replicate("m", 1)["task"]["id"])
        c.call("DELETE", "/instances/s1?force=true")
        c.register(site.hosts[0].address, name="slave1", id="s1")
        wait_for("what it follows", lambda: c.instance("s1").get("follows") == {"id": "m", "name": "master"})
        self.assertRegex(c.command("topology")[1], r"(?m)^slave1  healthy  \(follows master, not by this controller\)$")
        self.assertIn("it follows master", self.refused(400, "badRequest", c.detach, "s1"))
        self.assertNotIn("follows", c.instance("m"))
        self.assertNotIn("mysql", c.topology("s1")["topology"]["members"][0])

    def test_monitoring(self):
        site = self.site("watch", config={"monitor": {"lag_limit": "30s", "interval": "100ms"}})
        c = site.controller
        c.wait_task(c.replicate("m", 2)["task"]["id"])
        wait_for("healthy", lambda: c.instance("s1")["status"]["verdict"] == "healthy")

        def told(words):
            events = json.loads(c.request("GET", "/events", headers={"Accept": "application/json"})[1])["events"]
            return [e for e in events if words in e["message"]]

        site.hosts[0].lag = 31
        wait_for("lagging", lambda: c.instance("s1")["status"]["verdict"] == "lagging")
        self.assertEqual(wait_for("the event", lambda: told("slave1 is lagging"))[0]["level"], "warning")
        self.assertIn(
            'guestagent_instance_verdict{instance="s1",name="slave1",verdict="lagging"} 1',
            c.request("GET", "/metrics")[1].decode(),
        )
        check_metrics(c.request("GET", "/metrics")[1])
        site.hosts[0].lag = 1
        wait_for("the all-clear", lambda: told("slave1 is healthy (was lagging)"))
        site.hosts[0].verdict = "diverged"
        wait_for("the event", lambda: told("slave1 is diverged"))
        site.hosts[0].verdict = None
        # Somebody stopped it by hand.
        site.hosts[1].following = None
        wait_for("broken", lambda: c.instance("s2")["status"]["verdict"] == "broken")
        self.assertIn("follows nobody", c.instance("s2")["status"]["reasons"][0])
        site.source.down()
        wait_for("unreachable", lambda: c.instance("m")["status"]["verdict"] == "unreachable")
        self.assertEqual(wait_for("the event", lambda: told("master is unreachable"))[0]["level"], "error")
        site.source.up()
        wait_for("reachable", lambda: c.instance("m")["status"]["verdict"] == "source")
        self.assertTrue(
            any(
                lag >= 31 for i in c.get("/instances?lag_history=true")["instances"] for lag in i.get("lag_history", [])
            )
        )

    def test_events_as_they_happen(self):
        site = self.site("sse")
        c = site.controller
        connection = http.client.HTTPConnection("127.0.0.1", c.port, timeout=30)
        self.addCleanup(connection.close)
        connection.request("GET", "/events", headers={"Authorization": "Bearer " + c.token})
        answer = connection.getresponse()
        self.assertEqual((answer.status, answer.getheader("Content-Type")), (200, "text/event-stream"))
        task = c.replicate("m", 1)["task"]["id"]
        seen, name, last = {}, None, None
        for line in answer:
            line = line.decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("id: "):
                last = int(line[4:])
            elif line.startswith("data: "):
                seen.setdefault(name, []).append(json.loads(line[6:]))
                if name == "task" and seen["task"][-1]["state"] != "running":
                    break
        self.assertEqual(seen["task"][-1]["state"], "succeeded")
        self.assertEqual({t["id"] for t in seen["task"]}, {task})
        self.assertTrue(any(i["id"] == "s1" for i in seen["instance"]))
        self.assertIn("slave1 follows", [e["message"] for e in seen["event"]])
        self.assertIn("topology", seen)
        # What was missed comes first.
        text = b""
        with socket.create_connection(("127.0.0.1", c.port), timeout=10) as s:
            s.sendall(
                b"GET /events HTTP/1.1\r\nHost: localhost:%d\r\nAuthorization: Bearer %s\r\nLast-Event-ID: %d\r\n\r\n"
                % (c.port, c.token.encode(), last - 2)
            )
            while text.count(b"id: ") < 2:
                text += s.recv(65536)
        self.assertIn(b"id: %d\n" % last, text)

    def test_shell(self):
        site = self.site("shell")
        c = site.controller
        status, out, err = c.command(
            "replicate",
            "master",
            "2",
            "--read-only=false",
            "--flavor",
            "7",
            "--availability-zone",
            "us-west-2",
            "--volume-size",
            "1",
            "--json",
        )
        self.assertEqual(status, 0, err)
        task = json.loads(out)["task"]
        self.assertEqual((task["state"], task["read_only"]), ("succeeded", False))
        self.assertRegex(err, r"(?m)^slave1: succeeded")
        self.assertEqual(json.loads(c.command("topology", "slave1", "--json")[1]), c.topology("m"))
        self.assertEqual(
            json.loads(c.command("topology", "--json")[1])["topologies"][0]["members"],
            c.topology("m")["topology"]["members"],
        )
        # Between the two an agent may be asked anew.
        wait_for(
            "both to say the same", lambda: json.loads(c.command("instances", "--json")[1]) == c.get("/instances"), 20
        )
        self.assertRegex(c.command("topology")[1], r"(?m)^master  \w+\n├─ slave1  \w+.*  writable\n└─ slave2")
        status, out, err = c.command("detach_replication", "slave1", "--no-wait")
        self.assertEqual(status, 0, err)
        c.wait_task(re.search(r"task (t\w+)", out)[1])
        self.assertEqual(c.command("detach-replication", "slave2")[0], 0)
        status, out, err = c.command("detach-replication", "slave2")
        self.assertEqual(status, 2, err)
        self.assertIn("not a replica", err)
        self.assertEqual(c.command("replicate", "master", "many")[0], 2)
        self.assertEqual(c.command("replicate", "nobody", "1")[0], 15)
        site.hosts[2].fail["attach_replication_slave"] = ("FAILED_PRECONDITION", "the versions do not fit")
        status, out, err = c.command("replicate", "master", "1")
        self.assertEqual(status, 19, err)
        self.assertIn("the versions do not fit", err)
        status, out, err = c.command("instances", env={"GUESTAGENT_CONTROLLER": "http://127.0.0.1:1"})
        self.assertEqual(status, 24, err)
        self.assertIn("guestagent controller", err)

    def test_two_controllers_on_one_state(self):
        site = self.site("two")
        second = Controller(site.scratch, {"state": str(site.controller.dir / "state.db")}, name="second")
        second.start(wait=False)
        self.assertEqual(second.process.wait(20), 24)
        self.assertIn("another controller uses it", second.log_file.read_text())

    def test_secrets_stay(self):
        site = self.site("secrets")
        c = site.controller
        c.wait_task(c.replicate("m", 1)["task"]["id"])
        c.stop()
        for file in c.dir.iterdir():
            if file.name.startswith("state.db") and not file.name.endswith(".lock"):
                self.assertEqual(file.stat().st_mode & 0o077, 0, file)
            self.assertNotIn(b"pw-t", file.read_bytes(), file)


if __name__ == "__main__":
    unittest.main(verbosity=2)
