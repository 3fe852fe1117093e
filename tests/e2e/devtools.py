"""Chromium driven over the DevTools protocol, through the pipe of --remote-debugging-pipe: tabs that
tests look at, click on and type into."""

import base64
import fcntl
import itertools
import json
import os
import signal
import subprocess
import tempfile
import threading
from contextlib import contextmanager

from browser import CHROMIUM, FLAGS
from wait import until

DEADLINE = 15.0
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowDown": 40, "ArrowUp": 38, "Home": 36}


class Chromium:
    def __init__(self, to_browser, from_browser):
        self._out, self._in = to_browser, from_browser
        self._ids = itertools.count(1)
        self._changed = threading.Condition()
        self._answers = {}
        self._sinks = {}  # session: the function that gets its events
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        rest = b""
        while True:
            try:
                data = os.read(self._in, 1 << 20)
            except OSError:
                data = b""
            if not data:
                return
            *messages, rest = (rest + data).split(b"\0")
            for message in map(json.loads, messages):
                with self._changed:
                    if "id" in message:
                        self._answers[message["id"]] = message
                        self._changed.notify_all()
                    elif message.get("sessionId") in self._sinks:
                        self._sinks[message["sessionId"]](message)

    def call(self, method, session=None, **params):
        ident = next(self._ids)
        message = {"id": ident, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data):]
        with self._changed:
            got = self._changed.wait_for(lambda: ident in self._answers, DEADLINE)
            assert got, f"no answer to {method} within {DEADLINE} s"
            answer = self._answers.pop(ident)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    @contextmanager
    def tab(self, url=None, width=1280, height=900, dark=False):
        """A tab with a profile of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self, session["sessionId"])
        self._sinks[tab.session] = tab.on_event
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                tab.call(f"{domain}.enable")
            tab.set_viewport(width, height, dark)
            if url:
                tab.go(url)
            yield tab
        finally:
            self._sinks.pop(tab.session)
            self.call("Target.disposeBrowserContext", browserContextId=context)


class Tab:
    def __init__(self, chromium, session):
        self.chromium, self.session = chromium, session
        self.said = []  # console messages and exceptions, without those about the network
        self.network = []  # the browser's messages about the network
        self.requests = []  # the URLs requested

    def call(self, method, **params):
        return self.chromium.call(method, self.session, **params)

    def on_event(self, message):
        params = message["params"]
        if message["method"] == "Log.entryAdded":
            entry = params["entry"]
            (self.network if entry["source"] == "network" else self.said).append(entry["text"])
        elif message["method"] == "Runtime.consoleAPICalled":
            self.said.append([a.get("value") for a in params["args"]])
        elif message["method"] == "Runtime.exceptionThrown":
            self.said.append(params["exceptionDetails"])
        elif message["method"] == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def set_viewport(self, width, height, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def go(self, url):
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        self.until("document.readyState === 'complete'")

    def js(self, expression, *args):
        """The value of an expression, or of a function called with args; promises are awaited."""
        if args:
            expression = f"({expression})({','.join(json.dumps(a) for a in args)})"
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression, *args, deadline=DEADLINE):
        def holds():
            try:
                return self.js(expression, *args)
            except AssertionError as error:
                if "navigat" in str(error) or "context" in str(error):
                    return None  # another page is loading
                raise
        return until(holds, f"{expression} {args}", deadline, step=0.01)

    def text(self, selector="body"):
        return self.js("s => document.querySelector(s).innerText", selector)

    # --- input, as from a person

    def click(self, selector):
        """Clicks in the middle of the element with the mouse, once it is enabled and nothing covers it."""
        spot = self.until("""s => {
            const node = document.querySelector(s);
            if (!node || node.disabled) return null;
            node.scrollIntoView({block: 'nearest'});
            const box = node.getBoundingClientRect();
            const spot = {x: box.x + box.width / 2, y: box.y + box.height / 2};
            return node.contains(document.elementFromPoint(spot.x, spot.y)) && spot;
        }""", selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **spot)

    def press(self, key, *modifiers):
        """Presses a key of KEYS. modifiers: "shift"."""
        event = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key],
                 "modifiers": 8 if "shift" in modifiers else 0}
        if key in ("Enter", " "):
            event["text"] = "\r" if key == "Enter" else " "
        self.call("Input.dispatchKeyEvent", type="keyDown", **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text):
        """Types into the focused element, replacing its selection."""
        self.call("Input.insertText", text=text)

    def focused(self):
        return self.js("(document.activeElement.innerText || document.activeElement.name || document.activeElement.id).trim()")

    def tab_to(self, label, limit=200):
        """Presses Tab until the element with this text, name or id has the focus."""
        for _ in range(limit):
            self.press("Tab")
            if self.focused() == label:
                return
        raise AssertionError(f"Tab does not lead to {label}")

    def picture(self, path):
        """Writes a PNG of the viewport."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        with open(path, "wb") as file:
            file.write(data)


@contextmanager
def chromium(*flags):
    """A running Chromium. Its home directory is new and is removed afterwards."""
    assert CHROMIUM, "no chromium on this machine: scripts/install-packages test"
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (theirs_in, theirs_out)]
    with tempfile.TemporaryDirectory(prefix="brk-", ignore_cleanup_errors=True) as home, \
            open(os.path.join(home, "log"), "wb") as log:
        # The browser reads from 3 and writes to 4.
        with subprocess.Popen(
                ["bash", "-c", f'exec "$0" "$@" 3<&{high[0]} 4>&{high[1]}', CHROMIUM, *FLAGS, *flags,
                 "--remote-debugging-pipe", f"--user-data-dir={home}/profile", "about:blank"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=high,
                env={**os.environ, "HOME": home, "TMPDIR": home, "TZ": "UTC"},
                start_new_session=True) as process:
            for fd in (theirs_in, theirs_out, *high):
                os.close(fd)
            try:
                yield Chromium(ours_out, ours_in)
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                os.close(ours_out)
    os.close(ours_in)
