"""Many connections that each ask for something costly in the same moment: others, timers and signals
have their turn, and what waits to be sent is bounded."""

import signal
import time

import pytest

from contract import path, snapshot
from flood import queued_seconds
from wire import request_bytes

MANY = 900
LISTING = request_bytes("GET", "/v1/circuits?limit=1000")


def fill(daemon, length=1000):
    """A thousand circuits: a listing of a megabyte."""
    with daemon.wire() as wire:
        for i in range(0, 1000, 50):
            keys = [f"{n:03d}" + "k" * (length - 3) for n in range(i, i + 50)]
            for key in keys:
                wire.send(request_bytes("POST", path(key, "failure")))
            for _ in keys:
                snapshot(wire.receive())


def crowd(daemon, request, count=MANY):
    """As many connections, each with all of a request but its last byte; then that byte on each."""
    wires = [daemon.wire() for _ in range(count)]
    for wire in wires:
        wire.send(request[:-1])
    with daemon.wire() as wire:
        snapshot(wire.ask("GET", path("a")))
    for wire in wires:
        wire.send(request[-1:])
    return wires


COSTLY = {
    "listing": LISTING,
    "metrics": request_bytes("GET", "/metrics"),
    "body": request_bytes("POST", path("k", "report"), body=b'{"outcome":"' + b"\\u0041" * 10000 + b'"}'),
}


@pytest.mark.parametrize("kind", COSTLY)
def test_others_have_their_turn(start, kind):
    daemon = start()
    fill(daemon)
    with daemon.wire() as steady:
        snapshot(steady.ask("GET", path("a")))
        wires = crowd(daemon, COSTLY[kind])
        slowest = 0
        end = time.monotonic() + 1
        while time.monotonic() < end:
            began, queued = time.monotonic(), queued_seconds(daemon.process.pid)
            snapshot(steady.ask("GET", path("a")))
            took = time.monotonic() - began - (queued_seconds(daemon.process.pid) - queued)
            slowest = max(slowest, took)
        print(f"slowest answer {1000 * slowest:.1f} ms")
        assert slowest < 0.5
        # Those that wait are served in their turn.
        wires[-1].sock.settimeout(30)
        if kind != "listing":
            assert wires[-1].receive().status in (200, 422)
    for wire in wires:
        wire.close()


def test_a_signal_is_heard_at_once(start):
    """SIGTERM amid hundreds of connections with four listings each, and nobody who reads them."""
    daemon = start()
    fill(daemon)
    wires = crowd(daemon, LISTING * 4)
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    daemon.expect_exit(0, timeout=40)
    took = time.monotonic() - began
    print(f"exit after {took:.1f} s")
    assert took < 5
    for wire in wires:
        wire.close()
