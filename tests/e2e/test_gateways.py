"""nginx and HAProxy as gateways, with the files in docs/clients, in front of an upstream that fails
and recovers."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

from breakerd import ROOT
from contract import path, snapshot
from ports import free_port
from upstream import Upstream
from wait import until
from wire import Client, connect

OPEN_MS = 60_000
THRESHOLD = 5


def text_of(*names):
    with open(os.path.join(ROOT, "docs", "clients", *names), encoding="utf-8") as file:
        return file.read()


def changed(text, changes):
    """Every change must be one: what is tested is what the file says."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in it"
        text = text.replace(old, new)
    return text


def program(name):
    """Not everybody has sbin on the path."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/local/sbin:/usr/sbin")
    assert found, f"no {name} on this machine: scripts/install-packages test"
    return found


class Server:
    """A gateway program in the foreground; `port` is where it listens."""

    def __init__(self, name, directory, upstream_port, breakerd_port, timeout):
        self.directory = os.path.join(directory, f"{name}-{free_port()}")
        os.mkdir(self.directory)
        os.chmod(self.directory, 0o755)
        self.port = free_port()
        command = getattr(self, name)(upstream_port, breakerd_port, timeout)
        self.log = os.path.join(self.directory, "log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        until(lambda: self.process.poll() is not None or self.listens(), f"{name} listens")
        assert self.process.poll() is None, self.output()

    def write(self, name, text):
        with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
            file.write(text)
        return os.path.join(self.directory, name)

    def nginx(self, upstream_port, breakerd_port, timeout):
        shutil.copy(os.path.join(ROOT, "docs/clients/nginx/breaker.lua"), self.directory)
        self.write("gateway.conf", changed(text_of("nginx", "gateway.conf"), {
            "/etc/nginx/breaker/?": f"{self.directory}/?",
            "127.0.0.1:9000;": f"127.0.0.1:{upstream_port};",
            "listen 8080": f"listen 127.0.0.1:{self.port}",
            "port = 8747": f"port = {breakerd_port}",
            "open_ms = 30000": f"open_ms = {OPEN_MS}, timeout = {timeout}",
        }))
        temporary = "\n".join(f"{kind}_temp_path {self.directory}/{kind};"
                              for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        # Workers as the one who runs the test: the directory is readable for nobody else.
        user = "user root;" if os.geteuid() == 0 else ""
        conf = self.write("nginx.conf", f"""
            {user}
            daemon off;
            worker_processes 2;
            pid {self.directory}/pid;
            error_log {self.directory}/log;
            include /etc/nginx/modules-enabled/*.conf;
            events {{ worker_connections 512; }}
            http {{ access_log off; {temporary} include {self.directory}/gateway.conf; }}
            """)
        return [program("nginx"), "-e", f"{self.directory}/log", "-c", conf]

    def haproxy(self, upstream_port, breakerd_port, timeout):
        lua = self.write("breaker.lua", changed(text_of("haproxy", "breaker.lua"), {
            '"abns@breakerd"': f'"abns@breakerd-{self.port}"',
        }))
        conf = self.write("haproxy.cfg", changed(text_of("haproxy", "haproxy.cfg"), {
            "/etc/haproxy/breaker.lua": f"{lua}\n    nbthread 2",
            "bind :8080": f"bind 127.0.0.1:{self.port}",
            "orders1 127.0.0.1:9000": f"orders1 127.0.0.1:{upstream_port}",
            "breakerd 127.0.0.1:8747": f"breakerd 127.0.0.1:{breakerd_port}",
            "bind abns@breakerd": f"bind abns@breakerd-{self.port}",
            "lua.breaker_enter orders 30000": f"lua.breaker_enter orders {OPEN_MS}",
            "timeout connect 100ms": f"timeout connect {timeout}ms",
            "timeout server 300ms": f"timeout server {timeout}ms",
        }))
        return [program("haproxy"), "-db", "-f", conf]

    def listens(self):
        try:
            connect(("127.0.0.1", self.port)).close()
            return True
        except OSError:
            return False

    def get(self, route="/"):
        client = Client(("127.0.0.1", self.port), "gateway.example")
        try:
            return client.get(route)
        finally:
            client.close()

    def many(self, n):
        """n requests at once; their answers."""
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(self.get())) for _ in range(n)]
        for thread in threads:
            thread.start()
        return threads, answers

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture
def upstream():
    one = Upstream()
    yield one
    one.stop()


@pytest.fixture
def run_gateway(directory, upstream):
    servers = []

    # So patient with breakerd that a slow machine makes no difference, unless that is the subject.
    def run(name, daemon, timeout=5000):
        servers.append(Server(name, directory, upstream.port, daemon.address[1], timeout))
        return servers[-1]

    yield run
    for server in servers:
        server.stop()
        assert "lua error" not in server.output().lower(), server.output()


@pytest.fixture(params=["nginx", "haproxy"])
def name(request):
    return request.param


def circuit(daemon):
    return snapshot(daemon.get(path("orders")))


def wait_for(daemon, **members):
    """The outcome is recorded after the answer has gone out."""
    def holds():
        now = circuit(daemon)
        return all(now[member] == value for member, value in members.items())
    until(holds, f"{members}")


def open_time_is_over(redis):
    """Instead of waiting for it: the circuit has opened long ago."""
    entry = json.loads(redis.call("GET", "stoma:cb:orders"))
    entry["lastStateChange"] -= 2 * OPEN_MS
    redis.call("SET", "stoma:cb:orders", json.dumps(entry))


def trip(server, upstream, daemon):
    upstream.status = 500
    for n in range(THRESHOLD):
        assert server.get().status == 500
        wait_for(daemon, failureCount=n + 1)
    wait_for(daemon, state="open")
    upstream.status = 200


def test_an_upstream_fails_and_recovers(name, run_gateway, upstream, redis_daemon, redis):
    daemon = redis_daemon
    server = run_gateway(name, daemon)
    answer = server.get("/some/where?x=1")
    assert (answer.status, answer.body) == (200, b"from the upstream\n")
    wait_for(daemon, successCount=1, state="closed")
    trip(server, upstream, daemon)
    # Nothing reaches the upstream while the circuit is open.
    hits = upstream.hits
    refused = [server.get() for _ in range(10)]
    assert [a.status for a in refused] == [503] * 10
    assert all(45 <= int(a.header("Retry-After")) <= 60 for a in refused)
    assert upstream.hits == hits
    # It still fails: the probe says so, and the circuit is open again.
    upstream.status = 502
    open_time_is_over(redis)
    assert server.get().status == 502
    wait_for(daemon, state="open", failureCount=THRESHOLD + 1)
    assert server.get().status == 503
    assert upstream.hits == hits + 1
    # It has recovered.
    upstream.status = 200
    open_time_is_over(redis)
    assert server.get().status == 200
    wait_for(daemon, state="closed", failureCount=0)
    assert upstream.hits == hits + 2
    assert [server.get().status for _ in range(5)] == [200] * 5


def test_one_probe_however_many_ask(name, run_gateway, upstream, redis_daemon, redis):
    server = run_gateway(name, redis_daemon)
    trip(server, upstream, redis_daemon)
    open_time_is_over(redis)
    hits = upstream.hits
    upstream.hold()
    threads, answers = server.many(20)
    until(lambda: len(answers) == 19, "all but the probe are answered")
    assert [a.status for a in answers] == [503] * 19
    upstream.release()
    for thread in threads:
        thread.join()
    assert answers[-1].status == 200
    assert upstream.hits == hits + 1
    wait_for(redis_daemon, state="closed")


def test_a_probe_that_never_came_back(name, run_gateway, upstream, redis_daemon, redis):
    server = run_gateway(name, redis_daemon)
    redis_daemon.post(path("orders", "transition"), {"to": "half-open"})
    assert server.get().status == 503
    open_time_is_over(redis)
    assert server.get().status == 503
    assert circuit(redis_daemon)["state"] == "open"
    assert upstream.hits == 0


def test_an_upstream_that_is_gone(name, run_gateway, upstream, memory_daemon):
    server = run_gateway(name, memory_daemon)
    assert server.get().status == 200
    upstream.stop()
    threads, answers = server.many(THRESHOLD)
    for thread in threads:
        thread.join()
    assert {a.status for a in answers} <= {502, 503, 504}
    wait_for(memory_daemon, state="open")
    began = time.monotonic()
    assert server.get().status == 503
    assert time.monotonic() - began < 1
    upstream.start()


def test_statuses_that_are_no_failures(name, run_gateway, upstream, memory_daemon):
    server = run_gateway(name, memory_daemon)
    for n, status in enumerate((404, 301, 429, 501)):
        upstream.status = status
        assert server.get().status == status
        wait_for(memory_daemon, successCount=n + 1, failureCount=0)


def test_breakerd_gone_or_frozen(name, run_gateway, upstream, start):
    port = free_port()
    daemon = start(listen=f"127.0.0.1:{port}")
    server = run_gateway(name, daemon, timeout=300)
    trip(server, upstream, daemon)
    assert server.get().status == 503
    daemon.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert server.get().status == 200
        assert time.monotonic() - began < 2
    finally:
        daemon.signal(signal.SIGCONT)
    daemon.stop()
    upstream.status = 500
    for _ in range(THRESHOLD + 1):
        began = time.monotonic()
        assert server.get().status == 500
        assert time.monotonic() - began < 1
    daemon = start(listen=f"127.0.0.1:{port}")
    trip(server, upstream, daemon)
    assert server.get().status == 503


def test_the_connections_to_breakerd_are_kept(name, run_gateway, upstream, memory_daemon):
    server = run_gateway(name, memory_daemon)
    client = Client(("127.0.0.1", server.port), "gateway.example")
    for _ in range(100):
        assert client.get("/").status == 200
    client.close()
    wait_for(memory_daemon, successCount=100)
    # Two workers or threads, each with one to ask with and one to tell with; and ours.
    assert memory_daemon.metric("breakerd_http_connections_accepted_total") <= 10


def test_under_load_nothing_is_lost(name, run_gateway, upstream, memory_daemon):
    server = run_gateway(name, memory_daemon)
    for _ in range(10):
        threads, answers = server.many(20)
        for thread in threads:
            thread.join()
        assert [a.status for a in answers] == [200] * 20
    wait_for(memory_daemon, successCount=200)


def test_one_circuit_for_both(run_gateway, upstream, memory_daemon):
    servers = [run_gateway(kind, memory_daemon) for kind in ("nginx", "haproxy")]
    upstream.status = 503
    for n in range(THRESHOLD):
        assert servers[n % 2].get().body == b"from the upstream\n"
        wait_for(memory_daemon, failureCount=n + 1)
    wait_for(memory_daemon, state="open")
    hits = upstream.hits
    for server in servers:
        assert server.get().status == 503
    assert upstream.hits == hits
