#!/usr/bin/python3
"""A real OpenStack Swift (proxy, account, container, object; memcached; on request Keystone) in one directory, as any user.

    with Swift(directory, token_life=20, auth="keystone") as swift: …
    tests/lab/swift.py run [--keystone --token-life 20 …] -- COMMAND…     runs COMMAND with SWIFT_*, S3_*, OS_* in its environment

Needs python3-swift and memcached; for Keystone also keystone, python3-keystonemiddleware and uwsgi-plugin-python3."""

import argparse
import contextlib
import dataclasses
import json
import os
import secrets
import shlex
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import swift_conf  # noqa: E402
from fault_proxy import FaultProxy  # noqa: E402
from scratch import Scratch, free_port, wait_for  # noqa: E402

HERE = Path(__file__).resolve().parent
# -I: the directory of swiftd.py, which has a swift.py, must not come before the real package.
SWIFTD = ("/usr/bin/python3", "-I", str(HERE / "swiftd.py"))
BACKENDS = ("object", "container", "account")


@dataclasses.dataclass
class Options:
    auth: str = "tempauth"  # or keystone
    workers: int = 0  # of each server; 0: one process that does not fork
    token_life: int = 86400  # seconds
    tls: bool = False  # the proxy speaks https with a throw-away certificate
    s3: bool = True  # the s3api middleware
    client_timeout: int = 60  # seconds a stalled client is tolerated
    chunk: int = 65536  # bytes read and written at a time
    max_file_size: int = 0  # 0: Swift's default
    max_manifest_segments: int = 1000
    listing_limit: int = 0  # names in one answer; 0: Swift's default
    policies: tuple = ("gold", "silver")
    expirer: bool = False  # objects past X-Delete-At really go
    faults: int = 0  # percent of the connections to the proxy that break
    fault_seed: int = 1


