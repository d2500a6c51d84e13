"""A TCP relay that breaks some of the connections through it: refused, reset or silent after some bytes either way, or a 503
instead of an answer. What goes through is never changed."""

import random
import select
import socket
import struct
import threading
from collections import Counter

KINDS = (
    "reset at once",
    "reset on the way up",
    "reset on the way down",
    "silent on the way up",
    "silent on the way down",
    "503",
)
ANSWER_503 = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\nConnection: close\r\n\r\nscripted\n"


class FaultProxy:
    """Breaks `percent` of the connections, the same ones for the same `seed` in the same order of connections."""

    def __init__(self, target_port, percent, seed=1):
        self.target_port, self.percent, self.random = target_port, percent, random.Random(seed)
        self.counts, self.connections, self.lock = Counter(), 0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def __str__(self):
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.counts.items()))
        return f"{self.connections} connections, {sum(self.counts.values())} broken: {kinds}"

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                kind = self.random.choice(KINDS) if self.random.random() * 100 < self.percent else None
                # Most of what is sent is small: a fault after megabytes would never come.
                after = int(10 ** self.random.uniform(0, 6))
            threading.Thread(target=self._relay, args=(client, kind, after), daemon=True).start()

    def _hit(self, kind):
        with self.lock:
            self.counts[kind] += 1

    def _relay(self, client, kind, after):
        with client:
            if kind == "reset at once":
                self._hit(kind)
                self._reset(client)
                return
            if kind == "503":
                self._hit(kind)
                data = b""
                while b"\r\n\r\n" not in data:
                    piece = client.recv(65536)
                    if not piece:
                        return
                    data += piece
                client.sendall(ANSWER_503)
                return
            with socket.create_connection(("127.0.0.1", self.target_port)) as server:
                try:
                    self._pump(client, server, kind, after)
                except OSError:
                    pass

    def _pump(self, client, server, kind, after):
        up = kind and kind.endswith("up")
        moved = {client: 0, server: 0}
        counted = client if up else server
        while True:
            for source in select.select([client, server], [], [])[0]:
                data = source.recv(65536)
                if not data:
                    return
                if kind and source is counted and moved[source] + len(data) > after:
                    self._hit(kind)
                    (server if source is client else client).sendall(data[: after - moved[source]])
                    if kind.startswith("reset"):
                        self._reset(client)
                    else:
                        self._wait_for_end(client)
                    return
                moved[source] += len(data)
                (server if source is client else client).sendall(data)

    @staticmethod
    def _reset(client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    @staticmethod
    def _wait_for_end(client):
        # Reading nothing more: what the client sends fills the buffers and stalls, too.
        poll = select.poll()
        poll.register(client, select.POLLRDHUP)
        poll.poll(120000)
