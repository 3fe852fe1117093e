"""Clients that mean harm, and the one that they shall not disturb: each in a process of its own, so that
neither they nor the test's own pauses are taken for the daemon's.

As a program: flood.py ROLE HOST PORT NUMBER. It answers each line on stdin with one of JSON, "stop"
with its last.
"""

import glob
import itertools
import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import time

from contract import path
from stopwatch import Stopwatch
from wire import connect, request_bytes

TICK = 0.01      # seconds between two rounds
PAUSE = 10       # rounds between two bytes of a slow sender
CHURN = 20       # connections at most that a flood makes anew in a round
INTERVAL = 0.002 # seconds between two requests of the steady client
MAY_BE_DISPLACED = 0.09 # seconds since a request; a tenth for the daemon, which counts from its answer


class Load:
    """with Load("slow", address, 600) as slow: ... slow.tell() ... slow.stop()

    The number is that of the connections; for "steady" it is the daemon's process."""

    def __init__(self, role, address, number):
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), role, *map(str, address), str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def tell(self, command="tell"):
        """What it has counted so far: see the class of its role."""
        try:
            self.process.stdin.write(command.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        assert line, f"the load has ended ({self.process.wait()})"
        return json.loads(line)

    def stop(self):
        return self.tell("stop")


class Crowd:
    """Many connections; a subclass says what they do. One that ends is made anew. Tells how many have
    been `connected`, the kernel's queue included, and how many have `ended`."""

    def __init__(self, address, count):
        self.address = address
        self.told = {"connected": 0, "ended": 0}
        self.stopped = False
        self.round = 0
        self.selector = selectors.DefaultSelector()
        self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        self.members = {}
        for number in range(count):
            self.open(number)
            if number % 100 == 0:
                self.look(0)

    def open(self, number):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect_ex(self.address)
        self.members[number] = sock
        self.selector.register(sock, selectors.EVENT_WRITE, number)

    def close(self, number):
        sock = self.members[number]
        self.selector.unregister(sock)
        sock.close()

    def end(self, number):
        self.told["ended"] += 1
        self.close(number)
        self.open(number)

    def look(self, timeout):
        for key, events in self.selector.select(timeout):
            if key.data is None:
                self.obey()
            elif key.fileobj is not self.members[key.data]:
                continue  # it was made anew a moment ago
            elif events & selectors.EVENT_WRITE:
                self.told["connected"] += 1
                self.selector.modify(key.fileobj, selectors.EVENT_READ, key.data)
                self.send(key.data, self.first(key.data))
            else:
                try:
                    over = not key.fileobj.recv(65536)
                except OSError:
                    over = True
                if over:
                    self.end(key.data)

    def send(self, number, data):
        try:
            self.members[number].send(data)
        except BlockingIOError:
            pass
        except OSError:
            self.end(number)

    def obey(self):
        command = os.read(sys.stdin.fileno(), 100)
        self.stopped = not command or b"stop" in command
        if self.stopped:
            for number in self.members:
                self.close(number)
        print(json.dumps(self.told), flush=True)

    def run(self):
        while not self.stopped:
            until = time.monotonic() + TICK
            self.look(TICK)
            while not self.stopped and (left := until - time.monotonic()) > 0:
                self.look(left)
            self.round += 1
            if not self.stopped:
                self.tick()

    def first(self, number):
        """What a connection sends first."""
        raise NotImplementedError

    def tick(self):
        """Called once a round."""
        raise NotImplementedError


class Slow(Crowd):
    """Each has begun a request, which goes on byte by byte: its line, a header, a body."""

    POST = b"POST /v1/circuits/slow/transition HTTP/1.1\r\nHost: localhost\r\n"
    REQUESTS = (b"GET /v1/circuits/",
                b"GET /v1/circuits/slow HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
                POST + b"Content-Length: 60000\r\n\r\n",
                POST + b"Transfer-Encoding: chunked\r\n\r\nea60\r\n")

    def first(self, number):
        return self.REQUESTS[number % len(self.REQUESTS)]

    def tick(self):
        for number in range(self.round % PAUSE, len(self.members), PAUSE):
            self.send(number, b"x")


class Flood(Crowd):
    """A third says nothing, a third asks once, a third asks and leaves, again and again."""

    def __init__(self, address, count):
        self.leaving = []
        super().__init__(address, count)

    def first(self, number):
        if number % 3 == 2:
            self.leaving.append(number)
        return request_bytes("GET", path("flood")) if number % 3 else b""

    def tick(self):
        for _ in range(min(CHURN, len(self.leaving))):
            self.end(self.leaving.pop())


def packet_threads():
    """The kernel's threads that carry packets, also between two processes, on a busy machine."""
    for directory in glob.glob("/proc/[0-9]*"):
        try:
            with open(f"{directory}/comm", encoding="ascii") as comm:
                if comm.read().startswith("ksoftirqd/"):
                    yield os.path.basename(directory)
        except OSError:
            pass  # it has ended


def dropped_packets():
    """How many packets the kernel had no room for on their way, also between two processes: they come
    again a fifth of a second later, or never (RFC 6298)."""
    try:
        with open("/proc/net/softnet_stat", encoding="ascii") as stat:
            return sum(int(line.split()[1], 16) for line in stat)
    except OSError:
        return 0


class Steady:
    """Keeps one connection, on which it writes and reads in turn. Tells how many `seconds` each
    answer since the last time took. While one is late the next ones would have been, too: they
    count, or a long stall would be one late answer among thousands. What does not count is the
    time in which the machine stood still or had no processor for the daemon, for us or for what carries
    packets, nor what a packet that the kernel lost takes to come again. Whom either keeps from asking for a
    tenth of a second may lose the connection to a new one, and makes another."""

    def __init__(self, address, pid):
        self.address = address
        self.watch = Stopwatch(pid, "self", *packet_threads())
        self.sock = connect(address)
        self.seconds = []
        self.asked = time.monotonic()

    def ask(self, request):
        dropped = dropped_packets()
        before, self.asked = self.asked, time.monotonic()
        self.watch.start()
        try:
            self.sock.sendall(request)
            answer = self.sock.recv(65536)
        except OSError:
            answer = b""
        took = self.watch.took()
        lost = dropped_packets() > dropped
        if not answer and (lost or self.asked - before >= MAY_BE_DISPLACED):
            self.sock.close()
            self.sock = connect(self.address)
            return
        if lost:
            return
        self.seconds.append(took)
        while (took := took - INTERVAL) > 0:
            self.seconds.append(took)
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"}\n"), answer

    def run(self):
        requests = [request_bytes("POST", path("steady", "failure"), body=b""),
                    request_bytes("GET", path("steady"))]
        with selectors.DefaultSelector() as selector:
            selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
            for request in itertools.cycle(requests):
                self.ask(request)
                if selector.select(INTERVAL):
                    command = os.read(sys.stdin.fileno(), 100)
                    print(json.dumps({"seconds": self.seconds}), flush=True)
                    self.seconds = []
                    if not command or b"stop" in command:
                        return


if __name__ == "__main__":
    HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (HARD, HARD))
    ROLE, HOST, PORT, NUMBER = sys.argv[1:]
    {"slow": Slow, "flood": Flood, "steady": Steady}[ROLE]((HOST, int(PORT)), int(NUMBER)).run()
