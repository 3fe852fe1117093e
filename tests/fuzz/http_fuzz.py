#!/usr/bin/python3
"""Fuzzes the HTTP side of a running daemon over raw sockets.

    BREAKERD=build-asan/breakerd tests/fuzz/http_fuzz.py [--requests N] [--seconds S] [--seed N]
                                                         [--store URL]

Well-formed requests are changed in every part, cut, joined, pipelined, sent in pieces, broken off
and abandoned; chunk sizes, their extensions and trailers are endless. Every 0.7 s one connection is
made alone: beside it a normal client must be answered at once, and the daemon must be idle when it
has nothing to do. The run fails if the daemon ends, sends what is not HTTP, wedges, leaks, prints a
sanitizer's report, or has grown by more than 20 MB in the end. Meant for the build with
AddressSanitizer (make http-fuzz), but any build works. The seed repeats what is sent.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import re
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from breakerd import BINARY, SANITIZERS, environment
from ports import free_port

MAX_BODY = 4096
GROWTH_MAX = 20 * 1024  # kB
DEADLINE = 8.0  # seconds for a silent connection to be ended: idle_timeout + request_timeout, and more
HELD_MAX = 40
LINES = 48  # connections at once
PATIENCE = 0.05  # seconds of silence before a connection is given up
ALONE = 0.7  # seconds between two connections that are tried alone
AT_ONCE = 0.5  # seconds for a normal client beside one of those
IDLE_SHARE = 0.2  # share of a core that an idle daemon may use
LAST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

STATUSES = {200, 204, 400, 401, 403, 404, 405, 409, 413, 414, 417, 421, 422, 431, 500, 501, 502,
            503, 504, 505}

KEYS = [b"a", b"b", b"%2Fapi%2Fusers", b"%D0%BA", b"..", b"k" * 1024, b"k" * 1025, b"%00", b"%zz",
        b"%ff", b"a+b", b"", b"\xd0\xba", b"a%20b", b"a|b", b"failure"]
QUERIES = [b"state=open", b"prefix=a", b"limit=5", b"limit=0", b"limit=99999999999999999999",
           b"cursor=x", b"cursor=1.2.YQ", b"prefix=%ff", b"state=", b"x=y", b"=", b"&&", b"limit",
           b"prefix=" + b"a" * 3000, b"prefix=%00", b"state=open&state=open", b"prefix=+%2B"]
TARGETS = [b"/", b"/healthz", b"/readyz", b"/metrics", b"/v1/circuits", b"/nowhere", b"*", b"",
           b"http://localhost/healthz", b"http://evil.example/", b"//", b"/v1/circuits/", b"/?", b"/%",
           b"localhost:80"]
METHODS = [b"GET", b"GET", b"POST", b"POST", b"POST", b"DELETE", b"HEAD", b"PUT", b"OPTIONS", b"TRACE",
           b"CONNECT", b"get", b"PATCH", b"X" * 300, b""]
BODIES = [b'{"to":"open"}', b'{"to":"closed","from":"open"}', b'{"to":"half-open"}', b"", b"{}",
          b'{"to":', b'{"to":"\xff"}', b'{"to":"\\ud800"}', b"[" * 3000, b"x" * MAX_BODY,
          b"x" * (MAX_BODY + 1), b"\0" * 100, b'{"to":1e999}', b'{"to":"open","to":"open"}']
HEADERS = [b"Host: localhost", b"Host: localhost", b"Host: evil.example", b"Host:", b"Host: [::1",
           b"Origin: null", b"Origin: http://localhost", b"Sec-Fetch-Site: cross-site",
           b"Sec-Fetch-Site: same-origin", b"Authorization: Bearer x", b"Connection: close",
           b"Connection: keep-alive", b"Connection: upgrade", b"Upgrade: h2c",
           b"Expect: 100-continue", b"Expect: x", b"Content-Length: 5", b"Content-Length: -1",
           b"Content-Length: 18446744073709551615", b"Transfer-Encoding: chunked",
           b"Transfer-Encoding: identity", b"Content-Type: application/json",
           b"Cookie: a=b; c=\"d", b"Cookie: =;=,", b"Accept-Encoding: gzip", b"Range: bytes=0-",
           b"If-Match: *", b"TE: trailers", b"X: " + b"v" * 3000, b"Trailer: X", b" folded",
           b"\tfolded", b"No-Colon", b": empty", b"Sp ace: x", b"Nul: a\0b"]
EATEN = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b"%", b"/", b"?", b"\xff", b"HTTP/1.1",
         b"HTTP/1.0", b"HTTP/9.9", b"0\r\n\r\n", b"\r\n\r\n", b"{", b"\"", b",", b"A" * 200, b"\r\n ",
         b"ffffffffffffffff", b"-1", b"99999999999999999999"]


class Failure(Exception):
    pass


class Maker:
    """Makes the bytes that are sent, from one random generator."""

    def __init__(self, rng):
        self.rng = rng
        # Numbers keys that are used once, which keep the store at its bound.
        self.fresh = 0

    def key(self):
        if self.rng.random() < 0.5:
            self.fresh += 1
            return b"fresh-%d" % self.fresh
        return self.rng.choice(KEYS)

    def target(self):
        rng = self.rng
        kind = rng.random()
        if kind < 0.2:
            target = rng.choice(TARGETS)
        elif kind < 0.3:
            target = b"/v1/circuits"
        else:
            verb = rng.choice([b"", b"/success", b"/failure", b"/transition", b"/x"])
            target = b"/v1/circuits/" + self.key() + verb
        if rng.random() < 0.15:
            target += b"?" + b"&".join(rng.choice(QUERIES) for _ in range(rng.randint(1, 3)))
        return target

    def extension(self):
        rng = self.rng
        if rng.random() < 0.8:
            return b""
        return rng.choice([b";x=y", b";", b";" + b"x" * rng.choice([10, 1000, 5000, 20000]),
                           b";a=\"" + b"q" * rng.choice([10, 10000]) + b"\"", b" ", b";\0", b";\r"])

    def trailer(self):
        rng = self.rng
        if rng.random() < 0.7:
            return b""
        return rng.choice([b"X: y\r\n", b"X: " + b"y" * rng.choice([1000, 20000]) + b"\r\n",
                           b"X: y\r\n" * rng.choice([10, 3000]), b"X", b"X\r\n", b" folded\r\n",
                           b"Content-Length: 5\r\n"])

    def chunks(self, body):
        rng = self.rng
        out = b""
        small = rng.random() < 0.1
        while body:
            n = 1 if small else rng.randint(1, len(body))
            plain = len(out) > 30000  # long enough: no more zeros and extensions
            zeros = b"" if plain else b"0" * rng.choice([0] * 20 + [1, 10, 10000])
            out += b"%s%x%s\r\n%s\r\n" % (zeros, n, b"" if plain else self.extension(), body[:n])
            body = body[n:]
        if rng.random() < 0.1:
            # A body without its end.
            return out + rng.choice([b"5;" + b"x" * 20000, b"0" * 10000, b"5\r\nhel", b"5", b"",
                                     b"ffffffff\r\n" + b"x" * 100000])
        return out + b"0" * rng.choice([1, 1, 1, 5, 10000]) + self.extension() + b"\r\n" + self.trailer() + b"\r\n"

    def chunked(self):
        """A chunked request with a valid head."""
        return (b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                % self.target() + self.chunks(self.rng.choice(BODIES)))

    def sound(self):
        """A valid request, as our clients send it."""
        kind = self.rng.random()
        route = b"/v1/circuits/" + self.rng.choice([b"a", b"b", b"fresh-%d" % self.rng.getrandbits(14)])
        if kind < 0.3:
            return b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % route
        if kind < 0.7:
            verb = self.rng.choice([b"success", b"failure"])
            return b"POST %s/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n" % (route, verb)
        if kind < 0.8:
            return b"DELETE %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % route
        body = b'{"to":"%s"}' % self.rng.choice([b"open"] + 9 * [b"closed"])
        return b"POST %s/transition HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (
            route, len(body), body)

    def request(self):
        rng = self.rng
        lines = [b"%s %s %s" % (rng.choice(METHODS), self.target(),
                                b"HTTP/1.1" if rng.random() < 0.95 else rng.choice(EATEN))]
        if rng.random() < 0.9:
            lines.append(b"Host: localhost")
        lines += [rng.choice(HEADERS) for _ in range(rng.choice([0, 0, 1, 2, 5]))]
        if rng.random() < 0.02:
            lines += [b"H%d: v" % n for n in range(rng.choice([50, 400, 2000]))]
        body = b""
        if rng.random() < 0.5:
            body = rng.choice(BODIES)
            kind = rng.random()
            if kind < 0.6:
                lines.append(b"Content-Length: %d" % len(body))
            elif kind < 0.9:
                lines.append(b"Transfer-Encoding: chunked")
                body = self.chunks(body)
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    def mutate(self, data):
        rng = self.rng
        data = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 4])):
            at = rng.randint(0, len(data))
            kind = rng.randrange(6)
            if kind == 0:
                data[at:at] = rng.choice(EATEN)
            elif kind == 1:
                del data[at:at + rng.choice([1, 1, 2, 10])]
            elif kind == 2 and at < len(data):
                data[at] = rng.getrandbits(8)
            elif kind == 3:
                data[at:at + 2] = rng.choice(EATEN)
            elif kind == 4:
                end = min(len(data), at + rng.choice([1, 5, 50]))
                data[at:at] = data[at:end] * rng.choice([1, 2, 20])
            elif kind == 5:
                del data[at:]
        return bytes(data)

    def batch(self):
        """Bytes for one connection, and the number of requests in them."""
        rng = self.rng
        if rng.random() < 0.01:
            return rng.randbytes(rng.choice([1, 10, 300, 20000])), 1
        if rng.random() < 0.01:
            return self.sound() * 400, 400
        count = rng.choice([1, 1, 2, 10, 30])
        parts = []
        for n in range(count):
            # A connection mostly ends at the first broken request, so most before the last are valid.
            if n < count - 1 and rng.random() < 0.9:
                parts.append(self.sound())
                continue
            part = self.chunked() if rng.random() < 0.2 else self.request()
            parts.append(self.mutate(part) if rng.random() < 0.7 else part)
        return b"".join(parts), count


def check_answers(data):
    """Checks that these are answers; the last may be cut. Returns their statuses."""
    statuses = []
    while data:
        head, mark, rest = data.partition(b"\r\n\r\n")
        if not mark:
            break
        first = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
        if not first:
            raise Failure(f"no answer: {data[:200]!r}")
        status = int(first.group(1))
        if status == 100:
            data = rest
            continue
        statuses.append(status)
        if status not in STATUSES:
            raise Failure(f"status {status}: {head!r}")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        if status == 204 or not length:
            data = rest
            continue
        body, data = rest[:int(length.group(1))], rest[int(length.group(1)):]
        if body.startswith(b"HTTP/1.1 "):
            # The answer was to HEAD, and this is the next one.
            data = rest
            continue
        if b"application/problem+json" in head and len(body) == int(length.group(1)):
            document = json.loads(body.decode("utf-8"))
            if document["status"] != status:
                raise Failure(f"another status: {document}")
    return statuses


class Line:
    """One connection, with the pieces that are still to be sent and what has been received."""

    def __init__(self, address, pieces):
        self.pieces = collections.deque(pieces)
        self.out = []
        self.since = time.monotonic()
        self.ended = False
        self.sock = socket.socket()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.sock.connect(address)
        except OSError as error:
            raise Failure(f"no connection: {error}") from error
        self.sock.setblocking(False)

    def fileno(self):
        return self.sock.fileno()

    def write(self):
        """Sends the next piece, or as much of it as the socket takes."""
        piece = self.pieces.popleft()
        try:
            n = self.sock.send(piece)
        except BlockingIOError:
            n = 0
        except OSError:
            self.pieces.clear()  # the daemon has ended the connection
            return
        if n < len(piece):
            self.pieces.appendleft(piece[n:])

    def read(self):
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # reset, because the daemon closed before it had read everything
        self.ended = not data
        self.out.append(data)
        self.since = time.monotonic()


class Fuzzer:
    def __init__(self, address, process, seed):
        self.rng = random.Random(seed)
        self.maker = Maker(self.rng)
        self.address = address
        self.process = process
        self.sent = 0
        self.answered = collections.Counter()
        self.selector = selectors.DefaultSelector()
        self.lines = set()
        self.held = collections.deque()
        self.last = collections.deque(maxlen=200)
        self.peak = 0

    def memory(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            rss = int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1))
        self.peak = max(self.peak, rss)
        return rss

    def probe(self):
        """Checks that a normal client is answered."""
        try:
            with socket.create_connection(self.address, DEADLINE) as sock:
                sock.sendall(LAST)
                answer = b""
                while data := sock.recv(4096):
                    answer += data
        except OSError as error:
            raise Failure(f"a normal client is not answered: {error}") from error
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise Failure(f"a normal client gets {answer[:200]!r}")

    def begin(self):
        data, count = self.maker.batch()
        self.last.append(data)
        self.sent += count
        pieces = [data + LAST]
        if self.rng.random() < 0.1:
            cuts = sorted(self.rng.randrange(len(data) + 1) for _ in range(self.rng.choice([1, 3, 8])))
            pieces = [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)])] + [LAST]
        line = Line(self.address, filter(None, pieces))
        # Some clients leave after the first piece.
        if self.rng.random() < 0.05:
            line.write()
            self.abandon(line)
            return
        self.lines.add(line)
        self.selector.register(line, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def abandon(self, line):
        """Leaves with a reset, a shutdown or a close; some connections stay open and silent."""
        kind = self.rng.randrange(4)
        if kind == 0:
            line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif kind == 1:
            with contextlib.suppress(OSError):
                line.sock.shutdown(socket.SHUT_WR)
        if kind in (1, 2) and len(self.held) < HELD_MAX:
            line.since = time.monotonic()
            self.held.append(line)
            return
        line.sock.close()

    def end(self, line):
        self.lines.discard(line)
        self.selector.unregister(line)
        self.answered.update(check_answers(b"".join(line.out)))
        if line.ended:
            line.sock.close()
        else:
            self.abandon(line)

    def check_held(self):
        """Checks that the daemon ends silent connections in time."""
        while self.held and time.monotonic() - self.held[0].since > DEADLINE:
            line = self.held.popleft()
            for _ in range(100):
                line.read()
                if line.ended:
                    break
            line.sock.close()
            if not line.ended:
                raise Failure("a client that says nothing more keeps its connection")

    def processor_seconds(self):
        with open(f"/proc/{self.process.pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0]) / 1e9

    def alone(self):
        """Tries one connection alone: beside it a normal client must be answered at once, and then
        the daemon must be idle."""
        for line in list(self.lines):
            self.end(line)
        data, count = self.maker.batch() if self.rng.random() < 0.5 else (self.maker.chunked(), 1)
        self.last.append(data)
        self.sent += count
        line = Line(self.address, [data])
        until = time.monotonic() + 0.05
        while line.pieces and not line.ended and time.monotonic() < until:
            line.write()
            line.read()
        began = time.monotonic()
        self.probe()
        if time.monotonic() - began > AT_ONCE:
            raise Failure(f"a normal client waits for {time.monotonic() - began:.2f} s beside one connection")
        for _ in range(20):
            used, since = self.processor_seconds(), time.monotonic()
            time.sleep(0.05)
            share = (self.processor_seconds() - used) / (time.monotonic() - since)
            if share < IDLE_SHARE:
                break
        else:
            raise Failure(f"the daemon takes {100 * share:.0f}% of a core for nothing")
        if len(self.held) < HELD_MAX:
            self.held.append(line)
        else:
            line.sock.close()

    def turn(self):
        while len(self.lines) < LINES:
            self.begin()
        for key, events in self.selector.select(PATIENCE):
            line = key.fileobj
            if events & selectors.EVENT_READ:
                line.read()
            if events & selectors.EVENT_WRITE and line.pieces and not line.ended:
                line.write()
                if not line.pieces:
                    self.selector.modify(line, selectors.EVENT_READ)
        now = time.monotonic()
        for line in [n for n in self.lines if n.ended or now - n.since > PATIENCE]:
            self.end(line)

    def run(self, requests, seconds):
        began = told = time.monotonic()
        first = self.memory()
        alone = began
        while self.sent < requests and time.monotonic() - began < seconds:
            self.turn()
            if time.monotonic() - alone > ALONE:
                self.alone()
                alone = time.monotonic()
            if self.process.poll() is not None:
                raise Failure(f"the daemon ended with {self.process.returncode}")
            if time.monotonic() - told > 2:
                told = time.monotonic()
                self.probe()
                self.check_held()
                self.memory()
        for line in list(self.lines):
            self.end(line)
        for line in self.held:
            line.sock.close()
        self.probe()
        took = time.monotonic() - began
        last = self.memory()
        print(f"{self.sent} requests in {took:.0f} s; answered: "
              + ", ".join(f"{s} {n}" for s, n in sorted(self.answered.items())))
        print(f"memory: {first} kB at the start, {self.peak} kB at most, {last} kB at the end")
        if last - first > GROWTH_MAX:
            raise Failure(f"grown by {last - first} kB")


def start(directory, store):
    address = ("127.0.0.1", free_port())
    # A large quarantine of freed memory would count as growth.
    env = environment({"ASAN_OPTIONS": "quarantine_size_mb=1:detect_stack_use_after_return=0"})
    log = os.path.join(directory, "stderr")
    with open(log, "wb") as stderr:
        process = subprocess.Popen(
            [BINARY, "--listen=%s:%d" % address, f"--store={store}", f"--max-body={MAX_BODY}",
             "--max-circuits=2000", "--request-timeout=2", "--idle-timeout=3",
             "--log-level=warning"], stdin=subprocess.DEVNULL, stderr=stderr, env=env)
    for _ in range(200):
        try:
            socket.create_connection(address, 1).close()
            return process, address, log
        except OSError:
            time.sleep(0.05)
    raise Failure("the daemon does not start")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1 << 62)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--store", default="memory")
    options = parser.parse_args()
    if options.requests == 1 << 62 and options.seconds == float("inf"):
        options.seconds = 30
    print(f"http_fuzz: {BINARY}, seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="brk-", dir="/tmp") as directory:
        process, address, log = start(directory, options.store)
        fuzzer = Fuzzer(address, process, options.seed)
        failed = None
        try:
            fuzzer.run(options.requests, options.seconds)
        except Failure as failure:
            failed = failure
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            status = "none: it had to be killed"
        with open(log, encoding="utf-8", errors="replace") as file:
            stderr = file.read()
        if not failed and (status != 0 or any(s in stderr for s in SANITIZERS)):
            failed = f"exit status {status}"
        if failed:
            print(stderr[-8000:])
            print("the last that was sent, the latest at the end:")
            for data in list(fuzzer.last)[-3:]:
                print(f"  {data[:2000]!r}")
            print(f"FAILED with seed {options.seed}: {failed}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
