"""/v1/check, the sub-request of gateways."""

import re
import signal

import pytest

from contract import path, problem
from decisions import fails, report
from ports import free_port
from wait import until
from wire import Wire

SOON = {"open_time": "50ms", "open_time_max": "50ms", "probe_timeout": "1m"}
REFUSALS = {"/v1/check": 403, "/v1/check-401": 401, "/v1/check-429": 429, "/v1/check-503": 503}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")
GATEWAYS = ("X-Forwarded-For", "X-Forwarded-Uri", "X-Original-Uri", "X-Request-Id", "Breakerd-Gateway")


def headers_of(answer):
    """Breakerd's own headers and Retry-After. Checks that there is no body."""
    assert answer.body == b"" and answer.type is None, answer
    return {n: v for n, v in answer.headers if n.startswith("Breakerd-") or n == "Retry-After"}


def test_a_closed_circuit_lets_pass(daemon):
    given = headers_of(daemon.get("/v1/check/k"))
    permit = given.pop("Breakerd-Permit")
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", permit)
    assert given == {"Breakerd-State": "closed", "Breakerd-Reason": "closed"}
    assert daemon.get("/v1/circuits").json()["circuits"] == []
    assert report(daemon, "k", permit)["counted"]
    assert daemon.metric("breakerd_decisions_total", reason="closed") == 1


@pytest.mark.parametrize("route,status", REFUSALS.items())
def test_an_open_circuit_refuses(daemon, route, status):
    fails(daemon, "k", 5)
    for method in METHODS:
        answer = daemon.request(method, route + "/k")
        assert answer.status == status
        given = headers_of(answer)
        assert 28 <= int(given.pop("Retry-After")) <= 30
        assert given == {"Breakerd-State": "open", "Breakerd-Reason": "open"}
    # The key is percent-encoded, and case matters.
    assert daemon.get(route + "/%6B").status == status
    assert daemon.get(route + "/K").status == 200


def test_one_probe_is_let_through(start_on, store):
    daemon = start_on(store, **SOON)
    fails(daemon, "k", 5)
    answer = until(lambda: (a := daemon.get("/v1/check/k")).status == 200 and a, "the opening is over")
    given = headers_of(answer)
    assert (given["Breakerd-State"], given["Breakerd-Reason"]) == ("half-open", "probe")
    refused = headers_of(daemon.get("/v1/check-429/k"))
    assert refused == {"Breakerd-State": "half-open", "Breakerd-Reason": "probing", "Retry-After": "1"}
    assert report(daemon, "k", given["Breakerd-Permit"])["state"] == "closed"
    assert daemon.get("/v1/check/k").status == 200


@pytest.mark.parametrize("behind", [
    "/", "/a/b", "/../../v1/circuits/k", "?x=1", "/a?status=200", "/%zz", "/%00?%", "/k/acquire",
    "//" + "x" * 3000, "/x?" + "y&" * 500, "/\xff\xfe".encode("latin-1")])
def test_what_follows_the_key_is_not_looked_at(memory_daemon, behind):
    fails(memory_daemon, "k", 5)
    behind = behind if isinstance(behind, bytes) else behind.encode()
    for method in METHODS:
        assert memory_daemon.request(method, b"/v1/check-429/k" + behind).status == 429
        assert memory_daemon.request(method, b"/v1/check-429/other" + behind).status == 200


