"""Headless Chromium by its debugging pipe: enough to click, type, look and take pictures."""

import base64
import json
import os
import queue
import shutil
import subprocess
import threading
import time


class Browser:
    def __init__(self, scratch, width=1440, height=900):
        path = shutil.which("chromium")
        if not path:
            raise RuntimeError("no chromium: install the Debian package")
        to_read, to_write = os.pipe(), os.pipe()

        def place_pipes():
            # Chromium reads from 3 and writes to 4.
            first, second = os.dup(to_write[0]), os.dup(to_read[1])
            os.dup2(first, 3)
            os.dup2(second, 4)

        env = {**scratch.env, "HOME": str(scratch.dir), "XDG_CONFIG_HOME": str(scratch.dir / "chromium")}
        self.log = open(scratch.dir / "chromium.log", "ab")
        self.process = subprocess.Popen(
            [
                path,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--remote-debugging-pipe",
                "--hide-scrollbars",
                "--mute-audio",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--disable-dev-shm-usage",
                f"--user-data-dir={scratch.dir / 'chromium'}",
                f"--window-size={width},{height}",
                "about:blank",
            ],
            pass_fds=(3, 4),
            preexec_fn=place_pipes,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env=env,
            cwd=scratch.dir,
        )
        scratch.children.append(self.process)
        os.close(to_write[0])
        os.close(to_read[1])
        self.input, self.output = to_write[1], to_read[0]
        self.next_id, self.answers, self.console, self.lock = 0, {}, [], threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self.session = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            self.send(domain + ".enable")
        self.size(width, height)

    def _read(self):
        rest = b""
        while True:
            try:
                part = os.read(self.output, 1 << 20)
            except OSError:
                return
            if not part:
                return
            *messages, rest = (rest + part).split(b"\0")
            for text in messages:
                message = json.loads(text)
                if "id" in message:
                    self.answers.pop(message["id"]).put(message)
                elif message["method"] == "Runtime.exceptionThrown":
                    details = message["params"]["exceptionDetails"]
                    self.console.append(
                        "exception: " + details.get("exception", {}).get("description", details["text"])
                    )
                elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                    self.console.append("error: " + message["params"]["entry"]["text"])

    def send(self, method, params=None, timeout=60):
        with self.lock:
            self.next_id += 1
            message = {"id": self.next_id, "method": method, "params": params or {}}
            if getattr(self, "session", None):
                message["sessionId"] = self.session
            answer = self.answers[self.next_id] = queue.Queue()
            os.write(self.input, json.dumps(message).encode() + b"\0")
        got = answer.get(timeout=timeout)
        if "error" in got:
            raise RuntimeError(f"{method}: {got['error']}")
        return got["result"]

    def size(self, width, height, scale=1):
        self.send(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False},
        )

    def dark(self, on):
        self.send(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]},
        )

    def open(self, url):
        self.send("Page.navigate", {"url": url})

    def run(self, expression):
        """The value of an expression, which may be a promise."""
        got = self.send("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in got:
            raise RuntimeError(f"{expression}: {got['exceptionDetails'].get('exception', {}).get('description')}")
        return got["result"].get("value")

    def wait(self, expression, timeout=30):
        end = time.monotonic() + timeout
        while True:
            value = self.run(expression)
            if value:
                return value
            if time.monotonic() > end:
                raise TimeoutError(f"waited {timeout} s for {expression}; console: {self.console}")
            time.sleep(0.05)

    def click(self, selector):
        """As a person does: at the middle of what is seen there."""
        quoted = json.dumps(selector)
        self.wait(f"document.querySelector({quoted}) !== null")
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({quoted}); e.scrollIntoView({{block: 'center'}}); "
            "const r = e.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1})

    def key(self, key, code=None, text=None):
        keys = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
        base = {"key": key, "code": code or key, "windowsVirtualKeyCode": keys.get(key, 0)}
        if key == "Enter":
            text = "\r"
        self.send("Input.dispatchKeyEvent", {"type": "keyDown", **base, **({"text": text} if text else {})})
        self.send("Input.dispatchKeyEvent", {"type": "keyUp", **base})

    def type(self, selector, text):
        self.run(
            f"document.querySelector({json.dumps(selector)}).focus(); document.querySelector({json.dumps(selector)}).select()"
        )
        self.send("Input.insertText", {"text": text})

    def picture(self, path, full=False):
        got = self.send("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": full})
        with open(path, "wb") as out:
            out.write(base64.b64decode(got["data"]))

    def accessibility(self):
        """(role, name) of all that assistive technology sees."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        return [
            (n["role"]["value"], n.get("name", {}).get("value", ""))
            for n in nodes
            if not n.get("ignored") and "role" in n
        ]

    def close(self):
        self.process.kill()
        self.process.wait()
        for fd in (self.input, self.output):
            os.close(fd)
        self.log.close()
