"""nginx, HAProxy and Caddy as gateways without code, with the files in docs/gateways: they ask /v1/check, and their
access logs report."""

import signal
import socket
import struct
import time

import pytest

from contract import path, snapshot
from gateways import Server
from ports import free_port
from upstream import Upstream
from wait import until
from wire import Client

# Short openings, all of the same length: tests wait for their end.
POLICY = {"open_time": "1s", "open_time_max": "1s", "open_growth": 1, "probe_timeout": "1m"}
FAILURES = 5
BROWSER = {"Origin": "https://other.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}


@pytest.fixture
def upstream():
    one = Upstream()
    yield one
    one.stop()


@pytest.fixture
def gateway(directory, upstream, start_on):
    """gateway(name, store="memory", timeout=5000, beside=None, changes=None, **settings) starts a gateway and a daemon,
    or uses the daemon of the gateway `beside`. Returns both."""
    servers = []

    def run(name, store="memory", timeout=5000, beside=None, changes=None, **settings):
        if beside:
            daemon, reports = beside.daemon, beside.reports
        else:
            reports = {"unix": f"unix:{directory}/report-{len(servers)}.sock", "udp": f"127.0.0.1:{free_port()}"}
            daemon = start_on(store, report_listen=list(reports.values()), **{**POLICY, **settings})
        servers.append(Server(name, directory, upstream.port, daemon, reports, timeout, changes))
        return servers[-1], daemon

    yield run
    for server in servers:
        server.stop()


@pytest.fixture(params=["nginx", "haproxy", "caddy"])
def name(request):
    return request.param


def used(daemon):
    return daemon.metric("breakerd_report_lines_total", result="used")


def failures(daemon):
    return daemon.metric("breakerd_reports_total", outcome="failure", result="counted")


def state(daemon):
    return snapshot(daemon.get(path("orders")))["state"]


def trip(server, upstream, daemon):
    """Opens the circuit by failures of the upstream. Waits for the report of each before the next request."""
    upstream.status = 500
    before = failures(daemon)
    for n in range(FAILURES):
        assert server.get().status == 500
        until(lambda n=n: failures(daemon) == before + n + 1, "the failure is reported")
    assert state(daemon) == "open"
    upstream.status = 200


def test_an_upstream_fails_is_left_alone_and_recovers(name, gateway, upstream):
    server, daemon = gateway(name, open_time="3s", open_time_max="3s")
    answer = server.get("/some/where?x=1")
    assert (answer.status, answer.body) == (200, b"from the upstream\n")
    until(lambda: used(daemon) == 1, "the request is reported")
    trip(server, upstream, daemon)
    hits = upstream.hits
    refused = [server.get() for _ in range(10)]
    assert [a.status for a in refused] == [503] * 10
    assert {int(a.header("Retry-After")) for a in refused} <= {1, 2, 3}
    assert upstream.hits == hits
    # The upstream still fails: one probe finds this out.
    upstream.status = 502
    until(lambda: server.get().status == 502, "the opening is over")
    until(lambda: state(daemon) == "open", "the probe is reported")
    assert server.get().status == 503 and upstream.hits == hits + 1
    upstream.status = 200
    until(lambda: server.get().status == 200, "the opening is over")
    until(lambda: state(daemon) == "closed", "the probe is reported")
    assert [server.get().status for _ in range(5)] == [200] * 5
    assert daemon.metric("breakerd_report_lines_total", result="unusable") == 0


def test_one_probe_of_thirty_clients(name, gateway, upstream):
    server, daemon = gateway(name)
    trip(server, upstream, daemon)
    hits = upstream.hits
    upstream.hold()
    opened = daemon.get(path("orders")).json()["lastStateChange"]
    until(lambda: time.time() * 1000 > opened + 1050, "the opening is over")
    threads, answers = server.many(30)
    until(lambda: len(answers) == 29, "all but the probe are answered")
    assert [a.status for a in answers] == [503] * 29
    upstream.release()
    for thread in threads:
        thread.join()
    assert answers[-1].status == 200 and upstream.hits == hits + 1
    until(lambda: state(daemon) == "closed", "the probe is reported")


def test_two_gateways_with_two_daemons_share_a_circuit(name, gateway, upstream):
    one, first = gateway(name, "redis", open_time="1m", open_time_max="1m")
    two, second = gateway(name, "redis", open_time="1m", open_time_max="1m")
    trip(one, upstream, first)
    until(lambda: two.get().status == 503, "the other gateway refuses")
    hits = upstream.hits
    assert [server.get().status for server in (one, two) * 3] == [503] * 6
    assert upstream.hits == hits and state(second) == "open"


def test_breakerd_hangs_is_killed_and_comes_back(name, gateway, upstream, start_on):
    port = free_port()
    server, daemon = gateway(name, timeout=300, listen=f"127.0.0.1:{port}", open_time="1m", open_time_max="1m")
    trip(server, upstream, daemon)
    assert server.get().status == 503
    daemon.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert server.get().status == 200
        assert time.monotonic() - began < 2
    finally:
        daemon.signal(signal.SIGCONT)
    daemon.kill()
    daemon.ended = True
    for status in (200, 500) * 4:
        upstream.status = status
        began = time.monotonic()
        assert server.get().status == status
        assert time.monotonic() - began < 1
    again = start_on("memory", listen=f"127.0.0.1:{port}", report_listen=list(server.reports.values()), **POLICY)
    until(lambda: server.get().status == 500 and used(again) > 0, "the gateway reports again")
    until(lambda: server.get().status == 503, "the circuit opens again")


def test_a_browsers_cross_site_request_is_decided_like_any_other(name, gateway, upstream):
    server, daemon = gateway(name, open_time="1m", open_time_max="1m")
    assert server.get(headers=BROWSER).status == 200
    until(lambda: used(daemon) == 1, "the request is reported")
    trip(server, upstream, daemon)
    assert server.get(headers=BROWSER).status == 503
    assert server.get(headers={**BROWSER, "Origin": "null"}).status == 503


def test_an_end_user_chooses_neither_refusal_nor_permit_nor_report(name, gateway, upstream):
    server, daemon = gateway(name, open_time="1m", open_time_max="1m")
    evil = {"Breakerd-Permit": "c0.1 status=500 circuit=other", "User-Agent": 'x" circuit=other status=500',
            "X-Request-Id": "status=500", "Authorization": "Bearer x", "Cookie": "c" * 3000,
            "Referer": "circuit=other permit=p status=500", "X-Original-Uri": "/v1/check/other"}
    routes = ("/", "/?circuit=other&status=500", "/%20circuit=other%20status=500", "/v1/check-503/x", "/a%2fother")
    for n, route in enumerate(routes):
        assert server.get(route, headers=evil).status == 200
        until(lambda n=n: used(daemon) == n + 1, "the request is reported")
    now = snapshot(daemon.get(path("orders")))
    assert (now["successCount"], now["failureCount"]) == (len(routes), 0)
    assert [c["key"] for c in daemon.get("/v1/circuits").json()["circuits"]] == ["orders"]
    trip(server, upstream, daemon)
    hits = upstream.hits
    for route in routes:
        assert server.get(route, headers=evil).status == 503
    for method in ("POST", "PUT", "OPTIONS", "HEAD", "DELETE"):
        client = Client(("127.0.0.1", server.port), "gateway.example")
        body = None if method == "HEAD" else b"x" * 5000
        assert client.request(method, "/", body=body, headers=evil).status == 503, method
        client.close()
    # A head too long for breakerd does not let a request past it.
    for long in ({"headers": {"Cookie": "c" * 7000, "X-Long": "x" * 7000}}, {"route": "/?" + "q" * 7000}):
        assert server.get(**long).status == 503, long
    assert upstream.hits == hits
    assert daemon.metric("breakerd_report_lines_total", result="unusable") == 0


def test_a_client_that_leaves_gives_its_probe_back(name, gateway, upstream):
    server, daemon = gateway(name)
    trip(server, upstream, daemon)
    opened = daemon.get(path("orders")).json()["lastStateChange"]
    until(lambda: time.time() * 1000 > opened + 1050, "the opening is over")
    upstream.hold()
    hits = upstream.hits
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: upstream.hits == hits + 1, "the probe reaches the upstream")
        assert server.get().status == 503
    if name == "haproxy":  # HAProxy waits for the upstream's answer although the client has left
        upstream.release()
        until(lambda: state(daemon) == "closed", "the answer is reported")
        return
    until(lambda: daemon.metric("breakerd_reports_total", outcome="ignored", result="ignored") == 1,
          "the probe is reported as ignored")
    upstream.release()
    assert server.get().status == 200
    until(lambda: state(daemon) == "closed", "the second probe is reported")


