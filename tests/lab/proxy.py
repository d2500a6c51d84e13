"""A TCP relay between a replica and its source whose rate can be changed and that can be cut."""

import socket
import threading
import time

from scratch import free_port


class Proxy:
    def __init__(self, target_port, port=None, host="127.0.0.1"):
        self.target_port, self.port = target_port, port or free_port()
        self.rate, self.passed, self.pairs, self.lock = None, 0, [], threading.Lock()
        self.listener = socket.create_server((host, self.port))
        self.closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def limit(self, bytes_per_second):
        """Of what flows from the source; None: no limit."""
        self.rate = bytes_per_second

    def cut(self):
        """Ends every connection there is; new ones are served."""
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for s in pair:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        self.closed = True
        self.listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            with self.lock:
                self.pairs.append((near, far))
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source, sink, limited):
        try:
            while True:
                data = source.recv(16384 if self.rate else 262144)
                if not data:
                    break
                sink.sendall(data)
                if limited:
                    self.passed += len(data)
                    if self.rate:
                        time.sleep(len(data) / self.rate)
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
