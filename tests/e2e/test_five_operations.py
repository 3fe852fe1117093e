"""docs/clients/five-operations, the algorithm for gateways with a policy of their own, against the real daemon."""

import logging
import os
import signal
import sys
import threading
import time

import pytest

from breakerd import ROOT
from contract import KEYS, path, snapshot
from ports import free_port
from wait import until

sys.path.insert(0, os.path.join(ROOT, "docs", "clients", "five-operations"))
# pylint: disable=wrong-import-position
from breaker import CLOSED, HALF_OPEN, OPEN, UNKNOWN, Breaker  # noqa: E402

OPEN_SECONDS = 0.5
# Real gateways that share a circuit have the same open time. Here some have a long one and some none, so that no
# assertion depends on the machine's speed.
PATIENT, EAGER = {"open_seconds": 60}, {"open_seconds": 0}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")


def gateway(to, key, threshold=3, open_seconds=OPEN_SECONDS, timeout=9.0, **kw):
    url = to if isinstance(to, str) else "http://%s:%d" % to.address
    return Breaker(url, key, threshold, open_seconds, timeout, **kw)


def request(breaker, ok):
    permit = breaker.enter()
    if permit != OPEN:
        breaker.leave(permit, ok)
    return permit


def state(daemon, key):
    return snapshot(daemon.get(path(key)))


def test_life_of_a_circuit(memory_daemon, caplog):
    gateways = [gateway(memory_daemon, "orders", **PATIENT), gateway(memory_daemon, "orders", **PATIENT)]
    assert [request(g, True) for g in gateways] == [CLOSED, CLOSED]
    assert state(memory_daemon, "orders")["successCount"] == 2
    # The failures of both gateways count, and both are refused afterwards.
    assert [request(gateways[n % 2], False) for n in range(3)] == [CLOSED] * 3
    assert state(memory_daemon, "orders")["state"] == "open"
    assert [g.enter() for g in gateways] == [OPEN, OPEN]
    # One gateway probes. Its first probe fails, its second succeeds.
    eager = gateway(memory_daemon, "orders", **EAGER)
    for ok, after in ((False, "open"), (True, "closed")):
        assert eager.enter() == HALF_OPEN
        assert [g.enter() for g in gateways] == [OPEN, OPEN]
        eager.leave(HALF_OPEN, ok)
        assert state(memory_daemon, "orders")["state"] == after
    assert state(memory_daemon, "orders")["failureCount"] == 0
    assert [request(g, True) for g in gateways] == [CLOSED, CLOSED]
    assert not caplog.records


def test_one_of_many_probes(memory_daemon):
    gateways = [gateway(memory_daemon, "a") for _ in range(3)]
    assert [g.enter() for g in gateways] == [CLOSED] * 3
    since = snapshot(memory_daemon.post(path("a", "transition"), {"to": "open"}))["lastStateChange"]
    until(lambda: time.time() > since / 1000 + OPEN_SECONDS, "the open time is over")
    permits = []
    threads = [threading.Thread(target=lambda g=g: permits.append(g.enter())) for g in gateways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(permits) == [HALF_OPEN, OPEN, OPEN]


def test_a_late_failure_moves_nothing(memory_daemon, caplog):
    one = gateway(memory_daemon, "a", threshold=1)
    assert one.enter() == CLOSED
    opened = snapshot(memory_daemon.post(path("a", "transition"), {"to": "open"}))
    one.leave(CLOSED, False)
    assert state(memory_daemon, "a") == {**opened, "failureCount": 1,
                                         "lastFailureTime": state(memory_daemon, "a")["lastFailureTime"]}
    assert not caplog.records


def test_a_probe_that_never_came_back(memory_daemon):
    patient, eager = gateway(memory_daemon, "a", **PATIENT), gateway(memory_daemon, "a", **EAGER)
    memory_daemon.post(path("a", "transition"), {"to": "half-open"})
    assert patient.enter() == OPEN
    assert state(memory_daemon, "a")["state"] == "half-open"
    assert eager.enter() == OPEN
    assert state(memory_daemon, "a")["state"] == "open"
    assert request(eager, True) == HALF_OPEN
    assert state(memory_daemon, "a")["state"] == "closed"


@pytest.mark.parametrize("kind", ["gone", "frozen", "away", "token"])
def test_fails_open(start, directory, kind, caplog):
    """Whatever is wrong with breakerd, requests pass, and soon."""
    if kind == "away":
        daemon = start(store=f"redis://127.0.0.1:{free_port()}", on_store_failure="error")
    elif kind == "token":
        with open(f"{directory}/token", "w", encoding="ascii") as file:
            file.write("t0ken\n")
        daemon = start(token_file=f"{directory}/token")
        assert gateway(daemon, "a", token="t0ken").enter() == CLOSED
    else:
        daemon = start()
    one = gateway(daemon, "a", token="wrong", timeout=0.3)
    if kind in ("gone", "frozen"):
        until(lambda: one.enter() == CLOSED, "breakerd answers")
    if kind == "gone":
        daemon.stop()
    if kind == "frozen":
        daemon.signal(signal.SIGSTOP)
    caplog.set_level(logging.WARNING)
    try:
        began = time.monotonic()
        assert one.enter() == UNKNOWN
        one.leave(UNKNOWN, False)
        one.leave(CLOSED, False)
        assert time.monotonic() - began < 2 * 0.3 + 2.5
        assert caplog.records
    finally:
        if kind == "frozen":
            daemon.signal(signal.SIGCONT)
    if kind == "frozen":
        until(lambda: one.enter() == CLOSED, "breakerd answers again")


def test_a_restart_of_breakerd(start, caplog):
    """The restart ends the kept connection, but no request is lost."""
    port = free_port()
    daemon = start(listen=f"127.0.0.1:{port}")
    one = gateway(f"http://127.0.0.1:{port}", "a")
    assert request(one, False) == CLOSED
    daemon.stop()
    daemon = start(listen=f"127.0.0.1:{port}")
    assert request(one, False) == CLOSED
    assert state(daemon, "a")["failureCount"] == 1
    assert not caplog.records


def test_keys(memory_daemon):
    keys = list(KEYS.values())
    for key in keys:
        assert request(gateway(memory_daemon, key), False) == CLOSED
    listed = memory_daemon.get("/v1/circuits").json()["circuits"]
    assert sorted(c["key"] for c in listed) == sorted(keys)
    assert all(c["failureCount"] == 1 for c in listed)


def test_the_file_is_short():
    with open(os.path.join(ROOT, "docs/clients/five-operations/breaker.py"), encoding="utf-8") as file:
        assert len(file.readlines()) < 100