class Swift:
    """Made below `directory`, which is made if needed and left where it is. Several threads may use it; one starts and stops it."""

    s3_region = "us-east-1"

    def __init__(self, directory, **options):
        self.dir, self.options = Path(directory).absolute(), Options(**options)
        self.etc, self.log_dir = self.dir / "etc", self.dir / "log"
        self.account, self.user_name = "test", "tester"
        self.key, self.hash_suffix = secrets.token_hex(12), secrets.token_hex(8)
        self.children, self.ports, self.keystone, self.watchdog = {}, {}, None, None
        self._token, self.fault_proxy = None, None

    # life

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()

    def start(self):
        for d in (self.dir, self.etc, self.log_dir, self.dir / "node/d1", self.dir / "cache", self.dir / "lock"):
            d.mkdir(parents=True, exist_ok=True)
        if self.options.tls and not (self.dir / "tls.crt").exists():
            self._make_certificate()
        self._start_watchdog()
        # Between finding a free port and listening on it somebody else may take it.
        for tries_left in (2, 1, 0):
            self.ports = {name: free_port() for name in (*BACKENDS, "proxy", "memcached")}
            try:
                self._start_servers()
                return self
            except _Died:
                self._end_children()
                if not tries_left:
                    raise

    def stop(self):
        if self.fault_proxy:
            self.fault_proxy.close()
            self.fault_proxy = None
        self._end_children()
        if self.keystone:
            self.keystone.stop()
            self.keystone = None
        if self.watchdog:
            self.watchdog.communicate(b"let go\n")
            self.watchdog = None

    def stop_server(self, name):
        """One of proxy, account, container, object, memcached, as if its host had died."""
        self._end(self.children.pop(name))

    def start_server(self, name):
        if name == "memcached":
            argv = ["memcached", "-l", "127.0.0.1", "-p", self.ports[name], "-U", "0", "-m", "64", "-I", "2m"]
            self._spawn(name, argv + (["-u", "root"] if os.geteuid() == 0 else []))
            return
        role = f"{name}-server" if name in (*BACKENDS, "proxy") else name
        conf = (
            role
            if role.endswith("-server")
            else ("container-server" if name == "container-updater" else "object-server")
        )
        self._spawn(name, [*SWIFTD, self.etc, role, self.etc / f"{conf}.conf"])
        if role.endswith("-server"):
            self._wait_for(name)

    def _start_servers(self):
        if self.options.auth == "keystone" and not self.keystone:
            from keystone import Keystone

            self.keystone = Keystone(self.dir / "keystone", self.options.token_life, self._spawn_raw)
            self.keystone.start()
        swift_conf.write_all(self)
        subprocess.run(
            [*SWIFTD, self.etc, "rings", str(len(self.options.policies)), *(str(self.ports[k]) for k in BACKENDS)],
            check=True,
            env=self._env(),
        )
        self.start_server("memcached")
        for name in (*BACKENDS, "proxy"):
            self._spawn(name, [*SWIFTD, self.etc, f"{name}-server", self.etc / f"{name}-server.conf"])
        for name in (*BACKENDS, "proxy"):
            self._wait_for(name)
        if self.options.expirer:
            for name in ("object-expirer", "object-updater", "container-updater"):
                self.start_server(name)
        if self.options.faults:
            self.fault_proxy = FaultProxy(self.ports["proxy"], self.options.faults, self.options.fault_seed)
        if self.keystone:
            self.keystone.register_swift(self.url + "/v1/AUTH_%(tenant_id)s", self.account, self.user_name, self.key)

    def _env(self):
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.dir),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def _spawn_raw(self, argv, log_name, **env):
        with open(self.log_dir / f"{log_name}.log", "ab") as out:
            return subprocess.Popen(
                [str(a) for a in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.dir,
                start_new_session=True,
                env={**self._env(), **env},
            )

    def _spawn(self, name, argv):
        self.children[name] = self._spawn_raw(argv, name)

    def _wait_for(self, name):
        scheme = "https" if name == "proxy" and self.options.tls else "http"
        url = f"{scheme}://127.0.0.1:{self.ports[name]}/healthcheck"

        def healthy():
            if self.children[name].poll() is not None:
                raise _Died(f"{name} ended:\n{self.log_tail(name)}")
            try:
                with urllib.request.urlopen(url, timeout=2, context=ssl._create_unverified_context()) as answer:
                    return answer.status == 200
            except OSError:
                return False

        wait_for(f"Swift's {name} server", healthy, 60)

    def _start_watchdog(self):
        if not self.watchdog:
            self.watchdog = subprocess.Popen(
                [sys.executable, HERE / "scratch.py", "--watch"], stdin=subprocess.PIPE, start_new_session=True, cwd="/"
            )
            self.watchdog.stdin.write(f"{self.dir}\n".encode())
            self.watchdog.stdin.flush()

    def _end_children(self):
        children, self.children = self.children, {}
        for child in children.values():
            self._signal(child, signal.SIGTERM)
        for child in children.values():
            self._end(child)

    def _end(self, child):
        self._signal(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(3)
        self._signal(child, signal.SIGKILL)
        child.wait()

    @staticmethod
    def _signal(child, number):
        # The group is the child's own session; its workers may outlive it for a moment.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)

    def _make_certificate(self):
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "30",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
                "-keyout",
                self.dir / "tls.key",
                "-out",
                self.dir / "tls.crt",
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )

    def log_tail(self, name, lines=20):
        try:
            return "\n".join((self.log_dir / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    # where it is

    @property
    def url(self):
        port = self.fault_proxy.port if self.fault_proxy else self.ports["proxy"]
        return f"{'https' if self.options.tls else 'http'}://127.0.0.1:{port}"

    @property
    def user(self):
        """As its auth wants it."""
        return self.user_name if self.keystone else f"{self.account}:{self.user_name}"

    @property
    def auth_url(self):
        return self.keystone.url + "/v3" if self.keystone else f"{self.url}/auth/v1.0"

    @property
    def ca_file(self):
        return str(self.dir / "tls.crt") if self.options.tls else ""

    @property
    def storage_url(self):
        return f"{self.url}/v1/AUTH_{self.keystone.project_id if self.keystone else self.account}"

    def storage(self, container, prefix):
        """What an agent's `storage:` says to keep its snapshots here; the password's file is made if needed."""
        key_file = self.dir / "user.key"
        key_file.touch(mode=0o600)
        key_file.write_text(self.key + "\n")
        login = {"auth": "v1", "auth_url": self.auth_url, "user": self.user, "key_file": str(key_file)}
        if self.keystone:
            login |= {"auth": "v3", "project": self.account, "region": "RegionOne"}
        if self.options.tls:
            login["tls"] = {"ca_file": self.ca_file}
        return {"store": "swift", "container": container, "prefix": prefix, "swift": login}

    @property
    def token(self):
        if self._token is None:
            self._token = (
                self.keystone.token(self.user_name, self.key, self.account) if self.keystone else self._login()
            )
        return self._token

    def _login(self):
        status, headers, _ = self._request("GET", self.auth_url, {"X-Auth-User": self.user, "X-Auth-Key": self.key})
        if status != 200:
            raise RuntimeError(f"login at the lab's Swift: {status}")
        return headers["X-Auth-Token"]

    def request(self, method, path, body=None, **headers):
        """Asks as the tester, `path` below the account: (status, headers, body). Underscores in header names stand for dashes."""
        for _ in range(2):
            sent = {"X-Auth-Token": self.token, **{k.replace("_", "-"): v for k, v in headers.items()}}
            answer = self._request(method, f"{self.storage_url}/{path}", sent, body)
            if answer[0] != 401:
                return answer
            self._token = None
        return answer

    def _request(self, method, url, headers, body=None):
        request = urllib.request.Request(url, data=body, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60, context=ssl._create_unverified_context()) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as e:
            return e.code, e.headers, e.read()

    def objects(self, container, prefix=""):
        """Names in order, whatever their number; empty when there is no such container."""
        names = []
        while True:
            marker = urllib.request.quote(names[-1]) if names else ""
            status, _, body = self.request(
                "GET", f"{container}?format=json&prefix={urllib.request.quote(prefix)}&marker={marker}"
            )
            page = [entry["name"] for entry in json.loads(body)] if status == 200 else []
            if not page:
                return names
            names += page

    def environment(self):
        env = {
            "SWIFT_AUTH": "v3" if self.keystone else "v1",
            "SWIFT_AUTH_URL": self.auth_url,
            "SWIFT_USER": self.user,
            "SWIFT_KEY": self.key,
            "SWIFT_STORAGE_URL": self.storage_url,
            "SWIFT_CA_FILE": self.ca_file,
            "SWIFT_POLICY": self.options.policies[-1],
            "SWIFT_DIR": str(self.dir),
            "SWIFT_FAULTS": str(self.options.faults),
            "SWIFT_TOKEN_LIFE": str(self.options.token_life),
        }
        if self.options.s3:
            env |= {
                "S3_ENDPOINT": self.url,
                "S3_REGION": self.s3_region,
                "S3_ACCESS_KEY": f"{self.account}:{self.user_name}",
                "S3_SECRET_KEY": self.key,
            }
        if self.keystone:
            env |= self.keystone.environment(self.account, self.user_name, self.key)
        return env


class _Died(RuntimeError):
    pass


def _parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("run", "run a command while Swift runs"),
        ("start", "print the environment and serve until a signal"),
    ):
        sub = commands.add_parser(name, help=text)
        sub.add_argument("--dir", help="where to make it; default: a temporary directory, removed at the end")
        sub.add_argument("--keystone", dest="auth", action="store_const", const="keystone", default="tempauth")
        for option in dataclasses.fields(Options):
            flag = "--" + option.name.replace("_", "-")
            if option.type is int:
                sub.add_argument(flag, type=int, default=option.default)
            elif option.type is bool and not option.default:
                sub.add_argument(flag, action="store_true")
        if name == "run":
            sub.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND…")
    args = parser.parse_args()
    known = {f.name for f in dataclasses.fields(Options)}
    return args, {k: v for k, v in vars(args).items() if k in known}


def main():
    args, options = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        directory = args.dir or stack.enter_context(Scratch("swift")).dir / "swift"
        swift = stack.enter_context(Swift(directory, **options))
        if args.command == "start":
            print("\n".join(f"export {k}={shlex.quote(v)}" for k, v in swift.environment().items()), flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
            return 0
        argv = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
        if not argv:
            sys.exit("no COMMAND after --")
        status = subprocess.run(argv, env={**os.environ, **swift.environment()}, check=False).returncode
        if swift.fault_proxy:
            print(f"faults: {swift.fault_proxy}", flush=True)
            if not swift.fault_proxy.counts:
                sys.exit("no connection was broken: nothing was tested")
        return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(main())
