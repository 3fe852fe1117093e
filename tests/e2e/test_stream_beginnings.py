"""The beginnings of streams, bounded in memory and time however their clients read, and the listings that streams wait for."""

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
    """Opens circuits whose items have more than 900 bytes each."""
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
    """A stream whose client reads nothing, with a small buffer in the kernel."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(daemon.address)
    sock.sendall(request_bytes("GET", "/v1/events", host=daemon.host))
    return sock


@pytest.mark.slow
def test_beginnings_that_nobody_takes_cost_no_memory_and_end(memory_daemon):
    """Each beginning has some 4 MB. Kept whole, they would take 80 MB for as long as their clients do not read."""
    daemon = memory_daemon
    open_many(daemon, 4000)
    before = daemon.metric("process_resident_memory_bytes")
    idle = [deaf(daemon) for _ in range(20)]
    until(lambda: daemon.metric("breakerd_event_streams") == 20, "all streams are open")
    with Stream(daemon) as stream:
        assert len(stream.until_ready()) == 4000
    grew = daemon.metric("process_resident_memory_bytes") - before
    assert SANITIZED or grew < 15e6
    until(lambda: daemon.metric("breakerd_event_streams") == 0, "the streams of clients that read nothing are ended",
          deadline=20)
    assert daemon.metric("breakerd_events_total", result="lost") == 20
    for sock in idle:
        sock.close()


@pytest.mark.slow
def test_a_client_that_takes_all_the_time_is_not_cut(memory_daemon):
    """The client reads a beginning of some 4 MB in pieces of up to 64 KiB, while circuits change."""
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
            time.sleep(0.005)  # the client's pace
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
    """A circuit that changes before its turn in the beginning comes as an event, and not in the beginning as well."""
    daemon = memory_daemon
    open_many(daemon, 2000)
    with Stream(daemon) as stream:
        closed = [f"{'x' * 900}{n}" for n in (1990, 1995, 1999, 0, 5)]
        for key in closed:
            daemon.post(path(key, "transition"), {"to": "closed"})
        states = {}
        for event in stream.until_ready():
            assert event.data["key"] not in states, "a circuit is in the beginning twice"
            states[event.data["key"]] = event.data["state"]
        daemon.post(path("end", "transition"), {"to": "open"})
        while (event := stream.next()).data["key"] != "end":
            states[event.data["key"]] = event.data["state"]
        # A circuit that had closed when the beginning was made is not in it.
        assert all(states.pop(key, "closed") == "closed" for key in closed)
        assert len(states) == 1995 and set(states.values()) == {"open"}


def test_a_stream_that_comes_with_the_start_is_served(start, private_redis):
    """The listing that the stream waits for finds more circuits than the daemon remembers changes."""
    server = private_redis()
    store_many(server, 5000)
    daemon = start(store=server.url)
    with Stream(daemon) as stream:
        keys = {event.data["key"] for event in stream.until_ready()}
        while len(keys) < 5000:  # the stream was ready before Redis was
            keys.add(stream.next().data["key"])
    assert daemon.metric("breakerd_events_total", result="lost") == 0


@pytest.mark.slow
def test_circuits_that_are_gone_all_at_once_are_told(start, private_redis):
    """A listing finds 5000 circuits gone, and streams are told in parts that they can take."""
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
