"""Several hosts on one machine: a network namespace for each, with an address of its own, on a bridge that this machine is on too.
Needs root."""

import random
import secrets
import subprocess


def sh(*words):
    done = subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stdout.strip()} (network namespaces need root)")


class Inside:
    """A scratch directory whose programs run on one of the hosts. What it cannot do itself, the scratch directory does."""

    def __init__(self, scratch, namespace):
        self.scratch, self.enter = scratch, ["nsenter", f"--net=/run/netns/{namespace}"]

    def __getattr__(self, name):
        return getattr(self.scratch, name)

    def spawn(self, argv, **kwargs):
        return self.scratch.spawn(self.enter + list(argv), **kwargs)

    def run(self, argv, **kwargs):
        return self.scratch.run(self.enter + list(argv), **kwargs)


class Network:
    """A context manager. `address`: this machine's on the bridge."""

    def __init__(self):
        # Never the same twice: the kernel takes a removed namespace apart later.
        self.tag = secrets.token_hex(4)
        self.bridge, self.namespaces = f"gab{self.tag}", []
        self.prefix = f"10.{random.SystemRandom().randrange(200, 250)}.{random.SystemRandom().randrange(1, 255)}"
        self.address = f"{self.prefix}.1"

    def __enter__(self):
        sh("ip", "link", "add", self.bridge, "type", "bridge")
        try:
            sh("ip", "addr", "add", f"{self.address}/24", "dev", self.bridge)
            sh("ip", "link", "set", self.bridge, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for namespace in self.namespaces:
            subprocess.run(["ip", "netns", "del", namespace], check=False)
        subprocess.run(["ip", "link", "del", self.bridge], check=False)

    def host(self, scratch, link=None):
        """(address, the scratch directory as seen from it) of a new host. `link`: Mbit/s, both ways."""
        number = len(self.namespaces) + 2
        namespace, near = f"ga-{self.tag}-{number}", f"gav{self.tag}{number}"
        address = f"{self.prefix}.{number}"
        sh("ip", "netns", "add", namespace)
        self.namespaces.append(namespace)
        inside = Inside(scratch, namespace)
        sh("ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        sh("ip", "link", "set", near, "master", self.bridge, "up")
        for words in (
            ("addr", "add", f"{address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            sh(*inside.enter, "ip", *words)
        if link:
            shape = ("root", "tbf", "rate", f"{link}mbit", "burst", max(32, link // 2) * 1024, "latency", "50ms")
            sh("tc", "qdisc", "replace", "dev", near, *shape)
            sh(*inside.enter, "tc", "qdisc", "replace", "dev", "eth0", *shape)
        return address, inside
