#!/usr/bin/python3
"""Who may use the controller, and which agents the controller speaks to."""

import json
import os
import pwd
import socket
import ssl
import subprocess
import threading
import unittest

from control import *  # noqa: F403


class Access(SiteTest):
    def test_audit(self):
        site = self.site("audit")
        c = site.controller
        task = c.replicate("m", 1)["task"]["id"]
        c.wait_task(task)
        self.refused(409, "conflict", c.call, "DELETE", "/instances/m")
        log_text = c.log_file.read_text()
        self.assertRegex(
            log_text,
            rf'msg="a changing request" caller="uid {os.getuid()}" method=POST path=/instances/m/action status=202 task={task}\n',
        )
        self.assertRegex(
            log_text, r'msg="a changing request" caller="uid \d+" method=DELETE path=/instances/m status=409'
        )
        self.assertRegex(log_text, rf'msg="task step".* task={task} ')
        self.assertNotIn("job_id=t", log_text)

    def test_token(self):
        token = self.enterContext(Scratch("token"))
        file = token.dir / "token"
        file.touch(mode=0o600)
        file.write_text("s3cret-token\n")
        site = Site("auth", config={"token_file": str(file)})
        self.enterContext(site)
        c = site.controller.start()
        status, body, headers = c.tcp("GET", "/instances", token=False)
        self.assertEqual((status, headers["WWW-Authenticate"]), (401, "Bearer"))
        self.assertIn("unauthorized", json.loads(body))
        self.assertEqual(c.tcp("GET", "/instances", headers={"Authorization": "Bearer s3cret-tokem"})[0], 401)
        self.assertEqual(c.tcp("GET", "/instances", headers={"Authorization": "Bearer s3cret-token"})[0], 200)
        self.assertEqual(c.tcp("GET", "/events", token=False)[0], 401)
        self.assertEqual(c.tcp("GET", "/", token=False)[0], 200)
        by_tcp = {"GUESTAGENT_CONTROLLER": f"http://127.0.0.1:{c.port}"}
        self.assertEqual(c.command("instances", env=by_tcp)[0], 17)
        self.assertEqual(c.command("instances", "--token-file", str(file), env=by_tcp)[0], 0)
        self.assertEqual(
            c.command("instances", "--config", str(c.config_file), env={"GUESTAGENT_CONTROLLER": ""})[0], 0
        )
        # The configuration's token goes to the configuration's listener, and to no other.
        self.assertEqual(
            c.command("instances", "--config", str(c.config_file), "--controller", f"http://localhost:{c.port}")[0], 0
        )
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            heard = []

            def answer():
                with stranger.accept()[0] as s:
                    heard.append(s.recv(65536))
                    s.sendall(b"HTTP/1.1 401 no\r\nContent-Length: 0\r\n\r\n")

            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
            self.assertEqual(
                c.command(
                    "instances",
                    "--config",
                    str(c.config_file),
                    "--controller",
                    f"http://127.0.0.1:{stranger.getsockname()[1]}",
                )[0],
                17,
            )
            thread.join(10)
            self.assertNotIn(b"s3cret", heard[0])
        self.assertNotIn("s3cret", c.log_file.read_text())

    def test_names_that_a_page_of_somebody_else_has(self):
        site = self.site("rebind")
        c = site.controller
        good = [
            f"127.0.0.1:{c.port}",
            f"localhost:{c.port}",
            f"127.9.8.7:{c.port}",
            f"[::1]:{c.port}",
            f"[::ffff:127.0.0.1]:{c.port}",
        ]
        bad = [
            "",
            "127.evil.example",
            f"127.evil.example:{c.port}",
            f"127.0.0.1.evil.example:{c.port}",
            "[::1].evil",
            f"[::1].evil:{c.port}",
            f"localhost.evil.example:{c.port}",
            f"evil.example:{c.port}",
            f"127.1:{c.port}",
            f"0x7f.1:{c.port}",
            f"2130706433:{c.port}",
            f"localhost:{c.port + 1}",
            "localhost",
            "127.0.0.1",
            f"127.0.0.1:0{c.port}x",
            f"user@127.0.0.1:{c.port}",
            f"127.0.0.1:{c.port}/",
            f"10.0.0.1:{c.port}",
            f"[::]:{c.port}",
            f"0.0.0.0:{c.port}",
            f"127.0.0.1:{c.port}, evil",
            f"localhost.:{c.port}",
        ]
        for host in good + bad:
            for method, path in (
                ("GET", "/instances"),
                ("GET", "/"),
                ("GET", "/healthz"),
                ("DELETE", "/instances/nobody"),
            ):
                with self.subTest(host=host, method=method, path=path):
                    status = c.tcp(method, path, headers={"Host": host, "Origin": f"http://{host}"})[0]
                    self.assertEqual(status, 403 if host in bad else 404 if method == "DELETE" else 200)
        # By the right name, from a page of another.
        for origin in (
            "null",
            "http://evil.example",
            f"https://127.0.0.1:{c.port}",
            f"http://127.0.0.1:{c.port + 1}",
            "http://127.0.0.1",
            f"127.0.0.1:{c.port}",
            f"x://127.0.0.1:{c.port}",
        ):
            self.assertEqual(c.tcp("DELETE", "/instances/nobody", headers={"Origin": origin})[0], 403, origin)

    def test_headers_that_must_be_one(self):
        site = self.site("heads")
        c = site.controller

        def ask(family, address, *lines):
            with socket.socket(family) as s:
                s.settimeout(20)
                s.connect(address)
                s.sendall("\r\n".join(["GET /instances HTTP/1.1", "Connection: close", *lines, "", ""]).encode())
                return s.recv(65536).split()[1]

        host, token = f"Host: 127.0.0.1:{c.port}", "Authorization: Bearer " + c.token
        for family, address in ((socket.AF_INET, ("127.0.0.1", c.port)), (socket.AF_UNIX, c.socket)):
            self.assertEqual(ask(family, address, host, token), b"200")
            for lines in (
                [host, host],
                [host, "Host: evil.example"],
                ["Host: evil.example", host],
                [],
                [host, "Origin: a", "Origin: b"],
                [host, token, token],
                [host, "Idempotency-Key: a", "idempotency-key: b"],
            ):
                self.assertEqual(ask(family, address, *lines, *([token] if token not in lines else [])), b"400", lines)

    def test_who_may_use_the_socket(self):
        """The kernel says who connects: root, the controller's own user, and those whom the lists name."""
        who = ["nobody", "daemon", "games"]
        if os.getuid() != 0:
            self.skipTest("needs root")
        scratch = self.enterContext(Scratch("who"))
        scratch.dir.chmod(0o755)
        # Not beside the state, whose directory is the controller's alone.
        c = Controller(
            scratch,
            {
                "socket": str(scratch.dir / "c.sock"),
                "socket_mode": "0666",
                "allow_users": ["daemon"],
                "allow_groups": ["games"],
            },
        )
        c.socket = str(scratch.dir / "c.sock")
        self.addCleanup(c.stop)
        c.start()
        for user in ["root", *who]:
            with self.subTest(user=user):
                entry = pwd.getpwnam(user)
                done = scratch.run(
                    [
                        "setpriv",
                        "--reuid",
                        str(entry.pw_uid),
                        "--regid",
                        str(entry.pw_gid),
                        "--clear-groups",
                        "curl",
                        "-s",
                        "-o",
                        "/dev/null",
                        "-w",
                        "%{http_code}",
                        "--unix-socket",
                        c.socket,
                        "http://controller/instances",
                    ],
                    stdout=subprocess.PIPE,
                    text=True,
                    timeout=30,
                )
                self.assertEqual(done.stdout, "403" if user == "nobody" else "200")
        c.stop()
        # As it is without the lists: nobody else can even open it.
        c = Controller(scratch, name="plain")
        self.addCleanup(c.stop)
        c.start()
        self.assertEqual(os.stat(c.socket).st_mode & 0o777, 0o660)

    def test_tcp_is_off_unless_it_is_asked_for(self):
        scratch = self.enterContext(Scratch("off"))
        c = Controller(scratch, {"listen": None, "token_file": None})
        self.addCleanup(c.stop)
        c.start()
        with self.assertRaises(ConnectionRefusedError):
            c.tcp("GET", "/healthz")
        self.assertEqual(c.command("instances")[0], 0)
        # On loopback, but open to everybody there: refused.
        c = Controller(scratch, {"token_file": None}, name="open")
        c.start(wait=False)
        self.assertEqual(c.process.wait(20), 2)
        self.assertIn("token_file or tls.client_ca", c.log_file.read_text())

    def test_agents_that_prove_nothing(self):
        """No place where a stranger could stand is asked for anything: no password goes there, and nothing is learnt of what is there."""
        site = self.site("strangers")
        c = site.controller
        elsewhere = self.enterContext(Scratch("elsewhere"))
        heard = []

        def stranger(server):
            while True:
                try:
                    s = server.accept()[0]
                except OSError:
                    return
                with s:
                    heard.append(s.recv(65536))
                    s.sendall(b"HTTP/1.1 403 no\r\nContent-Length: 14\r\n\r\nhidden-words!!")

        sockets = [
            (socket.socket(socket.AF_UNIX), str(elsewhere.dir / "agent.sock")),
            (socket.socket(), ("127.0.0.1", 0)),
            (socket.socket(socket.AF_UNIX), str(site.scratch.dir / "theirs.sock")),
        ]
        for server, address in sockets:
            server.bind(address)
            server.listen()
            self.addCleanup(server.close)
            self.addCleanup(lambda s=server: s.shutdown(socket.SHUT_RDWR))
            threading.Thread(target=stranger, args=(server,), daemon=True).start()
        port = sockets[1][0].getsockname()[1]
        os.symlink(elsewhere.dir, site.scratch.dir / "link")
        for address in (
            f"unix:{elsewhere.dir}/agent.sock",
            f"unix:{site.scratch.dir}/../{elsewhere.dir.name}/agent.sock",
            f"unix:{site.scratch.dir}/link/agent.sock",
            f"unix:{site.scratch.dir}x/agent.sock",
            f"unix:{site.scratch.dir}",
            "unix:/etc/passwd",
            f"http://127.0.0.1:{port}",
            f"http://localhost:{port}",
            f"http://[::1]:{port}",
            f"http://127.evil.example:{port}",
            f"https://127.0.0.1:{port}",
            "https://agent.example:8443",
            "https://a;b:1",
            f"https://localhost:{port}@evil:1",
        ):
            with self.subTest(address=address):
                self.refused(400, "badRequest", c.register, address)
        self.assertEqual(heard, [])
        # One in the right directory that answers strangely: its words stay with it.
        message = self.refused(403, "forbidden", c.register, f"unix:{site.scratch.dir}/theirs.sock")
        self.assertNotIn("hidden-words", message)
        if os.getuid() != 0:
            return
        # One in the right directory whose process is somebody else's.
        other = str(site.scratch.dir / "other.sock")
        site.scratch.dir.chmod(0o777)
        code = (
            "import socket,sys; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print('ready', flush=True)\n"
            "while True: print(s.accept()[0].recv(65536), flush=True)"
        )
        process = site.scratch.spawn(
            [
                "setpriv",
                "--reuid",
                "nobody",
                "--regid",
                "nogroup",
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
                code,
                other,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.assertEqual(process.stdout.readline(), "ready\n")
        self.assertIn("does not trust", self.refused(403, "forbidden", c.register, f"unix:{other}"))
        process.kill()
        self.assertEqual(process.stdout.read().replace("b''\n", ""), "")
        site.scratch.dir.chmod(0o700)

    def test_strangers_do_not_shut_it(self):
        """Those who connect and say nothing have few places, which are taken from them; the socket has places of its own."""
        site = self.site("full")
        c = site.controller
        idle = []
        self.addCleanup(lambda: [s.close() for s in idle])
        for _ in range(600):
            s = socket.create_connection(("127.0.0.1", c.port), timeout=10)
            idle.append(s)
        self.assertEqual(c.request("GET", "/instances")[0], 200)
        self.assertEqual(c.tcp("GET", "/instances")[0], 200)
        self.assertEqual(idle[0].recv(1), b"")

    def test_certificates(self):
        """Sessions that are taken up again, names that are not what they look like, and what the CA revoked."""
        from hosts import Certificates

        scratch = self.enterContext(Scratch("tls"))
        ca = Certificates(scratch.dir / "ca")
        server, good, bad = ca.make("server", "127.0.0.1"), ca.make("good"), ca.make("bad")
        crl = ca.revoke()
        c = Controller(
            scratch,
            {
                "token_file": None,
                "tls": {**server, "client_ca": ca.ca, "client_crl": crl, "allow_names": ["good", "bad"]},
            },
        )
        self.addCleanup(c.stop)
        c.start()

        def context(of):
            out = ssl.create_default_context(cafile=ca.ca)
            out.load_cert_chain(of["certificate"], of["key"])
            return out

        def ask(using, session=None):
            with socket.create_connection(("127.0.0.1", c.port), timeout=20) as raw:
                with using.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as s:
                    s.sendall(b"GET /instances HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % c.port)
                    answer = s.recv(65536)
                    return answer.split()[1] if answer else None, s.session, s.session_reused

        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with self.subTest(version=version):
                using = context(good)
                using.minimum_version = using.maximum_version = version
                status, session, _ = ask(using)
                self.assertEqual(status, b"200")
                status, _, reused = ask(using, session)
                self.assertEqual((status, reused), (b"200", True))
                # Revoked, and told so: neither anew nor by a session from before.
                revoked = context(bad)
                revoked.minimum_version = revoked.maximum_version = version
                status, session, _ = ask(revoked)
                self.assertEqual(status, b"200")
                ca.revoke("bad")
                c.process.send_signal(signal.SIGHUP)

                def is_refused(with_session):
                    try:
                        return ask(revoked, with_session)[0] is None
                    except (ssl.SSLError, ConnectionError):
                        return True

                wait_for("the list to be read", lambda: is_refused(session), 20)
                self.assertTrue(is_refused(None))
                self.assertEqual(ask(using)[0], b"200")
                ca.revoke()
                c.process.send_signal(signal.SIGHUP)
                wait_for("the list to be read", lambda: not is_refused(None), 20)
        # A list that cannot be used changes nothing.
        whole = Path(crl).read_text()
        Path(crl).write_text("no list")
        c.process.send_signal(signal.SIGHUP)
        wait_for("the log", lambda: "TLS files were not read again" in c.log_file.read_text())
        self.assertEqual(ask(context(good))[0], b"200")
        Path(crl).write_text(whole)


if __name__ == "__main__":
    unittest.main(verbosity=2)