def leave_amid_a_body(server, how, sent):
    """A generator. The first next() sends a head and `sent` bytes of the body; the second one ends the connection,
    by a close or by a reset."""
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * sent)
        yield
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    yield


def check_ignored(daemon, n):
    """Checks that n requests were reported as ignored, and none as a failure of the upstream."""
    until(lambda: daemon.metric("breakerd_reports_total", outcome="ignored", result="ignored") == n,
          "the request is reported as ignored")
    assert failures(daemon) == 0 and state(daemon) == "closed"


@pytest.mark.parametrize("sent", [10, 50_000])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_clients_that_leave_amid_a_body_open_nothing(name, how, sent, gateway, upstream):
    server, daemon = gateway(name)
    for n in range(FAILURES + 1):
        leaving = leave_amid_a_body(server, how, sent)
        next(leaving)
        if name != "haproxy" or sent > 8192:  # HAProxy asks once it has so much of the body
            until(lambda n=n: daemon.metric("breakerd_decisions_total", reason="closed") == n + 1, "the request is allowed")
        next(leaving)
        check_ignored(daemon, n + 1)


SHORTER = {"timeout client 30s": "timeout client 2s", "timeout server 10s": "timeout server 1s",
           "wait-for-body time 10s": "wait-for-body time 500ms"}


