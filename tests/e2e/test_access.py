"""Access: token, Host, Origin."""

import math
import os
import re
import shutil
import signal
import subprocess

import pytest

from breakerd import BINARY, environment
from contract import path, problem, snapshot
from wait import until
from wire import Wire, request_bytes

ROUTES = [("GET", path("a"), None), ("POST", path("a", "failure"), "no"),
          ("POST", path("a", "success"), "no"), ("POST", path("a", "transition"), "no"),
          ("DELETE", path("a"), "no"), ("GET", "/v1/circuits", None), ("GET", "/metrics", None),
          ("GET", "/", None), ("GET", "/nowhere", None), ("GET", "/v1/circuits/%zz", None)]
OPEN_ROUTES = [("GET", "/healthz", None), ("GET", "/readyz", None)]


def ids(routes):
    return [f"{method} {route}" for method, route, _ in routes]


@pytest.fixture
def token_file(directory):
    name = os.path.join(directory, "token")
    with open(name, "w", encoding="ascii") as file:
        file.write("s3cret-Token\n")
    return name


WRONG_TOKENS = {
    "none": None,
    "another": "Bearer s3cret-token",
    "prefix": "Bearer s3cret-Toke",
    "longer": "Bearer s3cret-Tokenx",
    "newline-kept": "Bearer s3cret-Token\\n",
    "empty": "Bearer ",
    "no-scheme": "s3cret-Token",
    "basic": "Basic s3cret-Token",
    "two": "Bearer s3cret-Token s3cret-Token",
}


@pytest.mark.parametrize("value", WRONG_TOKENS.values(), ids=WRONG_TOKENS)
def test_token_is_asked(start, token_file, value):
    daemon = start(token_file=token_file)
    headers = {"Authorization": value} if value is not None else {}
    for method, route, applied in ROUTES:
        answer = daemon.request(method, route, headers=headers, body='{"to":"open"}')
        problem(answer, "unauthorized", applied)
        assert b"s3cret" not in answer.body
    for method, route, _ in OPEN_ROUTES:
        assert daemon.request(method, route, headers=headers).status == 200
    assert "s3cret" not in daemon.stderr()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_token_lets_in(start, token_file, scheme):
    daemon = start(token_file=token_file)
    headers = {"Authorization": f"{scheme} s3cret-Token"}
    assert snapshot(daemon.post(path("a", "failure"), headers=headers))["failureCount"] == 1
    assert daemon.get("/metrics", headers=headers).status == 200
    assert daemon.get("/", headers=headers).status == 200
    assert daemon.get("/nowhere", headers=headers).status == 404


def test_two_authorization_headers_are_refused(start, token_file):
    daemon = start(token_file=token_file)
    good = ("Authorization", "Bearer s3cret-Token")
    for pairs in ([good, ("Authorization", "Bearer x")], [("Authorization", "Bearer x"), good]):
        assert daemon.get(path("a"), headers=pairs).status in (400, 401)


@pytest.mark.parametrize("content", [b"s3cret-Token", b"s3cret-Token\n", b"s3cret-Token\r\n"],
                         ids=["bare", "lf", "crlf"])
def test_the_newline_is_no_part_of_the_token(start, directory, content):
    name = os.path.join(directory, "token")
    with open(name, "wb") as file:
        file.write(content)
    daemon = start(token_file=name)
    assert daemon.get(path("a"), headers={"Authorization": "Bearer s3cret-Token"}).status == 200


def test_token_is_read_again_on_hangup(start, token_file):
    daemon = start(token_file=token_file)
    with open(token_file, "w", encoding="ascii") as file:
        file.write("another-one\n")
    daemon.hangup()
    until(lambda: daemon.get(path("a"), headers={"Authorization": "Bearer another-one"}).status
          == 200, "the new token is valid")
    problem(daemon.get(path("a"), headers={"Authorization": "Bearer s3cret-Token"}),
            "unauthorized")


