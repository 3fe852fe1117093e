"""Routes, methods, headers."""

import re

import pytest

from contract import path, problem, snapshot
from wire import request_bytes

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
ROUTES = {
    "/v1/circuits/a": {"GET", "HEAD", "DELETE"},
    "/v1/circuits/a/success": {"POST"},
    "/v1/circuits/a/failure": {"POST"},
    "/v1/circuits/a/transition": {"POST"},
    "/v1/circuits/a/acquire": {"POST"},
    "/v1/circuits/a/report": {"POST"},
    "/v1/check/a": METHODS,
    "/v1/check-401/a": METHODS,
    "/v1/check-429/a": METHODS,
    "/v1/check-503/a": METHODS,
    "/v1/circuits": {"GET", "HEAD"},
    "/v1/policies": {"GET", "HEAD"},
    "/healthz": {"GET", "HEAD"},
    "/readyz": {"GET", "HEAD"},
    "/metrics": {"GET", "HEAD"},
    "/ui": {"GET", "HEAD"},
    "/": {"GET", "HEAD"},
}


@pytest.mark.parametrize("route", ROUTES)
def test_each_method_of_each_route(memory_daemon, route):
    for method in METHODS:
        body = '{"status":200}' if route.endswith("/report") else '{"to":"open"}'
        answer = memory_daemon.request(method, route, body=body)
        if method in ROUTES[route]:
            assert answer.status == (204 if method == "DELETE" and "check" not in route
                                     else 200), (method, answer)
            continue
        assert answer.status == 405, (method, answer)
        assert set(re.split(r", *", answer.header("Allow"))) == ROUTES[route]
        assert answer.type == "application/problem+json"
        if method != "HEAD":
            document = answer.json()
            assert document["code"] == "method_not_allowed"
            assert document.get("applied") in (None, "no")
    assert memory_daemon.lives()


@pytest.mark.parametrize("route", [
    "/v1", "/v1/", "/v2/circuits", "/v1/circuit", "/v1/circuits/a/b", "/v1/circuits/a/success/",
    "/v1/circuits/a/success/x", "/v1/circuits/a/Success", "/v1/circuits/a/", "/V1/circuits", "//", "/v1/check", "/v1/check-403/a", "/v1/check-42/a", "/v1/checks/a",
    "/healthz/", "/readyz/x", "/metrics/", "/ui/", "/favicon.ico", "/index.html", "/%76%31/x/y",
])
def test_what_is_no_route_is_not_found(memory_daemon, route):
    problem(memory_daemon.get(route), "not_found")
    answer = memory_daemon.post(route, "{}")
    assert answer.status == 404
    assert answer.json().get("applied") in (None, "no")


def test_head_is_get_without_the_body(daemon):
    daemon.post(path("a", "failure"))
    for route in (path("a"), "/v1/circuits", "/v1/policies?key=a", "/healthz", "/readyz", "/", "/ui", "/v1/circuits/%zz",
                  "/nowhere", "/v1/circuits?limit=0"):
        get, head = daemon.get(route), daemon.head(route)
        assert head.status == get.status
        assert head.header("Content-Type") == get.header("Content-Type")
        if route != "/":  # its text contains ages
            assert head.header("Content-Length") == str(len(get.body))
    assert daemon.head("/metrics").status == 200
    # Nothing came after the headers, or this would be read as the next answer.
    assert snapshot(daemon.get(path("a")))["failureCount"] == 1


def test_snapshot_body_and_type(daemon):
    answer = daemon.get(path("never-seen"))
    body = snapshot(answer)
    assert body["state"] == "closed"
    assert answer.header("Content-Type").split(";")[0] == "application/json"


def test_delete_has_no_body(daemon):
    daemon.post(path("a", "failure"))
    for _ in range(2):  # the second time the circuit does not exist
        answer = daemon.delete(path("a"))
        assert answer.status == 204
        assert answer.body == b""
        assert answer.header("Content-Length") in (None, "0")
        assert answer.header("Content-Type") is None
    assert snapshot(daemon.get(path("a")))["failureCount"] == 0


