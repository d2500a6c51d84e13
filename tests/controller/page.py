#!/usr/bin/python3
"""The page in headless Chromium: replicate and detach by mouse and by keyboard alone, live, at 3 instances and at 200.

Pictures of what was seen are kept in the directory that GUESTAGENT_PICTURES names (./pictures).
"""
import os
import unittest

from browser import Browser
from control import *  # noqa: F403


class Page(unittest.TestCase):
    def setUp(self):
        self.pictures = Path(os.environ.get("GUESTAGENT_PICTURES", "pictures")).resolve()
        self.pictures.mkdir(parents=True, exist_ok=True)

    def open(self, site, path="/", token=True):
        browser = Browser(site.scratch)
        self.addCleanup(browser.close)
        base = f"http://127.0.0.1:{site.controller.port}"
        if token:
            # As it is in a tab where it was typed in; what needs none is asked for first.
            browser.open(base + "/page.css")
            browser.wait(f"location.origin === '{base}' && document.readyState === 'complete'")
            browser.run(f"sessionStorage.setItem('token', '{site.controller.token}')")
        browser.open(base + path)
        return browser

    def live(self, browser):
        browser.wait(
            "document.readyState === 'complete' && document.querySelector('#link-word')?.textContent === 'live'"
        )

    def picture(self, browser, name):
        browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        browser.picture(self.pictures / f"{name}.png")

    def test_replicate_and_detach_by_clicking(self):
        site = self.enterContext(Site("click")).start()
        for host in site.hosts:
            host.seconds = 1.0
        browser = self.open(site)
        self.live(browser)
        self.picture(browser, "1-before")
        browser.click("[data-focus='replicate m']")
        browser.wait("document.querySelector('#replicate').open")
        browser.type("#replicate input[name=count]", "2")
        browser.type("#replicate input[name=flavor]", "8")
        self.picture(browser, "2-replicate")
        # A refusal is said in the dialog, which stays.
        browser.click("#replicate button.main")
        browser.wait(
            "document.querySelector('#replicate .wrong').textContent.includes('flavor 8: no free host has it')"
        )
        self.assertTrue(browser.run("document.querySelector('#replicate').open"))
        browser.type("#replicate input[name=flavor]", "7")
        browser.click("#replicate button.main")
        browser.wait("!document.querySelector('#replicate').open")
        browser.wait("document.querySelectorAll('.task progress').length >= 3")
        self.picture(browser, "3-running")
        browser.wait("[...document.querySelectorAll('.node.healthy .word')].length === 2")
        browser.wait("document.querySelector('.task .state').textContent === 'succeeded'")
        self.picture(browser, "4-replicas")
        self.assertEqual(browser.run("document.querySelectorAll('.wires path').length"), 2)

        browser.click("[data-focus='detach s1']")
        browser.wait("document.querySelector('#detach').open")
        self.assertEqual(
            browser.run("document.querySelector('#detach-title').textContent"), "Detach slave1 from master"
        )
        self.picture(browser, "5-detach")
        browser.click("#detach [data-close]")
        self.assertEqual(site.hosts[0].following["account"], next(iter(site.source.accounts)))
        browser.click("[data-focus='detach s1']")
        browser.click("#detach button.main")
        browser.wait("document.querySelectorAll('section.graph').length === 2")
        browser.wait("document.querySelectorAll('.wires path').length === 1")
        self.picture(browser, "6-detached")
        told = browser.run("[...document.querySelectorAll('#events .text')].map(e => e.textContent)")
        self.assertEqual(
            [
                told.count(words)
                for words in ("the snapshot is complete", "slave1 follows", "making 2 replicas of master")
            ],
            [1, 1, 1],
            told,
        )
        self.assertIsNone(site.hosts[0].following)
        self.assertEqual([line for line in browser.console if "409 (Conflict)" not in line], [])

    def test_keyboard_and_screen_reader(self):
        site = self.enterContext(Site("keys")).start()
        browser = self.open(site)
        self.live(browser)

        def tab_to(condition):
            for _ in range(60):
                browser.key("Tab")
                if browser.run(f"(() => {{ const e = document.activeElement; return {condition}; }})()"):
                    return
            self.fail(f"no way by the Tab key to {condition}")

        tab_to("e.dataset.focus === 'replicate m'")
        browser.key("Enter")
        browser.wait("document.querySelector('#replicate').open")
        self.assertEqual(browser.run("document.activeElement.name"), "count")
        # The focus stays inside, Escape closes, and it comes back to where it was.
        for _ in range(15):
            browser.key("Tab")
            self.assertTrue(
                browser.run(
                    "document.activeElement === document.body || document.querySelector('#replicate').contains(document.activeElement)"
                )
            )
        browser.key("Escape")
        browser.wait("!document.querySelector('#replicate').open")
        self.assertEqual(browser.run("document.activeElement.dataset.focus"), "replicate m")
        browser.key("Enter")
        browser.wait("document.querySelector('#replicate').open")
        tab_to("e.classList.contains('main')")
        browser.key("Enter")
        browser.wait("document.querySelectorAll('.node.healthy').length === 1")
        browser.wait("document.querySelector('#said').textContent.includes('succeeded')")
        tab_to("e.dataset.focus === 'detach s1'")
        browser.key("Enter")
        browser.wait("document.querySelector('#detach').open")
        tab_to("e.classList.contains('danger')")
        browser.key("Enter")
        browser.wait("document.querySelectorAll('.wires path').length === 0")
        names = browser.accessibility()
        for wanted in (
            ("button", "Replicate master"),
            ("heading", "Topologies"),
            ("heading", "Tasks"),
            ("searchbox", "Find"),
            ("checkbox", "Only what needs attention"),
        ):
            self.assertIn(wanted, names)
        self.assertEqual(
            [n for n in names if n[0] in ("button", "textbox", "searchbox", "checkbox", "spinbutton") and not n[1]], []
        )
        # State is a word as well as a colour.
        self.assertEqual(
            browser.run(
                "[...document.querySelectorAll('.node')].filter(n => !n.querySelector('.word').textContent).length"
            ),
            0,
        )
        self.assertEqual(browser.console, [])

    def test_what_breaks_is_seen_without_a_reload(self):
        site = self.enterContext(Site("live", spares=4)).start()
        c = site.controller
        browser = self.open(site)
        self.live(browser)
        c.wait_task(c.replicate("m", 2)["task"]["id"])
        browser.wait("document.querySelectorAll('.node.healthy').length === 2")
        # What is said may be followed by the next thing at once.
        browser.run(
            "{ window.heard = []; const said = document.querySelector('#said'); new MutationObserver(() => window.heard.push("
            "said.textContent)).observe(said, {childList: true, characterData: true, subtree: true}); }"
        )
        site.hosts[1].verdict = "diverged"
        browser.wait("document.querySelector('[data-id=s2]').classList.contains('diverged')")
        browser.wait("window.heard.some(text => text.includes('slave2 is diverged'))")
        browser.wait("document.title.startsWith('(1)')")
        site.hosts[1].lag = 77.0
        browser.wait("document.querySelector('[data-id=s2] .lag').textContent === 'lag 77 s'")
        browser.wait("document.querySelector('[data-id=s2] svg.line polyline') !== null")
        # Its agent dies: what is known of it is old, and that is said.
        site.hosts[0].down()
        browser.wait("document.querySelector('[data-id=s1]').classList.contains('unreachable')")
        browser.wait("/^last answer .* ago$/.test(document.querySelector('[data-id=s1] .seen').textContent)")
        browser.wait("document.querySelector('[data-id=s1] .lag') === null")
        self.picture(browser, "11-unreachable")
        site.hosts[0].up()
        browser.wait("document.querySelector('[data-id=s1] .seen') === null")
        # Each replica that fails says why.
        for host in site.hosts[2:]:
            host.fail["attach_replication_slave"] = ("RESOURCE_EXHAUSTED", f"no space left on {host.name}")
        c.wait_task(c.replicate("m", 2)["task"]["id"])
        browser.wait("document.querySelector('.task.failed .error') !== null")
        text = browser.run("document.querySelector('.task.failed').textContent")
        for words in ("no space left on slave3", "no space left on slave4", "mend it"):
            self.assertIn(words, text)
        browser.wait("document.querySelector('#spares').textContent.includes('failed last time')")
        self.picture(browser, "12-failed")
        # The controller goes and comes back.
        c.stop()
        browser.wait("document.querySelector('#link').dataset.up === 'no'")
        self.assertRegex(
            browser.run("document.querySelector('#link-word').textContent"),
            r"no connection.*what is shown is of \d\d:\d\d:\d\d",
        )
        self.assertTrue(browser.run("document.body.classList.contains('stale')"))
        self.picture(browser, "13-no-connection")
        site.hosts[1].verdict = None
        # What breaks while the page hears nothing is said when it is back, and what it said before is not said again.
        browser.run(
            "{ window.heard = []; window.askedOf = window.fetch; window.fetch = (url, how) => url === '/events' && "
            "how.headers.Accept === 'text/event-stream' ? Promise.reject(new Error('held')) : window.askedOf(url, how); }"
        )
        site.hosts[0].verdict = "diverged"
        c.start()
        wait_for(
            "the event",
            lambda: any(
                "slave1 is diverged" in event["message"]
                for event in c.call("GET", "/events", headers={"Accept": "application/json"})["events"]
            ),
        )
        self.assertFalse(browser.run("window.heard.some(text => text.includes('slave1 is diverged'))"))
        browser.run("{ window.fetch = window.askedOf; }")
        browser.wait("window.heard.some(text => text.includes('slave1 is diverged'))")
        self.assertFalse(browser.run("window.heard.some(text => text.includes('slave2 is diverged'))"))
        site.hosts[0].verdict = None
        self.live(browser)
        browser.wait(
            "document.querySelector('[data-id=s2]').classList.contains('lagging') || document.querySelector('[data-id=s2]').classList.contains('healthy')"
        )
        self.assertEqual(
            [line for line in browser.console if "ERR_CONNECTION_REFUSED" not in line and "ERR_INCOMPLETE" not in line],
            [],
        )

    def test_two_hundred(self):
        site = self.enterContext(
            Site("many", spares=195, config={"agents": {"parallel_attaches": 16}, "monitor": {"interval": "1s"}})
        )
        for host in site.hosts:
            host.seconds = 0.02
        sources = [site.fleet.add(f"db{n}", data=True, server_id=n) for n in range(2, 6)]
        site.start()
        c = site.controller
        for source in sources:
            c.register(source.address, name=source.name, id=source.name)
        work = [
            c.replicate(name, count)["task"]["id"]
            for name, count in (("m", 80), ("db2", 60), ("db3", 40), ("db4", 8), ("db5", 2))
        ]
        self.assertEqual({c.wait_task(task, 120)["state"] for task in work}, {"succeeded"})
        site.hosts[100].verdict = "broken"
        browser = self.open(site)
        self.live(browser)
        browser.wait("document.querySelectorAll('.node').length === 195")
        browser.wait("document.querySelector('[data-id=s101]').classList.contains('broken')")
        self.picture(browser, "7-two-hundred")
        browser.click("#only")
        self.assertEqual(
            browser.run(
                "[...document.querySelectorAll('.node')].filter(n => n.offsetParent).map(n => n.dataset.id).filter(i => i[0] === 's')"
            ),
            ["s101"],
        )
        self.picture(browser, "8-attention")
        browser.click("#only")
        browser.type("#find", "slave42")
        browser.wait("[...document.querySelectorAll('.group .node')].filter(n => n.offsetParent).length === 1")
        # What is drawn small can be reached as well.
        browser.click("[data-focus='detach s42']")
        browser.wait("document.querySelector('#detach').open")
        browser.click("#detach button.main")
        browser.wait("document.querySelectorAll('section.graph').length === 6")
        browser.size(400, 850)
        self.assertLessEqual(browser.run("document.documentElement.scrollWidth"), 400)
        self.picture(browser, "9-narrow")
        browser.dark(True)
        self.picture(browser, "10-dark")
        self.assertEqual(browser.console, [])

    def test_token_and_policy(self):
        scratch = self.enterContext(Scratch("page-token"))
        token = scratch.dir / "token"
        token.touch(mode=0o600)
        token.write_text("page-token\n")
        site = self.enterContext(Site("token", config={"token_file": str(token)}))
        site.controller.start()
        _, body, headers = site.controller.tcp("GET", "/", token=False)
        self.assertIn("default-src 'none'", headers["Content-Security-Policy"])
        for path in ("/", "/page.js", "/graph.js", "/page.css"):
            text = site.controller.tcp("GET", path, token=False)[1].decode()
            for foreign in ("http://", "https://"):
                self.assertEqual(
                    [
                        line
                        for line in text.splitlines()
                        if foreign in line and "w3.org/2000/svg" not in line and "placeholder=" not in line
                    ],
                    [],
                    path,
                )
        browser = self.open(site, token=False)
        browser.wait("document.querySelector('#token')?.open")
        browser.type("#token input", "wrong")
        browser.click("#token button.main")
        browser.wait("document.querySelector('#token .wrong').textContent.includes('not this')")
        browser.type("#token input", "page-token")
        browser.click("#token button.main")
        self.live(browser)


if __name__ == "__main__":
    unittest.main(verbosity=2)
