"""A client that keeps sending new keys costs a bounded amount of memory, and evicts no open circuit."""

import os
import re

from contract import expect, path

MAX = 10_000
KEYS = 200_000
BATCH = 500
TRIPPED = 300


def memory(daemon):
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) * 1024


def pipeline(wire, requests):
    """Sends all requests at once. Checks that each is answered with 200."""
    wire.send(b"".join(requests))
    seen, data = 0, b""
    while seen < len(requests):
        more = wire.sock.recv(1 << 18)
        assert more, "the daemon closed the connection"
        data += more
        # Counts the complete answers: the last head may be cut.
        at = data.rfind(b"HTTP/1.1 ")
        seen += data.count(b"HTTP/1.1 200 OK", 0, at)
        bad = re.search(rb"HTTP/1\.1 (?!200)\d+", data[:at])
        assert not bad, data[bad.start():bad.start() + 300]
        data = data[at:]
        if seen == len(requests) - 1 and data.endswith(b"}\n"):
            assert data.startswith(b"HTTP/1.1 200 OK"), data[:300]
            seen += 1


def failure(key):
    return b"POST /v1/circuits/%s/failure HTTP/1.1\r\nHost: localhost\r\n" \
           b"Content-Length: 0\r\n\r\n" % key


def transition(key, to):
    body = b'{"to":"%s"}' % to
    return b"POST /v1/circuits/%s/transition HTTP/1.1\r\nHost: localhost\r\n" \
           b"Content-Length: %d\r\n\r\n%s" % (key, len(body), body)


def test_200000_keys_at_10000_circuits(start):
    # AddressSanitizer's quarantine of freed memory would count as used.
    options = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"
    daemon = start(max_circuits=MAX, env={"ASAN_OPTIONS": options.lstrip(":")})
    with daemon.wire() as wire:
        for state in (b"open", b"half-open"):
            pipeline(wire, [transition(b"%s-%d" % (state, n), state) for n in range(TRIPPED)])
        # The longest keys use the most memory.
        keys = (b"%07d" % n + b"k" * 1017 for n in range(KEYS))
        full = None
        for sent in range(0, KEYS, BATCH):
            pipeline(wire, [failure(next(keys)) for _ in range(BATCH)])
            if sent == 2 * MAX:
                full = memory(daemon)
        grown = memory(daemon) - full
        assert grown < 4 << 20, f"{grown} bytes more since the store was full"
        assert full < 100 << 20, f"{full} bytes with {MAX} circuits"
    for state in ("open", "half-open"):
        for n in range(TRIPPED):
            expect(daemon.get(path(f"{state}-{n}")), state=state)
    assert daemon.metric("breakerd_circuits", state="open") == TRIPPED
    assert daemon.metric("breakerd_circuits", state="half-open") == TRIPPED
    assert daemon.metric("breakerd_circuits", state="closed") == MAX - 2 * TRIPPED
    assert daemon.metric("breakerd_evictions_total") == KEYS + 2 * TRIPPED - MAX
    # The circuits written last have stayed.
    last = path("%07d" % (KEYS - 1) + "k" * 1017)
    expect(daemon.get(last), failureCount=1)
