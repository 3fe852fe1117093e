"""breakerd --check-ready: a probe for containers without a shell."""

import os
import socket
import threading
import time

import pytest

from breakerd import run
from ports import free_port


def where(daemon):
    return f"unix:{daemon.address}" if isinstance(daemon.address, str) else daemon.host


def ready(*args, env=None):
    """True if the status is 0 and nothing is printed; otherwise the one line on stderr."""
    began = time.monotonic()
    done = run(*args, env=env)
    assert time.monotonic() - began < 5
    assert done.stdout == ""
    if done.returncode == 0:
        assert done.stderr == ""
        return True
    assert done.returncode == 1, done
    assert done.stderr.startswith("breakerd: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("listen", ["tcp", "unix", "ipv6"])
def test_where_the_settings_say_and_at_an_address(start, directory, listen):
    address = {"tcp": f"127.0.0.1:{free_port()}", "ipv6": f"[::1]:{free_port()}",
               "unix": f"unix:{directory}/s"}[listen]
    start(listen=address)
    assert ready("--check-ready", f"--listen={address}") is True
    assert ready("--check-ready", env={"BREAKERD_LISTEN": address}) is True
    assert ready(f"--check-ready={address}") is True
    with open(f"{directory}/conf", "w", encoding="ascii") as conf:
        conf.write(f"listen = {address}\ntoken_file = /nonexistent\n")
    assert ready("--check-ready", f"--config={directory}/conf") is True


LATER = {  # the file's content after a change, while the daemon runs
    "unknown-setting": "listen = {a}\nmetrics_listen = {m}\nmax_circuit = 5\n",
    "wrong-value-before": "ttl = 0\nlisten = {a}\n[policy x\n",
    "no-setting": "listen\nlisten : {a}\n listen = {other}\nlisten = {a}\n",
    "in-a-policy": "listen = {a}\n[policy p]\nlisten = {other}\n",
    "listen-moved": "listen = {other}\nmetrics_listen = {m}\n",
    "listen-wrong": "listen = nonsense\nmetrics_listen = {m}\n",
    "gone": None,
    "nul": "\0\nlisten = {a}\n\0\n",
    "byte-order-mark": "\ufefflisten = {a}\nnonsense\n",
    "white-space-in-a-long-value": "prefix = x" + " " * 300 + "y\nlisten = {a}\n",
    "behind-a-policy": "[policy p]\nlisten = {other}\nnonsense\n[breakerd]\nlisten = {a}\n",
    "directory": "",
}


@pytest.mark.parametrize("how", LATER)
def test_a_file_that_the_running_daemon_has_refused(start, directory, how):
    """The probe asks the running daemon; the changed file's errors do not matter while it answers."""
    conf = f"{directory}/conf"
    named = {"a": f"unix:{directory}/s", "other": f"unix:{directory}/other", "m": f"127.0.0.1:{free_port()}"}
    good = "listen = {a}\nmetrics_listen = {m}\n".format(**named)
    with open(conf, "w", encoding="ascii") as file:
        file.write(good)
    daemon = start("--config", conf, listen=named["a"])
    assert ready("--check-ready", f"--config={conf}") is True
    os.unlink(conf)
    if how == "directory":
        os.mkdir(conf)
    elif LATER[how] is not None:
        with open(conf, "w", encoding="utf-8") as file:
            file.write(LATER[how].format(**named))
    daemon.hangup()
    if how not in ("gone", "directory"):
        assert ready("--check-ready", f"--config={conf}") is True
    else:
        assert conf in ready("--check-ready", f"--config={conf}"), "no setting says where the daemon listens"
    assert ready("--check-ready", env={"BREAKERD_CONFIG": conf, "BREAKERD_LISTEN": named["a"]}) is True
    assert ready(f"--check-ready={named['a']}", env={"BREAKERD_CONFIG": conf}) is True
    daemon.stop()
    line = ready("--check-ready", f"--config={conf}")
    if how != "listen-moved":
        assert f"{conf}:" in line, f"nobody answers, but the file's error is not told: {line}"


@pytest.mark.parametrize("any_address", ["0.0.0.0", "[::]"])
def test_an_address_of_all_interfaces_is_asked_on_loopback(start, directory, any_address):
    """The probe sends no token, which such an address requires."""
    with open(f"{directory}/token", "w", encoding="ascii") as token:
        token.write("secret")
    port = free_port()
    host = "127.0.0.1" if any_address == "0.0.0.0" else "[::1]"
    start(listen=f"{host}:{port}", token_file=f"{directory}/token")
    assert ready("--check-ready", f"--listen={any_address}:{port}") is True


def test_of_several_addresses_the_first_that_accepts(start, directory):
    start(listen=f"unix:{directory}/s")
    assert ready("--check-ready", f"--listen=127.0.0.1:{free_port()}",
                 f"--listen=unix:{directory}/s") is True
    line = ready("--check-ready", f"--listen=unix:{directory}/none")
    assert "none" in line and "No such file" in line


def test_redis_away(start):
    port = free_port()
    local = start(store=f"redis://127.0.0.1:{port}")
    error = start(store=f"redis://127.0.0.1:{port}", on_store_failure="error")
    assert ready(f"--check-ready={where(local)}") is True, "a degraded daemon counts as not ready"
    line = ready(f"--check-ready={where(error)}")
    assert "unavailable" in line and "refused" in line, line


def test_nobody_there_and_what_is_no_address():
    assert "refused" in ready(f"--check-ready=127.0.0.1:{free_port()}")
    for address in ("", "8747", "unix:x", "localhost", "127.0.0.1:1\nx", "unix:/" + "x" * 200):
        ready(f"--check-ready={address}")
    ready("--check-ready", "--ttl=0")
    assert run("--check-ready", "stray").returncode == 2


ANSWERS = {
    "nothing": b"",
    "no-http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "another-status": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "2000": b"HTTP/1.1 2000 OK\r\n\r\n",
    "controls": b"HTTP/1.1 503 \x1b[2J\r\n\r\n{\"status\":\"a\\u000ab\",\"reason\":\"c\\u000ad\"}",
    "long": b"HTTP/1.1 503 No\r\n" + b"x" * 100000,
}


@pytest.fixture
def impostor():
    """impostor(data): an address where one connection gets these bytes and is closed; for None it gets nothing
    and stays open."""
    listener = socket.create_server(("127.0.0.1", 0))
    kept = []

    def serve(data):
        def go():
            connection, _ = listener.accept()
            kept.append(connection)
            if data is not None:
                connection.recv(1000)
                try:
                    connection.sendall(data)
                except OSError:
                    pass
                connection.close()
        threading.Thread(target=go, daemon=True).start()
        return "127.0.0.1:%d" % listener.getsockname()[1]

    yield serve
    for connection in kept:
        connection.close()
    listener.close()


@pytest.mark.parametrize("data", ANSWERS.values(), ids=ANSWERS)
def test_what_is_no_answer_of_breakerd(impostor, data):
    line = ready(f"--check-ready={impostor(data)}")
    assert line.isprintable() or line[:-1].isprintable(), line


def test_no_answer_within_two_seconds(impostor):
    began = time.monotonic()
    assert "within 2 s" in ready(f"--check-ready={impostor(None)}")
    assert 1.5 < time.monotonic() - began < 4


def test_a_daemon_that_stands_still(start):
    daemon = start()
    os.kill(daemon.process.pid, 19)
    try:
        assert "within 2 s" in ready(f"--check-ready={where(daemon)}")
    finally:
        os.kill(daemon.process.pid, 18)
    assert ready(f"--check-ready={where(daemon)}") is True
