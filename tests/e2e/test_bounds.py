"""Limits on what one client can take: connections, time, descriptors, the length of a head. The limits of
bodies are in test_errors.py, of keys in test_keys.py, of operations in flight in test_redis_link.py."""

import contextlib
import os
import re
import resource
import select
import time

import pytest

from breakerd import run
from chaos import process_seconds
from contract import expect, path, snapshot
from flood import Slow
from wait import until
from wire import Closed, request_bytes

GET = request_bytes("GET", path("a"))


def waits(wire, seconds):
    """True if no answer comes for `seconds`."""
    wire.sock.settimeout(seconds)
    try:
        return not wire.receive()
    except TimeoutError:
        return True
    finally:
        wire.sock.settimeout(10)


def closes(wire):
    """True once the daemon has closed the connection. Discards what it still sends."""
    try:
        while wire.sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def test_the_limit_of_connections_again_and_again(start):
    """Thirty times, more connections come than the limit allows: none is refused, each is served in turn."""
    daemon = start(max_connections=10)
    snapshot(daemon.get(path("a")))
    for _ in range(30):
        wires = [daemon.wire() for _ in range(30)]
        for wire in wires:
            wire.send(GET)
        for n, wire in enumerate(wires):
            expect(wire.receive(), failureCount=0)
            if n == 0:
                until(lambda: daemon.connections() == 10, "the limit is reached")
            wire.close()
    until(lambda: daemon.connections() == 1, "all other connections have ended")


@pytest.mark.slow
def test_an_idle_connection(start):
    """An idle connection is kept for longer than request_timeout, and ended after idle_timeout."""
    daemon = start(idle_timeout=3, request_timeout=1)
    with daemon.wire() as wire:
        snapshot(wire.ask("GET", path("a")))
        assert waits(wire, 1.7)
        began = time.monotonic()
        snapshot(wire.ask("GET", path("a")))
        assert wire.ended()
        assert 2.9 < time.monotonic() - began < 8


class Worker:
    """A client that sends one request after another on one connection."""

    def __init__(self, daemon, number):
        self.wire, self.number, self.done = daemon.wire(), number, 0

    def work(self):
        answer = self.wire.ask("POST", path(f"w{self.number}", "failure"))
        self.done += 1
        expect(answer, failureCount=self.done)


@pytest.mark.parametrize("kind", ["silent", "idle", "both", "unix"])
@pytest.mark.parametrize("workers", [0, 10])
def test_idle_connections_lock_nobody_out(start, directory, kind, workers):
    """At max_connections a new connection displaces the one idle for longest. Clients that send requests
    lose nothing."""
    listen = {"listen": f"unix:{directory}/s"} if kind == "unix" else {}
    daemon = start(max_connections=20, idle_timeout=60, request_timeout=60, **listen)
    working = [Worker(daemon, n) for n in range(workers)]
    for worker in working:
        worker.work()
    idle = [daemon.wire() for _ in range(20 - workers)]
    for n, wire in enumerate(idle):
        if kind in ("idle", "unix") or (kind == "both" and n % 2):
            snapshot(wire.ask("GET", path("a")))
    for _ in range(10):
        began = time.monotonic()
        with daemon.wire() as wire:
            wire.send(GET)
            # The workers go on meanwhile.
            while not wire_has_answer(wire):
                for worker in working:
                    worker.work()
            snapshot(wire.receive())
        assert time.monotonic() - began < 1
    for worker in working:
        worker.work()
        worker.wire.close()
    # The connection that was idle for longest was displaced.
    assert closes(idle[0])
    for wire in idle:
        wire.close()


def test_connections_in_use_make_room_too(start):
    """All connections have a request several times a second. The one idle for longest is displaced all the same."""
    daemon = start(max_connections=20)
    wires = [daemon.wire() for _ in range(20)]
    with daemon.wire() as late:
        late.send(GET)
        began = time.monotonic()
        while not wire_has_answer(late):
            assert time.monotonic() - began < 3, "the new connection is not served"
            for wire in list(wires):
                try:
                    snapshot(wire.ask("GET", path("a")))
                except (Closed, OSError):
                    wires.remove(wire)
            # Not for synchronization: each connection is idle for a quarter of a second, less than the half
            # a second after which idle connections make room at once.
            time.sleep(0.25)
        snapshot(late.receive())
    assert len(wires) >= 15
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("part", ["head", "body"])
def test_clients_that_have_left_make_room(start, part):
    """Connections whose clients have left amid a request are displaced, too."""
    daemon = start(max_connections=20, request_timeout=60, idle_timeout=60)
    request = request_bytes("POST", path("a", "failure"), body=b"x" * 10)
    wires = [daemon.wire() for _ in range(20)]
    for wire in wires:
        wire.send(request[:30 if part == "head" else -1])
        wire.close()
    began = time.monotonic()
    with daemon.wire() as late:
        snapshot(late.ask("GET", path("a")))
    assert time.monotonic() - began < 2


