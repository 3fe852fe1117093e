"""Load from one process: many connections, each sending its next request as soon as an answer comes."""

import re
import selectors
import time

from wire import connect

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Connection:
    """One connection with one request in flight."""

    def __init__(self, address):
        self.sock = connect(address)
        self.buffer = b""
        self.sent_at = 0.0

    def take(self):
        """(status, body) once the answer is complete, else None."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        match = _LENGTH.search(self.buffer, 0, end + 2)
        length = int(match.group(1)) if match else 0
        if len(self.buffer) < end + 4 + length:
            return None
        status = int(self.buffer[9:12])
        body = self.buffer[end + 4:end + 4 + length]
        self.buffer = self.buffer[end + 4 + length:]
        return status, body


def hammer(addresses, connections, requests, deadline=60.0):
    """Spreads `requests` (an iterable of bytes) over `connections` keep-alive connections, which take
    turns among `addresses`. Returns [(status, body, seconds)] in the order of arrival."""
    requests = iter(requests)
    answers = []
    end = time.monotonic() + deadline
    opened = []
    try:
        with selectors.DefaultSelector() as selector:
            for i in range(connections):
                connection = _Connection(addresses[i % len(addresses)])
                opened.append(connection)
                selector.register(connection.sock, selectors.EVENT_READ, connection)
            busy = sum(_next(connection, requests) for connection in opened)
            while busy:
                events = selector.select(1.0)
                assert time.monotonic() < end, f"{busy} requests unanswered at the deadline"
                for key, _ in events:
                    connection = key.data
                    data = connection.sock.recv(65536)
                    assert data, f"the daemon closed the connection after {connection.buffer!r}"
                    connection.buffer += data
                    if answer := connection.take():
                        answers.append((*answer, time.monotonic() - connection.sent_at))
                        busy += _next(connection, requests) - 1
    finally:
        for connection in opened:
            connection.sock.close()
    return answers


def _next(connection, requests):
    """Sends the next request and returns 1, or returns 0 if there is none."""
    data = next(requests, None)
    if data is None:
        return 0
    connection.sent_at = time.monotonic()
    connection.sock.sendall(data)
    return 1
