"""A controller of a test's own, and a client of its API."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "lab"), str(HERE.parent / "support")]

from agent import binary, to_yaml  # noqa: E402
from metrics import check_metrics  # noqa: E402,F401
from scratch import Scratch, free_port, log, wait_for  # noqa: E402,F401


class ApiError(Exception):
    def __init__(self, status, body):
        self.status, self.body = status, body
        super().__init__(f"{status}: {body}")


class UnixConnection(http.client.HTTPConnection):
    """HTTP at a Unix socket."""

    def __init__(self, path, timeout):
        super().__init__("controller", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Controller:
    def __init__(self, scratch, config=None, name="controller"):
        self.scratch, self.dir = scratch, scratch.dir / name
        self.dir.mkdir(exist_ok=True)
        self.port = free_port()
        self.socket = str(self.dir / "c.sock")
        self.token = "token-of-" + name
        token_file = self.dir / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(self.token + "\n")
        self.settings = {
            "socket": self.socket,
            "listen": f"127.0.0.1:{self.port}",
            "token_file": str(token_file),
            "state": str(self.dir / "state.db"),
            "agents": {"job_poll": "50ms", "lost_after": "2s", "call_timeout": "5s", "socket_dirs": [str(scratch.dir)]},
            "monitor": {"interval": "200ms"},
        }
        for key, value in (config or {}).items():
            if value is None:
                self.settings.pop(key)
                continue
            self.settings[key] = {**self.settings.get(key, {}), **value} if isinstance(value, dict) else value
        self.config_file = self.dir / "controller.yaml"
        self.config_file.write_text(to_yaml({"controller": self.settings}) + "\n")
        self.log_file = self.dir / "controller.log"
        self.process = None

    def start(self, env=None, wait=True):
        with open(self.log_file, "ab") as out:
            self.process = self.scratch.spawn(
                [binary(), "controller", "--config", str(self.config_file)],
                stdout=out,
                stderr=out,
                env={**self.scratch.env, **(env or {})},
            )
        if wait:
            wait_for("the controller", self.ready, 30, 0.02)
        return self

    def ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the controller ended with {self.process.returncode}:\n{self.log_tail()}")
        try:
            return self.request("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def stop(self, timeout=20):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout)
        status = self.process.returncode if self.process else None
        self.process = None
        return status

    def kill9(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def log_tail(self, lines=40):
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    def request(self, method, path, body=None, headers=None, timeout=30):
        """By the Unix socket."""
        return self._ask(UnixConnection(self.socket, timeout), method, path, body, headers)

    def tcp(self, method, path, body=None, headers=None, token=True, timeout=30):
        """By TCP, with the token unless `token` is false."""
        headers = {**({"Authorization": "Bearer " + self.token} if token else {}), **(headers or {})}
        return self._ask(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout), method, path, body, headers
        )

    def _ask(self, connection, method, path, body, headers):
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        finally:
            connection.close()

    def call(self, method, path, body=None, expect=(200, 201, 202, 204), headers=None):
        status, text, _ = self.request(method, path, json.dumps(body) if body is not None else None, headers)
        if status not in expect:
            raise ApiError(status, text.decode())
        return json.loads(text) if text else None

    def get(self, path):
        return self.call("GET", path)

    def post(self, path, body):
        return self.call("POST", path, body)

    def register(self, address, **properties):
        return self.post("/instances", {"instance": {"address": address, **properties}})["instance"]["id"]

    def instance(self, instance_id):
        return self.get(f"/instances/{instance_id}")["instance"]

    def topology(self, instance_id):
        return self.get(f"/instances/{instance_id}/topology")

    def replicate(self, master, count, instance=None, read_only=True):
        body = {
            "replicate": {
                "count": count,
                "instance": instance or {},
                "topology": {"slave_of": [{"id": master}], "read_only": read_only},
            }
        }
        return self.post(f"/instances/{master}/action", body)

    def detach(self, slave):
        return self.post(f"/instances/{slave}/topology/action", {"detach": {}})

    def task(self, task_id):
        return self.get(f"/tasks/{task_id}")["task"]

    def wait_task(self, task_id, timeout=60):
        def ended():
            task = self.task(task_id)
            return task if task["state"] != "running" else None

        return wait_for(f"the end of task {task_id}", ended, timeout, 0.05)

    def command(self, *arguments, timeout=120, env=None):
        done = self.scratch.run(
            [binary(), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=timeout,
            env={**self.scratch.env, "GUESTAGENT_CONTROLLER": f"unix:{self.socket}", **(env or {})},
        )
        return done.returncode, done.stdout, done.stderr


class Site:
    """A source, spare hosts and a controller that knows them, on agents without databases."""

    def __init__(self, name, spares=3, config=None, source_id=1):
        self.name, self.spares, self.config = name, spares, config
        self.scratch = Scratch(f"ctl-{name}")
        try:
            from fake_agent import Fleet

            self.fleet = Fleet(self.scratch.dir)
            self.source = self.fleet.add("master", data=True, server_id=source_id)
            self.hosts = [self.fleet.add(f"slave{n}") for n in range(1, spares + 1)]
            self.controller = Controller(self.scratch, config)
        except BaseException:
            self.scratch.close(failed=True)
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind:
            log(f"the controller's log:\n{self.controller.log_tail()}")
        self.fleet.close()
        self.scratch.close(failed=kind is not None)

    def start(self, **how):
        self.controller.start(**how)
        self.register()
        return self

    def register(self):
        self.source_id = self.controller.register(self.source.address, name="master", id="m")
        self.ids = [
            self.controller.register(
                h.address, name=h.name, id=f"s{n}", flavorRef="7", availability_zone="us-west-2", volume={"size": 10}
            )
            for n, h in enumerate(self.hosts, 1)
        ]

    def done(self, agent, method):
        return [job for name, job in agent.done if name == method]

    def member(self, agent):
        return {"id": self.id_of(agent), "name": agent.name, "mysql": {"slave_of": [{"id": "m"}], "read_only": True}}

    def id_of(self, agent):
        return "m" if agent is self.source else f"s{self.hosts.index(agent) + 1}"

    def metric(self, name):
        for line in self.controller.request("GET", "/metrics")[1].decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        raise KeyError(name)

    def job(self, agent, method):
        """The agent's newest of that method."""
        return [job for job in agent.jobs.values() if job["method"] == method][-1]

    def nothing_left(self, accounts, staged=0):
        """No snapshot, no clean-up to do, nothing done twice, and so many accounts on the source. `staged`: on so many hosts at most, whose
        agents were given up, something stays of what they had fetched, for as long as their settings say."""
        wait_for("the last clean-up", lambda: self.metric("guestagent_cleanups_pending") == 0, 30)
        there = [href for agent in self.fleet.agents.values() for href in agent.staged]
        if (
            self.fleet.snapshots
            or len(there) > staged
            or self.fleet.violations()
            or len(self.source.accounts) != accounts
        ):
            raise AssertionError(
                f"left over: snapshots {self.fleet.snapshots}, staged {there}, accounts {self.source.accounts} (should be {accounts}), "
                f"violations {self.fleet.violations()}"
            )


class SiteTest(unittest.TestCase):
    def site(self, name, **how):
        return self.enterContext(Site(name, **how)).start()

    def refused(self, status, word, call, *arguments):
        with self.assertRaises(ApiError) as caught:
            call(*arguments)
        self.assertEqual(caught.exception.status, status, caught.exception.body)
        body = json.loads(caught.exception.body)
        self.assertEqual(list(body), [word])
        self.assertEqual(body[word]["code"], status)
        return body[word]["message"]
