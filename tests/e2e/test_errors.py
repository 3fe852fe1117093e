"""Errors for bodies, heads and lengths, on both stores. Those of access, keys, routes and queries have tests of their own."""

import json
import re

import pytest

from contract import expect, path, problem, snapshot
from wire import request_bytes

ROUTE = path("a", "transition")

NOT_A_BODY = {
    "nothing": b"",
    "blank": b"  ",
    "not-json": b"to=open",
    "cut": b'{"to":"open"',
    "trailing-bytes": b'{"to":"open"}x',
    "two-objects": b'{"to":"open"}{"to":"open"}',
    "trailing-nul": b'{"to":"open"}\0',
    "trailing-comma": b'{"to":"open",}',
    "comment": b'{"to":"open"/**/}',
    "single-quotes": b"{'to':'open'}",
    "array": b'["open"]',
    "string": b'"open"',
    "number": b"1",
    "null": b"null",
    "empty-object": b"{}",
    "to-missing": b'{"from":"open"}',
    "to-null": b'{"to":null}',
    "to-number": b'{"to":1}',
    "to-bool": b'{"to":true}',
    "to-array": b'{"to":["open"]}',
    "to-object": b'{"to":{"state":"open"}}',
    "from-null": b'{"to":"open","from":null}',
    "from-number": b'{"to":"open","from":0}',
    "to-twice": b'{"to":"open","to":"open"}',
    "from-twice": b'{"to":"open","from":"closed","from":"closed"}',
    "unknown-member": b'{"to":"open","reason":"x"}',
    "unknown-case": b'{"To":"open"}',
    "invalid-utf8": b'{"to":"\xff"}',
    "surrogate": b'{"to":"\\ud800"}',
    "control-in-string": b'{"to":"op\nen"}',
    "utf16": '{"to":"open"}'.encode("utf-16"),
    "bom": b'\xef\xbb\xbf{"to":"open"}',
    "deep": b'{"to":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "huge-number": b'{"to":1e999}',
}

NOT_A_STATE = {
    "upper": b'{"to":"OPEN"}',
    "empty": b'{"to":""}',
    "blank": b'{"to":" open"}',
    "underscore": b'{"to":"half_open"}',
    "joined": b'{"to":"halfopen"}',
    "prefix": b'{"to":"ope"}',
    "longer": b'{"to":"opened"}',
    "nul": b'{"to":"open\\u0000"}',
    "unicode": '{"to":"öpen"}'.encode(),
    "from": b'{"to":"open","from":"Closed"}',
    "from-empty": b'{"to":"open","from":""}',
}


@pytest.mark.parametrize("body", NOT_A_BODY.values(), ids=NOT_A_BODY)
def test_invalid_body(daemon, body):
    problem(daemon.post(ROUTE, body), "invalid_body", "no")
    assert daemon.get("/v1/circuits").json()["circuits"] == []


@pytest.mark.parametrize("body", NOT_A_STATE.values(), ids=NOT_A_STATE)
def test_invalid_state(daemon, body):
    problem(daemon.post(ROUTE, body), "invalid_state", "no", contains=("closed", "half-open"))
    assert daemon.get("/v1/circuits").json()["circuits"] == []


@pytest.mark.parametrize("body", [
    b'{"to":"open"}', b' {"to" : "open" }\r\n', b'{"from":"closed","to":"open"}',
    b'{"\\u0074o":"\\u006fpen"}', b'\n\t{"to":"open"}\n' + b" " * 60000,
])
def test_bodies_that_are_right(daemon, body):
    expect(daemon.post(ROUTE, body), state="open")


