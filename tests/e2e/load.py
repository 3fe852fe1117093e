"""Many connections at once from one process: requests as fast as the answers come."""

import re
import selectors
import time

from wire import connect

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Line:
    """One connection with one request in flight."""

    def __init__(self, address):
        self.sock = connect(address)
        self.buffer = b""
        self.sent_at = 0.0

    def take(self):
        """(status, body) once it has come whole, else None."""
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
    """Spreads `requests` (an iterable of bytes) over `connections` keep-alive connections,
    dealt round to `addresses`. Returns [(status, body, seconds)] in the order of arrival."""
    requests = iter(requests)
    answers = []
    end = time.monotonic() + deadline
    lines = []
    try:
        with selectors.DefaultSelector() as selector:
            for i in range(connections):
                line = _Line(addresses[i % len(addresses)])
                lines.append(line)
                selector.register(line.sock, selectors.EVENT_READ, line)
            busy = sum(_next(line, requests) for line in lines)
            while busy:
                events = selector.select(1.0)
                assert time.monotonic() < end, f"{busy} requests unanswered at the deadline"
                for key, _ in events:
                    line = key.data
                    data = line.sock.recv(65536)
                    assert data, f"the daemon closed the connection after {line.buffer!r}"
                    line.buffer += data
                    if answer := line.take():
                        answers.append((*answer, time.monotonic() - line.sent_at))
                        busy += _next(line, requests) - 1
    finally:
        for line in lines:
            line.sock.close()
    return answers


def _next(line, requests):
    """Sends the next request, if there is one: 1, else 0."""
    data = next(requests, None)
    if data is None:
        return 0
    line.sent_at = time.monotonic()
    line.sock.sendall(data)
    return 1
