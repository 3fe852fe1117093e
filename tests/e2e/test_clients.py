"""The files in docs/clients, each driven by a small program in its own language (clients/driver.*)
against the real daemon. A language whose tools are missing is skipped, unless ALL_CLIENTS is set;
those that are small to install are never skipped. What passed is printed as a table in the end."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

from breakerd import ROOT, environment
from contract import KEYS, path, snapshot
from ports import free_port
from wait import until

CLIENTS = os.path.join(ROOT, "docs", "clients")
DRIVERS = os.path.join(ROOT, "tests", "e2e", "clients")
PYTHON = "/usr/bin/python3"
OPEN_MS = 500


def sh(*command, cwd=None, env=None):
    done = subprocess.run(command, cwd=cwd, env=environment(env), capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=240, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def build_c(to):
    strict = ["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-O1", "-g"]
    sh(os.environ.get("CC", "cc"), *strict, f"-I{CLIENTS}", f"{DRIVERS}/driver.c", "-o", f"{to}/driver", "-lcurl")
    return [f"{to}/driver"]


def build_go(to):
    os.mkdir(f"{to}/breaker")
    shutil.copy(f"{CLIENTS}/breaker.go", f"{to}/breaker")
    shutil.copy(f"{DRIVERS}/driver.go", to)
    with open(f"{to}/go.mod", "w", encoding="ascii") as file:
        file.write("module example.test\n\ngo 1.19\n")
    offline = {"GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local"}
    sh("go", "vet", "./...", cwd=to, env=offline)
    sh("go", "build", "-o", "driver", ".", cwd=to, env=offline)
    assert sh("gofmt", "-l", f"{CLIENTS}/breaker.go") == ""
    return [f"{to}/driver"]


def build_java(to):
    sh("javac", "-Xlint:all", "-Werror", "-d", to, f"{CLIENTS}/Breaker.java", f"{DRIVERS}/Driver.java")
    return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", to, "Driver"]


# name: (file, what must be there, how to ask its version, what gives the command)
LANGUAGES = {
    "C": ("breaker.h", "curl-config", ["curl-config", "--version"], build_c),
    "Go": ("breaker.go", "go", ["go", "version"], build_go),
    "Java": ("Breaker.java", "javac", ["javac", "-version"], build_java),
    "Node": ("breaker.mjs", "node", ["node", "--version"], lambda to: ["node", f"{DRIVERS}/driver.mjs"]),
    "PHP": ("breaker.php", "php", ["php", "-r", "echo PHP_VERSION;"], lambda to: ["php", f"{DRIVERS}/driver.php"]),
    "Python": ("breaker.py", PYTHON, [PYTHON, "--version"],
               lambda to: [PYTHON, "-B", f"{DRIVERS}/driver.py", CLIENTS]),
    "shell": ("breaker.sh", "curl", ["curl", "--version"], lambda to: ["sh", f"{DRIVERS}/driver.sh"]),
}
HEAVY = ("Go", "Java")  # their tools are hundreds of megabytes


class Gateway:
    """A driver program: one gateway with one circuit."""

    def __init__(self, command, url, key, threshold=3, open_ms=OPEN_MS, token="", timeout_ms=9000):
        # No proxy may come between; a locale that can hold the key in an argument.
        env = {"http_proxy": "http://127.0.0.1:9", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen([*command, url, key, str(threshold), str(open_ms), token, str(timeout_ms)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=environment(env), encoding="utf-8")
        self.complaints = []
        self.reader = threading.Thread(target=lambda: self.complaints.extend(self.process.stderr))
        self.reader.start()

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer, f"the gateway died: {''.join(self.complaints)}"
        return answer

    def enter(self):
        return self.say("enter")

    def leave(self, permit, outcome):
        assert self.say(f"leave {permit} {outcome}") == "done"

    def request(self, outcome):
        """A whole request, the permit included."""
        permit = self.enter()
        if permit != "open":
            self.leave(permit, outcome)
        return permit

    def end(self):
        if self.process.poll() is not None:
            return
        self.process.stdin.close()
        try:
            status = self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self.reader.join()
        assert status == 0, "".join(self.complaints)


@pytest.fixture(scope="session", params=sorted(LANGUAGES))
def language(request, tmp_path_factory):
    """(name, version, command of the driver)"""
    name = request.param
    _, tool, ask, build = LANGUAGES[name]
    if shutil.which(tool) is None:
        if name in HEAVY and not os.environ.get("ALL_CLIENTS"):
            pytest.skip(f"no {tool} on this machine")
        pytest.fail(f"no {tool} on this machine: scripts/install-packages test clients")
    version = re.search(r"\d+(\.\d+)+", sh(*ask)).group()
    if name == "C":
        version = "C11, libcurl " + version
    elif name == "shell":
        version = f"{os.path.basename(os.path.realpath(shutil.which('sh')))}, curl {version}"
    return name, version, build(str(tmp_path_factory.mktemp(name)))


@pytest.fixture
def gateway(language, record_property):
    """gateway(daemon or url, key, ...): a new one; all of them end with the test."""
    name, version, command = language
    record_property("file", LANGUAGES[name][0])
    record_property("version", version)
    gateways = []

    def start_one(to, key, **kw):
        url = to if isinstance(to, str) else "http://%s:%d" % to.address
        gateways.append(Gateway(command, url, key, **kw))
        return gateways[-1]

    yield start_one
    for one in gateways:
        one.end()


def state(daemon, key):
    return snapshot(daemon.get(path(key)))


# Gateways that share a circuit agree on the open time; here one is patient and one eager, so that
# no assertion hangs on how fast a machine is.
PATIENT = {"open_ms": 60_000}
EAGER = {"open_ms": 0}


def test_life_of_a_circuit(gateway, memory_daemon):
    key = "orders"
    gateways = [gateway(memory_daemon, key, **PATIENT), gateway(memory_daemon, key, **PATIENT)]
    assert [g.request("ok") for g in gateways] == ["closed", "closed"]
    assert state(memory_daemon, key)["successCount"] == 2
    # The failures of both count, and both stop.
    assert [gateways[n % 2].request("failed") for n in range(3)] == ["closed"] * 3
    assert state(memory_daemon, key)["state"] == "open"
    assert [g.enter() for g in gateways] == ["open", "open"]
    # One of them probes; the probe fails; the next one does not.
    eager = gateway(memory_daemon, key, **EAGER)
    for outcome, after in (("failed", "open"), ("ok", "closed")):
        assert eager.enter() == "half-open"
        assert [g.enter() for g in gateways] == ["open", "open"]
        eager.leave("half-open", outcome)
        assert state(memory_daemon, key)["state"] == after
    assert state(memory_daemon, key)["failureCount"] == 0
    assert [g.request("ok") for g in gateways] == ["closed", "closed"]
    assert not any(g.complaints for g in [*gateways, eager])


def test_one_of_many_probes(gateway, memory_daemon):
    gateways = [gateway(memory_daemon, "a") for _ in range(3)]
    assert [g.enter() for g in gateways] == ["closed"] * 3
    since = snapshot(memory_daemon.post(path("a", "transition"), {"to": "open"}))["lastStateChange"]
    until(lambda: time.time() * 1000 > since + OPEN_MS, "the open time is over")
    permits = []
    threads = [threading.Thread(target=lambda g=g: permits.append(g.enter())) for g in gateways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(permits) == ["half-open", "open", "open"]


def test_a_late_failure_moves_nothing(gateway, memory_daemon):
    one = gateway(memory_daemon, "a", threshold=1)
    assert one.enter() == "closed"
    opened = snapshot(memory_daemon.post(path("a", "transition"), {"to": "open"}))
    one.leave("closed", "failed")
    assert state(memory_daemon, "a") == {**opened, "failureCount": 1,
                                         "lastFailureTime": state(memory_daemon, "a")["lastFailureTime"]}
    assert not one.complaints


def test_a_probe_that_never_came_back(gateway, memory_daemon):
    patient, eager = gateway(memory_daemon, "a", **PATIENT), gateway(memory_daemon, "a", **EAGER)
    memory_daemon.post(path("a", "transition"), {"to": "half-open"})
    assert patient.enter() == "open"
    assert state(memory_daemon, "a")["state"] == "half-open"
    assert eager.enter() == "open"
    assert state(memory_daemon, "a")["state"] == "open"
    assert eager.request("ok") == "half-open"
    assert state(memory_daemon, "a")["state"] == "closed"


@pytest.mark.parametrize("kind", ["gone", "frozen", "away", "token"])
def test_fails_open(gateway, start, directory, kind):
    """Whatever is wrong with breakerd, requests go, and soon."""
    if kind == "away":
        daemon = start(store=f"redis://127.0.0.1:{free_port()}", on_store_failure="error")
    elif kind == "token":
        with open(f"{directory}/token", "w", encoding="ascii") as file:
            file.write("t0ken\n")
        daemon = start(token_file=f"{directory}/token")
        assert gateway(daemon, "a", token="t0ken").enter() == "closed"
    else:
        daemon = start()
    one = gateway(daemon, "a", token="wrong", timeout_ms=300)
    one.enter()  # a virtual machine has to be warm before it keeps its time
    if kind in ("gone", "frozen"):
        until(lambda: one.enter() == "closed", "it asks")
    if kind == "gone":
        daemon.stop()
    if kind == "frozen":
        daemon.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert one.enter() == "unknown"
        one.leave("unknown", "failed")
        one.leave("closed", "failed")
        assert time.monotonic() - began < 2 * 0.3 + 2.5
        until(lambda: one.complaints, "somebody is told")
    finally:
        if kind == "frozen":
            daemon.signal(signal.SIGCONT)
    if kind == "frozen":
        until(lambda: one.enter() == "closed", "it asks again")


def test_a_restart_of_breakerd(gateway, start):
    """The kept connection is dead; that costs no request."""
    port = free_port()
    daemon = start(listen=f"127.0.0.1:{port}")
    one = gateway(f"http://127.0.0.1:{port}", "a")
    assert one.request("failed") == "closed"
    daemon.stop()
    daemon = start(listen=f"127.0.0.1:{port}")
    assert one.request("failed") == "closed"
    assert state(daemon, "a")["failureCount"] == 1
    assert not one.complaints


def test_the_connection_is_kept(gateway, language, memory_daemon):
    if language[0] == "shell":
        pytest.skip("each call of curl is a connection of its own")
    memory_daemon.get("/healthz")
    before = memory_daemon.metric("breakerd_http_connections_accepted_total")
    one = gateway(memory_daemon, "a", threshold=1, open_ms=0)
    for _ in range(10):
        assert one.request("failed") in ("closed", "half-open")
        assert one.request("ok") == "half-open"
    assert memory_daemon.metric("breakerd_http_connections_accepted_total") == before + 1


def test_keys(gateway, memory_daemon):
    keys = list(KEYS.values())
    for key in keys:
        one = gateway(memory_daemon, key)
        assert one.request("failed") == "closed"
        one.end()
    listed = memory_daemon.get("/v1/circuits").json()["circuits"]
    assert sorted(c["key"] for c in listed) == sorted(keys)
    assert all(c["failureCount"] == 1 for c in listed)


@pytest.mark.parametrize("name", sorted(LANGUAGES))
def test_the_file_is_short(name):
    with open(os.path.join(CLIENTS, LANGUAGES[name][0]), encoding="utf-8") as file:
        assert len(file.readlines()) < 100