def test_a_rotation_in_which_nobody_is_refused(start, token_file):
    """Each line of token_file is a token."""
    def status(token):
        return daemon.get(path("a"), headers={"Authorization": f"Bearer {token}"}).status

    daemon = start(token_file=token_file)
    assert status("another-one") == 401
    with open(token_file, "w", encoding="ascii") as file:
        file.write("s3cret-Token\nanother-one\r\nthird\n")
    daemon.hangup()
    until(lambda: status("another-one") == 200, "the new token is valid")
    assert status("s3cret-Token") == status("third") == 200
    for wrong in ("", "s3cret-Token\tanother-one", "s3cret-Tokenanother-one", "another", "third3", "thirD"):
        assert status(wrong) == 401
    with open(token_file, "w", encoding="ascii") as file:
        file.write("another-one\n")
    daemon.hangup()
    until(lambda: status("s3cret-Token") == 401, "the old token is not valid any more")
    assert status("another-one") == 200 and status("third") == 401


@pytest.mark.parametrize("content", [None, "", "\n", "two\n\nlines\n"],
                         ids=["gone", "empty", "blank", "blank-between"])
def test_a_token_file_that_is_none_is_refused_on_hangup(start, token_file, content):
    """The old token stays valid, and no other becomes valid."""
    daemon = start(token_file=token_file)
    os.unlink(token_file)
    if content is not None:
        with open(token_file, "w", encoding="ascii") as file:
            file.write(content)
    daemon.hangup()
    until(lambda: "reload_refused" in daemon.stderr(), "the reload is refused")
    assert token_file in daemon.stderr()
    for value in ("Bearer ", "Bearer two", "Bearer s3cret-token"):
        problem(daemon.get(path("a"), headers={"Authorization": value}), "unauthorized")
    problem(daemon.get(path("a")), "unauthorized")
    assert daemon.get(path("a"), headers={"Authorization": "Bearer s3cret-Token"}).status == 200


def instructions_of_access(directory, name, token):
    """The instructions that the daemon needs to refuse a hundred requests with this token, from callgrind."""
    log, address = f"{directory}/{name}.log", f"{directory}/{name}"
    with subprocess.Popen(
            ["valgrind", "--tool=callgrind", "--toggle-collect=access_check", f"--log-file={log}",
             f"--callgrind-out-file={directory}/out", BINARY, f"--listen=unix:{address}",
             f"--token-file={directory}/token"], stderr=subprocess.DEVNULL,
            env=environment()) as process:
        try:
            until(lambda: os.path.exists(address) or process.poll() is not None, "the daemon listens", 60)
            # Uses the daemon's first connection: an earlier one, freed or not yet, would change the
            # addresses of the compared strings.
            with until(lambda: wire_to(address), "the daemon accepts", 60) as wire:
                for _ in range(100):
                    answer = wire.ask("GET", path("a"), {"Authorization": f"Bearer {token}"})
                    problem(answer, "unauthorized")
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
    with open(log, encoding="utf-8", errors="replace") as text:
        return int(re.search(r"Collected : (\d+)", text.read())[1])


def wire_to(address):
    try:
        return Wire(address)
    except OSError:
        return None


@pytest.mark.skipif(bool(os.environ.get("SANITIZED")), reason="valgrind runs no sanitizers")
@pytest.mark.skipif(shutil.which("valgrind") is None and not os.environ.get("ALL_CLIENTS"),
                    reason="no valgrind on this machine")
def test_the_token_s_comparison_does_not_tell_how_far_it_came(directory):
    """The number of instructions does not depend on where the token sent differs. The addresses of strings
    vary from run to run, and with them a few instructions in libc: the cheapest of a few runs counts."""
    token = "0123456789abcdef" * 4
    with open(f"{directory}/token", "w", encoding="ascii") as file:
        file.write(f"{token}\n{token[::-1]}\n")
    wrong = {"first": "x" + token[1:], "middle": token[:32] + "x" + token[33:],
             "last": token[:-1] + "x", "each": "x" * len(token)}
    counts = {}
    for _ in range(8):
        for name, given in wrong.items():
            counts[name] = min(instructions_of_access(directory, name, given),
                               counts.get(name, math.inf))
        if len(set(counts.values())) == 1:
            break
    print(counts)
    assert len(set(counts.values())) == 1 and counts["first"] > 100 * len(token), counts


