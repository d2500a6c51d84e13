"""A controller and database hosts as they are in life: real servers, each with an agent that listens with TLS, on hosts with addresses of
their own, and a real Swift that all of them reach."""

import contextlib
import subprocess
import time

from agent import Agent
from control import Controller, log
from mariadb import MariaDB
from network import Network
from proxy import Proxy
from scratch import Scratch
from swift import Swift

AGENT_PORT, SERVER_PORT = 8443, 3306


class Certificates:
    """An authority and what it signs, in a directory."""

    def __init__(self, directory):
        self.dir = directory
        self.dir.mkdir()
        self._run(*self._request("ca"), "-x509", "-days", "2", "-out", self.dir / "ca.pem")

    def make(self, name, address=None):
        """{"certificate", "key"} for `name`, who can be reached at `address`."""
        extensions = self.dir / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{name}" + (f",IP:{address}" if address else "") + "\n")
        self._run(*self._request(name), "-out", self.dir / f"{name}.csr")
        self._run(
            "x509",
            "-req",
            "-in",
            self.dir / f"{name}.csr",
            "-CA",
            self.dir / "ca.pem",
            "-CAkey",
            self.dir / "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            extensions,
            "-out",
            self.dir / f"{name}.pem",
        )
        return {"certificate": str(self.dir / f"{name}.pem"), "key": str(self.dir / f"{name}.key")}

    def revoke(self, *names):
        """The list of what the CA has revoked: the certificates of these names. Its file is the same each time."""
        index, config, out = self.dir / "index.txt", self.dir / "ca.cnf", self.dir / "crl.pem"
        index.write_text("")
        (self.dir / "crlnumber").write_text("01\n")
        config.write_text(
            f"[ca]\ndefault_ca=c\n[c]\ndatabase={index}\ncrlnumber={self.dir}/crlnumber\ndefault_md=sha256\n"
            f"default_crl_days=2\nprivate_key={self.dir}/ca.key\ncertificate={self.dir}/ca.pem\n"
        )
        for name in names:
            self._run("ca", "-config", config, "-revoke", self.dir / f"{name}.pem")
        self._run("ca", "-config", config, "-gencrl", "-out", out)
        return str(out)

    @property
    def ca(self):
        return str(self.dir / "ca.pem")

    def _request(self, name):
        return [
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            self.dir / f"{name}.key",
            "-subj",
            f"/CN={name}",
        ]

    @staticmethod
    def _run(*words):
        subprocess.run(
            ["openssl", *(str(word) for word in words)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


class Host:
    def __init__(self, name, address, server, agent):
        self.name, self.address, self.server, self.agent = name, address, server, agent
        self.url = f"https://{address}:{AGENT_PORT}"


class Hosts:
    """A context manager. When the test fails, the ends of all logs are printed."""

    def __init__(self, name, config=None):
        self.name, self.config, self.hosts, self.stack = name, config or {}, [], contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.scratch = stack.enter_context(Scratch(f"ctl-{self.name}"))
            self.network = stack.enter_context(Network())
            self.swift = stack.enter_context(Swift(self.scratch.dir / "swift"))
            relay = stack.enter_context(Proxy(self.swift.ports["proxy"], host=self.network.address))
            self.relay = relay
            self.certificates = Certificates(self.scratch.dir / "certificates")
            mine = self.certificates.make("controller")
            agents = {"ca_file": self.certificates.ca, **mine, **self.config.pop("agents", {})}
            self.controller = Controller(self.scratch, {"agents": agents, **self.config})
            self.controller.start()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, trace):
        if kind:
            log(f"--- the controller's log:\n{self.controller.log_tail()}")
            for host in self.hosts:
                log(
                    f"--- the agent of {host.name}:\n{host.agent.log_tail()}\n--- the server of {host.name}:\n{host.server.log_tail()}"
                )
        self.stack.__exit__(kind, error, trace)

    def storage(self):
        """Swift, where the hosts reach it."""
        out = self.swift.storage("replicas", "lab")
        base = f"http://{self.network.address}:{self.relay.port}"
        out["swift"] |= {"auth_url": f"{base}/auth/v1.0", "storage_url": f"{base}/v1/AUTH_{self.swift.account}"}
        return out

    def add(self, name, server_id, kind=MariaDB, prepare=None, config=None, link=None, **how):
        """A host with an empty server and an agent. `prepare`: called with the directory of its
        data before there is anything in it. `link`: Mbit/s of its network, both ways."""
        address, inside = self.network.host(self.scratch, link)
        if prepare:
            (self.scratch.dir / name).mkdir()
            prepare(self.scratch.dir / name)
        server = kind(inside, name, server_id, options=["bind-address=0.0.0.0", f"port={SERVER_PORT}"], **how)
        server.port = SERVER_PORT
        server.initialise().start()
        listen = {
            "address": f"{address}:{AGENT_PORT}",
            "client_ca": self.certificates.ca,
            "allow_names": ["controller"],
            **self.certificates.make(name, address),
        }
        agent = Agent(
            inside,
            server,
            self.storage(),
            config={"agent": {"listen": listen}, "mysql": {"advertised_address": address}, **(config or {})},
        )
        agent.create_account().start()
        host = Host(name, address, server, agent)
        self.hosts.append(host)
        return host

    def objects(self):
        return self.swift.objects("replicas")

    def command(self, *words, expect=0):
        """What it printed on standard output and on standard error."""
        began = time.monotonic()
        status, out, err = self.controller.command(*words)
        log(f"guestagent {' '.join(words)}: status {status}, {time.monotonic() - began:.1f} s")
        if status != expect:
            raise AssertionError(
                f"guestagent {' '.join(words)}: exit status {status}, should be {expect}\n{out}\n{err}"
            )
        return out, err


def source_accounts(server):
    """The replication accounts that agents made."""
    return [row[0] for row in server.sql("SELECT user FROM mysql.user WHERE user LIKE 'repl\\_%'")]
