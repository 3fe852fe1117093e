"""Requests that are no HTTP, or malformed: breakerd answers at once, never with libmicrohttpd's page of HTML, and
counts them. Chunked bodies that make no progress cost others nothing."""

import contextlib
import signal
import socket
import time

import pytest

from breakerd import run
from chaos import process_seconds
from contract import expect, path, problem
from wait import until
from wire import Wire, connect, request_bytes

HOST = b"Host: localhost\r\n"
CHUNKED = b"POST /v1/circuits/k/success HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
KEPT = request_bytes("GET", "/healthz")
LIBRARY_IS_STRICT = "libmicrohttpd 0." not in run("--version").stdout


def refusal(address, data, method="GET", kept=False):
    """Sends `data` and returns the answer. Checks that the connection ends after it. `kept`: the connection has had a
    request before."""
    with Wire(address) as wire:
        if kept:
            assert wire.ask("GET", "/healthz").status == 200
        wire.send(data)
        began = time.monotonic()
        answer = wire.receive(method)
        assert wire.ended(), answer
        assert time.monotonic() - began < 5, "the refusal took as long as request_timeout"
        return answer


def check_refusal(answer, status):
    """Checks that the answer is breakerd's own refusal, and returns it."""
    assert answer.status == status, answer
    assert b"<" not in answer.body, answer
    if status in (431, 505):
        assert answer.type == "text/plain", answer
    else:
        problem(answer, {400: "invalid_body", 413: "body_too_large"}[status],
                answer.json().get("applied"))
    return answer


# (the first bytes of other protocols, the status of the answer).
NO_HTTP = {
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), 400),
    "tls-one-byte": (b"\x16", 400),
    "empty-lines": (b"\r\n" * 2, 400),
    "empty-lines-bare": (b"\n\n", 400),
    "smtp": (b"EHLO localhost\r\n", 400),
    "redis": (b"*1\r\n$4\r\nPING\r\n", 400),
    "redis-inline": (b"PING\r\n", 400),
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    "postgres": (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", 400),
    "http-0.9": (b"GET /healthz\r\n", 400),
    "no-method": (b" / HTTP/1.1\r\n", 400),
    "http-2": (b"GET /healthz HTTP/2.0\r\n", 505),
    "http-2-preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "line-too-long": (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n", 431),
    "line-without-end": (b"x" * 8192, 431),
}


@pytest.mark.parametrize("data,status", NO_HTTP.values(), ids=NO_HTTP)
@pytest.mark.parametrize("on", ["tcp", "unix"])
def test_no_http_is_answered_at_once(start, directory, on, data, status):
    """No such client keeps its connection until request_timeout, or is answered with HTML."""
    daemon = start("--listen=127.0.0.1:0", listen=f"unix:{directory}/s") if on == "unix" else start()
    check_refusal(refusal(daemon.address, data), status)


def test_a_first_line_in_pieces(memory_daemon):
    """A request whose bytes come one by one is served, and so is one whose first line pauses."""
    with memory_daemon.wire() as slow, memory_daemon.wire() as silent:
        silent.send(b"\r\nGET /heal")
        for byte in b"\r\n" + KEPT:
            slow.send(bytes([byte]))
        assert slow.receive().status == 200
        silent.send(b"thz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert silent.receive().status == 200
        assert silent.ask("GET", "/healthz").status == 200


def test_an_empty_line_keeps_no_place(start):
    """At max_connections a connection that has sent only an empty line counts as idle, and is displaced."""
    daemon = start(max_connections=10)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(daemon.wire()) for _ in range(10)]
        for wire in wires:
            wire.send(b"\r\n")
        began = time.monotonic()
        with daemon.wire() as new:
            assert new.ask("GET", "/healthz").status == 200
        assert time.monotonic() - began < 5


def test_who_leaves_amid_the_first_line(start):
    daemon = start()
    for data in (b"", b"\r\n", b"GET /hea"):
        with daemon.wire() as wire:
            wire.send(data)
            wire.sock.shutdown(socket.SHUT_WR)
            assert wire.ended()
    until(lambda: daemon.metric("breakerd_http_connections") == 1, "all other connections have ended")