def test_a_body_is_not_looked_at(start):
    daemon = start(max_body=100)
    fails(daemon, "k", 5)
    for method in ("GET", "POST", "PUT", "OPTIONS"):
        for size in (1, 100, 101, 5000):
            with daemon.wire() as wire:
                assert wire.ask(method, "/v1/check-429/k", body=b"{" * size).status == 429, (method, size)
            with daemon.wire() as wire:
                assert wire.ask(method, "/v1/check/free", body=b"{" * size).status == 200
    with daemon.wire() as wire:
        wire.send(b"POST /v1/check/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                  + b"c8\r\n" + b"x" * 200 + b"\r\n0\r\n\r\n")
        assert wire.receive().status == 403


def test_the_answers_on_one_connection_are_each_its_own(start_on, store):
    """No answer carries headers of the one before."""
    daemon = start_on(store)
    fails(daemon, "open", 5)
    for _ in range(3):
        permits = set()
        for key in ("a", "b", "a"):
            answer = daemon.get(f"/v1/check/{key}")
            assert answer.status == 200
            permits.add(answer.header("Breakerd-Permit"))
        assert len(permits) == 2
        assert daemon.get("/v1/check/open").status == 403
        assert daemon.get("/healthz").header("Breakerd-Permit") is None
        answer = daemon.post(path("open", "acquire"))
        assert answer.json()["allowed"] is False and answer.header("Breakerd-State") is None
        assert daemon.delete(path("x")).header("Retry-After") is None


# --- trouble with the store refuses nobody ---


def test_errors_of_the_store_let_pass(start, private_redis):
    redis = private_redis()
    daemon = start(store=redis.url, on_store_failure="error", store_timeout=200).wait_ready()
    redis.call("RPUSH", "stoma:cb:list", "x")
    assert daemon.post(path("list", "acquire")).status == 502
    for route in REFUSALS:
        answer = daemon.get(route + "/list")
        assert (answer.status, headers_of(answer)) == (200, {"Breakerd-Degraded": "true"})
    redis.freeze()
    answer = daemon.get("/v1/check/fresh")
    assert (answer.status, headers_of(answer)) == (200, {"Breakerd-Degraded": "true"})
    redis.kill()
    answer = daemon.get("/v1/check-503/fresh")
    assert (answer.status, headers_of(answer)) == (200, {"Breakerd-Degraded": "true"})


def test_without_redis_this_daemon_decides_alone(start):
    daemon = start(store=f"redis://127.0.0.1:{free_port()}", on_store_failure="local")
    given = headers_of(daemon.get("/v1/check/k"))
    assert given["Breakerd-Degraded"] == "true" and "Breakerd-Permit" in given
    fails(daemon, "k", 5, degraded=True)
    answer = daemon.get("/v1/check/k")
    assert answer.status == 403 and headers_of(answer)["Breakerd-Degraded"] == "true"


def test_an_overloaded_store_lets_pass(start, private_redis):
    redis = private_redis()
    daemon = start(store=redis.url, max_in_flight=1, store_timeout=5000).wait_ready()
    redis.freeze()
    with daemon.wire() as wire:
        wire.send(b"GET /v1/check/one HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: daemon.metric("breakerd_store_operations_in_flight") >= 1, "an operation is in flight")
        answer = daemon.get("/v1/check/two")
        assert (answer.status, headers_of(answer)) == (200, {"Breakerd-Degraded": "true"})
        redis.thaw()
        assert wire.receive().status == 200


def test_a_stop_lets_pass_who_waits(start, private_redis):
    redis = private_redis()
    daemon = start(store=redis.url, store_timeout=60000).wait_ready()
    redis.freeze()
    with daemon.wire() as wire:
        wire.send(b"GET /v1/check/one HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: daemon.metric("breakerd_http_requests_in_flight") == 2, "the check waits, beside this request")
        daemon.signal(signal.SIGTERM)
        assert wire.receive().status == 200
    daemon.expect_exit(0)


# --- access ---


@pytest.mark.parametrize("foreign", [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}], ids=str)
def test_a_browser_page_asks_only_through_a_gateway(memory_daemon, foreign):
    fails(memory_daemon, "k", 5)
    for route, refusal in REFUSALS.items():
        for method in METHODS:
            answer = memory_daemon.request(method, route + "/k", headers=foreign)
            assert answer.status == 403
            if method != "HEAD":
                assert answer.json()["code"] == "forbidden_origin"
            for name in GATEWAYS:
                headers = {**foreign, name.lower(): "1"}
                assert memory_daemon.request(method, route + "/k", headers=headers).status == refusal
                assert memory_daemon.request(method, route + "/free", headers=headers).status == 200
    # Other routes and other headers do not let a foreign origin in.
    for name in GATEWAYS:
        problem(memory_daemon.get(path("k"), headers={**foreign, name: "1"}), "forbidden_origin")
        problem(memory_daemon.get("/v1/circuits", headers={**foreign, name: "1"}), "forbidden_origin")
    for name in ("Accept", "Content-Type", "X-Forwarded", "Forwarded", "Cookie"):
        problem(memory_daemon.get("/v1/check/k", headers={**foreign, name: "1"}), "forbidden_origin")


def test_token_and_host_are_asked_as_everywhere(start, directory):
    with open(f"{directory}/token", "w", encoding="ascii") as file:
        file.write("t0ken\n")
    daemon = start(token_file=f"{directory}/token")
    good = {"Authorization": "Bearer t0ken"}
    for route in REFUSALS:
        problem(daemon.get(route + "/k", headers={"X-Forwarded-For": "1"}), "unauthorized")
        assert daemon.get(route + "/k", headers=good).status == 200
        problem(daemon.get(route + "/k", headers={**good, "X-Forwarded-For": "1", "Host": "evil.example"}),
                "misdirected_request")


def test_what_is_no_key_is_refused(memory_daemon):
    for route in REFUSALS:
        for key in ("", "%zz", "%00", "k" * 1025):
            problem(memory_daemon.get(f"{route}/{key}"), "invalid_key")
            problem(memory_daemon.post(f"{route}/{key}"), "invalid_key", "no")


def test_a_thousand_pipelined_checks(memory_daemon):
    fails(memory_daemon, "k", 5)
    with Wire(memory_daemon.address) as wire:
        wire.send(b"".join(b"GET /v1/check-429/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % key
                           for key in (b"k", b"free") * 500))
        assert [wire.receive().status for _ in range(1000)] == [429, 200] * 500
