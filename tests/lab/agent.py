"""One guestagent with a configuration of its own, driven as a controller or an operator would."""

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from mariadb import ME
from scratch import wait_for


class RpcError(Exception):
    """A JSON-RPC error: code ("FAILED_PRECONDITION"), message, hint, job_id (or None), number."""

    def __init__(self, error):
        data = error.get("data") or {}
        self.code, self.hint, self.job_id = data.get("code"), data.get("hint"), data.get("job_id")
        self.message, self.number = error.get("message"), error.get("code")
        super().__init__(f"{self.code}: {self.message} [hint: {self.hint}]")


def binary():
    path = os.environ.get("GUESTAGENT_BIN")
    if path:
        return path
    for preset in ("test", "release", "debug"):
        found = Path(__file__).resolve().parents[2] / "build" / preset / "guestagent"
        if found.exists():
            return str(found)
    raise RuntimeError("no guestagent: set GUESTAGENT_BIN or build first")


def to_yaml(value, indent=0):
    """Block YAML of dicts, lists and scalars; strings in double quotes."""
    pad = "  " * indent
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines.append(f"{pad}{key}:")
            lines.append(to_yaml(item, indent + 1))
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            lines.append(f"{pad}{key}:")
            for entry in item:
                inner = to_yaml(entry, indent + 2).splitlines()
                lines.append(f"{pad}  - {inner[0].strip()}")
                lines.extend(inner[1:])
        else:
            lines.append(f"{pad}{key}: {json.dumps(item, ensure_ascii=False)}")
    return "\n".join(lines)


