"""Models of Envoy and Traefik (gateways_by_source.py) with the files in docs/gateways: /v1/check and reports."""

import signal
import time

import pytest

import gateways_by_source
from contract import path, snapshot
from ports import free_port
from upstream import Upstream
from wait import until

FAILURES = 5
EVIL = {"Breakerd-Permit": "c0.1", "Authorization": "Basic x", "Origin": "https://other.example",
        "Sec-Fetch-Site": "cross-site", "Accept": "status=500 circuit=other", "Date": "status=500", "Host": "evil.example"}


@pytest.fixture
def upstream():
    one = Upstream()
    yield one
    one.stop()


@pytest.fixture(params=["Envoy", "Traefik"])
def gateway(request, directory, upstream, start_on):
    """gateway(**settings) starts a daemon and a gateway. Returns both, and the daemon's addresses."""
    made = []

    def run(listen=None, reports=None, **settings):
        listen = listen or (f"unix:{directory}/breakerd.sock" if request.param == "Envoy"
                            else f"127.0.0.1:{free_port()}")
        reports = reports or f"127.0.0.1:{free_port()}"
        daemon = start_on("memory", listen=listen, report_listen=reports,
                          **{"open_growth": 1, "open_time": "1m", "open_time_max": "1m", **settings})
        made.append(getattr(gateways_by_source, request.param)(daemon.address, upstream, directory, reports))
        return made[0], daemon, {"listen": listen, "reports": reports}

    yield run
    made[0].stop()


def reports(daemon, outcome, result="counted"):
    return daemon.metric("breakerd_reports_total", outcome=outcome, result=result)


def state(daemon):
    return snapshot(daemon.get(path("orders")))["state"]


def trip(one, upstream, daemon):
    upstream.status = 500
    for n in range(FAILURES):
        assert one.ask() == (500, None)
        until(lambda n=n: reports(daemon, "failure") == n + 1, "the failure is reported")
    upstream.status = 200


def test_failures_refuse_one_probes_and_it_recovers(gateway, upstream):
    one, daemon, _ = gateway(open_time="1s", open_time_max="1s", probe_timeout="1m")
    assert one.ask() == (200, None)
    until(lambda: reports(daemon, "success") == 1, "the success is reported")
    trip(one, upstream, daemon)
    hits = upstream.hits
    assert [one.ask() for _ in range(3)] == [(503, "1")] * 3 and upstream.hits == hits
    opened = daemon.get(path("orders")).json()["lastStateChange"]
    until(lambda: time.time() * 1000 > opened + 1050, "the opening is over")
    upstream.status = 502
    assert one.ask()[0] == 502
    until(lambda: state(daemon) == "open", "the probe is reported")
    assert one.ask()[0] == 503 and upstream.hits == hits + 1
    upstream.status = 200
    until(lambda: one.ask()[0] == 200, "the opening is over")
    until(lambda: state(daemon) == "closed", "the probe is reported")
    # Refused requests are not reported. Envoy reports over HTTP.
    assert daemon.metric("breakerd_report_lines_total", result="used") in (0, upstream.hits)


def test_breakerd_hangs_is_killed_and_comes_back(gateway, upstream, start_on):
    one, daemon, addresses = gateway()
    trip(one, upstream, daemon)
    assert one.ask()[0] == 503
    daemon.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert one.ask()[0] == 200
        assert time.monotonic() - began < 5
    finally:
        daemon.signal(signal.SIGCONT)
    daemon.kill()
    daemon.ended = True
    assert [one.ask()[0] for _ in range(5)] == [200] * 5
    again = start_on("memory", listen=addresses["listen"], report_listen=addresses["reports"])
    upstream.status = 500
    until(lambda: one.ask()[0] == 500 and reports(again, "failure") > 0, "the gateway reports again")
    until(lambda: one.ask()[0] == 503, "the circuit opens again")


def test_a_token_that_is_missing(gateway, directory, upstream):
    """As docs/gateways says: Traefik lets the request pass, Envoy refuses it, because the check's answer is a 4xx."""
    with open(f"{directory}/token", "w", encoding="ascii") as file:
        file.write("0123456789abcdef\n")
    one, _, _ = gateway(token_file=f"{directory}/token")
    passes = isinstance(one, gateways_by_source.Traefik)
    assert one.ask()[0] == (200 if passes else 503) and upstream.hits == passes


def test_an_end_user_chooses_neither_refusal_nor_permit_nor_report(gateway, upstream):
    one, daemon, _ = gateway()
    requests = [(method, route) for method in ("GET", "POST", "OPTIONS", "HEAD", "PROPFIND")
                for route in ("/", "/../../check-503/other?circuit=other&status=500", "/%2e%2e/%00")]
    for n, (method, route) in enumerate(requests):
        assert one.ask(method, route, EVIL) == (200, None)
        until(lambda n=n: reports(daemon, "success") == n + 1, "the success is reported")
    assert [c["key"] for c in daemon.get("/v1/circuits").json()["circuits"]] == ["orders"]
    trip(one, upstream, daemon)
    for method, route in requests:
        assert one.ask(method, route, EVIL)[0] == 503, (method, route)


@pytest.mark.parametrize("path,headers", [("/?" + "a" * 9000, {}), ("/?" + "a" * 17000, {}), ("/", {"Accept": "a" * 9000}),
                                          ("/", {"Accept": "a\x01"}), ("/", {"Accept": "a\x7f"})],
                         ids=["uri", "longer-uri", "accept", "control", "delete"])
def test_an_end_user_does_not_pass_with_what_is_too_long_or_broken(gateway, upstream, path, headers):
    """A request to an open circuit is refused, also if breakerd answers its sub-request with 431 or 400."""
    one, daemon, _ = gateway()
    trip(one, upstream, daemon)
    assert one.ask()[0] == 503
    hits = upstream.hits
    with daemon.wire() as idle:  # with other connections open, libmicrohttpd itself may answer
        idle.ask("GET", "/healthz")
        assert one.ask("GET", path, headers)[0] in (400, 413, 414, 431, 503)
    assert upstream.hits == hits


def test_what_is_the_end_users_fault_opens_nothing(gateway):
    """Envoy itself answers 400. Traefik answers 499 if the end user has left, and 500 to a malformed body."""
    one, daemon, _ = gateway()
    for n, status in enumerate([400, 400] if isinstance(one, gateways_by_source.Envoy) else [499, 500]):
        for k in range(FAILURES):
            assert one.ask(own=status)[0] == status
            until(lambda n=n * FAILURES + k: reports(daemon, "ignored", "ignored") == n + 1,
                  "the request is reported as ignored")
    assert state(daemon) == "closed" and reports(daemon, "failure") == 0


def test_no_answer_of_the_upstream_is_a_failure(gateway):
    one, daemon, _ = gateway()
    for n in range(FAILURES):
        assert one.ask(own=503)[0] == 503
        until(lambda n=n: reports(daemon, "failure") == n + 1, "the failure is reported")
    assert one.ask()[1] == "60"
