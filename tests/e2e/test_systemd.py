"""systemd: the notifications that it gets, and the sockets that it hands over."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from breakerd import BINARY, SANITIZERS, environment
from contract import expect, path
from manager import Handed, Notifications, built_with_systemd, listening
from ports import free_port
from wait import until
from wire import Closed, Wire, request_bytes

with_systemd = pytest.mark.skipif(not built_with_systemd(), reason="built without libsystemd")


@pytest.fixture
def notifications(directory):
    heard = Notifications(directory)
    yield heard
    heard.close()


@pytest.fixture
def start_notifying(start, notifications):
    def start_one(env=None, **settings):
        return start(env={"NOTIFY_SOCKET": notifications.path, **(env or {})}, **settings)
    return start_one


@pytest.fixture
def hand(directory):
    """hand(sockets, **settings) starts a daemon with sockets handed over."""
    daemons = []

    def hand_over(sockets, env=None, **settings):
        daemon = Handed(directory, sockets, env=env, **settings)
        daemons.append(daemon)
        return daemon.start()

    yield hand_over
    try:
        for daemon in daemons:
            daemon.stop()
    finally:
        for daemon in daemons:
            daemon.kill()


# --- notifications


@with_systemd
def test_ready_only_when_serving(notifications, directory):
    """A client that connects as soon as READY=1 has come is served. READY=1 is the first notification."""
    for i in range(5):
        name = f"{directory}/s{i}"
        before = len(notifications.read())
        process = subprocess.Popen([BINARY, f"--listen=unix:{name}"], stderr=subprocess.DEVNULL,
                                   env=environment({"NOTIFY_SOCKET": notifications.path}))
        try:
            notifications.wait("breakerd is ready", before, READY="1")
            assert notifications.seen[before] == {"READY": "1", "STATUS": "Ready: memory"}
            with Wire(name) as wire:
                assert wire.ask("GET", "/readyz").status == 200
        finally:
            process.kill()
            process.wait()


@with_systemd
def test_stopping(start_notifying, notifications):
    daemon = start_notifying()
    notifications.wait("breakerd is ready", READY="1")
    daemon.signal(signal.SIGTERM)
    daemon.expect_exit(0)
    assert notifications.read()[-1]["STOPPING"] == "1"


@with_systemd
def test_reload_is_told(start_notifying, notifications, directory):
    conf = f"{directory}/conf"
    write(conf, "ttl = 60\n")
    daemon = start_notifying(config=conf)
    notifications.wait("breakerd is ready", READY="1")

    def reload():
        since, before = len(notifications.read()), time.monotonic()
        daemon.hangup()
        began = notifications.wait("the reload begins", since, RELOADING="1")
        done = notifications.wait("the reload ends", since, READY="1")
        seen = [id(message) for message in notifications.seen]
        assert seen.index(id(began)) < seen.index(id(done))
        # systemd compares this time with that of its own request (sd_notify(3)).
        assert before <= int(began["MONOTONIC_USEC"]) / 1e6 <= time.monotonic()
        return done["STATUS"]

    assert reload() == "Ready: memory"
    write(conf, "tll = 60\n")
    assert "refused" in reload()
    write(conf, "ttl = 61\n")
    assert reload() == "Ready: memory"


@with_systemd
def test_a_failed_start_is_told(notifications, start):
    other = start()
    port = other.address[1]
    for argument in (f"--listen=127.0.0.1:{port}", "--ttl=never"):
        subprocess.run([BINARY, argument], stderr=subprocess.DEVNULL, timeout=20, check=False,
                       env=environment({"NOTIFY_SOCKET": notifications.path}))
        status = notifications.status()
        assert status.startswith("Start failed: ") and argument.split("=")[1] in status
    assert notifications.count(READY="1") == 0


@with_systemd
@pytest.mark.parametrize("mode,word", [("local", "Degraded"), ("error", "Unavailable")])
def test_status_follows_the_store(start_notifying, notifications, private_redis, mode, word):
    redis = private_redis()
    daemon = start_notifying(store=redis.url, on_store_failure=mode)
    ready = notifications.wait("breakerd is ready", READY="1")
    assert re.match(rf"Ready: (redis|valkey) [0-9.]+ at \S+:{redis.port}$", ready["STATUS"])
    assert daemon.readyz() == "ready", "READY=1 came before the store could be used"
    redis.kill()
    notifications.wait("the outage is told", STATUS=lambda s: s.startswith(word))
    # A new reason is told, too: first the connection is lost, then connects are refused.
    notifications.wait("the new reason is told",
                       STATUS=lambda s: s.startswith(word) and "refused" in s)
    since = len(notifications.read())
    redis.start()
    notifications.wait("the recovery is told", since, STATUS=lambda s: s.startswith("Ready: "))
    assert notifications.count(READY="1") == 1


@with_systemd
def test_ready_also_when_redis_is_away(start_notifying, notifications):
    """The boot must not wait for a Redis that is away: the embedded store serves."""
    began = time.monotonic()
    start_notifying(store=f"redis://127.0.0.1:{free_port()}")
    ready = notifications.wait("breakerd is ready", READY="1")
    assert time.monotonic() - began < 2
    assert ready["STATUS"].startswith("Degraded") and "refused" in ready["STATUS"]


@with_systemd
def test_watchdog_is_fed_from_the_loop(start_notifying, notifications):
    daemon = start_notifying(env={"WATCHDOG_USEC": "300000"})
    notifications.wait("breakerd is ready", READY="1")
    until(lambda: notifications.count(WATCHDOG="1") >= 4, "the watchdog is fed")
    daemon.signal(signal.SIGSTOP)
    time.sleep(0.05)
    fed = notifications.count(WATCHDOG="1")
    time.sleep(0.4)
    assert notifications.count(WATCHDOG="1") == fed, "the watchdog is fed while the loop stands still"
    daemon.signal(signal.SIGCONT)
    until(lambda: notifications.count(WATCHDOG="1") > fed, "the watchdog is fed again")


@with_systemd
@pytest.mark.parametrize("env", [{}, {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}])
def test_no_watchdog_unless_it_is_asked_for(start_notifying, notifications, env):
    start_notifying(env=env)
    notifications.wait("breakerd is ready", READY="1")
    time.sleep(0.3)
    assert notifications.count(WATCHDOG="1") == 0


# --- sockets that were handed over


@with_systemd
def test_handed_sockets_replace_listen(hand, directory):
    sockets = listening(None, f"{directory}/s")
    other = free_port()
    daemon = hand(sockets, listen=f"127.0.0.1:{other}").wait_started()
    expect(daemon.post(path("a", "failure")), failureCount=1)
    with Wire(f"{directory}/s") as wire:
        expect(wire.ask("POST", path("a", "failure"), body=b""), failureCount=2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", other))
    daemon.stop()
    assert os.path.exists(f"{directory}/s"), "the daemon removed a socket that it had not made"
    for sock in sockets:
        sock.close()


def reachable_socket():
    """A socket that the daemon takes for reachable by other hosts. It is bound to the loopback interface."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
    sock.bind(("0.0.0.0", 0))
    sock.listen()
    return sock