def test_healthz(daemon):
    answer = daemon.get("/healthz")
    assert answer.status == 200
    assert answer.type == "application/json"
    answer.json()


def test_readyz(daemon, store):
    answer = daemon.get("/readyz")
    assert answer.status == 200
    assert answer.type == "application/json"
    body = answer.json()
    assert set(body) == {"status", "store", "reason", "since"}
    assert body["status"] == "ready"
    assert body["store"] == store
    assert body["reason"] is None
    assert 1_600_000_000_000 < body["since"] < 4_000_000_000_000


def test_index_is_for_a_person(daemon, store):
    daemon.post(path("a", "transition"), {"to": "open"})
    answer = daemon.get("/")
    assert answer.status == 200
    assert answer.type == "text/plain"
    text = answer.body.decode("utf-8")
    for word in ("breakerd", store, "ready", "/v1/circuits", "/healthz", "/readyz", "/metrics"):
        assert word in text, text
    if store == "memory":
        for word in ("closed", "open", "half-open"):
            assert word in text, text


def test_no_answer_is_html_or_invites_other_origins(daemon):
    for route in ("/", "/healthz", path("a"), "/v1/circuits", "/nowhere"):
        answer = daemon.get(route)
        assert "html" not in answer.header("Content-Type")
        names = {name.lower() for name, _ in answer.headers}
        assert not any(name.startswith("access-control-") for name in names)


def test_circuit_routes_take_no_query(daemon):
    problem(daemon.get(path("a") + "?x=1"), "invalid_query")
    problem(daemon.post(path("a", "failure") + "?x=1"), "invalid_query", "no")
    problem(daemon.post(path("a", "transition") + "?to=open", {"to": "open"}), "invalid_query", "no")
    problem(daemon.delete(path("a") + "?force=true"), "invalid_query", "no")
    assert snapshot(daemon.get(path("a")))["failureCount"] == 0


def test_keep_alive_and_pipelining(daemon):
    """Twenty requests sent in one piece are answered in their order on one connection."""
    with daemon.wire() as wire:
        wire.send(request_bytes("POST", path("a", "failure"), body=b"") * 20)
        counts = [snapshot(wire.receive())["failureCount"] for _ in range(20)]
        assert counts == list(range(1, 21))
        assert wire.ask("DELETE", path("a")).status == 204
        assert snapshot(wire.ask("GET", path("a")))["failureCount"] == 0


def test_connection_close_is_honoured(daemon):
    with daemon.wire() as wire:
        answer = wire.ask("GET", path("a"), {"Connection": "close"})
        assert answer.status == 200
        assert answer.header("Connection").lower() == "close"
        assert wire.ended()


def test_a_request_in_single_bytes(daemon):
    with daemon.wire() as wire:
        for byte in request_bytes("POST", path("a", "transition"), body='{"to":"open"}'):
            wire.send(bytes([byte]))
        assert snapshot(wire.receive())["state"] == "open"


def test_chunked_body(daemon):
    with daemon.wire() as wire:
        wire.send(b"POST /v1/circuits/a/transition HTTP/1.1\r\nHost: localhost\r\n"
                  b"Transfer-Encoding: chunked\r\n\r\n"
                  b"5\r\n{\"to\"\r\n8\r\n:\"open\"}\r\n0\r\n\r\n")
        answer = wire.receive()
        assert snapshot(answer)["state"] == "open"
        assert answer.header("Connection").lower() == "close" and wire.ended()
    assert snapshot(daemon.get(path("a")))["state"] == "open"


def test_expect_100_continue(daemon):
    with daemon.wire() as wire:
        body = b'{"to":"open"}'
        wire.send(request_bytes("POST", path("a", "transition"),
                                {"Expect": "100-continue", "Content-Length": len(body)}))
        line = wire._line()  # pylint: disable=protected-access
        assert line.startswith("HTTP/1.1 100"), line
        while wire._line():  # pylint: disable=protected-access
            pass
        wire.send(body)
        assert snapshot(wire.receive())["state"] == "open"
