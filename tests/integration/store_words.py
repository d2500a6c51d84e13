#!/usr/bin/python3
"""What a user is told whose store, certificate, secret or configuration is not right: the code, the place and a hint that helps."""

import hashlib
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
import unittest
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

from scratch import Scratch  # noqa: E402

BINARY = os.environ.get("GUESTAGENT_BIN", "guestagent")


class S3(http.server.BaseHTTPRequestHandler):
    """The objects of one bucket; the server's `refuse` answers what it likes instead: (status, code, what else the error has)."""

    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urllib.parse.urlsplit(self.path)
        query, key, objects = (
            dict(urllib.parse.parse_qsl(url.query)),
            url.path.removeprefix("/bucket/"),
            self.server.objects,
        )
        if self.server.refuse:
            status, code, more = self.server.refuse
            self.answer(status, f"<Error><Code>{code}</Code>{more}</Error>".encode())
        elif "list-type" in query:
            # What was deleted once fills the first page.
            if self.server.empty_page and "continuation-token" not in query:
                page = "<IsTruncated>true</IsTruncated><NextContinuationToken>!</NextContinuationToken>"
            else:
                page = "<IsTruncated>false</IsTruncated>" + "".join(
                    f"<Contents><Key>{k}</Key><Size>{len(v)}</Size></Contents>"
                    for k, v in sorted(objects.items())
                    if k.startswith(query["prefix"])
                )
            self.answer(200, f"<ListBucketResult>{page}</ListBucketResult>".encode())
        elif self.command == "PUT":
            objects[key] = body
            self.answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')
        elif key not in objects:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif self.command == "DELETE":
            if not self.server.keeps:
                objects.pop(key)
            self.answer(204)
        else:
            self.answer(200, objects[key], ETag=f'"{hashlib.md5(objects[key]).hexdigest()}"')

    do_HEAD = do_PUT = do_DELETE = do_GET

    def log_message(self, *_):
        pass


class Quiet(http.server.ThreadingHTTPServer):
    refuse, empty_page, keeps = None, False, False

    def __init__(self, *args):
        super().__init__(*args)
        self.objects = {}

    def handle_error(self, *_):
        pass


