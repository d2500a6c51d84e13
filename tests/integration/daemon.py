#!/usr/bin/python3
"""The daemon as systemd and a controller on another host meet it: notify, watchdog, reload, stop, socket activation, a socket that a dead
one left, recovery at the start, and the TLS listener. Needs no database server: what it says of one that is away is enough."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

from agent import _UnixConnection, binary, merge, to_yaml  # noqa: E402
from scratch import Scratch, free_port, wait_for  # noqa: E402


class Notified:
    """A notify socket, and all that came to it."""

    def __init__(self, path):
        self.path, self.lines = str(path), []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            try:
                self.lines += self.socket.recv(65536).decode().splitlines()
            except OSError:
                return

    def count(self, line):
        return self.lines.count(line)


class Daemon(unittest.TestCase):
    def setUp(self):
        self.scratch = self.enterContext(Scratch("daemon"))
        self.dir = self.scratch.dir
        self.config_file, self.socket, self.log = (
            self.dir / "guestagent.yaml",
            self.dir / "agent.sock",
            self.dir / "agent.log",
        )
        self.config = {}
        self.configure(
            {
                "agent": {"socket": str(self.socket), "state_dir": str(self.dir / "state")},
                "snapshot": {"spill": {"dir": str(self.dir / "spill")}},
                "storage": {"store": "local", "local": {"path": str(self.dir / "store")}},
                "mysql": {
                    "advertised_address": "192.0.2.1",
                    "socket": str(self.dir / "nobody.sock"),
                    "data_dir": str(self.dir / "data"),
                },
            }
        )

    def configure(self, changes):
        self.config = merge(self.config, changes)
        self.config_file.write_text(to_yaml(self.config) + "\n")

    def start(self, argv=None, ready=True, **env):
        with open(self.log, "ab") as log:
            process = self.scratch.spawn(
                argv or [binary(), "--config", self.config_file, "daemon"],
                stdout=log,
                stderr=log,
                env={**self.scratch.env, **env},
            )
        if ready:
            wait_for("the daemon", lambda: self.is_ready(process), 20, 0.01)
        return process

    def is_ready(self, process):
        self.assertIsNone(process.poll(), self.log.read_text())
        try:
            return self.request("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def stop(self, process, how=signal.SIGTERM):
        process.send_signal(how)
        return process.wait(30)

    def request(self, method, path, body=None):
        return self.ask(_UnixConnection(self.socket, 30), method, path, body)

    @staticmethod
    def ask(connection, method, path, body=None):
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def call(self, method, params=None):
        return json.loads(
            self.request(
                "POST", "/rpc", json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}})
            )[1]
        )

    def test_notify_watchdog_reload_and_stop(self):
        notified = Notified(self.dir / "notify.sock")
        process = self.start(NOTIFY_SOCKET=notified.path, WATCHDOG_USEC="300000")
        wait_for("READY", lambda: notified.count("READY=1") == 1)
        wait_for("the watchdog to be fed", lambda: notified.count("WATCHDOG=1") >= 3)

        self.configure({"snapshot": {"throttle": {"upload": "10MiB"}}, "agent": {"log_level": "debug"}})
        process.send_signal(signal.SIGHUP)
        wait_for("the reload", lambda: notified.count("READY=1") == 2)
        self.assertEqual(notified.count("RELOADING=1"), 1)
        self.assertIn("read again", self.log.read_text())

        self.config_file.write_text("agent: [broken\n")
        process.send_signal(signal.SIGHUP)
        wait_for("the reload that fails", lambda: notified.count("READY=1") == 3)
        self.assertIn("not read again", self.log.read_text())
        self.assertEqual(self.request("GET", "/healthz")[0], 200)

        self.assertEqual(self.stop(process), 0)
        self.assertEqual(notified.count("STOPPING=1"), 1)
        self.assertFalse(self.socket.exists())

    def test_a_server_that_hangs_is_not_called_well(self):
        notified = Notified(self.dir / "notify.sock")
        process = self.start(NOTIFY_SOCKET=notified.path, WATCHDOG_USEC="300000")
        wait_for("the watchdog to be fed", lambda: notified.count("WATCHDOG=1") >= 3)
        # In the server's place one that takes connections and says nothing.
        aside = self.socket.with_suffix(".aside")
        self.socket.rename(aside)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
            silent.bind(str(self.socket))
            silent.listen(64)
            wait_for("the first silence", lambda: "does not answer" in self.log.read_text())
            fed = notified.count("WATCHDOG=1")
            silences = self.log.read_text().count("does not answer")
            wait_for("more of it", lambda: self.log.read_text().count("does not answer") >= silences + 3)
            self.assertEqual(notified.count("WATCHDOG=1"), fed)
        self.socket.unlink()
        # A socket that somebody took away is no hang.
        wait_for("nobody there", lambda: notified.count("WATCHDOG=1") >= fed + 3)
        aside.rename(self.socket)
        self.assertEqual(self.stop(process), 0)

    def test_interrupt_stops_it_too(self):
        self.assertEqual(self.stop(self.start(), signal.SIGINT), 0)

    def test_a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not(self):
        process = self.start()
        self.stop(process, signal.SIGKILL)
        self.assertTrue(self.socket.exists())
        process = self.start()
        second = self.start(ready=False)
        self.assertEqual(second.wait(30), 16)
        self.assertEqual(self.request("GET", "/healthz")[0], 200)
        self.assertEqual(self.stop(process), 0)

    def test_socket_activation(self):
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.socket))
        listening.listen()
        script = 'exec 3<&"$1"; export LISTEN_PID=$$ LISTEN_FDS=1; shift; exec "$@"'
        with open(self.log, "ab") as log:
            process = self.scratch.spawn(
                [
                    "bash",
                    "-c",
                    script,
                    "bash",
                    str(listening.fileno()),
                    binary(),
                    "--config",
                    self.config_file,
                    "daemon",
                ],
                stdout=log,
                stderr=log,
                pass_fds=[listening.fileno()],
            )
        listening.close()
        wait_for("the daemon", lambda: self.is_ready(process), 20, 0.01)
        self.assertEqual(self.stop(process), 0)
        self.assertTrue(self.socket.exists(), "the socket belongs to whoever passed it")

    def test_what_a_dead_job_left_is_removed_at_the_start(self):
        jobs, objects = self.dir / "state" / "jobs", self.dir / "store" / "guestagent" / "snapshots" / "half"
        jobs.mkdir(parents=True)
        objects.mkdir(parents=True)
        (objects / "segment-00000001").write_bytes(b"half of a snapshot")
        (jobs / "dead.json").write_text(
            json.dumps(
                {
                    "kind": "changing",
                    "params_digest": "x",
                    "job_id": "dead",
                    "method": "get_replication_snapshot",
                    "state": "running",
                    "phase": "copy",
                    "started_at": "2026-01-01T00:00:00Z",
                    "progress": {"done_bytes": 1, "rate": 0},
                }
            )
        )
        (jobs / "dead.journal").write_text(
            '{"step":"job","data":{"method":"get_replication_snapshot"}}\n'
            '{"step":"objects","data":{"snapshot_id":"half"}}\n{"step":"torn'
        )
        process = self.start()
        record = wait_for("the recovery", lambda: self.ended("dead"))
        self.assertEqual(record["state"], "failed")
        self.assertIn("recovered", record["error"]["message"])
        self.assertFalse((objects / "segment-00000001").exists())
        self.assertFalse((jobs / "dead.journal").exists())
        self.stop(process)

    def ended(self, job_id):
        record = self.call("get_job", {"job_id": job_id})["result"]
        return record if record["state"] != "running" else None

    def test_a_server_that_is_away_is_a_status_and_no_end(self):
        process = self.start()
        self.assertEqual(self.call("get_replication_status")["result"]["verdict"], "unreachable")
        self.assertIn(b'guestagent_replication_verdict{verdict="unreachable"} 1', self.request("GET", "/metrics")[1])
        answer = self.call("get_replication_snapshot", {"job_id": "mine"})
        self.assertEqual((answer["error"]["data"]["code"], answer["error"]["data"]["job_id"]), ("UNAVAILABLE", "mine"))
        self.assertEqual(self.stop(process), 0)
        process = self.start()
        self.assertEqual(
            self.call("get_job", {"job_id": "mine"})["result"]["state"], "failed", "records outlive the process"
        )
        self.stop(process)

    def test_a_run_whose_log_shows_a_secret_fails(self):
        """The look that every script's clean-up takes at its logs and its processes: it finds one that is there."""

        def run(*, in_log="", argv=("sleep", "60"), record=None):
            with Scratch("leak") as scratch:
                scratch.secrets["the password of x"] = "pw-0123456789"
                (scratch.dir / "jobs").mkdir()
                (scratch.dir / "jobs/a.json").write_text(
                    json.dumps({"result": {"replication_user": {"password": record or "unused-one"}}})
                )
                (scratch.dir / "agent.log").write_text(f"connecting {in_log}\n")
                scratch.spawn(argv)

        run(in_log="***")
        for leak in (
            {"in_log": "pw-0123456789"},
            {"in_log": "repl-98765", "record": "repl-98765"},
            {"argv": ("bash", "-c", "sleep 60; :", "pw-0123456789")},
        ):
            with self.subTest(**leak), self.assertRaisesRegex(
                AssertionError, "password.* in .*(agent.log|command line)"
            ):
                run(**leak)

    # TLS

    def certificate(self, name, ca=None):
        """PATH.pem and PATH.key of a certificate that `ca` signs (itself without)."""
        path = self.dir / name
        run = lambda *words: subprocess.run(
            ["openssl", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )  # noqa: E731
        fresh = [
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            f"{path}.key",
            "-subj",
            f"/CN={name}",
        ]
        if ca is None:
            run(*fresh, "-x509", "-days", "2", "-out", f"{path}.pem")
        else:
            run(*fresh, "-out", f"{path}.csr")
            (self.dir / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
            run(
                "x509",
                "-req",
                "-in",
                f"{path}.csr",
                "-CA",
                f"{ca}.pem",
                "-CAkey",
                f"{ca}.key",
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                str(self.dir / "ext"),
                "-out",
                f"{path}.pem",
            )
        return path

    def over_tls(self, client, method="GET", path="/healthz", body=None, ca="ca", source="127.0.0.1"):
        context = ssl.create_default_context(cafile=f"{self.dir / ca}.pem")
        if client:
            context.load_cert_chain(f"{self.dir / client}.pem", f"{self.dir / client}.key")
        return self.ask(
            http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=30, context=context, source_address=(source, 0)
            ),
            method,
            path,
            body,
        )

    def test_tls_listener_wants_a_certificate_it_knows(self):
        ca, stranger = self.certificate("ca"), self.certificate("stranger-ca")
        self.certificate("server", ca)
        self.certificate("controller", ca)
        self.certificate("other", ca)
        self.certificate("stranger", stranger)
        self.port = free_port()
        self.configure(
            {
                "agent": {
                    "listen": {
                        "address": f"127.0.0.1:{self.port}",
                        "certificate": f"{self.dir}/server.pem",
                        "key": f"{self.dir}/server.key",
                        "client_ca": f"{ca}.pem",
                        "allow_names": ["controller"],
                    }
                }
            }
        )
        process = self.start()
        self.assertEqual(self.over_tls("controller")[0], 200)
        status, body = self.over_tls(
            "controller", "POST", "/rpc", json.dumps({"jsonrpc": "2.0", "id": 1, "method": "list_jobs"})
        )
        self.assertEqual((status, json.loads(body)["result"]), (200, {"jobs": []}))
        for client in ("other", "stranger", None):
            with self.subTest(client=client), self.assertRaises(OSError):
                self.over_tls(client)
        # Bytes that are no TLS, and connections that say nothing, neither end it nor keep others out.
        held = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(10)]
        held[0].sendall(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(5000))
        self.assertEqual(self.over_tls("controller")[0], 200)
        self.assertEqual(self.stop(process), 0, "who says nothing does not hold up the stop")
        for connection in held:
            connection.close()

    def test_strangers_on_the_network_keep_nobody_out(self):
        ca = self.certificate("ca")
        self.certificate("server", ca)
        self.certificate("controller", ca)
        self.port = free_port()
        self.configure(
            {
                "agent": {
                    "listen": {
                        "address": f"127.0.0.1:{self.port}",
                        "certificate": f"{self.dir}/server.pem",
                        "key": f"{self.dir}/server.key",
                        "client_ca": f"{ca}.pem",
                    }
                }
            }
        )
        process = self.start()
        held = [socket.create_connection(("127.0.0.1", self.port)) for _ in range(200)]
        for connection in held[::2]:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01")  # a handshake that does not go on
        self.assertEqual(self.request("GET", "/healthz")[0], 200, "the socket is another door")
        self.assertEqual(
            self.over_tls("controller", source="127.0.0.2")[0], 200, "one address takes nothing from the others"
        )
        threads = len(os.listdir(f"/proc/{process.pid}/task"))
        self.assertLess(threads, 60, "each of them costs a thread")
        for connection in held:
            connection.close()
        wait_for("the places to be free again", lambda: self.gets_in("controller"), 20)
        self.assertEqual(self.stop(process), 0)

    def gets_in(self, client):
        try:
            return self.over_tls(client)[0] == 200
        except OSError:
            return False

    def test_a_configuration_or_a_secret_of_somebody_else_is_not_believed(self):
        key = self.dir / "key"
        key.write_text("not the password of anybody")
        key.chmod(0o600)
        self.configure({"mysql": {"password_file": str(key)}})

        def look(*words):
            said = subprocess.run([binary(), "--config", self.config_file, *words], capture_output=True, text=True)
            return said.returncode, said.stdout + said.stderr

        self.assertEqual(look("--oneshot", "list_jobs")[0], 0)
        for path, words in ((self.config_file, ("--oneshot", "list_jobs")), (key, ("check-config",))):
            for spoil, mend, why in (
                (lambda p: os.chown(p, 65534, 0), lambda p: os.chown(p, 0, 0), "it belongs to user 65534"),
                (lambda p: p.chmod(0o620), lambda p: p.chmod(0o600), "others than its owner can write it"),
            ):
                spoil(path)
                status, said = look(*words)
                mend(path)
                self.assertNotEqual(status, 0, said)
                self.assertIn(f"{path}: {why}", said)
            self.assertNotIn("belongs to", look(*words)[1])

    def test_a_result_that_cannot_be_written_is_known_before_the_work(self):
        command = f'{binary()} --config {self.config_file} --oneshot get_replication_snapshot \'{{"job_id": "j1"}}\''
        for redirect in (">&-", "| true"):
            said = subprocess.run(
                [
                    "bash",
                    "-c",
                    f"set -o pipefail; sleep 0.2 | true; {command} {redirect}"
                    if redirect == ">&-"
                    else f"{{ sleep 0.5; {command}; echo status=$? >&2; }} {redirect}",
                ],
                capture_output=True,
                text=True,
            )
            self.assertIn("standard output", said.stderr)
            self.assertIn("FAILED_PRECONDITION", said.stderr)
        self.assertFalse((self.dir / "state/jobs/j1.json").exists(), "no job was begun")

    def test_certificates_that_are_revoked(self):
        ca = self.certificate("ca")
        for name in ("server", "controller", "other"):
            self.certificate(name, ca)

        def revoke(*names):
            (self.dir / "index.txt").write_text("")
            (self.dir / "crlnumber").write_text("01\n")
            (self.dir / "ca.cnf").write_text(
                f"[ca]\ndefault_ca=c\n[c]\ndatabase={self.dir}/index.txt\ncrlnumber={self.dir}/crlnumber\n"
                f"default_md=sha256\ndefault_crl_days=2\nprivate_key={ca}.key\ncertificate={ca}.pem\n"
            )
            run = lambda *words: subprocess.run(
                ["openssl", "ca", "-config", f"{self.dir}/ca.cnf", *words],
                check=True,  # noqa: E731
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name in names:
                run("-revoke", f"{self.dir}/{name}.pem")
            run("-gencrl", "-out", f"{self.dir}/crl.pem")

        revoke("other")
        self.port = free_port()
        self.configure(
            {
                "agent": {
                    "listen": {
                        "address": f"127.0.0.1:{self.port}",
                        "certificate": f"{self.dir}/server.pem",
                        "key": f"{self.dir}/server.key",
                        "client_ca": f"{ca}.pem",
                        "client_crl": f"{self.dir}/crl.pem",
                        "allow_names": ["controller", "other"],
                    }
                }
            }
        )
        process = self.start()
        self.assertEqual(self.over_tls("controller")[0], 200)
        with self.assertRaises(OSError):
            self.over_tls("other")
        # Who was let in before is out at the next request, on the connection that he has and on new ones.
        context = ssl.create_default_context(cafile=f"{ca}.pem")
        context.load_cert_chain(f"{self.dir}/controller.pem", f"{self.dir}/controller.key")
        held = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=context)
        self.addCleanup(held.close)
        held.request("GET", "/healthz")
        self.assertEqual(held.getresponse().read()[:1], b"{")
        revoke("controller")
        process.send_signal(signal.SIGHUP)
        wait_for("the list to be read", lambda: "TLS files were read again" in self.log.read_text())
        self.assertEqual(self.over_tls("other")[0], 200)
        with self.assertRaises(OSError):
            self.over_tls("controller")
        with self.assertRaises((OSError, http.client.HTTPException)):
            held.auto_open = 0
            held.request("GET", "/healthz")
            held.getresponse()
        # A list that is none changes nothing.
        (self.dir / "crl.pem").write_text("no list")
        process.send_signal(signal.SIGHUP)
        wait_for("the log", lambda: "client_crl" in self.log.read_text())
        self.assertEqual(self.over_tls("other")[0], 200)
        self.assertEqual(self.stop(process), 0)

    def test_tls_files_that_cannot_be_used_are_named(self):
        self.configure(
            {
                "agent": {
                    "listen": {
                        "address": f"127.0.0.1:{free_port()}",
                        "certificate": f"{self.dir}/none.pem",
                        "key": f"{self.dir}/none.key",
                        "client_ca": f"{self.dir}/none.pem",
                    }
                }
            }
        )
        process = self.start(ready=False)
        self.assertNotEqual(process.wait(30), 0)
        self.assertIn("agent.listen.certificate", self.log.read_text())


if __name__ == "__main__":
    unittest.main(verbosity=2)