GOOD_HOSTS = ["localhost", "localhost:8747", "localhost:1", "LOCALHOST", "LocalHost:80",
              "127.0.0.1", "127.0.0.1:65535"]
BAD_HOSTS = ["evil.example", "evil.example:8747", "localhost.evil.example", "127.0.0.1.evil.example",
             "xlocalhost", "127.0.0.2", "[::1]", "10.0.0.1", "local", "localhost evil", "user@localhost",
             "localhost:80:80", "localhost/", "[localhost]"]


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_our_host(memory_daemon, host):
    assert memory_daemon.get(path("a"), headers={"Host": host}).status == 200
    snapshot(memory_daemon.post(path("a", "failure"), headers={"Host": host}))


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_host_of_another(memory_daemon, host):
    for method, route, applied in ROUTES:
        answer = memory_daemon.request(method, route, headers={"Host": host}, body='{"to":"open"}')
        problem(answer, "misdirected_request", applied)
    # Probes ask by address.
    for route in ("/healthz", "/readyz"):
        assert memory_daemon.get(route, headers={"Host": host}).status == 200
    assert snapshot(memory_daemon.get(path("a")))["failureCount"] == 0


def test_empty_host(memory_daemon):
    with memory_daemon.wire() as wire:
        answer = wire.ask("GET", path("a"), {"Host": ""})
        assert answer.status in (400, 421), answer
    assert memory_daemon.get("/healthz").status == 200


def test_two_hosts_are_refused(memory_daemon):
    for hosts in (("localhost", "evil.example"), ("evil.example", "localhost")):
        with memory_daemon.wire() as wire:
            answer = wire.ask("POST", path("a", "failure"), [("Host", h) for h in hosts])
            assert answer.status in (400, 421), answer
    assert snapshot(memory_daemon.get(path("a")))["failureCount"] == 0


def test_allowed_hosts_is_a_setting(start):
    daemon = start(allowed_hosts="gateway.example")
    assert daemon.get(path("a"), headers={"Host": "gateway.example"}).status == 200
    assert daemon.get(path("a"), headers={"Host": "Gateway.Example:123"}).status == 200
    problem(daemon.get(path("a"), headers={"Host": "evil.example"}), "misdirected_request",
            contains="evil.example")


def test_an_address_has_several_spellings(start):
    """allowed_hosts and the client's Host may write an IPv6 address in different ways."""
    daemon = start(allowed_hosts="[2001:DB8:0::1]")
    for host in ("[2001:DB8:0::1]", "[2001:db8::1]:8747", "[2001:0db8:0:0:0:0:0:1]"):
        assert daemon.get(path("a"), headers={"Host": host}).status == 200, host
    problem(daemon.get(path("a"), headers={"Host": "[2001:db8::2]"}), "misdirected_request")


def test_host_on_a_unix_socket(start, directory):
    daemon = start(listen=f"unix:{directory}/s")
    assert daemon.get(path("a"), headers={"Host": "localhost"}).status == 200
    # Browsers cannot reach a unix socket, so any name is accepted.
    for host in ("evil.example", "", "whatever:1:2", "[::1]"):
        assert daemon.get(path("a"), headers={"Host": host}).status == 200, host
        snapshot(daemon.post("http://evil.example" + path("a", "failure"), headers={"Host": host}))


