"""Streams of events by the hundred, cut, slow and idle. STREAMS=full is the full size (`make streams`)."""

import json
import os
import random
import subprocess
import time

import pytest

from breakerd import ROOT
from contract import path
from flood import Load
from sse import Stream
from wait import until
from wire import connect, request_bytes

FULL = os.environ.get("STREAMS") == "full"
SANITIZED = bool(os.environ.get("SANITIZED"))
READERS = 20 if SANITIZED else 100
IDLE = 10 if SANITIZED else 50  # streams that read nothing
CHANGES = 100_000 if FULL else 1000 if SANITIZED else 4000
CUTS = 1000 if FULL else 60
AHEAD = 400  # changes that the slowest reader may be behind; 1024 are remembered


class Readers:
    """streams.c: that many streams in a process of their own."""

    def __init__(self, directory, daemon, count):
        self.file = f"{directory}/events"
        program = f"{directory}/streams"
        if not os.path.exists(program):
            subprocess.run(["cc", "-O2", "-o", program, os.path.join(ROOT, "tests/e2e/streams.c")], check=True)
        self.process = subprocess.Popen([program, str(daemon.address[1]), str(count), self.file],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.say() == "ready"
        self.events = 0

    def say(self):
        return self.process.stdout.readline().rstrip("\n")

    def wait(self, events):
        """Until each stream has so many."""
        while self.events < events:
            line = self.say()
            assert line.isdigit(), line or "the readers have ended"
            self.events = int(line)

    def end(self):
        """All had the same; (key, state) of each event."""
        self.process.stdin.close()
        while (line := self.say()).isdigit():
            pass
        assert line == "same", line
        assert self.process.wait(10) == 0
        with open(self.file, encoding="utf-8") as file:
            return [(e["key"], e["state"]) for e in map(json.loads, file)]

    def kill(self):
        self.process.kill()
        self.process.wait()


def change(n):
    """The n-th change: eleven circuits open and close in turn."""
    return f"k{n % 11}", "open" if n // 11 % 2 == 0 else "closed"


def request(n):
    key, to = change(n)
    return request_bytes("POST", path(key, "transition"), body=json.dumps({"to": to}))


def percentile(seconds, share):
    return sorted(seconds)[int(len(seconds) * share)]


def resident(daemon):
    return daemon.metric("process_resident_memory_bytes")


class Deaf:
    """A stream whose client reads nothing."""

    def __init__(self, daemon):
        self.sock = connect(daemon.address)
        self.sock.sendall(request_bytes("GET", "/v1/events", host=daemon.host))

    def close(self):
        self.sock.close()


@pytest.mark.slow
def test_a_hundred_streams_have_each_change_once_in_order(start_on, store, directory):
    """Beside fifty that read nothing and are gone in the end; a client of other things is served as ever.
    On Redis another daemon makes the changes."""
    settings = {"max_streams": READERS + IDLE}
    daemon = start_on(store, **settings)
    maker = start_on(store) if store == "redis" else daemon
    readers = Readers(directory, daemon, READERS)
    deaf = [Deaf(daemon) for _ in range(IDLE)]
    wire = maker.wire()
    began = time.monotonic()
    try:
        until(lambda: daemon.metric("breakerd_event_streams") == READERS + IDLE, "all are open")
        before = resident(daemon)
        with Load("steady", daemon.address, daemon.process.pid) as steady:
            seconds = []
            for n in range(0, CHANGES, 50):
                readers.wait(n - AHEAD)
                wire.send(b"".join(map(request, range(n, n + 50))))
                for _ in range(50):
                    assert wire.receive().status == 200
                seconds += steady.tell()["seconds"]
            readers.wait(CHANGES)
            daemon.client_close()  # it may have been idle for idle_timeout
            took = time.monotonic() - began
            seconds += steady.tell()["seconds"]
            # Those that read nothing go when 64 KiB wait beside what the kernel holds for them.
            n = CHANGES
            while daemon.metric("breakerd_event_streams") > READERS:
                assert n < CHANGES + 20000, "who reads nothing stays"
                wire.send(b"".join(map(request, range(n, n + 50))))
                for _ in range(50):
                    assert wire.receive().status == 200
                n += 50
                readers.wait(n - AHEAD)
            readers.wait(n)
        grew = resident(daemon) - before
        assert readers.end() == [change(i) for i in range(n)]
        print(f"{READERS} streams, {CHANGES} changes in {took:.1f} s: {READERS * CHANGES / took:.0f} events a second; "
              f"{IDLE} that read nothing are gone; memory {grew / 1e6:+.1f} MB; {len(seconds)} other answers, "
              f"p50 {1000 * percentile(seconds, 0.5):.2f} ms, p99 {1000 * percentile(seconds, 0.99):.2f} ms")
        assert daemon.metric("breakerd_events_total", result="lost") == IDLE
        assert SANITIZED or grew < 20e6
        # Redis waits for a processor as well, which is not known here.
        busy = SANITIZED or (store == "redis" and not FULL)
        assert percentile(seconds, 0.99) < (0.1 if busy else 0.005)
    finally:
        readers.kill()
        wire.close()
        for stream in deaf:
            stream.close()


class Cut(Stream):
    """A stream that ends after so many bytes, wherever they are in what is sent."""

    def __init__(self, daemon, last_id, room):
        self.room = room
        super().__init__(daemon, last_id=last_id)

    def _more(self):
        if self.room <= 0:
            raise EOFError
        data = self.sock.recv(min(self.room, 65536))
        if not data:
            raise EOFError
        self.room -= len(data)
        self.raw += data


@pytest.mark.slow
def test_a_stream_that_is_cut_at_any_moment_misses_nothing(daemon):
    """What comes behind Last-Event-ID is what was missed, whichever byte was the last one that came."""
    rng = random.Random(17)
    wire = daemon.wire()
    sent, seen = 0, []
    with Stream(daemon) as first:
        first.until_ready()
        last = first.last_id

    def make(count):
        nonlocal sent
        for n in range(sent, sent + count):
            wire.send(request(n))
        for _ in range(count):
            assert wire.receive().status == 200
        sent += count

    def take(stream, timeout=10):
        event = stream.next(timeout)
        assert event.kind in ("circuit", "ready"), event
        if event.kind == "circuit":
            seen.append((event.data["key"], event.data["state"]))
        return event

    for _ in range(CUTS):
        if sent - len(seen) < 500:  # 1024 are remembered
            make(rng.randrange(4))
        try:
            # The head has some 200 bytes, an event some 250.
            stream = Cut(daemon, last, rng.randrange(4000))
        except EOFError:
            continue
        try:
            if sent - len(seen) < 500:
                make(rng.randrange(8))
            while True:
                take(stream, 0.02)
                last = stream.last_id
        except (EOFError, TimeoutError):
            last = stream.last_id
        finally:
            stream.close()
    with Stream(daemon, last_id=last) as stream:
        while len(seen) < sent:
            take(stream)
    assert seen == [change(n) for n in range(sent)]
    print(f"{CUTS} cuts, {sent} changes, each once and in order")
    wire.close()


@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="a sanitizer has threads and a pace of its own")
def test_an_idle_daemon_with_a_hundred_streams_sleeps(daemon):
    """Under 0.1% of a core, the comment that comes every 15 s included."""
    streams = [Stream(daemon) for _ in range(100)]

    def ran():
        with open(f"/proc/{daemon.process.pid}/schedstat", encoding="ascii") as stat:
            return int(stat.read().split()[0]) / 1e9

    try:
        for stream in streams:
            stream.until_ready()
        shares = []
        # A virtual machine may count as ours what another one has had: not three times.
        while len(shares) < 3 and min(shares, default=1) >= 0.001:
            began, used = time.monotonic(), ran()
            time.sleep(60 if FULL else 16)  # what is measured
            shares.append((ran() - used) / (time.monotonic() - began))
        assert all(stream.sock.recv(100, 0x40) for stream in streams), "each had a comment"
        print("100 quiet streams:", ", ".join(f"{100 * share:.4f}%" for share in shares), "of a core")
        assert min(shares) < 0.001
    finally:
        for stream in streams:
            stream.close()
