"""A stop, clean or not, while steps wait for Redis: state_file keeps the steps, and the next start folds each once."""

import json
import os
import signal
import time

import pytest

from contract import expect, path
from gate import Gate, LossyGate
from wait import until

# A save is due 5 s after the first change since the last one.
SAVED_WITHIN = 12


@pytest.fixture
def state(directory):
    os.mkdir(os.path.join(directory, "state"))
    return os.path.join(directory, "state", "s")


def stored(redis, key="k"):
    value = redis.call("GET", f"stoma:cb:{key}")
    return value and json.loads(value)


def folded(daemon):
    until(lambda: daemon.metric("breakerd_folds_pending") == 0, "all steps are folded", 30)


def saved(daemon, times=1):
    until(lambda: daemon.metric("breakerd_state_saves_total") >= times, "the state file is saved",
          deadline=SAVED_WITHIN, step=0.02)


def end(daemon, how):
    if how == "SIGTERM":
        daemon.stop()
    else:
        daemon.process.kill()
        daemon.expect_exit(-signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_a_stop_while_redis_is_away(private_redis, start, state, how):
    redis = private_redis()
    redis.call("SET", "stoma:cb:open", '{"state":"open","failureCount":7,"successCount":0,'
                                       '"lastFailureTime":5,"lastStateChange":6}')
    gate = Gate(redis.address).open()
    daemon = start(store=gate.url, state_file=state).wait_ready()
    expect(daemon.get(path("open")), state="open")
    gate.shut()
    until(lambda: daemon.readyz() == "degraded", "the daemon notices the loss")
    for _ in range(7):
        assert daemon.post(path("k", "failure")).status == 200
    assert daemon.post(path("k", "transition"), {"to": "open"}).status == 200
    assert daemon.delete(path("open")).status == 204
    if how == "SIGKILL":
        saved(daemon)
    end(daemon, how)
    if how == "SIGTERM":
        text = daemon.stderr()
        assert "folds_kept circuits=2 operations=9" in text
        assert text.index("folds_kept") < text.index(" stopped ")
    # The next start knows the steps, still without Redis, and adds another failure.
    daemon = start(store=gate.url, state_file=state)
    expect(daemon.get(path("k")), state="open", failureCount=7)
    expect(daemon.get(path("open")), state="closed", failureCount=0)
    assert daemon.metric("breakerd_folds_pending") == 2
    expect(daemon.post(path("k", "failure")), failureCount=8)
    gate.open()
    daemon.wait_ready()
    folded(daemon)
    got = stored(redis)
    assert (got["state"], got["failureCount"]) == ("open", 8)
    assert stored(redis, "open") is None
    assert daemon.metric("breakerd_folded_operations_total") == 10
    # The steps are folded once: the next daemon has none, although this one is killed.
    saves = daemon.metric("breakerd_state_saves_total")
    saved(daemon, saves)
    until(lambda: b"\nend 0 " in open(state, "rb").read(), "the file has no steps any more")
    end(daemon, "SIGKILL")
    daemon = start(store=gate.url, state_file=state).wait_ready()
    assert daemon.metric("breakerd_folds_pending") == 0
    expect(daemon.get(path("k")), failureCount=8)
    gate.shut()


@pytest.mark.slow
@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_a_stop_amid_the_folding(private_redis, start, state, taken, how):
    """The step is on its way when the daemon ends, and Redis has taken it or not. It is folded once."""
    redis = private_redis()
    gate = LossyGate(redis.address).open()
    daemon = start(store=gate.url, state_file=state).wait_ready()
    expect(daemon.post(path("k", "success")), successCount=1)
    gate.shut()
    until(lambda: daemon.readyz() == "degraded", "the daemon notices the loss")
    for _ in range(7):
        assert daemon.post(path("k", "failure")).status == 200
    saved(daemon)
    gate.lose("hold" if taken else "swallow").open()
    until(lambda: gate.lost == 1, "the step is on its way")
    if taken:
        until(lambda: stored(redis)["failureCount"] == 7, "Redis has taken the step")
    end(daemon, how)
    gate.shut()
    gate.lose("hold", 0).open()
    daemon = start(store=gate.url, state_file=state).wait_ready()
    folded(daemon)
    assert stored(redis)["failureCount"] == 7
    assert stored(redis)["successCount"] == 1
    assert daemon.metric("breakerd_folded_operations_lost_total") == 0
    assert daemon.metric("breakerd_folded_operations_total") == 7
    gate.shut()


@pytest.mark.parametrize("others", [False, True])
def test_a_crash_as_the_folding_begins(private_redis, start, state, others):
    """A daemon that never saw the circuits in Redis is killed while the first steps are on their way. Only for these it
    is unknown whether Redis has taken them. All others are folded, once."""
    redis = private_redis()
    gate = LossyGate(redis.address)
    keys = [f"k{n}" for n in range(300)]
    daemon = start(store=gate.url, state_file=state)
    for key in keys:
        assert daemon.post(path(key, "failure")).status == 200
        if others:
            redis.call("SET", f"stoma:cb:{key}", '{"state":"closed","failureCount":4,"successCount":0,'
                                                 '"lastFailureTime":5,"lastStateChange":6}')
    daemon.stop()
    gate.lose("swallow", len(keys)).open()
    daemon = start(store=gate.url, state_file=state)
    until(lambda: gate.lost > 0, "the first steps are on their way")
    end(daemon, "SIGKILL")
    gate.shut()
    gate.lose("hold", 0).open()
    daemon = start(store=gate.url, state_file=state).wait_ready()
    folded(daemon)
    counts = [(stored(redis, key) or {"failureCount": 0})["failureCount"] for key in keys]
    once = 5 if others else 1
    assert set(counts) <= {once - 1, once}
    assert counts.count(once) >= len(keys) - 64
    assert daemon.metric("breakerd_folded_operations_lost_total") == counts.count(once - 1)
    gate.shut()


def test_without_a_state_file_it_is_said(private_redis, start):
    redis = private_redis()
    gate = Gate(redis.address)
    daemon = start(store=gate.url)
    for _ in range(3):
        daemon.post(path("k", "failure"))
    daemon.post(path("l", "success"))
    daemon.stop()
    text = daemon.stderr()
    assert "folds_dropped circuits=2 operations=4" in text
    assert text.index("folds_dropped") < text.index(" stopped ")


def test_the_file_of_a_memory_store_is_set_aside(private_redis, start, state):
    daemon = start(state_file=state)
    daemon.post(path("k", "failure"))
    daemon.stop()
    redis = private_redis()
    daemon = start(store=redis.url, state_file=state).wait_ready()
    expect(daemon.get(path("k")), failureCount=0)
    assert "state_of_memory" in daemon.stderr()
    assert os.path.exists(state + ".embedded")
    daemon.stop()
    # And back: the embedded store drops steps for Redis, and the log tells it.
    gate = Gate(redis.address)
    daemon = start(store=gate.url, state_file=state)
    daemon.post(path("l", "failure"))
    daemon.stop()
    daemon = start(state_file=state)
    expect(daemon.get(path("l")), failureCount=1)
    assert "steps_dropped" in daemon.stderr()


def test_live_traffic_goes_on_while_the_file_is_written(private_redis, start, state):
    """Folding waits for the state file to be written. Requests meanwhile wait for store_timeout at most."""
    redis = private_redis()
    gate = Gate(redis.address)
    daemon = start(store=gate.url, state_file=state)
    for n in range(500):
        daemon.post(path(f"k{n}", "failure"))
    gate.open()
    daemon.wait_ready()
    began = time.monotonic()
    expect(daemon.post(path("k499", "failure")), failureCount=2)
    expect(daemon.post(path("other", "failure")), failureCount=1)
    assert time.monotonic() - began < 2
    folded(daemon)
    assert stored(redis, "k499")["failureCount"] == 2
    gate.shut()