@with_systemd
def test_a_handed_socket_for_other_hosts_needs_a_token(hand, directory):
    sock = reachable_socket()
    daemon = hand([sock])
    daemon.expect_exit(1)
    assert "token_file" in daemon.stderr() and "0.0.0.0:" in daemon.stderr()

    token, conf = f"{directory}/token", f"{directory}/conf"
    write(token, "secret\n")
    write(conf, f"token_file = {token}\n")
    daemon = hand([sock], config=conf).wait_started()
    daemon.address = ("127.0.0.1", sock.getsockname()[1])
    assert daemon.get("/metrics").status == 401
    # A reload cannot take the token away.
    write(conf, "")
    daemon.hangup()
    until(lambda: "reload_refused" in daemon.stderr(), "the reload is refused")
    assert daemon.get("/metrics").status == 401
    daemon.stop()
    sock.close()


@with_systemd
def test_what_is_no_listening_socket_is_refused(hand):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        daemon = hand([sock])
        daemon.expect_exit(1)
        assert "not a listening" in daemon.stderr()


@pytest.mark.skipif(built_with_systemd(), reason="built with libsystemd")
def test_without_libsystemd_handed_sockets_are_refused(hand):
    sockets = listening(None)
    daemon = hand(sockets)
    daemon.expect_exit(1)
    assert "without libsystemd" in daemon.stderr()
    sockets[0].close()