# Requests that libmicrohttpd itself refuses: (data, status).
BROKEN = {
    "chunk-size-no-number": (CHUNKED + b"zz\r\n", 400),
    "chunk-size-0x": (CHUNKED + b"0x2\r\n", 400),
    "chunk-size-sign": (CHUNKED + b"+1\r\na\r\n0\r\n\r\n", 400),
    "chunk-size-huge": (CHUNKED + b"10000000000000002\r\n", 413),
    "chunk-without-end": (CHUNKED + b"2\r\n{}XX0\r\n\r\n", 400),
    "chunk-behind-another": (CHUNKED + b"1\r\na\r\nzz\r\n", 400),
    "two-lengths-and-wrong": (b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n", 400),
    "length-too-large": (b"POST /x HTTP/1.1\r\n" + HOST
                         + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
    "many-headers": (b"POST /x HTTP/1.1\r\n" + HOST + b"a:b\r\n" * 400 + b"\r\n", 431),
    "headers-without-end": (b"POST /x HTTP/1.1\r\n" + HOST + b"a: " + b"b" * 20000, 431),
    "trailers-without-end": (CHUNKED + b"0\r\nx: " + b"b" * 20000, 431),
}
if LIBRARY_IS_STRICT:
    BROKEN["chunk-size-line-too-long"] = (CHUNKED + b"1;" + b"x" * 20000, 413)
    BROKEN["header-without-colon"] = (b"POST /x HTTP/1.1\r\n" + HOST + b"A\r\n\r\n", 400)
    BROKEN["trailer-without-colon"] = (CHUNKED + b"0\r\nA\r\n\r\n", 400)
else:
    BROKEN["chunk-size-line-too-long"] = (CHUNKED + b"1;" + b"x" * 20000, 400)


@pytest.mark.parametrize("kept", [False, True], ids=["first", "kept"])
@pytest.mark.parametrize("data,status", BROKEN.values(), ids=BROKEN)
def test_broken_requests_are_answered_in_our_words(memory_daemon, data, status, kept):
    """Also while another connection is idle."""
    memory_daemon.get("/healthz")
    answer = check_refusal(refusal(memory_daemon.address, data, kept=kept), status)
    if answer.type == "application/problem+json":
        assert answer.json()["applied"] == "no", answer
    assert memory_daemon.metric("breakerd_http_requests_total", route="none", method="POST",
                                status=str(status)) == 1
    expect(memory_daemon.get(path("k")), successCount=0)


@pytest.mark.parametrize("data,status", BROKEN.values(), ids=BROKEN)
def test_who_is_refused_and_stays(start, data, status):
    """The connection's place is free at once, although its client neither sends nor closes."""
    daemon = start(idle_timeout=60)
    daemon.get("/healthz")  # libmicrohttpd 1.0 looks at its oldest connection in each run
    with daemon.wire() as wire:
        wire.send(data)
        check_refusal(wire.receive("POST"), status)
        until(lambda: daemon.metric("breakerd_http_connections") == 1, "only ours is counted")


@pytest.mark.parametrize("data,status", BROKEN.values(), ids=BROKEN)
def test_who_was_refused_does_not_hold_up_the_stop(start, data, status):
    """libmicrohttpd 1.0 does not always tell that a request which it refused is over."""
    daemon = start()
    check_refusal(refusal(daemon.address, data), status)
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    daemon.expect_exit(0)
    assert time.monotonic() - began < 2
    assert "drain_cut" not in daemon.stderr()


@pytest.mark.parametrize("data,status", [(b"GET / HTTP/2.0\r\n\r\n", 505), (b"GET /\r\n\r\n", 400),
                                         (b"GET /" + b"a" * 20000, 431)])
def test_a_broken_line_behind_a_request(start, data, status):
    """Other kept connections do not matter, whatever requests they had. If one of them has sent a part of a request line,
    breakerd cannot tell which one is refused, and libmicrohttpd answers. All refusals are counted."""
    daemon = start()
    check_refusal(refusal(daemon.address, data, kept=True), status)
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(daemon.wire()) for _ in range(5)]
        for i, other in enumerate(others):
            other.send(request_bytes("POST", path("k", "failure"), {"X": "x" * i}, b"y" * i) + KEPT * i)
            for _ in range(1 + i):
                assert other.receive().status == 200
        check_refusal(refusal(daemon.address, data, kept=True), status)
        others[0].send(KEPT[:10])
        answer = refusal(daemon.address, data, kept=True)
        assert answer.status in (status, 414), answer
        others[0].send(KEPT[10:])
        assert others[0].receive().status == 200
        for other in others:
            assert other.ask("GET", "/healthz").status == 200
    assert sum(daemon.metric("breakerd_http_requests_total", route="none", method="other", status=str(s))
               for s in {status, 414}) == 3


# Request lines behind a request, after which libmicrohttpd 1.0 closes the connection without an answer of its own.
UNANSWERED = {
    "line-without-end": (b"x" * 20000, 431),
    "line-too-long": (b"OPTIONS /" + b"a" * 20000, 431),
    "empty-lines": (b"\r\n" * 20, 400),
    "lines-of-another-protocol": (b"EHLO localhost\r\n", 400),
    "bare-cr": (b"PATCH /\r HTTP/1.1\r\n", 400),
    "bare-lf": (b"PATCH / HTTP/1.1\n", 400),
    "spaces": (b"PATCH / HTTP/1.1 x\r\n", 400),
    "space-first": (b" GET / HTTP/1.1\r\n", 400),
    "form-feed": (b"GET\f/ HTTP/1.1\r\n", 400),
    "nul": (b"G\0T / HTTP/1.1\r\n", 400),
}


@pytest.mark.skipif(not LIBRARY_IS_STRICT, reason="libmicrohttpd before 1.0 accepts some of them, and waits after others")
@pytest.mark.parametrize("data,status", UNANSWERED.values(), ids=UNANSWERED)
def test_a_broken_line_that_libmicrohttpd_does_not_answer(memory_daemon, data, status):
    memory_daemon.get("/healthz")
    check_refusal(refusal(memory_daemon.address, data, kept=True), status)
    assert memory_daemon.metric("breakerd_http_requests_total", route="none", method="other", status=str(status)) == 1


@pytest.mark.parametrize("kept", [False, True], ids=["first", "kept"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "X"])
def test_a_refusal_knows_its_method(memory_daemon, method, kept):
    """The metric and `applied` depend on the method, and the answer to HEAD has no body."""
    answer = refusal(memory_daemon.address, method.encode() + b" /healthz HTTP/1.1\r\n" + HOST
                     + b"Content-Length: x\r\n\r\n", method, kept)
    assert answer.status == 400
    assert answer.type == "application/problem+json"
    if method != "HEAD":
        problem(answer, "invalid_body", None if method in ("GET", "OPTIONS") else "no")
    assert memory_daemon.metric("breakerd_http_requests_total", route="none",
                                method=method if method != "X" else "other", status="400") == 1


def test_two_broken_bodies_at_once(memory_daemon):
    """The refusal of a broken body does not go to another connection whose body is under way."""
    with memory_daemon.wire() as slow, memory_daemon.wire() as broken:
        slow.send(CHUNKED + b"1\r\na")
        until(lambda: memory_daemon.metric("breakerd_http_connections") >= 2, "both connections are accepted")
        broken.send(CHUNKED + b"1\r\na\r\nzz\r\n")
        assert broken.receive().status == 400
        slow.send(b"\r\n0\r\n\r\n")
        expect(slow.receive(), successCount=1)


# Sent behind a whole request and followed by the end of the stream, so that the connection is hanging up when it is refused.
HANGING_UP = {
    "version": b"GET / HTTP/9.9\r\n\r\n",
    "no-version": b"GET / FOO\r\nHost: localhost\r\n\r\n",
    "line": b"GET\r\n\r\n",
    "line-too-long": b"GET /" + b"a" * 20000,
    "header": b"GET / HTTP/1.1\r\nfoo bar\r\n\r\n",
    "headers-without-end": b"GET / HTTP/1.1\r\na: " + b"b" * 20000,
    "chunk": CHUNKED + b"zz\r\n",
}


def begin_request(wire, other):
    """Brings the connection into the state `other`. Returns the bytes that complete its request."""
    assert wire.ask("GET", "/healthz").status == 200
    request = request_bytes("POST", path("k", "failure"), body="x" * 10)
    begun, finish = {"idle": (b"", request), "amid-headers": (request[:30], request[30:]),
                     "amid-body": (request[:-5], request[-5:]),
                     "amid-chunks": (CHUNKED.replace(b"success", b"failure") + b"1\r\na",
                                     b"\r\n0\r\n\r\n")}[other]
    wire.send(begun)
    return finish


@pytest.mark.parametrize("other", ["idle", "amid-headers", "amid-body", "amid-chunks"])
@pytest.mark.parametrize("data", HANGING_UP.values(), ids=HANGING_UP)
def test_a_refusal_goes_to_nobody_else(start, data, other):
    """Whatever is refused on one connection, the only other one gets just the answer to its own request."""
    daemon = start()
    with daemon.wire() as wire:
        finish = begin_request(wire, other)
        for _ in range(3):
            with daemon.wire() as broken:
                broken.send(KEPT + data)
                broken.sock.shutdown(socket.SHUT_WR)
                assert broken.receive().status == 200
                broken.ended()
        wire.send(finish)
        expect(wire.receive(), failureCount=1)
        if other == "amid-chunks":  # the connection ends after a chunked request
            assert wire.ended()
        else:
            expect(wire.ask("POST", path("k", "failure")), failureCount=2)


def full_lines(daemon, stack, count, size):
    """Opens connections that send a chunk-size line of `size` bytes without an end."""
    sockets = []
    for _ in range(count):
        sock = connect(daemon.address)
        stack.callback(sock.close)
        sock.sendall(CHUNKED + b"0" * size)
        sockets.append(sock)
    return sockets


def used_in(daemon, seconds, ask):
    """Sends requests for so many seconds. Returns the daemon's processor time meanwhile, and the number of answers."""
    used, began, answers = process_seconds(daemon), time.monotonic(), 0
    while time.monotonic() - began < seconds:
        assert ask.ask("GET", "/healthz").status == 200
        answers += 1
        time.sleep(0.02)
    return process_seconds(daemon) - used, answers


def test_chunk_size_lines_that_do_not_end(start):
    """libmicrohttpd before 1.0 takes such a connection for ready, and parses the whole line again in each run. Hundreds of
    them must not cost the other requests milliseconds."""
    daemon = start()
    with contextlib.ExitStack() as stack:
        ask = stack.enter_context(daemon.wire())
        for sock in full_lines(daemon, stack, 400, 12000):
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(100)[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")
        used, answers = used_in(daemon, 2, ask)
        print(f"{used:.2f} s of processor time, {answers} answers")
        assert used < 0.4


def test_chunk_size_lines_that_fill_the_buffer(start):
    """A line of one of these sizes fills the buffer exactly: nothing is left in the socket, and no more comes. Other
    requests are not delayed, also one that comes slowly; when more comes the line is refused."""
    daemon = start(request_timeout=30)
    with contextlib.ExitStack() as stack:
        ask = stack.enter_context(daemon.wire())
        slow = stack.enter_context(daemon.wire())
        slow.send(CHUNKED + b"1\r\n")
        # One of these sizes fills the buffer, whatever part of it this version of libmicrohttpd uses otherwise.
        sockets = [sock for size in range(10050, 10150, 5)
                   for sock in full_lines(daemon, stack, 20, size)]
        time.sleep(0.5)
        used, answers = used_in(daemon, 2, ask)
        print(f"{used:.2f} s of processor time, {answers} answers")
        assert used < 0.4
        slow.send(b"a\r\n0\r\n\r\n")
        expect(slow.receive(), successCount=1)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.sendall(b"0" * 3000)
        for sock in sockets:
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(100)[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")
