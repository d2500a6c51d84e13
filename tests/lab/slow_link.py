"""TCP relays to a store: one that takes no more than so many bytes per second, over all connections together, and one that counts what comes
back and can be away."""

import socket
import threading
import time


class Relay:
    """`passing` sees each piece of data, and from whom it is, before it goes on."""

    def __init__(self, target_port):
        self.target_port, self.lock, self.free_at = target_port, threading.Lock(), time.monotonic()
        self.away, self.open = False, set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def passing(self, size, of_client):
        pass

    def go_away(self):
        """Ends what is open, and whoever comes, until `away` is False again."""
        self.away = True
        for each in list(self.open):
            self._end(each)

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                if self.away:
                    raise OSError("away")
                far = socket.create_connection(("127.0.0.1", self.target_port), timeout=30)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            # The kernel's buffers would take megabytes at once.
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            self.open |= {near, far}
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source, sink, of_client):
        try:
            while data := source.recv(32768):
                self.passing(len(data), of_client)
                sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            self.open.discard(each)
            self._end(each)

    @staticmethod
    def _end(one):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def wait_for_turn(self, size, rate):
        """Holds the caller up so that all together are as fast as `rate`, bytes per second."""
        with self.lock:
            begin = max(self.free_at, time.monotonic())
            self.free_at = begin + size / rate
        time.sleep(max(0, begin - time.monotonic()))


class SlowLink(Relay):
    """`rate`: bytes per second of what clients send; what comes back is not limited."""

    def __init__(self, target_port, rate):
        self.rate = rate
        super().__init__(target_port)

    def passing(self, size, of_client):
        if of_client:
            self.wait_for_turn(size, self.rate)


class Counted(Relay):
    """Counts the `bytes` that come back, which are as fast as `rate` (None: not limited)."""

    def __init__(self, target_port):
        self.bytes, self.rate = 0, None
        super().__init__(target_port)

    def passing(self, size, of_client):
        if of_client:
            return
        with self.lock:
            self.bytes += size
        if self.rate:
            self.wait_for_turn(size, self.rate)
