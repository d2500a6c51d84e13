"""A real Keystone (Fernet tokens, SQLite) for the lab's Swift."""

import getpass
import grp
import json
import os
import sqlite3
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from scratch import free_port, wait_for

REGION = "RegionOne"


class _Login:
    """Calls with a token that is renewed: tokens may be so short that they do not last for the set-up."""

    def __init__(self, keystone, *who):
        self.keystone, self.who, self.token = keystone, who, None

    def call(self, method, path, body):
        for tries_left in (4, 3, 2, 1, 0):
            self.token = self.token or self.keystone.token(*self.who)
            try:
                return self.keystone.call(method, path, body, self.token)[2]
            except urllib.error.HTTPError as e:
                if e.code != 401 or not tries_left:
                    raise RuntimeError(f"Keystone: {method} {path}: {e.code} {e.read()[:300]}") from e
                self.token = None


class Keystone:
    """`spawn(argv, log_name, **env)` starts a process in the lab's way."""

    def __init__(self, directory, token_life, spawn):
        self.dir, self.token_life, self._spawn = Path(directory), token_life, spawn
        self.port, self.child, self.project_id = free_port(), None, None
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin_key, self.service_key = os.urandom(8).hex(), os.urandom(8).hex()
        self.application_credential = {}

    def start(self):
        self.dir.mkdir(parents=True, exist_ok=True)
        conf = self.dir / "keystone.conf"
        if not (self.dir / "keystone.db").exists():
            conf.write_text(self._conf())
            self._set_up(conf)
        wsgi = self.dir / "wsgi.py"
        wsgi.write_text(
            f"import sys\nsys.argv = ['keystone-wsgi-public', '--config-file', '{conf}']\n"
            "from keystone.server.wsgi import initialize_public_application\napplication = initialize_public_application()\n"
        )
        # SQLite wants one process and one thread. A kept connection that uWSGI has closed shows at Swift as a random 401.
        self.child = self._spawn(
            [
                "uwsgi_python3",
                "--plugin",
                "python3",
                "--http-socket",
                f"127.0.0.1:{self.port}",
                "--wsgi-file",
                wsgi,
                "--master",
                "--no-orphans",
                "--processes",
                "1",
                "--threads",
                "1",
                "--enable-threads",
                "--buffer-size",
                "65535",
                "--die-on-term",
                "--need-app",
                "--add-header",
                "Connection: close",
            ],
            "keystone",
            OS_KEYSTONE_CONFIG_FILES=str(conf),
        )

        def up():
            if self.child.poll() is not None:
                raise RuntimeError(f"Keystone ended with {self.child.returncode}")
            try:
                return self.call("GET", "", None, None)[0] == 200
            except OSError:
                return False

        wait_for("Keystone", up, 120)

    def stop(self):
        if self.child and self.child.poll() is None:
            os.killpg(self.child.pid, 15)
            try:
                self.child.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, 9)
                self.child.wait()
        self.child = None

    def _conf(self):
        return (
            f"[DEFAULT]\nuse_stderr = true\nlog_file =\n[database]\nconnection = sqlite:///{self.dir}/keystone.db\nsqlite_synchronous = false\n"
            f"[token]\nprovider = fernet\nexpiration = {self.token_life}\nallow_expired_window = 0\n"
            f"[fernet_tokens]\nkey_repository = {self.dir}/fernet-keys\n[credential]\nkey_repository = {self.dir}/credential-keys\n"
            "[identity]\npassword_hash_rounds = 4\n"
            # One process: its memory serves. Without it a validation takes dozens of queries, half a second on a small machine.
            "[cache]\nenabled = true\nbackend = dogpile.cache.memory\n"
        )

    def _set_up(self, conf):
        for name in ("fernet-keys", "credential-keys"):
            (self.dir / name).mkdir(mode=0o700, exist_ok=True)
        # keystone-manage gives files to these ids: ours.
        ids = ["--keystone-user", getpass.getuser(), "--keystone-group", grp.getgrgid(os.getegid()).gr_name]
        urls = [
            word for kind in ("public", "internal", "admin") for word in (f"--bootstrap-{kind}-url", self.url + "/v3")
        ]
        manage = ["keystone-manage", "--config-file", str(conf)]
        with open(self.dir / "setup.log", "ab") as out:

            def run(*argv):
                subprocess.run(
                    [*manage, *argv], check=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.dir
                )

            run("db_sync")
            with sqlite3.connect(self.dir / "keystone.db") as db:
                db.execute("PRAGMA journal_mode=WAL")
            run("fernet_setup", *ids)
            run("credential_setup", *ids)
            run("bootstrap", "--bootstrap-password", self.admin_key, "--bootstrap-region-id", REGION, *urls)

    def call(self, method, path, body, token):
        headers = {"Content-Type": "application/json", **({"X-Auth-Token": token} if token else {})}
        request = urllib.request.Request(
            f"{self.url}/v3{path}",
            method=method,
            headers=headers,
            data=None if body is None else json.dumps(body).encode(),
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            data = answer.read()
            return answer.status, answer.headers, json.loads(data) if data else None

    def _password_auth(self, user, key, project):
        domain = {"id": "default"}
        return {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": {"name": user, "domain": domain, "password": key}},
                },
                "scope": {"project": {"name": project, "domain": domain}},
            }
        }

    def token(self, user, key, project):
        return self.call("POST", "/auth/tokens", self._password_auth(user, key, project), None)[1]["X-Subject-Token"]

    def register_swift(self, storage_url, project, user, key):
        """Accounts, roles and the catalog's entries: a public and an internal one, and one of another region that answers nobody."""
        if self.project_id:
            return
        admin = _Login(self, "admin", self.admin_key, "admin")

        def make(kind, one, **members):
            return admin.call("POST", "/" + kind, {one: members})[one]["id"]

        roles = {r["name"]: r["id"] for r in admin.call("GET", "/roles", None)["roles"]}
        service_project = make("projects", "project", name="service", domain_id="default")
        self.project_id = make("projects", "project", name=project, domain_id="default")
        swift = make("users", "user", name="swift", password=self.service_key, domain_id="default")
        tester = make("users", "user", name=user, password=key, domain_id="default")
        for where, who, role in ((service_project, swift, "admin"), (self.project_id, tester, "member")):
            admin.call("PUT", f"/projects/{where}/users/{who}/roles/{roles[role]}", None)
        make("regions", "region", id="RegionTwo")
        service = make("services", "service", name="swift", type="object-store")
        for region, interface, url in (
            ("RegionTwo", "public", "http://127.0.0.1:9/v1/AUTH_%(tenant_id)s"),
            (REGION, "public", storage_url),
            (REGION, "internal", storage_url.replace("127.0.0.1", "localhost")),
        ):
            make("endpoints", "endpoint", service_id=service, interface=interface, url=url, region_id=region)
        answer = _Login(self, user, key, project).call(
            "POST", f"/users/{tester}/application_credentials", {"application_credential": {"name": "lab"}}
        )
        self.application_credential = answer["application_credential"]

    def middleware(self):
        return (
            "[filter:authtoken]\npaste.filter_factory = keystonemiddleware.auth_token:filter_factory\n"
            f"www_authenticate_uri = {self.url}/v3\nauth_url = {self.url}/v3\nauth_type = password\nproject_domain_id = default\n"
            f"user_domain_id = default\nproject_name = service\nusername = swift\npassword = {self.service_key}\n"
            "delay_auth_decision = True\ncache = swift.cache\ninclude_service_catalog = False\nservice_token_roles_required = True\n"
            "interface = internal\n[filter:keystoneauth]\nuse = egg:swift#keystoneauth\noperator_roles = admin, member\n"
            "reseller_admin_role = admin\n"
        )

    def environment(self, project, user, key):
        return {
            "OS_AUTH_URL": self.url + "/v3",
            "OS_IDENTITY_API_VERSION": "3",
            "OS_USERNAME": user,
            "OS_PASSWORD": key,
            "OS_PROJECT_NAME": project,
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_REGION_NAME": REGION,
            "APPLICATION_CREDENTIAL_ID": self.application_credential.get("id", ""),
            "APPLICATION_CREDENTIAL_SECRET": self.application_credential.get("secret", ""),
        }