def wire_has_answer(wire):
    return bool(select.select([wire.sock], [], [], 0.01)[0])


def test_a_request_on_its_way_makes_no_room(start):
    """A connection amid a request is not displaced, however slow the request; a new connection waits."""
    daemon = start(max_connections=5, idle_timeout=60, request_timeout=60)
    head = request_bytes("POST", path("a", "failure"), body=b"x" * 10)
    wires = [daemon.wire() for _ in range(5)]
    for at, wire in zip((5, 30, len(head) - 10, len(head) - 1, len(head) - 3), wires):
        wire.send(head[:at])
    with daemon.wire() as late:
        late.send(GET)
        assert waits(late, 1.5)
        for at, wire in zip((5, 30, len(head) - 10, len(head) - 1, len(head) - 3), wires):
            wire.send(head[at:])
            snapshot(wire.receive())
        snapshot(late.receive())
    for wire in wires:
        wire.close()


ENDS = (b"a HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n\r\n", b" " * 59988, b" " * 59988 + b"\r\n0\r\n\r\n")
PARTS = dict(zip(("line", "header", "body", "chunk"), zip(Slow.REQUESTS, ENDS)))


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_a_slow_request(start, part):
    """A request that is complete within request_timeout is answered. One that is not is ended, although
    bytes keep coming."""
    begin, end = PARTS[part]
    body = b'{"to":"open"' if b"POST" in begin else b""
    # Bytes that can be repeated without end. In a request line only the target can be so long: a second
    # space would end it.
    more = b"a" if part == "line" else b" "
    rest = body + (end[:-1] + b"}" if part == "body" else end.replace(b" \r\n0", b"}\r\n0"))
    daemon = start(request_timeout=2, idle_timeout=60)
    with daemon.wire() as below:
        below.send(begin)
        assert waits(below, 1)
        below.send(rest)
        snapshot(below.receive())
    began = time.monotonic()
    with daemon.wire() as above:
        above.send(begin + body)
        above.sock.settimeout(0.05)
        try:
            while not closes(above):
                assert time.monotonic() - began < 8, "the connection is not ended"
                above.send(more)
        except BrokenPipeError:
            pass
        assert time.monotonic() - began > 1.9
    expect(daemon.get(path("slow")), state="open" if body else "closed")


def out_of_descriptors(daemon):
    """Lowers the daemon's limit so that it cannot open another descriptor. Returns the old limits."""
    pid = daemon.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    most = max(int(n) for n in os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most + 1, limits[1]))
    return limits


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_no_descriptors_left(start, private_redis, kind):
    """New connections wait, existing ones are served, and the daemon does not spin. When there are
    descriptors again, the waiting connections are served, and a lost link to Redis is restored."""
    redis = private_redis() if kind == "redis" else None
    daemon = start(**({"store": redis.url} if redis else {}))
    if redis:
        daemon.wait_ready()
    snapshot(daemon.get(path("a")))
    pid = daemon.process.pid
    limits = out_of_descriptors(daemon)
    wires = [daemon.wire() for _ in range(40)]
    for wire in wires:
        wire.send(GET)
    until(lambda: "http_accept_failed" in daemon.stderr(), "no descriptor is left")
    if redis:
        redis.kill()
        until(lambda: daemon.get("/readyz").json()["status"] == "degraded", "the link is lost")

    began, used = time.monotonic(), process_seconds(daemon)
    while time.monotonic() - began < 2:
        snapshot(daemon.get(path("a")))
        assert waits(wires[-1], 0.05)
    used = process_seconds(daemon) - used
    print(f"{used:.2f} s of processor time")
    assert used < 0.15, f"{used:.2f} s of processor time in two seconds"
    assert daemon.stderr().count("http_accept_failed") == 1, "http_accept_failed is logged more than once"

    if redis:
        redis.start()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    for wire in wires:
        snapshot(wire.receive())
        wire.close()
    if redis:
        daemon.wait_ready()
    with daemon.wire() as wire:
        expect(wire.ask("POST", path("a", "failure")), failureCount=1)


