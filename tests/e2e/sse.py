"""A reader of server-sent events, over a plain socket."""

import json
import socket
import time

from wire import connect, request_bytes

DEADLINE = 10.0


class Event:
    def __init__(self, kind, data, ident):
        self.kind, self.data, self.id = kind, data, ident

    def __repr__(self):
        return f"{self.kind} {self.id} {self.data}"


class Stream:
    """GET /v1/events. next() returns the next event, or raises EOFError at the stream's end."""

    def __init__(self, daemon, query="", last_id=None, headers=()):
        self.sock = connect(daemon.address, DEADLINE)
        pairs = list(headers)
        if last_id is not None:
            pairs.append(("Last-Event-ID", last_id))
        self.sock.sendall(request_bytes("GET", "/v1/events" + query, pairs, host=daemon.host))
        self.raw = b""   # received, not decoded yet
        self.text = b""  # decoded from the chunks, not parsed yet
        self.last_id = last_id
        self.comments = 0
        head = self._until(b"\r\n\r\n")
        self.status = int(head.split(b" ", 2)[1])
        self.head = head.decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def _more(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            raise EOFError
        self.raw += data

    def _until(self, mark):
        while mark not in self.raw:
            self._more()
        part, self.raw = self.raw.split(mark, 1)
        return part

    def _chunk(self):
        size = int(self._until(b"\r\n"), 16)
        while len(self.raw) < size + 2:
            self._more()
        self.text += self.raw[:size]
        self.raw = self.raw[size + 2:]
        if size == 0:
            raise EOFError

    def next(self, timeout=DEADLINE):
        self.sock.settimeout(timeout)
        while True:
            while b"\n\n" not in self.text:
                self._chunk()
            block, self.text = self.text.split(b"\n\n", 1)
            kind, data = "message", ""
            for line in block.decode().split("\n"):
                name, _, value = line.partition(": ")
                if line.startswith(":"):
                    self.comments += 1
                elif name == "event":
                    kind = value
                elif name == "id":
                    self.last_id = value
                elif name == "data":
                    data = value
            if data:
                return Event(kind, json.loads(data), self.last_id)

    def until_ready(self):
        """The events before `ready`."""
        events = []
        while (event := self.next()).kind != "ready":
            events.append(event)
        assert event.data == {}
        return events

    def quiet(self, seconds=0.2):
        """True if no event comes for `seconds`."""
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                self.next(seconds)
                return False
        except socket.timeout:
            pass
        return True
