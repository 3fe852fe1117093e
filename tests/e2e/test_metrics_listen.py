"""metrics_listen: only /metrics, /healthz and /readyz, without token, for any Host."""

import contextlib
import select
import threading
import time

import pytest

from breakerd import Breakerd, run
from contract import path, problem
from ports import free_port
from wait import until
from wire import Client, Closed, Wire

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
        # The token makes no difference: this listener does not have the routes.
        problem(ask(metrics_port, method, where, headers={"Authorization": "Bearer s3cret-Token"},
                    body=b"{}"), "not_found", None if method == "GET" else "no")
    # The other listener still asks for the token and checks Host.
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
    # The address of a daemon's `listen` is in use, too.
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
        until(lambda: "restart_needed settings=\"metrics_listen\"" in daemon.stderr(), "restart_needed is logged")
        assert ask(metrics_port, "GET", "/metrics").status == 200
    finally:
        daemon.stop()


def test_a_check_of_readiness_there(start, metrics_port):
    start(metrics_listen=f"127.0.0.1:{metrics_port}")
    assert run(f"--check-ready=127.0.0.1:{metrics_port}").returncode == 0


@contextlib.contextmanager
def held(port, count, data):
    """Holds `count` connections that have sent `data`, and replaces those that the daemon closes."""
    stop = threading.Event()
    wires = {}

    def add():
        wire = Wire(("127.0.0.1", port))
        wires[wire.sock.fileno()] = wire
        poll.register(wire.sock, select.POLLRDHUP)
        wire.send(data)

    def hold():
        while not stop.is_set():
            for fd, _ in poll.poll(50):
                poll.unregister(fd)
                wires.pop(fd).close()
            with contextlib.suppress(OSError):
                while len(wires) < count and not stop.is_set():
                    add()

    poll = select.poll()
    thread = threading.Thread(target=hold)
    thread.start()
    try:
        until(lambda: len(wires) >= min(count, 40), "the connections are open")
        yield wires
    finally:
        stop.set()
        thread.join()
        for wire in wires.values():
            wire.close()


HELD = {"silent": b"", "amid-line": b"GET /met", "amid-headers": b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-A: ",
        "amid-body": b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        "amid-chunks": b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "answered": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "refused": b"GET /healthz HTTP/9.9\r\n\r\n"}


def scraped(port):
    try:
        return ask(port, "GET", "/metrics").status == 200
    except (Closed, OSError):
        return False


@pytest.mark.parametrize("data", HELD.values(), ids=HELD)
def test_who_holds_its_connections_keeps_no_gateway_out(start, token_file, metrics_port, data):
    """metrics_listen has a limit of its own on connections. While a client uses all of them, new connections of
    gateways are answered at once, and a scraper's soon."""
    token = {"Authorization": "Bearer s3cret-Token"}
    daemon = start(token_file=token_file, metrics_listen=f"127.0.0.1:{metrics_port}", max_connections=20)
    with held(metrics_port, 100, data):
        waits = []
        for _ in range(50):
            began = time.monotonic()
            with daemon.wire() as gateway:
                assert gateway.ask("POST", path("k", "acquire"), token).status == 200
            waits.append(time.monotonic() - began)
        print(f"the longest wait: {max(waits):.3f} s")
        assert max(waits) < 1 and sorted(waits)[40] < 0.1
        for _ in range(3):
            # The client reconnects at once, and may displace the scraper, too: it tries again.
            until(lambda: scraped(metrics_port), "a scraper is answered", 5)


def test_it_has_16_connections_at_most(start, metrics_port):
    daemon = start(metrics_listen=f"127.0.0.1:{metrics_port}")
    with contextlib.ExitStack() as stack:
        first = [stack.enter_context(Wire(("127.0.0.1", metrics_port))) for _ in range(16)]
        for wire in first:
            assert wire.ask("GET", "/healthz").status == 200
        # The connection idle for longest is closed, and none of the other listener's. Without the pause the daemon's
        # clock, which counts milliseconds, could see all idle since the same time.
        time.sleep(0.05)
        first[0].ask("GET", "/healthz")
        idle = stack.enter_context(daemon.wire())
        idle.ask("GET", "/healthz")
        new = stack.enter_context(Wire(("127.0.0.1", metrics_port)))
        assert new.ask("GET", "/healthz").status == 200
        assert first[1].ended()
        for wire in (idle, new, first[0], *first[2:]):
            assert wire.ask("GET", "/healthz").status == 200
    until(lambda: daemon.metric("breakerd_http_connections") == 1, "all other connections have ended")