@pytest.mark.parametrize("content_type", [
    None, "application/json", "application/x-www-form-urlencoded", "text/plain", "nonsense",
])
def test_the_content_type_is_not_asked_for(daemon, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    expect(daemon.post(ROUTE, '{"to":"open"}', headers=headers), state="open")


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("verb", ["transition", "failure", "success"])
def test_body_limit(daemon, verb, chunked):
    def send(size):
        body = b'{"to":"open"}' + b" " * (size - 13)
        with daemon.wire() as wire:
            if not chunked:
                return wire.ask("POST", path("a", verb), body=body)
            wire.send(request_bytes("POST", path("a", verb), {"Transfer-Encoding": "chunked"}))
            for at in range(0, size, 10000):
                piece = body[at:at + 10000]
                wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            wire.send(b"0\r\n\r\n")
            return wire.receive()

    snapshot(send(65535))
    was = snapshot(send(65536))
    problem(send(65537), "body_too_large", "no", contains="65536")
    problem(send(1_000_000), "body_too_large", "no")
    assert snapshot(daemon.get(path("a"))) == was


def test_body_limit_of_a_delete(daemon):
    daemon.post(path("a", "failure"))
    problem(daemon.request("DELETE", path("a"), body=b"x" * 65537), "body_too_large", "no")
    expect(daemon.get(path("a")), failureCount=1)
    assert daemon.delete(path("a"), body=b"x" * 65536).status == 204


@pytest.mark.parametrize("limit", [4096, 8192, 65536])
def test_max_head_is_a_setting(start, limit):
    daemon = start(max_head=limit)

    def send(size):
        least = len(request_bytes("GET", path("a"), {"X-Filler": ""}))
        with daemon.wire() as wire:
            wire.send(request_bytes("GET", path("a"), {"X-Filler": "f" * (size - least)}))
            return wire.receive().status

    assert send(limit - 1) == send(limit) == 200
    # A head over the limit is refused, also one so long that libmicrohttpd itself refuses it.
    for over in (1, 2, 100, *range(500, 2000, 20), 3000, limit):
        assert send(limit + over) == 431, over
    assert send(limit) == 200


def test_many_small_headers(daemon):
    """Each header takes memory beside its bytes. An answer always comes: 200 up to some number of headers, then 431."""
    def send(count):
        with daemon.wire() as wire:
            wire.send(request_bytes("GET", path("a"), [("a", "b")] * count))
            return wire.receive().status

    answers = [send(count) for count in range(1, 300)]
    limit = answers.index(431)
    assert limit > 16
    assert set(answers[:limit]) == {200}
    assert set(answers[limit:]) == {431}


def test_query_of_many_parts(daemon):
    with daemon.wire() as wire:
        for count in (1, 100, 200, 500, 1000, 3000):
            wire.send(request_bytes("GET", path("a") + "?" + "a&" * count))
            problem(wire.receive(), "invalid_query", None)


def test_longest_key_leaves_room_for_headers(daemon):
    """A key of 1024 bytes, all percent-encoded, and a kilobyte of headers fit."""
    target = "/v1/circuits/" + "%41" * 1024
    with daemon.wire() as wire:
        wire.send(request_bytes("GET", target, {"Authorization": "Bearer " + "t" * 1024}))
        assert wire.receive().status == 200


def test_max_body_is_a_setting(start_on, store):
    daemon = start_on(store, max_body=1024)
    snapshot(daemon.post(path("a", "failure"), b"x" * 1024))
    with daemon.wire() as wire:
        problem(wire.ask("POST", path("a", "failure"), body=b"x" * 1025), "body_too_large", "no",
                contains="1024")


def test_conflict_tells_both_states(daemon):
    daemon.post(ROUTE, {"to": "half-open"})
    document = problem(daemon.post(ROUTE, {"to": "open", "from": "closed"}), "state_conflict", "no",
                       contains="half-open")
    assert document["circuit"]["state"] == "half-open"


def test_details_are_json_whatever_was_sent(memory_daemon):
    """`detail` has the client's text escaped and bounded, or not at all."""
    for body in (b'{"to":"\\"\\\\ \\u0001 <script>"}', '{"to":"ключ\U0001f600"}'.encode(),
                 b'{"\\"x\\n":1,"to":"open"}', b'{"to":"' + b"y" * 60000 + b'"}',
                 '{"to":"'.encode() + "ж".encode() * 30000 + b'"}'):
        answer = memory_daemon.post(ROUTE, body)
        assert answer.status in (400, 422), answer
        document = json.loads(answer.body.decode("utf-8"))
        assert 10 < len(document["detail"]) < 2000


def test_the_daemon_lives_after_all_of_them(daemon):
    for body in [*NOT_A_BODY.values(), *NOT_A_STATE.values()]:
        assert daemon.post(ROUTE, body).status in (400, 422)
    for route in ("/v1/circuits/%zz", "/v1/circuits?limit=x", "/nowhere", "/v1/circuits/%00"):
        assert daemon.get(route).status in (400, 404)
    expect(daemon.post(path("a", "failure")), failureCount=1)


def read_all(wire):
    out = b""
    try:
        while data := wire.sock.recv(65536):
            out += data
    except OSError as error:
        out += repr(error).encode()
    return out


@pytest.mark.parametrize("sends", [0, 1, 100])
def test_a_length_over_max_body_is_refused_at_once(memory_daemon, sends):
    """The answer comes as soon as the head has come, and a client that goes on sending can read it."""
    with memory_daemon.wire() as wire:
        wire.send(b"POST /v1/circuits/a/transition HTTP/1.1\r\nHost: localhost\r\n"
                  b"Content-Length: 6553600\r\n\r\n")
        for _ in range(sends):
            wire.send(b" " * 65536)  # blocks until the daemon has read enough
        answer = read_all(wire)
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 413 ") and b"connection: close" in head.lower(), answer
    assert json.loads(body)["code"] == "body_too_large"
    assert json.loads(body)["applied"] == "no"


@pytest.mark.parametrize("head", [
    b"GET /v1/circuits/a HTTP/1.1\r\nHost: localhost\r\n" + b"X-Forwarded-For: 10.0.0.1\r\n" * 75
    + b"Cookie: " + b"; ".join(b"c%d=%s" % (n, b"v" * 20) for n in range(100)) + b"\r\n\r\n",
    b"GET /v1/circuits/a HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"a;" * 3900 + b"\r\n\r\n",
    b"GET /v1/circuits/a HTTP/1.1\r\nHost: localhost\r\n" + b"Cookie: a=b; c=d\r\n" * 30 + b"\r\n",
], ids=["a-hundred", "tiny-ones", "many-headers"])
def test_many_cookies(memory_daemon, head):
    """A proxy may pass on many cookies. breakerd ignores them, so they are no reason to refuse a request."""
    with memory_daemon.wire() as wire:
        for _ in range(3):
            wire.send(head)
            assert wire.receive().status == 200
        # The same behind a request without cookies on the same connection.
    with memory_daemon.wire() as wire:
        assert wire.ask("GET", path("a")).status == 200
        wire.send(head)
        assert wire.receive().status == 200


def test_a_late_cookie_gets_one_head(memory_daemon):
    """The first request on the connection has no cookie, the second has many: its answer has one head."""
    with memory_daemon.wire() as wire:
        assert wire.ask("GET", path("a")).status == 200
        wire.send(b"GET /v1/circuits/a HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"a;" * 3900 + b"\r\n\r\n")
        answer = read_all(wire)
    assert answer.count(b"HTTP/1.1 ") == 1 and answer.startswith(b"HTTP/1.1 "), answer


@pytest.mark.parametrize("length", [b"+5", b"-1", b"0x5", b"5, 5", b"", b"5.0", b"18446744073709551616"])
def test_a_broken_length_gets_one_head(memory_daemon, length):
    with memory_daemon.wire() as wire:
        wire.send(b"POST /v1/circuits/a/failure HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
                  + length + b"\r\n\r\nhello")
        answer = read_all(wire)
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert re.match(rb"HTTP/1.1 4(00|13) ", answer), answer
    assert b"connection: close" in answer.lower()
