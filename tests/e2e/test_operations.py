"""The five operations."""

import itertools
import time

import pytest

from contract import STATES, expect, path, problem, snapshot
from redis_clock import RedisClock


@pytest.fixture
def now(daemon, store, request):
    """The store's clock in milliseconds: on Redis, the server's."""
    del daemon
    if store == "redis":
        redis = request.getfixturevalue("redis").client()
        request.addfinalizer(redis.close)
        return redis.now_ms
    return lambda: time.time_ns() // 1_000_000


def test_get_does_not_create(daemon, now):
    before = now()
    got = expect(daemon.get(path("a")), state="closed", failureCount=0, successCount=0,
                 lastFailureTime=0)
    assert before <= got["lastStateChange"] <= now()
    assert daemon.get("/v1/circuits").json() == {"circuits": [], "cursor": None}
    later = snapshot(daemon.get(path("a")))
    assert later["lastStateChange"] >= got["lastStateChange"]


def test_record_success(daemon, now):
    before = now()
    first = expect(daemon.post(path("a", "success")), state="closed", failureCount=0,
                   successCount=1, lastFailureTime=0)
    assert before <= first["lastStateChange"] <= now()
    second = snapshot(daemon.post(path("a", "success")))
    assert second == dict(first, successCount=2)
    assert snapshot(daemon.get(path("a"))) == second


def test_record_failure(daemon, now):
    before = now()
    first = expect(daemon.post(path("a", "failure")), state="closed", failureCount=1,
                   successCount=0)
    assert before <= first["lastFailureTime"] <= now()
    assert before <= first["lastStateChange"] <= now()
    between = now()
    second = snapshot(daemon.post(path("a", "failure")))
    assert between <= second["lastFailureTime"] <= now()
    assert second == dict(first, failureCount=2, lastFailureTime=second["lastFailureTime"])
    assert snapshot(daemon.get(path("a"))) == second


def prepare(daemon, key, state):
    """A circuit in `state` with both counts set."""
    daemon.post(path(key, "transition"), {"to": state})
    daemon.post(path(key, "failure"))
    daemon.post(path(key, "failure"))
    return snapshot(daemon.post(path(key, "success")))


@pytest.mark.parametrize("start_state,to", itertools.product(STATES, STATES))
def test_transition_from_any_state_to_any(daemon, now, start_state, to):
    was = prepare(daemon, "a", start_state)
    assert (was["state"], was["failureCount"], was["successCount"]) == (start_state, 2, 1)
    before = now()
    got = expect(daemon.post(path("a", "transition"), {"to": to}), state=to,
                 failureCount=0 if to == "closed" else 2,
                 successCount=1 if to == "open" else 0,
                 lastFailureTime=was["lastFailureTime"])
    assert before <= got["lastStateChange"] <= now()
    assert snapshot(daemon.get(path("a"))) == got


@pytest.mark.parametrize("to", STATES)
def test_transition_creates(daemon, to):
    expect(daemon.post(path("a", "transition"), {"to": to}), state=to, failureCount=0,
           successCount=0, lastFailureTime=0)
    listed = daemon.get("/v1/circuits").json()["circuits"]
    assert [c["key"] for c in listed] == ["a"]


@pytest.mark.parametrize("actual,expected,to", itertools.product(STATES, STATES, STATES))
def test_transition_with_from(daemon, actual, expected, to):
    was = prepare(daemon, "a", actual)
    answer = daemon.post(path("a", "transition"), {"to": to, "from": expected})
    if actual == expected:
        expect(answer, state=to, failureCount=0 if to == "closed" else 2)
    else:
        document = problem(answer, "state_conflict", "no")
        assert document["circuit"] == was
        assert snapshot(daemon.get(path("a"))) == was


def test_from_closed_holds_for_a_circuit_that_does_not_exist(daemon, now):
    before = now()
    document = problem(daemon.post(path("a", "transition"), {"to": "closed", "from": "open"}),
                       "state_conflict", "no")
    assert document["circuit"]["state"] == "closed"
    assert before <= document["circuit"]["lastStateChange"] <= now()
    assert daemon.get("/v1/circuits").json()["circuits"] == [], "a refused transition creates the circuit"
    expect(daemon.post(path("a", "transition"), {"to": "open", "from": "closed"}), state="open")


def test_reset(daemon):
    prepare(daemon, "a", "open")
    prepare(daemon, "b", "open")
    assert daemon.delete(path("a")).status == 204
    expect(daemon.get(path("a")), state="closed", failureCount=0, successCount=0,
           lastFailureTime=0)
    expect(daemon.get(path("b")), state="open", failureCount=2)
    assert [c["key"] for c in daemon.get("/v1/circuits").json()["circuits"]] == ["b"]


def test_life_of_a_circuit(daemon):
    for n in range(1, 6):
        expect(daemon.post(path("a", "failure")), failureCount=n, state="closed")
    expect(daemon.post(path("a", "transition"), {"to": "open", "from": "closed"}), failureCount=5)
    expect(daemon.post(path("a", "transition"), {"to": "half-open", "from": "open"}),
           failureCount=5, successCount=0)
    expect(daemon.post(path("a", "success")), successCount=1, failureCount=5)
    expect(daemon.post(path("a", "success")), successCount=2, state="half-open")
    last = expect(daemon.post(path("a", "transition"), {"to": "closed", "from": "half-open"}),
                  failureCount=0, successCount=0)
    assert last["lastFailureTime"] > 0


@pytest.mark.parametrize("body", [b"", b"x", b"{not json", b"\x00\xff", b"a" * 65536])
def test_other_operations_ignore_their_body(daemon, body):
    for n in (1, 2):
        expect(daemon.post(path("a", "failure"), body), failureCount=n)
        expect(daemon.post(path("a", "success"), body), successCount=n)
    expect(daemon.get(path("a"), body=body), failureCount=2)
    assert daemon.delete(path("a"), body=body).status == 204


@pytest.mark.parametrize("verb,member", [("failure", "failureCount"), ("success", "successCount")])
def test_counters_stop_at_the_largest_safe_integer(redis, redis_daemon, verb, member):
    top = 2**53 - 1
    redis.call("SET", "stoma:cb:a", '{"state":"closed","failureCount":%d,"successCount":%d,'
               '"lastFailureTime":0,"lastStateChange":0}' % (top - 1, top - 1))
    for _ in range(3):
        expect(redis_daemon.post(path("a", verb)), **{member: top})
    assert str(top) in redis.call("GET", "stoma:cb:a").decode()


def test_now_is_the_time_of_redis(directory, private_redis, start):
    """All stamps come from the clock of the redis-server, which is an hour ahead here."""
    redis = private_redis(env=RedisClock(directory, ahead=3600).env)
    with redis.client() as client:
        assert client.now_ms() > time.time() * 1000 + 3_000_000, "the clock is not skewed"
        daemon = start(store=redis.url).wait_ready()
        for answer, member in [
                (daemon.get(path("a")), "lastStateChange"),
                (daemon.post(path("a", "failure")), "lastFailureTime"),
                (daemon.post(path("b", "success")), "lastStateChange"),
                (daemon.post(path("a", "transition"), {"to": "open"}), "lastStateChange")]:
            assert abs(snapshot(answer)[member] - client.now_ms()) < 5000
