"""Load that goes on while the store fails, and a record of the answers.

One thread drives all connections, with one request in flight on each. An answer's time is measured up
to the last moment at which it surely had not come, and pauses of this process are subtracted: most
pauses are the whole machine's, and must not count as the daemon's.
"""

import json
import selectors
import threading
import time
from collections import Counter, defaultdict

from wire import connect, request_bytes
from contract import path

TICK = 0.005  # seconds between two polls, at most
PAUSE = 0.1   # if two polls are further apart, this process was paused


class Answered:
    """One request and its answer. It took between `took` and `within` seconds."""

    __slots__ = ("key", "verb", "line", "sent", "paused", "took", "within", "status", "headers",
                 "body")

    def __init__(self, key, verb, line, sent, paused):
        self.key = key
        self.verb = verb
        self.line = line
        self.sent = sent
        self.paused = paused  # seconds of pauses before it was sent
        self.took = self.within = self.status = self.headers = self.body = None

    def __repr__(self):
        return f"<{self.verb} {self.key} {self.status} {self.took:.3f} s {self.body!r}>"

    @property
    def ok(self):
        return self.status in (200, 204)

    @property
    def degraded(self):
        return b"\r\nbreakerd-degraded: true" in self.headers.lower()

    def json(self):
        return json.loads(self.body)

    @property
    def unknown(self):
        return self.status >= 400 and self.json().get("applied") == "unknown"


class _Line:
    def __init__(self, number, address):
        self.number = number
        self.sock = connect(address)
        self.buffer = b""
        self.current = None
        self.next_at = 0.0

    def take(self):
        """Sets the answer, once it is complete."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self.buffer[:end + 2]
        length = 0
        for one in head.split(b"\r\n")[1:]:
            if one[:15].lower() == b"content-length:":
                length = int(one[15:])
        if len(self.buffer) < end + 4 + length:
            return None
        done, self.current = self.current, None
        done.status = int(head[9:12])
        done.headers = head
        done.body = self.buffer[end + 4:end + 4 + length]
        self.buffer = self.buffer[end + 4 + length:]
        return done


class Storm:
    """with Storm(addresses, 32, choose) as storm: ... ; storm.answers has the answers.

    choose(connection's number) returns (key, verb) or (key, verb, body). The verb is "get", "reset", or
    the last segment of the route. `rate`: requests a second, about, over all connections."""

    def __init__(self, addresses, connections, choose, rate=1500):
        self.choose = choose
        self.pause = connections / rate
        self.answers = []
        self.error = None
        self.paused = 0.0  # seconds, so far
        self.lines = [_Line(n, addresses[n % len(addresses)]) for n in range(connections)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._stop.set()
        self._thread.join()
        for line in self.lines:
            line.sock.close()
        if self.error and kind is None:
            raise self.error

    def _run(self):
        try:
            with selectors.DefaultSelector() as selector:
                for line in self.lines:
                    selector.register(line.sock, selectors.EVENT_READ, line)
                self._loop(selector)
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def _loop(self, selector):
        polled = time.monotonic()
        for line in self.lines:
            line.next_at = polled + line.number * self.pause / len(self.lines)
        while True:
            now = time.monotonic()
            self.paused += now - polled if now - polled > PAUSE else 0.0
            waiting = False
            for line in self.lines:
                if line.current is None and not self._stop.is_set() and now >= line.next_at:
                    self._send(line)
                waiting |= line.current is not None
            if self._stop.is_set():
                if not waiting:
                    return
                oldest = min(l.current.sent for l in self.lines if l.current)
                assert now - oldest < 20, "a request is not answered at all"
            events = selector.select(TICK)
            for key, _ in events:
                self._receive(key.data, polled)
            polled = now  # what the next poll finds came after this

    def _send(self, line):
        key, verb, *body = self.choose(line.number)
        method = {"get": "GET", "reset": "DELETE"}.get(verb, "POST")
        route = path(key, None if verb in ("get", "reset") else verb)
        data = request_bytes(method, route,
                             body=None if method != "POST" else body[0] if body else b"")
        line.current = Answered(key, verb, line.number, time.monotonic(), self.paused)
        line.next_at = line.current.sent + self.pause
        line.sock.sendall(data)

    def _receive(self, line, polled):
        data = line.sock.recv(65536)
        assert data, f"the daemon closed the connection: {line.current} {line.buffer!r}"
        line.buffer += data
        if done := line.take():
            done.took = max(0.0, polled - done.sent - (self.paused - done.paused))
            done.within = time.monotonic() - done.sent
            self.answers.append(done)

    # --- results

    def slowest(self):
        return max(self.answers, key=lambda a: a.took)

    def statuses(self):
        return Counter(a.status for a in self.answers)

    def book(self, verb=None):
        """{key: Counter of acknowledged, unknown, refused, and acknowledged degraded}"""
        book = defaultdict(Counter)
        for a in self.answers:
            if verb is None or a.verb == verb:
                entry = book[a.key]
                entry["acknowledged" if a.ok else "unknown" if a.unknown else "refused"] += 1
                entry["degraded"] += a.ok and a.degraded
        return book
