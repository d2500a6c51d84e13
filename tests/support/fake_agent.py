#!/usr/bin/python3
"""Agents without databases: the RPC contract, jobs with progress, failures and delays on request, and a memory of all that was asked.

    with Fleet(directory) as fleet:
        source = fleet.add("a1", data=True)
        spare = fleet.add("a2")
        spare.fail["attach_replication_slave"] = ("RESOURCE_EXHAUSTED", "the disk is full")

As a program: fake_agent.py DIRECTORY COUNT  serves a1 … aCOUNT on DIRECTORY/NAME.sock until it is ended; every tenth is a source.
"""
import asyncio
import hashlib
import json
import random
import sys
import threading
import time
from pathlib import Path

CODES = {
    "CANCELLED": -32001,
    "INVALID_ARGUMENT": -32602,
    "NOT_FOUND": -32005,
    "ALREADY_EXISTS": -32006,
    "FAILED_PRECONDITION": -32009,
    "RESOURCE_EXHAUSTED": -32008,
    "UNAVAILABLE": -32014,
    "DATA_LOSS": -32015,
    "INTERNAL": -32603,
    "BUSY": -32050,
    "UNIMPLEMENTED": -32601,
}
CHANGING = {
    "get_replication_snapshot",
    "attach_replication_slave",
    "stage_replication_snapshot",
    "discard_staged_snapshot",
    "detach_replication_slave",
    "delete_replication_snapshot",
    "cleanup_replication_source",
    "set_read_only",
    "wait_for_position",
    "open_replication_source",
}


class RpcError(Exception):
    def __init__(self, code, message, hint=""):
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint

    def json(self):
        return {"code": CODES[self.code], "message": self.message, "data": {"code": self.code, "hint": self.hint}}