def merge(base, changes):
    out = dict(base)
    for key, item in changes.items():
        if item is None:
            out.pop(key, None)
        elif isinstance(item, dict) and isinstance(out.get(key), dict):
            out[key] = merge(out[key], item)
        else:
            out[key] = item
    return out


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("agent", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Agent:
    """For one MariaDB of the lab. `account`: a database account of the agent's own, with a password in a file (else this user's, by
    the socket's peer). `store`: a directory for the local store, or a dict for `storage:`. `config`: what to change in the YAML.
    """

    def __init__(self, scratch, server, store, account=True, config=None, name=None):
        self.scratch, self.server = scratch, server
        self.dir = scratch.dir / (name or f"agent-{server.name}")
        self.dir.mkdir(exist_ok=True)
        self.config_file, self.socket = self.dir / "guestagent.yaml", self.dir / "agent.sock"
        self.log_file = self.dir / "agent.log"
        self.state_dir = self.dir / "state"
        self.password_file = self.dir / "password"
        self.user, self.password, self.process = ME, None, None
        mysql = {
            "advertised_address": "127.0.0.1",
            "socket": str(server.socket),
            "user": ME,
            "defaults_file": str(server.defaults_file),
            "managed_file": str(server.conf_d / "zz-guestagent.cnf"),
            "data_dir": str(server.data),
            "os_user": ME,
            "server": {"control": "process", "command": [server.mysqld]},
        }
        if server.tools:
            mysql["tools_dir"] = str(server.tools)
        if account:
            self.user, self.password = "guestagent", "pw-" + secrets.token_hex(12)
            scratch.secrets[f"the password of {self.dir.name}"] = self.password
            self.password_file.touch(mode=0o600)
            self.password_file.write_text(self.password + "\n")
            mysql["user"], mysql["password_file"] = self.user, str(self.password_file)
        storage = store if isinstance(store, dict) else {"store": "local", "local": {"path": str(store)}}
        self.config = merge(
            {
                "agent": {"socket": str(self.socket), "state_dir": str(self.state_dir)},
                "snapshot": {"spill": {"dir": str(self.dir / "spill")}},
                "storage": storage,
                "mysql": mysql,
            },
            config or {},
        )
        self.write_config()

    def write_config(self, changes=None):
        self.config = merge(self.config, changes or {})
        self.config_file.write_text(to_yaml(self.config) + "\n")

    def create_account(self, **how):
        """The agent's account on its server, which must run. Right after the server was initialised; never again."""
        if self.password:
            self.server.create_agent_account(self.user, self.password, **how)
        return self

    # as a daemon

    def start(self, timeout=20, env=None):
        with open(self.log_file, "ab") as output:
            self.process = self.scratch.spawn(
                self.argv("daemon"), stdout=output, stderr=output, env={**self.scratch.env, **(env or {})}
            )

        def ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"the agent ended with {self.process.returncode}:\n{self.log_tail()}")
            try:
                return self.get("/healthz")[0] == 200
            except OSError:
                return False

        wait_for(f"agent of {self.server.name}", ready, timeout, 0.01)
        return self

    def stop(self, timeout=60):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout)
        self.process = None

    def kill9(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def log_tail(self, lines=40):
        try:
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    def request(self, method, path, body=None, timeout=900, headers=None):
        connection = _UnixConnection(self.socket, timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path, timeout=30):
        return self.request("GET", path, timeout=timeout)

    def events(self, job_id, timeout=600):
        """The server-sent events of a job, as dicts, until it has ended."""
        connection = _UnixConnection(self.socket, timeout)
        try:
            connection.request("GET", f"/jobs/{job_id}/events")
            answer = connection.getresponse()
            if answer.status != 200:
                raise AssertionError(f"/jobs/{job_id}/events: {answer.status} {answer.read()!r}")
            for line in answer:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])
        finally:
            connection.close()

    def call(self, method, params=None, timeout=900):
        request = {"jsonrpc": "2.0", "id": 1, "method": method}
        if params is not None:
            request["params"] = params
        status, body = self.request("POST", "/rpc", json.dumps(request), timeout)
        answer = json.loads(body)
        if answer.get("jsonrpc") != "2.0" or answer.get("id") != 1 or ("result" in answer) == ("error" in answer):
            raise AssertionError(f"{method}: no JSON-RPC answer: {status} {body!r}")
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]

    # as a command

    def argv(self, command, *arguments):
        first = ["--oneshot"] if command == "--oneshot" else [command]
        return [binary(), "--config", str(self.config_file), *first, *arguments]

    def command(self, command, *arguments, stdin=None, timeout=900, env=None):
        """(exit status, standard output, standard error) of `guestagent COMMAND ARGUMENTS`."""
        done = self.scratch.run(
            self.argv(command, *arguments),
            input=stdin if stdin is not None else "",
            timeout=timeout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.scratch.env, **(env or {})},
        )
        with open(self.log_file, "a") as out:
            out.write(done.stderr)
        return done.returncode, done.stdout, done.stderr

    def oneshot(self, method, params=None, timeout=900):
        """The result, or RpcError with what standard error says. Params go by standard input: they may hold a password."""
        arguments = [method] if params is None else [method, "-"]
        status, out, err = self.command(
            "--oneshot", *arguments, stdin="" if params is None else json.dumps(params), timeout=timeout
        )
        if status:
            raise OneshotError(method, status, out, err)
        return json.loads(out)


class OneshotError(Exception):
    def __init__(self, method, status, out, err):
        super().__init__(f"--oneshot {method}: exit status {status}\n{out}\n{err[-4000:]}")
        self.status, self.out, self.err = status, out, err


class Calls(threading.Thread):
    """A call in the background: result() waits for it and answers or raises what it did."""

    def __init__(self, call, *arguments):
        super().__init__(daemon=True)
        self.work, self.arguments, self.value, self.error = call, arguments, None, None
        self.begun = time.monotonic()
        self.start()

    def run(self):
        try:
            self.value = self.work(*self.arguments)
        except BaseException as e:
            self.error = e
        self.seconds = time.monotonic() - self.begun

    def result(self, timeout=900):
        self.join(timeout)
        if self.is_alive():
            raise TimeoutError(f"no answer in {timeout} s: {self.arguments}")
        if self.error:
            raise self.error
        return self.value
