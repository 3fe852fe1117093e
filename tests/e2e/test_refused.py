"""What is no HTTP, or broken HTTP: answered at once, in our words, counted, and never with a page of
HTML. Chunked bodies that do not move cost nobody anything."""

import contextlib
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
    """The answer to `data`, behind which the connection has to end; `kept`: on a connection that has had
    a request already."""
    with Wire(address) as wire:
        if kept:
            assert wire.ask("GET", "/healthz").status == 200
        wire.send(data)
        began = time.monotonic()
        answer = wire.receive(method)
        assert wire.ended(), answer
        assert time.monotonic() - began < 5, "it took as long as request_timeout"
        return answer


def sound(answer, status):
    """A refusal in our words."""
    assert answer.status == status, answer
    assert b"<" not in answer.body, answer
    if status in (431, 505):
        assert answer.type == "text/plain", answer
    else:
        problem(answer, {400: "invalid_body", 413: "body_too_large"}[status],
                answer.json().get("applied"))
    return answer


# The first bytes of other protocols, and what they are answered with.
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
    """Before, some of it held a place until request_timeout, and the rest was answered with HTML."""
    daemon = start("--listen=127.0.0.1:0", listen=f"unix:{directory}/s") if on == "unix" else start()
    sound(refusal(daemon.address, data), status)


def test_a_first_line_in_pieces(memory_daemon):
    """Each byte by itself, and a first request that ends nowhere: the others are served."""
    with memory_daemon.wire() as slow, memory_daemon.wire() as silent:
        silent.send(b"\r\nGET /heal")
        for byte in b"\r\n" + KEPT:
            slow.send(bytes([byte]))
        assert slow.receive().status == 200
        silent.send(b"thz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert silent.receive().status == 200
        assert silent.ask("GET", "/healthz").status == 200


def test_an_empty_line_keeps_no_place(start):
    """At max_connections who has sent an empty line alone is idle, and makes room."""
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
    until(lambda: daemon.metric("breakerd_http_connections") == 1, "the others are closed")


# What libmicrohttpd refuses by itself: data, status.
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
    """Idle connections beside it do not matter."""
    memory_daemon.get("/healthz")
    answer = sound(refusal(memory_daemon.address, data, kept=kept), status)
    if answer.type == "application/problem+json":
        assert answer.json()["applied"] == "no", answer
    assert memory_daemon.metric("breakerd_http_requests_total", route="none", method="POST",
                                status=str(status)) == 1
    expect(memory_daemon.get(path("k")), successCount=0)


@pytest.mark.parametrize("data,status", [(b"GET / HTTP/2.0\r\n\r\n", 505), (b"GET /\r\n\r\n", 400),
                                         (b"GET /" + b"a" * 20000, 431)])
def test_a_broken_line_behind_a_request(start, data, status):
    """Other connections that are kept do not matter, whatever came over them. Where one has sent a part of
    a request line it may be that one which is meant, and libmicrohttpd answers. All are counted."""
    daemon = start()
    sound(refusal(daemon.address, data, kept=True), status)
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(daemon.wire()) for _ in range(5)]
        for i, other in enumerate(others):
            other.send(request_bytes("POST", path("k", "failure"), {"X": "x" * i}, b"y" * i) + KEPT * i)
            for _ in range(1 + i):
                assert other.receive().status == 200
        sound(refusal(daemon.address, data, kept=True), status)
        others[0].send(KEPT[:10])
        answer = refusal(daemon.address, data, kept=True)
        assert answer.status in (status, 414), answer
        others[0].send(KEPT[10:])
        assert others[0].receive().status == 200
        for other in others:
            assert other.ask("GET", "/healthz").status == 200
    assert sum(daemon.metric("breakerd_http_requests_total", route="none", method="other", status=str(s))
               for s in {status, 414}) == 3