class FakeAgent:
    def __init__(self, fleet, name, data, server_id, tls=None, volume_bytes=100 << 30):
        self.fleet, self.name, self.has_data, self.server_id = fleet, name, data, server_id
        self.tls, self.volume_bytes = tls, volume_bytes
        self.seconds = 0.05  # of each job
        self.fail = {}  # method -> (code, message) or (code, message, times)
        self.hold = (
            threading.Event()
        )  # jobs end only when it is set; those about staging only where hold_jobs names them
        self.hold.set()
        self.lag, self.verdict = 0.2, None
        self.jobs, self.done, self.calls, self.hold_jobs = {}, [], [], None
        self.staged = set()  # snapshots, by their hrefs
        self.resumed = False  # whether the last attach found all there
        self.lacks = set()  # methods that this agent is too old for
        self.following = None  # {"source": agent, "account": …, "read_only": …, "server_id": …}
        self.accounts, self.violations = set(), []
        self.server, self.address = None, None
        self.original_server_id = server_id
        self.refuses_writes = False

    # --- life

    async def _listen(self):
        if self.tls:
            self.server = await asyncio.start_server(self._serve, "127.0.0.1", getattr(self, "port", 0), ssl=self.tls)
            self.port = self.server.sockets[0].getsockname()[1]
            self.address = f"https://localhost:{self.port}"
        else:
            path = self.fleet.dir / f"{self.name}.sock"
            path.unlink(missing_ok=True)
            self.server = await asyncio.start_unix_server(self._serve, str(path))
            self.address = f"unix:{path}"

    async def _close(self):
        if self.server:
            self.server.close()
            self.server = None
        for writer in list(self.fleet.writers.get(self, ())):
            writer.close()

    def down(self):
        """As by kill -9: what ran is undone at the next start."""
        self.fleet.run(self._close())
        for job in self.jobs.values():
            if job["state"] == "running":
                job["task"].cancel()

    def up(self):
        for job in self.jobs.values():
            if job["state"] == "running":
                self._end(job, error=RpcError("INTERNAL", "the agent died; undone"))
        self.fleet.run(self._listen())

    # --- HTTP

    async def _serve(self, reader, writer):
        self.fleet.writers.setdefault(self, set()).add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                length = next(
                    (int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")), 0
                )
                body = await reader.readexactly(length)
                answer = await self._rpc(body)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
                    + answer
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, OSError):
            pass
        finally:
            self.fleet.writers.get(self, set()).discard(writer)
            writer.close()

    async def _rpc(self, body):
        request = json.loads(body)
        out = {"jsonrpc": "2.0", "id": request.get("id")}
        try:
            out["result"] = await self._call(request["method"], dict(request.get("params") or {}))
        except RpcError as e:
            out["error"] = e.json()
        return json.dumps(out).encode()

    async def _call(self, method, params):
        self.calls.append((method, params))
        handler = getattr(self, "_now_" + method, None)
        if handler:
            return handler(params)
        if method not in CHANGING or method in self.lacks:
            raise RpcError("UNIMPLEMENTED", f"no method {method}")
        if params.get("dry_run"):
            return {"dry_run": True, "ok": True, "checks": [], "steps": []}
        job_id, run_async = params.pop("job_id"), params.pop("async", False)
        if not run_async:
            raise RpcError("INVALID_ARGUMENT", "this fake only runs jobs")
        digest = hashlib.sha256(json.dumps([method, params], sort_keys=True).encode()).hexdigest()
        known = self.jobs.get(job_id)
        if known:
            if known["digest"] != digest:
                self.violations.append(f"job {job_id} was asked for with other params")
                raise RpcError("ALREADY_EXISTS", f"job {job_id} is another one")
            return {"job_id": job_id}
        running = next((j for j in self.jobs.values() if j["state"] == "running"), None)
        if running and method != "wait_for_position":
            raise RpcError("BUSY", f"job {running['job_id']} runs")
        job = {
            "job_id": job_id,
            "method": method,
            "state": "running",
            "phase": "begin",
            "digest": digest,
            "done": 0,
            "started": time.time(),
        }
        self.jobs[job_id] = job
        job["task"] = asyncio.create_task(self._run(job, params))
        return {"job_id": job_id}

    async def _run(self, job, params):
        method = job["method"]
        try:
            getattr(self, "_check_" + method, lambda p: None)(params)
            job["phase"] = {"get_replication_snapshot": "copy", "attach_replication_slave": "receive"}.get(
                method, "work"
            )
            if method == "stage_replication_snapshot":
                if not await self._follow(job, params["snapshot_href"]):
                    return self._end(job, cancelled=True)
            if method == "get_replication_snapshot":
                job["snapshot_href"] = self._href(job, params)
                self.fleet.making.add(job["snapshot_href"])
            steps = 10
            for n in range(steps):
                await asyncio.sleep(self.seconds / steps)
                held = {method} if "stage" in method else {None, method}
                while not self.hold.is_set() and self.hold_jobs in held:
                    await asyncio.sleep(0.01)
                    if job.get("cancel"):
                        break
                job["done"] = (n + 1) * 100 << 20
                if job.get("cancel"):
                    return self._end(job, cancelled=True)
            failure = self.fail.get(method)
            if failure and (len(failure) < 3 or failure[2] > 0):
                if len(failure) == 3:
                    self.fail[method] = (failure[0], failure[1], failure[2] - 1)
                raise RpcError(failure[0], failure[1], "mend it")
            result = getattr(self, "_do_" + method)(job, params)
            self.done.append((method, job["job_id"]))
            self._end(job, result=result)
        except RpcError as e:
            self._end(job, error=e)
        finally:
            self.fleet.making.discard(job.get("snapshot_href"))

    async def _follow(self, job, href):
        """Until the snapshot is there; false when cancelled."""
        job["phase"], begun = "follow", False
        while href not in self.fleet.snapshots:
            begun = begun or href in self.fleet.making
            if begun and href not in self.fleet.making:
                raise RpcError("NOT_FOUND", "its maker has given it up")
            if job.get("cancel"):
                return False
            job["done"] += 1 << 20
            await asyncio.sleep(0.005)
        return True

    def _end(self, job, result=None, error=None, cancelled=False):
        if result is not None:
            job["state"], job["result"] = "succeeded", result
        else:
            job["state"] = "cancelled" if cancelled else "failed"
            job["error"] = (error or RpcError("CANCELLED", "cancelled on request")).json()

    # --- methods

    def _now_get_info(self, params):
        return {
            "agent_version": "fake",
            "protocol_version": 1,
            "datastore": "mysql",
            "datastore_version": "mariadb-10.11.19",
            "host": {
                "advertised_address": self.name,
                "server_id": self.server_id,
                "has_user_data": self.has_data,
                "data_bytes": 1 << 30,
                "volume_bytes": self.volume_bytes,
                "free_bytes": self.volume_bytes // 2,
            },
        }

    def _now_get_replication_status(self, params):
        if self.following:
            broken = self.following["account"] not in self.following["source"].accounts
            verdict = self.verdict or ("broken" if broken else "healthy")
            return {
                "role": "replica",
                "verdict": verdict,
                "reasons": [] if verdict == "healthy" else ["the test says so"],
                "server_id": self.server_id,
                "read_only": self.following["read_only"],
                "source": {
                    "host": self.following["source"].name,
                    "port": 3306,
                    "server_id": self.following["source"].server_id,
                },
                "io_thread": "running",
                "sql_thread": "running",
                "lag_seconds": self.lag,
                "lag_transactions": 3,
            }
        verdict = self.verdict or ("source" if self.accounts else "standalone")
        return {
            "role": "source" if self.accounts else "standalone",
            "verdict": verdict,
            "reasons": [],
            "server_id": self.server_id,
            "read_only": False,
        }

    def _now_get_job(self, params):
        job = self.jobs.get(params["job_id"])
        if not job:
            raise RpcError("NOT_FOUND", f"no job {params['job_id']}")
        out = {
            k: job[k] for k in ("job_id", "method", "state", "phase", "snapshot_href", "result", "error") if k in job
        }
        seconds = max(time.time() - job["started"], 0.001)
        out["progress"] = {
            "done_bytes": job["done"],
            "total_bytes": 1000 << 20,
            "rate": job["done"] / seconds,
            "eta_s": 1,
        }
        return out

    def _now_list_jobs(self, params):
        return {"jobs": [self._now_get_job({"job_id": j}) for j in self.jobs]}

    def _now_cancel_job(self, params):
        job = self.jobs.get(params["job_id"])
        if not job:
            raise RpcError("NOT_FOUND", f"no job {params['job_id']}")
        if job["state"] != "running":
            raise RpcError("FAILED_PRECONDITION", "it has ended")
        job["cancel"] = True
        return {}

    @staticmethod
    def _href(job, params):
        return f"file:///store/{params.get('snapshot_id') or job['job_id']}/manifest.json"

    def _do_get_replication_snapshot(self, job, params):
        snapshot_id = params.get("snapshot_id") or job["job_id"]
        href, account = self._href(job, params), f"repl_{snapshot_id[-20:]}"
        self.fleet.snapshots[href] = snapshot_id
        self.fleet.snapshots_made.append(href)
        self.accounts.add(account)
        return {
            "master": {"host": self.name, "port": 3306},
            "dataset": {
                "datastore": "mysql",
                "datastore_version": "mariadb-10.11.19",
                "dataset_size": self.fleet.dataset_size,
                "dataset_bytes": 1 << 30,
                "snapshot_href": href,
            },
            "binlog_position": {"file": "binlog.000003", "position": 4711, "gtid": "0-1-205", "known": "now"},
            "lease_position": {"file": "binlog.000003", "position": 120, "gtid": "0-1-3"},
            "replication_user": {"name": account, "password": "pw-" + snapshot_id, "require_tls": False},
            "snapshot": {"id": snapshot_id, "segments": 3, "format_version": 1, "requires": []},
        }

    def _do_stage_replication_snapshot(self, job, params):
        self.staged.add(params["snapshot_href"])
        return {"snapshot_id": "x", "dir": "/x", "raw_bytes": 1 << 30, "resumed_bytes": 0}

    def _do_discard_staged_snapshot(self, job, params):
        self.staged.discard(params["snapshot"]["dataset"]["snapshot_href"])
        return {"discarded_bytes": 0}

    def _check_attach_replication_slave(self, params):
        if "dataset" not in params["snapshot"]:
            return
        if self.has_data and not params["slave_config"].get("overwrite"):
            raise RpcError("FAILED_PRECONDITION", "the host has user data", "overwrite: true")
        if params["snapshot"]["dataset"]["snapshot_href"] not in self.fleet.snapshots:
            raise RpcError("NOT_FOUND", "no such snapshot")

    def _do_attach_replication_slave(self, job, params):
        snapshot, wanted = params["snapshot"], params["slave_config"]
        if "dataset" not in snapshot:
            return self._go_on_by(snapshot, wanted)
        if snapshot["dataset"]["snapshot_href"] not in self.fleet.snapshots:
            self.violations.append("the snapshot was deleted while it was restored")
            raise RpcError("DATA_LOSS", "the snapshot is gone")
        source = self.fleet.agents[snapshot["master"]["host"]]
        if snapshot["replication_user"]["name"] not in source.accounts:
            raise RpcError("FAILED_PRECONDITION", "no such account")
        taken = {source.server_id} | {a.server_id for a in self.fleet.agents.values() if a.following and a is not self}
        if wanted["server_id"] in taken:
            self.violations.append(f"server_id {wanted['server_id']} is taken")
        self.has_data, self.server_id = True, wanted["server_id"]
        self.following = {
            "source": source,
            "account": snapshot["replication_user"]["name"],
            "read_only": wanted["read_only"],
        }
        self.resumed = snapshot["dataset"]["snapshot_href"] in self.staged
        self.staged.discard(snapshot["dataset"]["snapshot_href"])
        return {
            "state": "replicating",
            "server_id": self.server_id,
            "read_only": wanted["read_only"],
            "resumed_bytes": 1 << 30 if self.resumed else 0,
            "status": {"verdict": "healthy"},
        }

    def _go_on_by(self, snapshot, wanted):
        source = self.fleet.agents[snapshot["master"]["host"]]
        if snapshot["replication_user"]["name"] not in source.accounts:
            raise RpcError("FAILED_PRECONDITION", "no such account")
        if not self.following and not self.refuses_writes:
            self.violations.append("a source that takes writes was attached")
        self.following = {
            "source": source,
            "account": snapshot["replication_user"]["name"],
            "read_only": wanted["read_only"],
        }
        return {"state": "replica", "status": {"verdict": "healthy"}}

    def _now_get_replication_position(self, params):
        return {"executed": {"gtid": "0-1-300"}, "received": None, "applied": None, "received_transactions": 300}

    def _do_wait_for_position(self, job, params):
        return {"reached": True}

    def _do_set_read_only(self, job, params):
        self.refuses_writes = params["read_only"]
        return {"read_only": params["read_only"], "may_still_write": [], "ended_sessions": 0}

    def _do_open_replication_source(self, job, params):
        account = f"repl_{job['job_id'][-20:]}"
        self.accounts.add(account)
        return {
            "master": {"host": self.name, "port": 3306},
            "binlog_position": {"gtid": "0-1-300"},
            "lease_position": {"gtid": "0-1-300"},
            "replication_user": {"name": account, "password": "pw", "require_tls": False},
            "source": {"id": "x", "format_version": 1, "requires": []},
        }

    def _check_detach_replication_slave(self, params):
        if not self.following:
            raise RpcError("FAILED_PRECONDITION", "it is no replica")

    def _do_detach_replication_slave(self, job, params):
        self.following, self.refuses_writes = None, False
        return {"state": "standalone", "last_applied": {"gtid": "0-1-300"}, "status": {"verdict": "standalone"}}

    def _do_delete_replication_snapshot(self, job, params):
        gone = self.fleet.snapshots.pop(params["snapshot_href"], None)
        return {"deleted": True, "objects": 5 if gone else 0}

    def _do_cleanup_replication_source(self, job, params):
        user = params["replication_user"]
        for agent in self.fleet.agents.values():
            if agent.following and agent.following["source"] is self and agent.following["account"] == user:
                self.violations.append(f"{user} was dropped while {agent.name} uses it")
        if user not in self.accounts:
            raise RpcError("NOT_FOUND", f"no account {user}")
        self.accounts.discard(user)
        return {}


