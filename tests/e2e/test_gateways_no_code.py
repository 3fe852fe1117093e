"""nginx and HAProxy as gateways without code, with the files in docs/gateways: /v1/check decides, the access
log reports."""

import os
import signal
import socket
import time

import pytest

import test_gateways
from breakerd import ROOT
from contract import path, snapshot
from ports import free_port
from test_gateways import changed, program
from upstream import Upstream
from wait import until
from wire import Client

# An opening that ends when a test says so, by waiting for it: short, and as long each time.
POLICY = {"open_time": "1s", "open_time_max": "1s", "open_growth": 1, "probe_timeout": "1m"}
FAILURES = 5
BROWSER = {"Origin": "https://other.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}


def text_of(*names):
    with open(os.path.join(ROOT, "docs", "gateways", *names), encoding="utf-8") as file:
        return file.read()


class Server(test_gateways.Server):
    def __init__(self, name, directory, upstream_port, breakerd_port, reports, timeout):
        self.reports = reports
        super().__init__(name, directory, upstream_port, breakerd_port, timeout)

    def nginx(self, upstream_port, breakerd_port, timeout):
        self.write("gateway.conf", changed(text_of("nginx", "gateway.conf"), {
            "127.0.0.1:9000 ": f"127.0.0.1:{upstream_port} ",
            "listen 8080": f"listen 127.0.0.1:{self.port}",
            "server 127.0.0.1:8747": f"server 127.0.0.1:{breakerd_port}",
            "server=unix:/run/breakerd/report.sock,": f"server=unix:{self.reports},",
            "proxy_connect_timeout 100ms": f"proxy_connect_timeout {timeout}ms",
            "proxy_read_timeout 300ms": f"proxy_read_timeout {timeout}ms",
        }))
        temporary = "\n".join(f"{kind}_temp_path {self.directory}/{kind};"
                              for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        conf = self.write("nginx.conf", f"""
            {user}
            daemon off;
            worker_processes 2;
            pid {self.directory}/pid;
            error_log {self.directory}/log;
            events {{ worker_connections 512; }}
            http {{ {temporary} include {self.directory}/gateway.conf; }}
            """)
        return [program("nginx"), "-e", f"{self.directory}/log", "-c", conf]

    def haproxy(self, upstream_port, breakerd_port, timeout):
        lua = self.write("breakerd.lua", changed(text_of("haproxy", "breakerd.lua"), {
            '"abns@breakerd"': f'"abns@breakerd-{self.port}"',
        }))
        conf = self.write("haproxy.cfg", changed(text_of("haproxy", "haproxy.cfg"), {
            "/etc/haproxy/breakerd.lua": f"{lua}\n    nbthread 2",
            "bind :8080": f"bind 127.0.0.1:{self.port}",
            "log /run/breakerd/report.sock": f"log {self.reports}",
            "orders1 127.0.0.1:9000": f"orders1 127.0.0.1:{upstream_port}",
            "breakerd 127.0.0.1:8747": f"breakerd 127.0.0.1:{breakerd_port}",
            "bind abns@breakerd": f"bind abns@breakerd-{self.port}",
            "timeout connect 100ms": f"timeout connect {timeout}ms",
            "timeout server 300ms": f"timeout server {timeout}ms",
        }))
        return [program("haproxy"), "-db", "-f", conf]

    def get(self, route="/", headers=None):
        client = Client(("127.0.0.1", self.port), "gateway.example")
        try:
            return client.get(route, headers=headers or {})
        finally:
            client.close()


@pytest.fixture
def upstream():
    one = Upstream()
    yield one
    one.stop()


@pytest.fixture
def gateway(directory, upstream, start_on):
    """gateway(name, store="memory", timeout=5000, **settings): a daemon, and the gateway in front of it."""
    servers = []

    def run(name, store="memory", timeout=5000, daemon=None, **settings):
        reports = f"{directory}/report-{len(servers)}.sock"
        daemon = daemon or start_on(store, report_listen=f"unix:{reports}", **{**POLICY, **settings})
        servers.append(Server(name, directory, upstream.port, daemon.address[1], reports, timeout))
        return servers[-1], daemon

    yield run
    for server in servers:
        server.stop()


@pytest.fixture(params=["nginx", "haproxy"])
def name(request):
    return request.param


def used(daemon):
    return daemon.metric("breakerd_report_lines_total", result="used")


def failures(daemon):
    return daemon.metric("breakerd_reports_total", outcome="failure", result="counted")


def state(daemon):
    return snapshot(daemon.get(path("orders")))["state"]


def trip(server, upstream, daemon):
    """Reports of what came before may still be on their way."""
    upstream.status = 500
    before = failures(daemon)
    for n in range(FAILURES):
        assert server.get().status == 500
        until(lambda n=n: failures(daemon) == before + n + 1, "it is reported")
    assert state(daemon) == "open"
    upstream.status = 200


def test_an_upstream_fails_is_left_alone_and_recovers(name, gateway, upstream):
    server, daemon = gateway(name, open_time="3s", open_time_max="3s")
    answer = server.get("/some/where?x=1")
    assert (answer.status, answer.body) == (200, b"from the upstream\n")
    until(lambda: used(daemon) == 1, "it is reported")
    trip(server, upstream, daemon)
    hits = upstream.hits
    refused = [server.get() for _ in range(10)]
    assert [a.status for a in refused] == [503] * 10
    assert {int(a.header("Retry-After")) for a in refused} <= {1, 2, 3}
    assert upstream.hits == hits
    # It still fails: one probe says so.
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
    until(lambda: two.get().status == 503, "the other one knows")
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
    again = start_on("memory", listen=f"127.0.0.1:{port}", report_listen=f"unix:{server.reports}", **POLICY)
    until(lambda: server.get().status == 500 and used(again) > 0, "it reports again")
    until(lambda: server.get().status == 503, "it opens again")


def test_a_browsers_cross_site_request_is_decided_like_any_other(name, gateway, upstream):
    server, daemon = gateway(name, open_time="1m", open_time_max="1m")
    assert server.get(headers=BROWSER).status == 200
    until(lambda: used(daemon) == 1, "it is reported")
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
        until(lambda n=n: used(daemon) == n + 1, "it is reported as it was")
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
        until(lambda: upstream.hits == hits + 1, "the probe is out")
        assert server.get().status == 503
    if name == "haproxy":  # it waits for the upstream's answer all the same
        upstream.release()
        until(lambda: state(daemon) == "closed", "the answer is reported")
        return
    until(lambda: daemon.metric("breakerd_reports_total", outcome="ignored", result="ignored") == 1,
          "it is reported")
    upstream.release()
    assert server.get().status == 200
    until(lambda: state(daemon) == "closed", "the second probe is reported")


def test_what_is_no_request_is_no_report(name, gateway, upstream):
    """What one server takes for a request another one does not: as many are reported as got through."""
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
