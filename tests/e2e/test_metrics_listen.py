"""metrics_listen: /metrics, /healthz and /readyz alone, without token, for any Host."""

import pytest

from breakerd import Breakerd, run
from contract import path, problem
from ports import free_port
from wait import until
from wire import Client

HAS = ("/metrics", "/healthz", "/readyz")
HAS_NOT = [("GET", "/"), ("GET", "/ui"), ("GET", "/v1/circuits"), ("GET", path("a")), ("POST", path("a", "failure")),
           ("DELETE", path("a")), ("GET", "/v1/events"), ("GET", "/v1/policies"), ("GET", "/v1/check/a"),
           ("POST", path("a", "acquire")), ("PUT", path("a", "override")), ("GET", "/nowhere")]


@pytest.fixture
def token_file(directory):
    name = f"{directory}/token"
    with open(name, "w", encoding="ascii") as file:
        file.write("s3cret-Token\n")
    return name


@pytest.fixture
def metrics_port():
    return free_port()


def ask(port, method, where, host="localhost", **kw):
    client = Client(("127.0.0.1", port), host)
    try:
        return client.request(method, where, **kw)
    finally:
        client.close()


def test_these_three_alone(start, token_file, metrics_port):
    daemon = start(token_file=token_file, metrics_listen=f"127.0.0.1:{metrics_port}")
    for where in HAS:
        for host in ("localhost", "prometheus.example:9", "10.1.2.3", "[fe80::1]:80"):
            assert ask(metrics_port, "GET", where, host).status == 200, (where, host)
        assert ask(metrics_port, "HEAD", where).status == 200
        problem(ask(metrics_port, "POST", where, body=b""), "method_not_allowed", "no")
    for method, where in HAS_NOT:
        document = problem(ask(metrics_port, method, where, body=b"{}"), "not_found",
                           None if method == "GET" else "no")
        assert "metrics_listen" in document["detail"]
        # With the token as well: it is the listener that has them not.
        problem(ask(metrics_port, method, where, headers={"Authorization": "Bearer s3cret-Token"},
                    body=b"{}"), "not_found", None if method == "GET" else "no")
    # The other listener is as it was.
    for where in ("/metrics", "/"):
        problem(daemon.get(where), "unauthorized")
    problem(daemon.request("GET", "/metrics", headers={"Host": "prometheus.example"}), "misdirected_request")
    assert "breakerd_http_requests_total" in ask(metrics_port, "GET", "/metrics").body.decode()


def test_a_page_of_another_origin_is_refused_there_too(start, metrics_port):
    start(metrics_listen=f"127.0.0.1:{metrics_port}")
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        problem(ask(metrics_port, "GET", "/metrics", headers=headers), "forbidden_origin")


def test_any_address_without_token_and_several(start, metrics_port):
    other = free_port()
    daemon = start(metrics_listen=[f"0.0.0.0:{metrics_port}", f"127.0.0.1:{other}"])
    for port in (metrics_port, other):
        assert ask(port, "GET", "/metrics").status == 200
    assert f"addr=0.0.0.0:{metrics_port} for=metrics" in daemon.stderr()


def test_settings(start, directory, metrics_port):
    values = run("--print-config", "--metrics-listen=0.0.0.0:1", "--metrics-listen=[::]:2").stdout
    assert "metrics_listen = 0.0.0.0:1\n" in values and "metrics_listen = [::]:2\n" in values
    for value in ("unix:/x", "1", "x", ":1", "127.0.0.1:99999"):
        done = run("--check-config", f"--metrics-listen={value}")
        assert done.returncode == 1 and "metrics" in done.stderr, value
    daemon = start(metrics_listen=f"127.0.0.1:{metrics_port}")
    done = run(f"--listen=127.0.0.1:{free_port()}", f"--metrics-listen=127.0.0.1:{metrics_port}")
    assert done.returncode == 1 and str(metrics_port) in done.stderr
    # A port of its own, as listen has: the two cannot be one.
    done = run(f"--listen=127.0.0.1:{free_port()}", f"--metrics-listen={daemon.host}")
    assert done.returncode == 1
    del directory


def test_sighup_says_that_a_restart_is_needed(directory, metrics_port):
    conf = f"{directory}/conf"
    with open(conf, "w", encoding="ascii") as file:
        file.write(f"metrics_listen = 127.0.0.1:{metrics_port}\n")
    daemon = Breakerd(directory, config=conf).start()
    try:
        with open(conf, "w", encoding="ascii") as file:
            file.write(f"metrics_listen = 127.0.0.1:{free_port()}\n")
        daemon.hangup()
        until(lambda: "restart_needed settings=\"metrics_listen\"" in daemon.stderr(), "it is said")
        assert ask(metrics_port, "GET", "/metrics").status == 200
    finally:
        daemon.stop()


def test_a_check_of_readiness_there(start, metrics_port):
    start(metrics_listen=f"127.0.0.1:{metrics_port}")
    assert run(f"--check-ready=127.0.0.1:{metrics_port}").returncode == 0