def test_host_of_a_listener_on_ipv6(start):
    from ports import free_port
    try:
        port = free_port("::1")
    except OSError:
        # No IPv6 on this machine. How such a name is parsed is tested elsewhere.
        return
    daemon = start(listen=f"[::1]:{port}")
    for host in ("[::1]", f"[::1]:{port}", "[::1]:9", "localhost"):
        assert daemon.get(path("a"), headers={"Host": host}).status == 200, host
    problem(daemon.get(path("a"), headers={"Host": "[::2]"}), "misdirected_request")


OTHER_ORIGINS = {
    "other-site": {"Origin": "https://evil.example"},
    "other-port": {"Origin": "http://localhost:1"},
    "null": {"Origin": "null"},
    "empty": {"Origin": ""},
    "subdomain": {"Origin": "http://a.localhost:8747"},
    "no-scheme": {"Origin": "localhost:8747"},
    "cross-site": {"Sec-Fetch-Site": "cross-site"},
    "same-site": {"Sec-Fetch-Site": "same-site"},
    "unknown-site": {"Sec-Fetch-Site": "whatever"},
    "both-cross": {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    "origin-lies": {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    "site-lies": {"Origin": "http://localhost:8747", "Sec-Fetch-Site": "cross-site"},
}


@pytest.mark.parametrize("headers", OTHER_ORIGINS.values(), ids=OTHER_ORIGINS)
def test_page_of_another_origin(memory_daemon, headers):
    headers = dict(headers, Host="localhost:8747")
    for method, route, applied in ROUTES + OPEN_ROUTES:
        answer = memory_daemon.request(method, route, headers=headers, body='{"to":"open"}')
        problem(answer, "forbidden_origin", applied)
    assert snapshot(memory_daemon.get(path("a")))["failureCount"] == 0


OWN_ORIGINS = {
    "neither": {},
    "own": {"Origin": "http://localhost:8747"},
    "own-same-origin": {"Origin": "http://localhost:8747", "Sec-Fetch-Site": "same-origin"},
    "same-origin": {"Sec-Fetch-Site": "same-origin"},
    "none": {"Sec-Fetch-Site": "none"},
    "node": {"Sec-Fetch-Mode": "cors"},
}


@pytest.mark.parametrize("headers", OWN_ORIGINS.values(), ids=OWN_ORIGINS)
def test_programs_and_our_own_page(memory_daemon, headers):
    headers = dict(headers, Host="localhost:8747")
    snapshot(memory_daemon.post(path("a", "failure"), headers=headers))
    assert memory_daemon.get("/", headers=headers).status == 200


def test_preflight_is_not_answered_with_permission(memory_daemon):
    answer = memory_daemon.request("OPTIONS", path("a", "transition"), headers={
        "Origin": "https://evil.example", "Access-Control-Request-Method": "POST"})
    assert answer.status == 403
    assert not any(n.lower().startswith("access-control") for n, _ in answer.headers)


def test_access_comes_before_everything_else(start, token_file):
    """The checks come in this order: Host, origin, token, then all else."""
    daemon = start(token_file=token_file)
    good = {"Authorization": "Bearer s3cret-Token"}
    evil = {"Host": "evil.example", "Origin": "https://evil.example"}
    problem(daemon.post("/v1/circuits/%zz/failure", headers=evil), "misdirected_request", "no")
    problem(daemon.post("/v1/circuits/%zz/failure", headers={"Origin": "https://evil.example"}),
            "forbidden_origin", "no")
    problem(daemon.post("/v1/circuits/%zz/failure"), "unauthorized", "no")
    problem(daemon.post("/v1/circuits/%zz/failure", headers=good), "invalid_key", "no")


def test_refused_requests_with_a_body_do_not_confuse_the_connection(start, token_file):
    daemon = start(token_file=token_file)
    body = b"POST /v1/circuits/smuggled/failure HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with daemon.wire() as wire:
        wire.send(request_bytes("POST", path("a", "transition"), body=body))
        assert wire.receive().status == 401
        good = {"Authorization": "Bearer s3cret-Token"}
        assert wire.ask("GET", "/v1/circuits", good).json()["circuits"] == []