@pytest.mark.parametrize("body", [b"zz\r\n", b"3\r\nabcdef\r\n", b"3;" + b"e" * 70_000 + b"\r\n", b"f" * 17 + b"\r\n",
                                  b"3\r\nabc\r\n0\r\nno trailer\r\n\r\n", b"3\r\nabc\r\n0\r\nX: " + b"x" * 200_000,
                                  b"10\r\nabc"], ids=range(7))
def test_clients_that_send_malformed_bodies_open_nothing(name, body, gateway, upstream):
    """Some gateways repair a malformed body, and some stop reading. None may report it as a failure of the upstream.
    HAProxy 2.6.12 before its security update of 2026 stops reading where a chunk's extension fills its buffer."""
    server, daemon = gateway(name, changes=SHORTER)
    for n in range(FAILURES + 1):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            try:
                client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass
            except OSError:
                pass  # the gateway closed before it had read all
        until(lambda n=n: sum(daemon.metric("breakerd_report_lines_total", result=result)
                              for result in ("used", "unusable")) >= n + 1, "the request is logged")
    assert failures(daemon) == 0 and state(daemon) == "closed"


@pytest.mark.parametrize("request_", [b"Content-Length: 100\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n3;x",
                                      b"Content-Length: 100000\r\n\r\n" + b"x" * 50_000,
                                      b"X: " + b"x" * 12_000 + b"\r\nContent-Length: 8000\r\n\r\n" + b"x" * 4000],
                         ids=["length", "chunk", "large", "large-head"])