class StoreWords(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = cls.enterClassContext(Scratch("words"))
        cls.dir = cls.scratch.dir
        cls.openssl("req", "-x509", "-subj", "/CN=ca", "-days", "30", "-keyout", "ca.key", "-out", "ca.crt")
        cls.certificate("good", "IP:127.0.0.1", 30)
        cls.certificate("old", "IP:127.0.0.1", -1)
        cls.certificate("other", "DNS:swift.example", 30)
        cls.plain = cls.serve(None)

    @classmethod
    def openssl(cls, command, *words):
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes") if command == "req" else ()
        subprocess.run(["openssl", command, *new, *words], cwd=cls.dir, check=True, capture_output=True)

    @classmethod
    def certificate(cls, name, names, days):
        (cls.dir / f"{name}.ext").write_text(f"subjectAltName={names}\n")
        cls.openssl("req", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        cls.openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            str(days),
            "-extfile",
            f"{name}.ext",
            "-out",
            f"{name}.crt",
        )

    @classmethod
    def serve(cls, certificate):
        """127.0.0.1:PORT of a server, with TLS where a certificate is named; cls.server is the last one."""
        server = Quiet(("127.0.0.1", 0), S3)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(cls.dir / f"{certificate}.crt", cls.dir / f"{certificate}.key")
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        cls.addClassCleanup(server.server_close)
        cls.addClassCleanup(server.shutdown)
        cls.server = server
        return f"127.0.0.1:{server.server_address[1]}"

    def ask(self, config, env=(), call=("list_replication_snapshots",)):
        done = subprocess.run(
            [BINARY, "--config", config, "--oneshot", *call],
            env={**self.scratch.env, **dict(env)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def config(self, endpoint, secret=b"the-secret\n", ca="ca.crt"):
        key = self.dir / "s3.secret"
        key.touch(mode=0o600)
        key.write_bytes(secret)
        s3 = {
            "endpoint": endpoint,
            "access_key": "k",
            "secret_key_file": str(key),
            "tls": {"ca_file": str(self.dir / ca) if ca else ""},
        }
        path = self.dir / "guestagent.yaml"
        path.write_text(
            json.dumps(
                {
                    "agent": {"state_dir": str(self.dir / "state")},
                    "mysql": {"advertised_address": "db1.example", "data_dir": str(self.dir / "data")},
                    "storage": {
                        "store": "s3",
                        "container": "bucket",
                        "s3": s3,
                        "retry": {"tries": 2, "first_delay": "1ms", "max_delay": "1ms"},
                    },
                }
            )
        )
        return path

    def refused(self, status, words, config, **more):
        code, said = self.ask(config, **more)
        self.assertEqual(code, status, said)
        for word in words:
            self.assertIn(word, said)
        self.assertNotIn("call --help", said)
        self.assertNotIn("the-secret", said)

    def test_certificates(self):
        for certificate, ca, words in (
            ("old", "ca.crt", ["has expired", "renew it"]),
            ("other", "ca.crt", ["is for another name"]),
            ("good", None, ["tls.ca_file"]),
        ):
            with self.subTest(certificate):
                self.refused(
                    17, [*words, "https://127.0.0.1"], self.config(f"https://{self.serve(certificate)}", ca=ca)
                )
        self.assertEqual(self.ask(self.config(f"https://{self.serve('good')}"))[0], 0)

    def test_the_wrong_scheme(self):
        self.refused(19, ["does not speak TLS there", "http://"], self.config(f"https://{self.plain}"))
        self.refused(
            24, ["list: 2 tries in ", "; the last: http://127.0.0.1"], self.config(f"http://{self.serve('good')}")
        )

    def test_secrets(self):
        plain = f"http://{self.plain}"
        for good in (b"the-secret", b"the-secret\n", b"the-secret\r\n"):
            self.assertEqual(self.ask(self.config(plain, good))[0], 0, good)
        for bad, word in (
            (b"the-secret\nmore\n", "more than one line"),
            (b"the-secret\0", "NUL"),
            (b"the\tsecret", "control"),
            (b"", "empty"),
            (b"\xef\xbb\xbfthe-secret\n", "byte order mark"),
            (b"x" * 100000, "larger"),
        ):
            with self.subTest(word):
                self.refused(2, [word, str(self.dir / "s3.secret")], self.config(plain, bad))

    def test_configurations(self):
        path = self.dir / "guestagent.yaml"
        for text in ("storage: [\n", "storage: &a 1\n", "a: 1\na: 2\n", "#" * (2 << 20)):
            path.write_text(text)
            with self.subTest(text[:10]):
                self.refused(2, [str(path)], path)
        self.refused(2, ["it is a directory", "--config"], self.dir)

    def monday(self):
        """A server with one snapshot and one that is not to be touched: its configuration, and the call that deletes the first."""
        address = self.serve(None)
        for name in (
            "monday/manifest.json",
            "monday/index-000001.json",
            "monday/segment-00000001",
            "tuesday/manifest.json",
        ):
            self.server.objects[f"snapshots/{name}"] = b"x"
        href = f"http://{address}/bucket/snapshots/monday/manifest.json"
        return self.config(f"http://{address}"), ("delete_replication_snapshot", json.dumps({"snapshot_href": href}))

    def test_listings_and_deletes_are_whole(self):
        config, delete = self.monday()
        self.server.empty_page = True
        code, said = self.ask(config)
        self.assertEqual(code, 0, said)
        self.assertEqual([s["id"] for s in json.loads(said)["snapshots"]], ["monday", "tuesday"])
        code, said = self.ask(config, call=delete)
        self.assertEqual(code, 0, said)
        self.assertEqual(sorted(self.server.objects), ["snapshots/tuesday/manifest.json"])

    def test_a_delete_that_deletes_nothing(self):
        config, delete = self.monday()
        self.server.keeps = True
        code, said = self.ask(config, call=delete)
        self.assertNotEqual(code, 0, said)
        self.assertIn("monday/", said)

    def test_refusals_by_s3(self):
        config, delete = self.monday()
        for status, code, more, words in (
            (
                400,
                "AuthorizationHeaderMalformed",
                "<Region>eu-central-1</Region>",
                ["is in eu-central-1", "set storage.s3.region to eu-central-1"],
            ),
            (
                301,
                "PermanentRedirect",
                "<Endpoint>bucket.s3.eu-west-1.example</Endpoint>",
                ["bucket.s3.eu-west-1.example"],
            ),
            (403, "RequestTimeTooSkewed", "", ["RequestTimeTooSkewed", "clock"]),
            (403, "SignatureDoesNotMatch", "", ["SignatureDoesNotMatch", "secret_key_file"]),
            (400, "ExpiredToken", "", ["ExpiredToken", "session_token_file"]),
            (400, "InvalidBucketName", "", ["InvalidBucketName", "storage.container"]),
        ):
            self.server.refuse = (status, code, more)
            with self.subTest(code):
                answer, said = self.ask(config, call=delete)
                self.assertNotEqual(answer, 0, said)
                for word in words:
                    self.assertIn(word, said)

    def test_no_proxy_is_used(self):
        dead = {
            name: "http://127.0.0.1:9"
            for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        }
        self.assertEqual(self.ask(self.config(f"http://{self.plain}"), dead)[0], 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