class Fleet:
    """Agents that know each other, in a thread of their own."""

    def __init__(self, directory):
        self.dir = Path(directory)
        self.agents, self.snapshots, self.snapshots_made, self.writers = {}, {}, [], {}
        self.making = set()  # snapshots that others can follow, by their hrefs
        self.dataset_size = 1
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def add(self, name, data=False, server_id=1, **how):
        agent = FakeAgent(self, name, data, server_id, **how)
        self.agents[name] = agent
        self.run(agent._listen())
        return agent

    def violations(self):
        return [f"{a.name}: {v}" for a in self.agents.values() for v in a.violations]

    def close(self):
        async def end():
            for agent in self.agents.values():
                await agent._close()
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()

        try:
            self.run(end())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(10)
            self.loop.close()


def main(directory, count):
    with Fleet(directory) as fleet:
        source = None
        for n in range(1, count + 1):
            agent = fleet.add(f"a{n}", data=True, server_id=n)
            if n % 10 == 1:
                source = agent
                source.accounts.add("repl")
            else:
                agent.following = {"source": source, "account": "repl", "read_only": True}
                agent.lag = random.random() * 3
        print("ready", flush=True)
        while True:
            time.sleep(1)
            for agent in fleet.agents.values():
                agent.lag = max(0.0, agent.lag + random.uniform(-0.3, 0.3))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