@pytest.mark.parametrize("kept", [False, True], ids=["first", "kept"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "X"])
def test_a_refusal_knows_its_method(memory_daemon, method, kept):
    """For the metric, for `applied`, and because the answer to HEAD has no body."""
    answer = refusal(memory_daemon.address, method.encode() + b" /healthz HTTP/1.1\r\n" + HOST
                     + b"Content-Length: x\r\n\r\n", method, kept)
    assert answer.status == 400
    assert answer.type == "application/problem+json"
    if method != "HEAD":
        problem(answer, "invalid_body", None if method in ("GET", "OPTIONS") else "no")
    assert memory_daemon.metric("breakerd_http_requests_total", route="none",
                                method=method if method != "X" else "other", status="400") == 1


def test_two_broken_bodies_at_once(memory_daemon):
    """A body on its way is never taken for a broken one beside it."""
    with memory_daemon.wire() as slow, memory_daemon.wire() as broken:
        slow.send(CHUNKED + b"1\r\na")
        until(lambda: memory_daemon.metric("breakerd_http_connections") >= 2, "both are there")
        broken.send(CHUNKED + b"1\r\na\r\nzz\r\n")
        assert broken.receive().status == 400
        slow.send(b"\r\n0\r\n\r\n")
        expect(slow.receive(), successCount=1)


# Behind a whole request and with the end of the stream, so that the connection is one that hangs up.
HANGING_UP = {
    "version": b"GET / HTTP/9.9\r\n\r\n",
    "no-version": b"GET / FOO\r\nHost: localhost\r\n\r\n",
    "line": b"GET\r\n\r\n",
    "line-too-long": b"GET /" + b"a" * 20000,
    "header": b"GET / HTTP/1.1\r\nfoo bar\r\n\r\n",
    "headers-without-end": b"GET / HTTP/1.1\r\na: " + b"b" * 20000,
    "chunk": CHUNKED + b"zz\r\n",
}


def beside(wire, other):
    """What another connection is doing; and what has to come when `finish` is sent."""
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
    """Whatever is refused on one connection, the only other one gets its own answer and nothing else."""
    daemon = start()
    with daemon.wire() as wire:
        finish = beside(wire, other)
        for _ in range(3):
            with daemon.wire() as broken:
                broken.send(KEPT + data)
                broken.sock.shutdown(socket.SHUT_WR)
                assert broken.receive().status == 200
                broken.ended()
        wire.send(finish)
        expect(wire.receive(), failureCount=1)
        if other == "amid-chunks":  # whose request is the last of its connection
            assert wire.ended()
        else:
            expect(wire.ask("POST", path("k", "failure")), failureCount=2)


def full_lines(daemon, stack, count, size):
    """Connections whose chunk-size lines have `size` bytes and no end."""
    sockets = []
    for _ in range(count):
        sock = connect(daemon.address)
        stack.callback(sock.close)
        sock.sendall(CHUNKED + b"0" * size)
        sockets.append(sock)
    return sockets


def used_in(daemon, seconds, ask):
    """The daemon's processor time in these seconds, in which a client asks again and again; and how
    often it was answered."""
    used, began, answers = process_seconds(daemon), time.monotonic(), 0
    while time.monotonic() - began < seconds:
        assert ask.ask("GET", "/healthz").status == 200
        answers += 1
        time.sleep(0.02)
    return process_seconds(daemon) - used, answers


def test_chunk_size_lines_that_do_not_end(start):
    """libmicrohttpd before 1.0 takes such a connection for ready, and reads the whole line in each run:
    with hundreds of them each request of another took milliseconds."""
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
    """Of some sizes one fits exactly: nothing is left in the socket, and no more comes. Others do not
    notice; a byte more, and the line is refused; who sends slowly is served."""
    daemon = start(request_timeout=30)
    with contextlib.ExitStack() as stack:
        ask = stack.enter_context(daemon.wire())
        slow = stack.enter_context(daemon.wire())
        slow.send(CHUNKED + b"1\r\n")
        # One of these, whatever the version leaves of max_head's memory; each size 20 times.
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
