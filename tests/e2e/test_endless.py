"""Requests that do not end, or are broken where it hurts most, and clients that take all that they can
get. Nobody else is kept waiting, neither a client nor a signal, and the daemon has next to nothing to
do with them."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time

import pytest

from chaos import process_seconds
from contract import path
from stopwatch import Stopwatch
from wait import until
from wire import Wire, connect, request_bytes

HEAD = b"POST /v1/circuits/endless/transition HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
REQUEST_TIMEOUT = 2

# name: what is sent first, and what is then sent again and again, as fast as it is taken; None: no more.
KINDS = {
    "chunk-extension": (CHUNKED + b"5;" + b"x" * 20000, None),
    "chunk-extension-endless": (CHUNKED + b"5;", b"x" * 1000),
    "chunk-extension-dripping": (CHUNKED + b"5;" + b"x" * 20000, b""),
    "chunk-extensions-many": (CHUNKED, b"1;" + b"x" * 4000 + b"\r\na\r\n"),
    "chunk-size-zeros": (CHUNKED + b"0" * 10000, None),
    "chunk-size-zeros-endless": (CHUNKED, b"0" * 1000),
    "chunk-size-behind-a-body": (CHUNKED + b"5\r\nhello\r\n5;" + b"x" * 20000, None),
    "chunk-size-pipelined": (request_bytes("GET", path("a")) * 3 + CHUNKED + b"5;" + b"x" * 20000, None),
    "chunks-endless": (CHUNKED, b"400\r\n" + b" " * 1024 + b"\r\n"),
    "chunks-of-one-byte": (CHUNKED, b"1\r\n \r\n" * 1000),
    "chunk-huge": (CHUNKED + b"ffffffff\r\n", b" " * 1000),
    "trailer-endless": (CHUNKED + b"0\r\nX: ", b"x" * 1000),
    "trailers-endless": (CHUNKED + b"0\r\n", b"X-A: b\r\n" * 100),
    "trailer-silent": (CHUNKED + b"0\r\nX: y\r\n", None),
    "length-huge": (HEAD + b"Content-Length: 9000000000\r\n\r\n", b" " * 1000),
    "length-unmet": (HEAD + b"Content-Length: 1000\r\n\r\n{", None),
    "head-endless": (HEAD + b"X: ", b"x" * 1000),
    "headers-endless": (HEAD, b"X-A: b\r\n" * 100),
    "line-endless": (b"POST /", b"x" * 1000),
    "line-silent": (b"POST /", None),
    "empty-lines-endless": (b"", b"\r\n" * 1000),
    "spaces-endless": (b"", b" " * 1000),
    "expects-and-no-body": (HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", None),
    "pipelined-and-silent": (request_bytes("GET", path("a")) * 50 + HEAD, None),
}


class Sender:
    """A process that sends to the daemon, so that this one's pauses are not the daemon's. Ends when the
    daemon ends the connection, or after 30 s."""

    def __init__(self, address, first, again, connections=1):
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), *map(str, address), str(connections)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for part in (first, again):
            data = b"" if part is None else part
            self.process.stdin.write(b"%d\n" % (-1 if part is None else len(data)) + data)
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"connected\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def ended(self):
        return self.process.poll() is not None


def send_all(host, port, connections):
    """The process of a Sender: what it sends stands on stdin."""
    parts = []
    for _ in range(2):
        size = int(sys.stdin.buffer.readline())
        parts.append(None if size < 0 else sys.stdin.buffer.read(size))
    first, again = parts
    selector = selectors.DefaultSelector()
    waiting = {}
    for _ in range(connections):
        sock = connect((host, port))
        sock.setblocking(False)
        waiting[sock] = first
        selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE)
    print("connected", flush=True)
    deadline = time.monotonic() + 30
    while waiting and time.monotonic() < deadline:
        for key, events in selector.select(1):
            sock = key.fileobj
            try:
                if events & selectors.EVENT_READ and not sock.recv(1 << 20):
                    raise ConnectionResetError
                if events & selectors.EVENT_WRITE:
                    waiting[sock] = waiting[sock][sock.send(waiting[sock]):] or again
            except BlockingIOError:
                continue
            except OSError:
                selector.unregister(sock)
                del waiting[sock]
                continue
            if not waiting[sock]:
                # One byte every now and then, or nothing more.
                selector.modify(sock, selectors.EVENT_READ)
        if again == b"":
            time.sleep(0.05)
            for sock in waiting:
                with contextlib.suppress(OSError):
                    sock.send(b"x")


def ask(daemon):
    """On a new connection."""
    with Wire(daemon.address) as wire:
        assert wire.ask("GET", "/healthz").status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_an_endless_request(start, kind):
    """Others are answered, the daemon is idle, the connection ends by request_timeout."""
    first, again = KINDS[kind]
    daemon = start(request_timeout=REQUEST_TIMEOUT, idle_timeout=60)
    daemon.get("/healthz")
    with Sender(daemon.address, first, again) as sender, \
            Stopwatch(daemon.process.pid, "self") as watch:
        used, began, slowest = process_seconds(daemon), time.monotonic(), 0
        while not sender.ended():
            watch.start()
            ask(daemon)
            slowest = max(slowest, watch.took())
            assert slowest < 0.3
            assert time.monotonic() - began < REQUEST_TIMEOUT + 6, "the connection does not end"
            time.sleep(0.05)
    took = time.monotonic() - began
    while time.monotonic() - began < 1:
        time.sleep(0.05)
        ask(daemon)
    share = (process_seconds(daemon) - used) / (time.monotonic() - began)
    print(f"{kind}: ended after {took:.1f} s, slowest answer {1000 * slowest:.1f} ms, {100 * share:.1f}% of a core")
    assert share < 0.1
    until(lambda: daemon.metric("breakerd_http_connections") == 1, "all other connections have ended")


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_amid_an_endless_request(start, kind):
    """SIGTERM is heard: `stop`, which comes when the test ends, asserts within how long."""
    first, again = KINDS[kind]
    daemon = start(request_timeout=60, idle_timeout=60)
    with Sender(daemon.address, first, again):
        ask(daemon)
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        daemon.expect_exit(0, timeout=6)
        assert time.monotonic() - began < 5.5


GREEDY = request_bytes("GET", "/healthz") * 400


@pytest.mark.parametrize("store", ["memory", "redis"])
@pytest.mark.parametrize("clients", [1, 4])
def test_a_client_that_pipelines_without_waiting(start_on, store, clients):
    """Who is new is answered meanwhile, within a tenth of a second in the median; timers run, and a
    daemon on Redis is not degraded."""
    daemon = start_on(store)
    with contextlib.ExitStack() as stack:
        for _ in range(clients):
            stack.enter_context(Sender(daemon.address, b"", GREEDY))
        watch = stack.enter_context(Stopwatch(daemon.process.pid, "self"))
        began, took = time.monotonic(), []
        while time.monotonic() - began < 3 or len(took) < 20:
            watch.start()
            ask(daemon)
            took.append(watch.took())
        took.sort()
        print(f"{clients} clients: a new connection is answered in {1000 * took[len(took) // 2]:.1f} ms, "
              f"{1000 * took[-1]:.1f} ms at most, {len(took)} times")
        assert took[len(took) // 2] < 0.1
        assert daemon.readyz() == "ready"


if __name__ == "__main__":
    send_all(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