@with_systemd
@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None,
                    reason="no systemd-socket-activate here")
def test_socket_activation(directory):
    """The first connection, to either address, starts the daemon."""
    for first in ("tcp", "unix"):
        port, name = free_port(), f"{directory}/{first}"
        with open(f"{directory}/stderr", "wb+") as log:
            process = subprocess.Popen(
                ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "-l", name, BINARY,
                 "--log-level=debug"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                env=environment())
            try:
                addresses = [("127.0.0.1", port), name]
                # The socket's file is there a moment before it can be connected to.
                until(lambda file=log.name: open(file, "rb").read().count(b"Listening on") == 2,
                      "systemd-socket-activate listens")
                for n, address in enumerate(addresses[::1 if first == "tcp" else -1], 1):
                    with Wire(address) as wire:
                        expect(wire.ask("POST", path("a", "failure"), body=b""), failureCount=n)
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == 0
            finally:
                process.kill()
                process.wait()
            log.seek(0)
            text = log.read().decode()
        assert not any(s in text for s in SANITIZERS), text


# --- a restart under load


class Hammer(threading.Thread):
    """A client that records failures one after another. If a connection that has carried an answer turns out to be
    closed, the client sends the request again on another one. Anything else is an error."""

    def __init__(self, address, stop, keep):
        super().__init__()
        self.address, self.stop, self.keep = address, stop, keep
        self.answered = self.retried = 0
        self.error = None
        self.slowest = 0.0

    def run(self):
        try:
            wire, used = Wire(self.address), False
            while not self.stop.is_set():
                began = time.monotonic()
                try:
                    answer = wire.ask("POST", path("k", "failure"), body=b"")
                except (Closed, BrokenPipeError, ConnectionResetError):
                    if not used or wire.buffer:
                        raise
                    wire.close()
                    wire, used = Wire(self.address), False
                    self.retried += 1
                    continue
                assert answer.status == 200, answer
                self.answered += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
                used = True
                if not self.keep or (answer.header("Connection") or "").lower() == "close":
                    wire.close()
                    wire, used = Wire(self.address), False
            wire.close()
        except Exception as error:  # pylint: disable=broad-except
            self.error = error


@with_systemd
def test_restart_under_load_loses_nothing(hand, directory):
    """No connection is refused, no request fails, and each failure is counted once, across restarts."""
    sockets = listening(None, f"{directory}/s")
    state = f"{directory}/state"
    stop = threading.Event()
    daemon = hand(sockets, state_file=state).wait_started()
    addresses = [sockets[0].getsockname(), f"{directory}/s"]
    hammers = [Hammer(addresses[i % 2], stop, keep=i % 4 < 2) for i in range(8)]
    for hammer in hammers:
        hammer.start()
    try:
        for _ in range(5):
            seen = [h.answered for h in hammers]
            until(lambda seen=seen: all(h.answered > n + 20 or h.error
                                        for h, n in zip(hammers, seen)),
                  "each client has had 20 more answers")
            daemon.signal(signal.SIGTERM)
            daemon.expect_exit(0)
            daemon = hand(sockets, state_file=state)
        daemon.wait_started()
    finally:
        stop.set()
        for hammer in hammers:
            hammer.join()
    assert [h.error for h in hammers if h.error] == []
    count = daemon.get(path("k")).json()["failureCount"]
    assert count == sum(h.answered for h in hammers)
    daemon.stop()
    for sock in sockets:
        sock.close()


def test_a_connection_just_made_is_served_before_the_stop(start):
    """The client's request may be on its way, and the client would not try again."""
    daemon = start()
    with daemon.wire() as wire:
        # The metric's own connection is behind `wire` in the queue: with its answer, `wire` has been accepted.
        until(lambda: daemon.metric("breakerd_http_connections") == 2, "both connections are accepted")
        daemon.signal(signal.SIGTERM)
        until(lambda: "stopping" in daemon.stderr(), "the daemon is stopping")
        wire.send(request_bytes("POST", path("a", "failure"), body=b""))
        answer = wire.receive()
        assert answer.status == 200 and answer.header("Connection").lower() == "close"
    daemon.expect_exit(0)


def write(name, text):
    with open(name, "w", encoding="utf-8") as f:
        f.write(text)
