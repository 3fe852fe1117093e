"""The embedded store: time to live, and what happens when it is full."""

import time

import pytest

from chaos import SANITIZED
from contract import expect, path, problem
from decisions import acquire
from test_outage import faketime
from wait import until


def listed(daemon):
    return sorted(c["key"] for c in daemon.get("/v1/circuits").json()["circuits"])


@pytest.mark.slow
def test_circuits_expire(start):
    daemon = start(ttl=1)
    daemon.post(path("a", "failure"))
    daemon.post(path("open", "transition"), {"to": "open"})
    written = time.monotonic()
    expect(daemon.get(path("a")), failureCount=1)
    until(lambda: daemon.get(path("a")).json()["failureCount"] == 0, "the circuit expires", deadline=4)
    assert time.monotonic() - written > 0.9
    until(lambda: listed(daemon) == [], "the open circuit expires too", deadline=2)
    until(lambda: daemon.metric("breakerd_circuits", state="open") == 0, "expired circuits are not counted")
    expect(daemon.post(path("a", "failure")), failureCount=1)


@pytest.mark.slow
def test_writes_renew_and_reads_do_not(start):
    daemon = start(ttl=2)
    daemon.post(path("written", "failure"))
    daemon.post(path("read", "failure"))
    began = time.monotonic()

    def read_is_gone():
        daemon.post(path("written", "failure"))
        daemon.post(path("read", "transition"), {"to": "open", "from": "open"})  # refused
        return daemon.get(path("read")).json()["failureCount"] == 0

    until(read_is_gone, "the circuit that is only read expires", deadline=6, step=0.1)
    assert time.monotonic() - began > 1.9
    assert daemon.get(path("written")).json()["failureCount"] > 5


def test_the_least_recently_written_closed_circuit_makes_room(start):
    daemon = start(max_circuits=4)
    for key in "abcd":
        daemon.post(path(key, "failure"))
    daemon.post(path("a", "success"))  # now b is the oldest
    daemon.get(path("b"))              # a read is no write
    daemon.post(path("b", "transition"), {"to": "open", "from": "half-open"})  # nor is a refused transition
    expect(daemon.post(path("e", "failure")), failureCount=1)
    assert listed(daemon) == ["a", "c", "d", "e"]
    daemon.post(path("c", "transition"), {"to": "open"})
    daemon.post(path("f", "failure"))
    daemon.post(path("g", "failure"))
    assert listed(daemon) == ["c", "e", "f", "g"]
    assert daemon.metric("breakerd_evictions_total") == 3


def test_open_circuits_are_never_dropped(start):
    daemon = start(max_circuits=3)
    daemon.post(path("open", "transition"), {"to": "open"})
    daemon.post(path("half", "transition"), {"to": "half-open"})
    for n in range(20):
        expect(daemon.post(path(f"closed-{n}", "failure")), failureCount=1)
    assert listed(daemon) == ["closed-19", "half", "open"]
    expect(daemon.get(path("open")), state="open")
    expect(daemon.get(path("half")), state="half-open")


def test_store_full(start):
    daemon = start(max_circuits=2)
    daemon.post(path("x", "transition"), {"to": "open"})
    daemon.post(path("y", "transition"), {"to": "half-open"})
    for verb, body in (("failure", b""), ("success", b""), ("transition", {"to": "open"})):
        problem(daemon.post(path("new", verb), body), "store_full", "no")
    # Operations that add no circuit still work.
    expect(daemon.get(path("new")), failureCount=0)
    assert daemon.delete(path("new")).status == 204
    problem(daemon.post(path("new", "transition"), {"to": "open", "from": "open"}),
            "state_conflict", "no")
    expect(daemon.post(path("x", "failure")), failureCount=1)
    assert listed(daemon) == ["x", "y"]
    # A reset makes room, and so does a circuit that is closed.
    assert daemon.delete(path("x")).status == 204
    expect(daemon.post(path("new", "failure")), failureCount=1)
    expect(daemon.post(path("newer", "failure")), failureCount=1)
    assert listed(daemon) == ["newer", "y"]
    assert daemon.metric("breakerd_store_operations_total", operation="record_failure",
                         result="full") == 1


def test_memory_is_not_shared_and_not_kept(start):
    one, two = start(), start()
    one.post(path("a", "failure"))
    expect(two.get(path("a")), failureCount=0)


@pytest.mark.skipif(not faketime(), reason="needs Debian's package libfaketime")
@pytest.mark.skipif(SANITIZED, reason="ASan must be the first library, and so must faketime")
def test_a_clock_that_is_set_back_keeps_no_circuit_open(start, tmp_path):
    """The clock is set back twice by less than a minute: an opening lasts no longer for it. A clock that is set ahead
    is followed."""
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    env = {"LD_PRELOAD": faketime(), "FAKETIME_TIMESTAMP_FILE": str(clock),
           "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}
    daemon = start(env=env, open_time="1s")
    for back in ("-50", "-25", "-55"):
        daemon.post(path("k", "transition"), {"to": "open"})
        assert not acquire(daemon, "k")["allowed"]
        clock.write_text(back + "\n")
        until(lambda: acquire(daemon, "k")["allowed"], "the opening is over")
        daemon.delete(path("k"))
    opened = daemon.post(path("k", "transition"), {"to": "open"}).json()["lastStateChange"]
    clock.write_text("+3600\n")
    assert acquire(daemon, "k")["allowed"]
    assert daemon.post(path("k", "transition"), {"to": "open"}).json()["lastStateChange"] \
        > opened + 3600 * 1000 - 1000