def test_clients_that_stop_amid_a_body_and_wait_open_nothing(request_, gateway, upstream):
    """With HAProxy alone: nginx and Caddy do not wait for an answer before the upstream has the whole request. Neither
    does HAProxy 3.0 if the request is large: it answers 400 after `timeout client`."""
    server, daemon = gateway("haproxy", changes=SHORTER)
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(FAILURES + 1)]
    for client in clients:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + request_)
    for client in clients:
        client.settimeout(10)
        assert client.recv(12) in (b"HTTP/1.1 400", b"HTTP/1.1 408", b"HTTP/1.1 504")
        client.close()
    until(lambda: used(daemon) == len(clients), "all requests are logged")
    assert failures(daemon) == 0 and state(daemon) == "closed"


def test_an_upstream_that_does_not_answer_fails(gateway, upstream):
    server, daemon = gateway("haproxy", changes=SHORTER)
    upstream.hold()
    assert server.get().status == 504
    for n, body in enumerate([b"Content-Length: 5\r\n\r\nwhole", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + body)
            assert client.recv(12) == b"HTTP/1.1 504"
        until(lambda n=n: failures(daemon) == n + 2, "the failure is reported")


@pytest.mark.parametrize("what", [b"", b"HTTP/1.1 200 OK\r\nContent-", "reset"])
def test_an_upstream_that_ends_its_connections_fails(name, what, gateway, upstream):
    server, daemon = gateway(name)
    upstream.cut = what
    for n in range(FAILURES):
        assert server.get().status in (500, 502, 503, 504)
        until(lambda n=n: failures(daemon) == n + 1, "the failure is reported")
    assert server.get().status == 503 and upstream.hits == FAILURES and state(daemon) == "open"


def test_an_upstream_that_is_gone_fails(name, gateway, upstream):
    server, daemon = gateway(name, open_time="1m", open_time_max="1m")
    upstream.stop()
    for n in range(FAILURES):
        assert server.get().status in (502, 503)
        until(lambda n=n: failures(daemon) == n + 1, "the failure is reported")
    assert int(server.get().header("Retry-After")) > 50 and state(daemon) == "open"
    upstream.start()


def test_statuses_that_are_no_failures(name, gateway, upstream):
    server, daemon = gateway(name)
    for n, status in enumerate((404, 301, 429, 403, 401)):
        upstream.status = status
        assert server.get().status == status
        until(lambda n=n: used(daemon) == n + 1, "the status is reported")
    now = snapshot(daemon.get(path("orders")))
    assert (now["successCount"], now["failureCount"]) == (5, 0)


def test_the_connections_to_breakerd_are_kept(name, gateway, upstream):
    server, daemon = gateway(name)
    client = Client(("127.0.0.1", server.port), "gateway.example")
    for _ in range(100):
        assert client.get("/").status == 200
    client.close()
    assert daemon.metric("breakerd_http_connections_accepted_total") <= 6
    assert upstream.hits == 100


def test_one_circuit_for_all_gateways_of_a_daemon(gateway, upstream):
    nginx, daemon = gateway("nginx", open_time="1m", open_time_max="1m")
    others = [gateway(name, beside=nginx)[0] for name in ("haproxy", "caddy")]
    upstream.status = 500
    for n in range(FAILURES):
        assert (nginx, *others)[n % 3].get().status == 500
        until(lambda n=n: failures(daemon) == n + 1, "the failure is reported")
    assert [server.get().status for server in (nginx, *others)] == [503] * 3
    assert upstream.hits == FAILURES


def test_what_is_no_request_is_no_report(name, gateway, upstream):
    """The gateways differ in what they accept as a request. Exactly those that reach the upstream are reported."""
    server, daemon = gateway(name)
    for garbage in (b"", b"GET\r\n\r\n", b"circuit=orders status=500\r\n\r\n", b"GET / HTTP/1.1\r\nHost: \0\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    upstream.status = 500
    assert server.get().status == 500
    until(lambda: failures(daemon) == 1, "the request is reported")
    assert used(daemon) == upstream.hits
