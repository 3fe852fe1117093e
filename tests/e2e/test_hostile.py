"""Requests that two programs could read in two ways (request smuggling): each is refused, and no request behind it
is carried out."""

import re

import pytest

from breakerd import run
from contract import expect, path, problem, snapshot
from wire import Closed, request_bytes

HOST = b"Host: localhost\r\n"
POST = b"POST /v1/circuits/first/failure HTTP/1.1\r\n" + HOST
# The request that an attacker hides behind another one.
SMUGGLED = b"POST /v1/circuits/smuggled/failure HTTP/1.1\r\n" + HOST + b"\r\n"

# libmicrohttpd 1.0 refuses most of these requests before breakerd sees them, with an answer of its
# own or by closing the connection.
LIBRARY_IS_STRICT = "libmicrohttpd 0." not in run("--version").stdout


def answers(daemon, data, pieces=1):
    """Sends data in `pieces` pieces, and SMUGGLED behind it. Returns all answers until the connection ends."""
    size = -(-len(data) // pieces)
    with daemon.wire() as wire:
        try:
            for at in range(0, len(data), size):
                wire.send(data[at:at + size])
            wire.send(SMUGGLED)
        except OSError:
            pass  # the request was refused before all was sent
        out = []
        try:
            while True:
                out.append(wire.receive())
        except (Closed, AssertionError, ValueError, OSError):
            # libmicrohttpd's own answer to a broken Content-Length has its head twice, which cannot be parsed.
            assert out or LIBRARY_IS_STRICT, f"closed without an answer: {data!r}"
        return out


def check_nothing_counted(daemon):
    for key in ("first", "smuggled"):
        expect(daemon.get(path(key)), failureCount=0, lastFailureTime=0)


# Refused by breakerd with a problem document, where libmicrohttpd does not refuse first.
REFUSED = {
    # Where does the body end?
    "length-and-chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked-and-length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two-lengths": POST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
    "two-equal-lengths": POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "two-lengths-in-case": POST + b"content-length: 0\r\nCONTENT-LENGTH: 5\r\n\r\n",
    "chunked-twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked-twice-in-one": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "gzip": POST + b"Transfer-Encoding: gzip\r\n\r\n",
    "gzip-chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked-identity": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked-quoted": POST + b"Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "chunked-parameter": POST + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
    "chunked-vertical-tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked-nul": POST + b"Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n",
    "chunked-empty": POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "chunked-in-1.0": POST.replace(b"1.1", b"1.0")
                      + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space-before-colon-length": POST + b"Content-Length : 90\r\n\r\n",
    "space-before-colon-chunked": POST + b"Transfer-Encoding : chunked\r\n\r\n",
    "tab-before-colon": POST + b"Content-Length\t: 90\r\n\r\n",
    "space-before-name": b"POST /v1/circuits/first/failure HTTP/1.1\r\n Content-Length: 90\r\n" + HOST + b"\r\n",
    "control-in-name": POST + b"\x01Content-Length: 90\r\n\r\n",
    "utf8-in-name": POST + b"Content-Length\xc2\xa0: 90\r\n\r\n",
    "quote-in-name": POST + b"\"Content-Length\": 90\r\n\r\n",
    # Where does a line end?
    "bare-lf-everywhere": POST.replace(b"\r", b"") + b"\n",
    "bare-lf-request-line": POST.replace(b"1.1\r", b"1.1") + b"\r\n",
    "bare-lf-first-header": POST.replace(b"localhost\r", b"localhost") + b"\r\n",
    "bare-lf-later-header": POST + b"A: b\nC: d\r\n\r\n",
    "bare-lf-empty-line": POST + b"\n",
    "bare-lf-two": POST + b"A: b\n\n",
    "bare-lf-empty-value": POST + b"A:\nB:\r\n\r\n",
    "bare-lf-length": POST + b"A: b\nContent-Length: 90\r\n\r\n",
    "cr-cr-lf": POST + b"A: b\r\r\n\r\n",
    "bare-cr": POST + b"A: b\rContent-Length: 90\r\n\r\n",
    "fold-space": POST + b"A: b\r\n c\r\n\r\n",
    "fold-tab": POST + b"A: b\r\n\tc\r\n\r\n",
    "fold-blank": POST + b"A: b\r\n \r\n\r\n",
    "fold-a-name": POST + b"Content: 90\r\n -Length\r\n\r\n",
    "fold-first": b"POST /v1/circuits/first/failure HTTP/1.1\r\n A: b\r\n" + HOST + b"\r\n",
    "fold-chunked": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "nul-in-value": POST + b"A: b\0c\r\n\r\n",
    "nul-ends-value": POST + b"A: b\0\r\n\r\n",
    "nul-begins-line": POST + b"\0A: b\r\n\r\n",
    "nul-empty-line": POST + b"\0\r\n\r\n",
    "control-in-value": POST + b"A: \x1b[2J\r\n\r\n",
    "del-in-value": POST + b"A: \x7f\r\n\r\n",
    "no-name": POST + b": b\r\n\r\n",
    # What does the request line say?
    "two-spaces": POST.replace(b" ", b"  ", 1) + b"\r\n",
    "two-spaces-behind": POST.replace(b" HTTP", b"  HTTP", 1) + b"\r\n",
    "tab-behind-target": POST.replace(b" HTTP", b"\t HTTP", 1) + b"\r\n",
    "nul-in-method": POST.replace(b"POST", b"PO\0ST") + b"\r\n",
    "nul-behind-method": POST.replace(b"POST", b"POST\0") + b"\r\n",
    "nul-in-target": POST.replace(b" HTTP", b"\0 HTTP", 1) + b"\r\n",
    "nul-in-query": POST.replace(b" HTTP", b"?a\0=b HTTP", 1) + b"\r\n",
    "space-in-target": POST.replace(b" HTTP", b" x HTTP", 1) + b"\r\n",
    "version-twice": POST.replace(b"HTTP/1.1", b"HTTP/1.1 HTTP/1.1") + b"\r\n",
    "space-in-query": POST.replace(b" HTTP", b"?a= HTTP/1.1 HTTP", 1) + b"\r\n",
    "control-in-target": POST.replace(b"first", b"fir\x01st") + b"\r\n",
    "cr-in-target": POST.replace(b"first", b"fir\rst") + b"\r\n",
    "method-no-token": POST.replace(b"POST", b"PO(ST") + b"\r\n",
    "no-host": b"POST /v1/circuits/first/failure HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_refused_with_a_problem(memory_daemon, data):
    got = answers(memory_daemon, data)
    check_nothing_counted(memory_daemon)
    if LIBRARY_IS_STRICT and not any(a.type == "application/problem+json" for a in got):
        assert [a.status for a in got] in ([], [400]), got
        return
    assert len(got) == 1, got
    # No code is made for malformed requests; these two come closest.
    problem(got[0], "invalid_key" if b"invalid_key" in got[0].body else "invalid_body", "no")
    assert got[0].header("Connection").lower() == "close"


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_refused_in_pieces_too(memory_daemon, data):
    for pieces in (2, 7):
        got = answers(memory_daemon, data, pieces)
        assert [a.status for a in got] == [400] or (LIBRARY_IS_STRICT and not got), got
    check_nothing_counted(memory_daemon)


# Refused by libmicrohttpd, with an answer of its own or by closing the connection.
REFUSED_BELOW = {
    "length-sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "length-negative": POST + b"Content-Length: -1\r\n\r\nhello",
    "length-hex": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "length-list": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "length-empty": POST + b"Content-Length:\r\n\r\nhello",
    "length-fraction": POST + b"Content-Length: 5.0\r\n\r\nhello",
    "length-words": POST + b"Content-Length: 5 6\r\n\r\nhello",
    "length-2^64": POST + b"Content-Length: 18446744073709551616\r\n\r\nhello",
    "length-2^64+5": POST + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "nul-in-name": POST + b"Content-\0Length: 90\r\n\r\n",
    "bare-cr-empty-line": POST + b"A: b\r\n\r\r\n\r\n",
    "no-colon": POST + b"Content-Length\r\n\r\n",
    "chunk-size-sign": POST + b"Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
    "chunk-size-0x": POST + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "chunk-size-space": POST + b"Transfer-Encoding: chunked\r\n\r\n 1\r\na\r\n0\r\n\r\n",
    "chunk-size-behind": POST + b"Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
    "chunk-size-empty": POST + b"Transfer-Encoding: chunked\r\n\r\n\r\na\r\n0\r\n\r\n",
    "chunk-size-2^64": POST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\na\r\n0\r\n\r\n",
    "chunk-too-short": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "http-0.9": b"GET /healthz\r\n\r\n",
    "http-2": POST.replace(b"HTTP/1.1", b"HTTP/2.0") + b"\r\n",
    "preface-of-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version-lower": POST.replace(b"HTTP/1.1", b"http/1.1") + b"\r\n",
    "version-zeros": POST.replace(b"HTTP/1.1", b"HTTP/01.1") + b"\r\n",
    "version-space": POST.replace(b"HTTP/1.1", b"HTTP/1.1 ") + b"\r\n",
    "empty-lines-before": b"\r\n\r\n" + POST + b"\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\r\n\r\n",
}


@pytest.mark.parametrize("data", REFUSED_BELOW.values(), ids=REFUSED_BELOW)
def test_refused_by_the_library(memory_daemon, data):
    with memory_daemon.wire() as wire:
        got = b""
        try:
            wire.send(data + SMUGGLED)
            while more := wire.sock.recv(65536):
                got += more
        except OSError:
            pass
    statuses = re.findall(rb"^HTTP/1.1 (\d+)", got)
    assert statuses in ([], [b"400"], [b"413"], [b"505"]), got
    check_nothing_counted(memory_daemon)


# Chunks that another program might read in another way: one answer comes, then the connection ends.
CHUNKS = {
    "as-they-should": b"1\r\na\r\n0\r\n\r\n",
    "bare-lf-behind-size": b"1\na\r\n0\r\n\r\n",
    "bare-lf-behind-data": b"1\r\na\n0\r\n\r\n",
    "bare-lf-at-the-end": b"1\r\na\r\n0\n\n",
    "extension": b"1;a=b\r\na\r\n0\r\n\r\n",
    "bare-lf-in-extension": b"1;\na\r\n0\r\n\r\n",
    "trailer": b"1\r\na\r\n0\r\nContent-Length: 90\r\n\r\n",
    "zeros": b"0001\r\na\r\n0000\r\n\r\n",
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_nothing_runs_behind_chunks(memory_daemon, chunks):
    got = answers(memory_daemon, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert len(got) == 1 and got[0].status in (200, 400), got
    assert got[0].header("Connection").lower() == "close"
    expect(memory_daemon.get(path("smuggled")), failureCount=0)


def test_a_space_behind_chunked(memory_daemon):
    """RFC 9112 allows the space, and libmicrohttpd 1.0 removes it; other programs may not know it."""
    got = answers(memory_daemon, POST + b"Transfer-Encoding: chunked \r\n\r\n0\r\n\r\n")
    assert [a.status for a in got] in ([200], [400]), got
    assert got[0].header("Connection").lower() == "close"
    expect(memory_daemon.get(path("smuggled")), failureCount=0)


SOUND = {
    "plain": POST + b"\r\n",
    "1.0-kept": POST.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\n\r\n",
    "no-space-behind-colon": POST + b"A:b\r\n\r\n",
    "tabs-behind-colon": POST + b"A:\t \tb\r\n\r\n",
    "empty-value": POST + b"A:\r\nB: \r\n\r\n",
    "value-with-all-sorts": POST + b"A: b c\td:\"e\"\xc3\xa9\xff,;=()\r\nB: c\r\n\r\n",
    "every-sign-in-a-name": POST + b"!#$%&'*+-.^_`|~09azAZ: b\r\n\r\n",
    "cookie": POST + b"Cookie: a=b; c=\"d;e\"; f\r\n\r\n",
    "length": POST + b"Content-Length: 5\r\n\r\nhello",
    "length-zeros": POST + b"Content-Length: 0005\r\n\r\nhello",
    "get-with-body": POST.replace(b"POST", b"GET").replace(b"/failure", b"")
                     + b"Content-Length: 5\r\n\r\nhello",
    "query": POST.replace(b" HTTP", b"? HTTP", 1) + b"\r\n",
    "list": b"GET /v1/circuits?prefix=a%26b+c&state=open&limit=5 HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute": POST.replace(b" /", b" http://localhost:8747/") + b"\r\n",
    "empty-line-before": b"\r\n" + POST + b"\r\n",
}


@pytest.mark.parametrize("pieces", [1, 2, 50])
@pytest.mark.parametrize("data", SOUND.values(), ids=SOUND)
def test_sound_requests_are_not_refused(memory_daemon, data, pieces):
    """Requests that RFC 9112 allows are carried out, and so is the next one on the connection."""
    with memory_daemon.wire() as wire:
        size = -(-len(data) // pieces)
        for at in range(0, len(data), size):
            wire.send(data[at:at + size])
        assert wire.receive().status == 200
        expect(wire.ask("POST", path("next", "failure")), failureCount=1)


def test_a_long_head_is_looked_at_too(memory_daemon):
    """A head that makes libmicrohttpd's buffer grow is checked as well."""
    headers = b"".join(b"X-%d: %s\r\n" % (n, b"v" * 90) for n in range(40))
    good = POST + headers + b"\r\n"
    bad = POST + headers.replace(b"X-30: ", b"X-30: v\nContent-Length: 90\r\nX-31: ") + b"\r\n"
    for pieces in (1, 10, 100):
        with memory_daemon.wire() as wire:
            size = -(-len(good) // pieces)
            for at in range(0, len(good), size):
                wire.send(good[at:at + size])
            assert wire.receive().status == 200
        got = answers(memory_daemon, bad, pieces)
        assert [a.status for a in got] == [400], got
    expect(memory_daemon.get(path("smuggled")), failureCount=0)


@pytest.mark.parametrize("authority", [
    "evil.example", "evil.example:8747", "localhost.evil.example", "localhost@evil.example",
    "localhost:1@evil.example", "", ":8747", "127.0.0.2", "l" * 300, "localhost%00.evil.example"])
@pytest.mark.parametrize("scheme", ["http", "HTTPS"])
def test_host_of_an_absolute_target(memory_daemon, scheme, authority):
    answer = memory_daemon.post(f"{scheme}://{authority}/v1/circuits/first/failure")
    problem(answer, "misdirected_request", "no")
    check_nothing_counted(memory_daemon)


def test_both_hosts_of_an_absolute_target_must_be_ours(memory_daemon):
    answer = memory_daemon.post("http://localhost/v1/circuits/first/failure",
                                headers={"Host": "evil.example"})
    problem(answer, "misdirected_request", "no")
    check_nothing_counted(memory_daemon)


@pytest.mark.parametrize("sign", [c for c in '"<>\\^`{|}[]#'] + ["é", "\u00a0", "\ufffe"])
def test_no_second_way_to_write_a_key(memory_daemon, sign):
    """Characters that a path segment cannot hold are accepted only percent-encoded."""
    raw = f"/v1/circuits/a{sign}b/failure".encode("utf-8")
    with memory_daemon.wire() as wire:
        problem(wire.ask("POST", raw), "invalid_key", "no", contains="percent-encoded")
        snapshot(wire.ask("POST", path(f"a{sign}b", "failure")))


@pytest.mark.parametrize("route", [
    "/v1/circuits/a/", "/v1/circuits/a//failure", "//v1/circuits/a/failure", "/v1//circuits/a/failure",
    "/v1/circuits/a/failure/", "/v1/circuits/a/%66ailure", "/%761/circuits/a/failure",
    "/v1/circuits/a/FAILURE", "/V1/circuits/a/failure", "/v1/circuits/./a/failure",
    "/v1/x/../circuits/a/failure", "/v1/circuits;a/b/failure", "v1/circuits/a/failure", "*",
    "/v1%2Fcircuits/a/failure", "/v1/circuits%2Fa/failure", "/healthz/", "/healthz%20", "/./healthz"])
def test_no_second_way_to_write_a_route(memory_daemon, route):
    problem(memory_daemon.post(route), "not_found", "no")
    expect(memory_daemon.get(path("a")), failureCount=0)


BODIES = {
    "escaped-member-twice": b'{"to":"open","t\\u006f":"open"}',
    "escaped-from-twice": b'{"to":"open","from":"closed","\\u0066rom":"closed"}',
    "nul-in-member": b'{"to\\u0000":"open"}',
    "nul-between": b'{"to":\0"open"}',
    "nul-in-string": b'{"to":"op\0en"}',
    "nul-before": b'\0{"to":"open"}',
    "del-between": b'{"to":\x7f"open"}',
    "vertical-tab-between": b'{"to":\x0b"open"}',
    "nbsp-between": b'{"to":\xc2\xa0"open"}',
    "low-surrogate": b'{"to":"open\\udc00"}',
    "surrogates-swapped": b'{"to":"\\udc00\\ud800"}',
    "surrogate-and-letter": b'{"to":"\\ud800a"}',
    "surrogate-in-utf8": b'{"to":"\xed\xa0\x80"}',
    "overlong": b'{"to":"\xc0\xaf"}',
    "beyond-unicode": b'{"to":"\xf4\x90\x80\x80"}',
    "cut-utf8": b'{"to":"\xe2\x82"}',
    "utf8-in-member": b'{"\xff":1,"to":"open"}',
    "bad-escape": b'{"to":"\\x6fpen"}',
    "escape-cut": b'{"to":"\\u00',
    "deep-arrays": b'{"to":"open","from":' + b"[" * 30000 + b"]" * 30000 + b"}",
    "deep-objects": b'{"a":' * 10000 + b"1" + b"}" * 10000,
    "deep-unclosed": b'{"to":' + b"[" * 60000,
    "huge-integer": b'{"to":' + b"9" * 60000 + b"}",
    "huge-exponent": b'{"to":1e999999999999999999999}',
    "tiny": b'{"to":-1e-999999999}',
    "long-fraction": b'{"to":0.' + b"1" * 60000 + b"}",
    "nan": b'{"to":NaN}',
    "infinity": b'{"to":-Infinity}',
    "leading-zero": b'{"to":01}',
    "many-members": b"{" + b",".join(b'"m%d":1' % n for n in range(5000)) + b"}",
    "utf16": '{"to":"open"}'.encode("utf-16-le"),
    "utf32": '{"to":"open"}'.encode("utf-32-be"),
    "two-values": b'{"to":"open"} {"to":"open"}',
    "comma": b'{"to":"open"},',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bodies_that_are_none(memory_daemon, body):
    problem(memory_daemon.post(path("a", "transition"), body), "invalid_body", "no")
    expect(memory_daemon.get(path("a")), state="closed", lastFailureTime=0)


def test_escapes_in_a_body_that_is_one(memory_daemon):
    expect(memory_daemon.post(path("a", "transition"), b'{"\\u0074o":"\\u006fpen"}'), state="open")
    expect(memory_daemon.post(path("a", "transition"), b'\t\r\n {"to" : "closed"}\n\t '),
           state="closed")
    problem(memory_daemon.post(path("a", "transition"), b'{"to":"\\ud83d\\ude00"}'),
            "invalid_state", "no")


def test_a_body_is_never_a_request(memory_daemon):
    """A request inside a body is not carried out, whether the body is read or ignored."""
    with memory_daemon.wire() as wire:
        for verb in ("failure", "success", "transition"):
            wire.send(request_bytes("POST", path("first", verb), body=SMUGGLED))
            assert wire.receive().status in (200, 400)
        wire.send(request_bytes("DELETE", path("first"), body=SMUGGLED))
        assert wire.receive().status == 204
        expect(wire.ask("GET", path("smuggled")), failureCount=0)