def test_fewer_descriptors_than_connections(start, private_redis):
    """The limit on descriptors lowers max_connections, and the log tells it. Idle connections are displaced
    as at max_connections, and a descriptor stays free for Redis."""
    redis = private_redis()
    daemon = start(store=redis.url, under=("prlimit", "--nofile=40:40")).wait_ready()
    most = int(re.search(r"few_descriptors limit=40 .*max_connections=(\d+)", daemon.stderr())[1])
    assert 4 < most < 30
    wires = [daemon.wire() for _ in range(50)]
    redis.kill()
    redis.start()
    until(lambda: daemon.readyz() == "ready", "the link is up again beside idle clients")
    with daemon.wire() as wire:
        expect(wire.ask("POST", path("a", "failure")), failureCount=1)
    for wire in wires:
        wire.close()
    assert daemon.metric("breakerd_http_connections_limit") == most
    assert daemon.metric("breakerd_http_connections_displaced_total") > 0
    assert "open files" not in daemon.stderr().replace("limit on open files", "")
    daemon.hangup()
    until(lambda: daemon.stderr().count("few_descriptors") == 2, "a reload logs few_descriptors again")
    assert daemon.metric("breakerd_http_connections_limit") == most


def test_no_descriptor_for_a_connection(start):
    done = run("--listen=127.0.0.1:0", under=("prlimit", "--nofile=16:16"))
    assert done.returncode == 1
    assert "the limit on open files leaves none for connections" in done.stderr


def test_without_descriptors_the_idle_make_room(start):
    daemon = start()
    idle = [daemon.wire() for _ in range(4)]
    for wire in idle:
        snapshot(wire.ask("GET", path("a")))
    limits = out_of_descriptors(daemon)
    idle += [daemon.wire() for _ in range(4)]
    until(lambda: "http_accept_failed" in daemon.stderr(), "no descriptor is left")
    with daemon.wire() as last:
        last.send(GET)
        snapshot(last.receive())
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, limits)
    for wire in idle:
        wire.close()


HEADS = {
    "target": lambda n: request_bytes("GET", "/v1/circuits/" + "k" * n),
    "query": lambda n: request_bytes("GET", "/v1/circuits?prefix=" + "k" * n),
    "value": lambda n: request_bytes("POST", path("a", "failure"), {"X-Header": "v" * n}),
    "name": lambda n: request_bytes("POST", path("a", "failure"), {"X" * n: "v"}),
    # These take more memory than their bytes.
    "cookie": lambda n: request_bytes("POST", path("a", "failure"), {"Cookie": "a=" + "v" * (n // 2)}),
    "headers": lambda n: request_bytes("POST", path("a", "failure"), [("X", "v")] * (n // 50)),
    "cookies": lambda n: request_bytes("POST", path("a", "failure"), {"Cookie": "a=b; " * (n // 50)}),
}


@pytest.mark.parametrize("kind", HEADS)
def test_the_length_of_a_head(memory_daemon, kind):
    """A head of up to 8192 bytes is read, or refused for another reason. A longer one is refused, and its
    request not carried out. An answer always comes, also where libmicrohttpd's memory ends."""
    for n in [*range(500, 7000, 500), *range(7000, 11000, 20), 50000, 200000]:
        data = HEADS[kind](n)
        before = snapshot(memory_daemon.get(path("a")))["failureCount"]
        with memory_daemon.wire() as wire:
            try:
                wire.send(data)
                answer = wire.receive()
            except (Closed, OSError) as error:
                raise AssertionError(f"{n}: no answer to {len(data)} bytes") from error
            read = answer.status in (200, 400)
            assert read or (answer.status in (414, 431) and closes(wire)), (n, answer)
        if kind not in ("cookie", "cookies", "headers"):
            assert read or len(data) > 8192, (n, answer)
        assert not read or len(data) <= 8192, (n, answer)
        after = snapshot(memory_daemon.get(path("a")))["failureCount"]
        assert after - before == (answer.status == 200 and b"POST" in data), (n, answer)


MALFORMED = {
    "chunk": (b"", b"PUT /v1/circuits/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "second line": (GET, b"GET / HTTP/9.9\r\n\r\n"),
    "chunk size without an end": (b"", b"PUT /v1/circuits/a HTTP/1.1\r\nHost: localhost\r\n"
                                       b"Transfer-Encoding: chunked\r\n\r\n1;" + 20000 * b"a"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_malformed_costs_no_more_beside_idle_connections(start, kind):
    """Refusing a malformed request does not walk through the idle connections, nor does a turn of the loop."""
    daemon = start(max_connections=1000)
    first, malformed = MALFORMED[kind]

    def cost():
        used = process_seconds(daemon)
        for _ in range(100):
            with daemon.wire() as wire:
                if first:
                    wire.send(first)
                    snapshot(wire.receive())
                wire.send(malformed)
                while wire.sock.recv(65536):
                    pass
        return process_seconds(daemon) - used

    alone = cost()
    with contextlib.ExitStack() as idle:
        for _ in range(900):
            snapshot(idle.enter_context(daemon.wire()).ask("GET", path("a")))
        beside = cost()
    print(f"{kind}: 100 cost {1000 * alone:.0f} ms of a processor alone, {1000 * beside:.0f} beside idle ones")
    assert beside < 3 * alone + 0.06
