"""A TCP relay to a store that takes no more than so many bytes per second, over all connections together."""

import socket
import threading
import time


class SlowLink:
    """`rate`: bytes per second of what clients send; what comes back is not limited."""

    def __init__(self, target_port, rate):
        self.target_port, self.rate, self.lock, self.free_at = target_port, rate, threading.Lock(), time.monotonic()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target_port), timeout=30)
            except OSError:
                return
            far.settimeout(None)
            # The kernel's buffers would take megabytes at once.
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source, sink, limited):
        try:
            while data := source.recv(32768):
                if limited:
                    self._wait(len(data))
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _wait(self, size):
        with self.lock:
            begin = max(self.free_at, time.monotonic())
            self.free_at = begin + size / self.rate
        time.sleep(max(0, begin - time.monotonic()))
