"""The beginnings of streams: bounded in memory and time, whoever takes them; and listings that streams wait for."""

import os
import socket
import threading
import time

import pytest

from contract import path
from sse import Stream
from wait import until
from wire import request_bytes

SANITIZED = bool(os.environ.get("SANITIZED"))
OPEN = ('{"state":"open","failureCount":1,"successCount":0,"lastFailureTime":5,'
        '"lastStateChange":6}')


def open_many(daemon, count):
    """Circuits whose items have more than 900 bytes."""
    wire = daemon.wire()
    for begin in range(0, count, 50):
        wire.send(b"".join(request_bytes("POST", path(f"{'x' * 900}{n}", "transition"), body='{"to":"open"}')
                           for n in range(begin, begin + 50)))
        for _ in range(50):
            assert wire.receive().status == 200
    wire.close()


def store_many(server, count):
    with server.client() as redis:
        for n in range(count):
            redis.send("SET", f"stoma:cb:k{n}", OPEN)
        for _ in range(count):
            redis.receive()


def deaf(daemon):
    """A stream whose client reads nothing; the kernel keeps little for it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(daemon.address)
    sock.sendall(request_bytes("GET", "/v1/events", host=daemon.host))
    return sock


@pytest.mark.slow
def test_beginnings_that_nobody_takes_cost_no_memory_and_end(memory_daemon):
    """Each has some 4 MB; in all they would take 80 MB for as long as their clients like."""
    daemon = memory_daemon
    open_many(daemon, 4000)
    before = daemon.metric("process_resident_memory_bytes")
    idle = [deaf(daemon) for _ in range(20)]
    until(lambda: daemon.metric("breakerd_event_streams") == 20, "all are open")
    with Stream(daemon) as stream:
        assert len(stream.until_ready()) == 4000
    grew = daemon.metric("process_resident_memory_bytes") - before
    assert SANITIZED or grew < 15e6
    until(lambda: daemon.metric("breakerd_event_streams") == 0, "those that take nothing are cut", deadline=20)
    assert daemon.metric("breakerd_events_total", result="lost") == 20
    for sock in idle:
        sock.close()


@pytest.mark.slow
def test_a_client_that_takes_all_the_time_is_not_cut(memory_daemon):
    """Its beginning has some 4 MB, it takes 64 KiB at a time, and circuits change meanwhile."""
    daemon = memory_daemon
    open_many(daemon, 4000)
    with Stream(daemon) as stream:
        changed = threading.Event()

        def change():
            for n in range(600):
                daemon.post(path(f"n{n % 60}", "transition"), {"to": "open" if n // 60 % 2 == 0 else "closed"})
            changed.set()

        other = threading.Thread(target=change)
        other.start()
        seen = set()
        more = stream._more  # pylint: disable=protected-access

        def slowly():
            time.sleep(0.005)  # its pace
            more()

        stream._more = slowly
        for event in stream.until_ready():
            seen.add(event.data["key"])
        assert len([key for key in seen if key[0] == "x"]) == 4000
        last = {}
        while not (changed.is_set() and len(last) == 60 and set(last.values()) == {"closed"}):
            event = stream.next()
            last[event.data["key"]] = event.data["state"]
        other.join()
    assert daemon.metric("breakerd_events_total", result="lost") == 0


def test_a_beginning_has_circuits_that_change_meanwhile_once(memory_daemon):
    """What changes before its place in the beginning has come is told as an event, and as that alone."""
    daemon = memory_daemon
    open_many(daemon, 2000)
    with Stream(daemon) as stream:
        closed = [f"{'x' * 900}{n}" for n in (1990, 1995, 1999, 0, 5)]
        for key in closed:
            daemon.post(path(key, "transition"), {"to": "closed"})
        states = {}
        for event in stream.until_ready():
            assert event.data["key"] not in states, "twice"
            states[event.data["key"]] = event.data["state"]
        daemon.post(path("end", "transition"), {"to": "open"})
        while (event := stream.next()).data["key"] != "end":
            states[event.data["key"]] = event.data["state"]
        # One that closed before the beginning is not in it.
        assert all(states.pop(key, "closed") == "closed" for key in closed)
        assert len(states) == 1995 and set(states.values()) == {"open"}


def test_a_stream_that_comes_with_the_start_is_served(start, private_redis):
    """The listing that it waits for finds more circuits than changes are remembered."""
    server = private_redis()
    store_many(server, 5000)
    daemon = start(store=server.url)
    with Stream(daemon) as stream:
        keys = {event.data["key"] for event in stream.until_ready()}
        while len(keys) < 5000:  # it was ready before Redis was
            keys.add(stream.next().data["key"])
    assert daemon.metric("breakerd_events_total", result="lost") == 0


@pytest.mark.slow
def test_circuits_that_are_gone_all_at_once_are_told(start, private_redis):
    """A listing that finds 5000 of them gone tells it in parts that streams can take."""
    server = private_redis()
    store_many(server, 5000)
    daemon = start(store=server.url).wait_ready()
    with Stream(daemon) as stream:
        assert len(stream.until_ready()) == 5000
        server.call("FLUSHALL")
        server.call("CLIENT", "KILL", "TYPE", "pubsub")
        gone = {event.data["key"]: event.data["state"] for event in (stream.next() for _ in range(5000))}
        assert len(gone) == 5000 and set(gone.values()) == {"closed"}
    assert daemon.metric("breakerd_events_total", result="lost") == 0
