"""Overrides, on both kinds of store."""

import json
import statistics
import time

import pytest

from contract import expect, path, problem
from gate import Gate
from wait import until

HOSTILE = "</script><img src=x onerror=alert(1)> \"quoted\" \\ \u202e\U0001f525"


def put(daemon, key, mode="forced-open", reason="bad deploy", **more):
    return daemon.request("PUT", path(key, "override"),
                          body=dict(mode=mode, reason=reason, **more))


def acquire(daemon, key):
    return daemon.post(path(key, "acquire")).json()


def test_forced_open_is_obeyed_and_ended(daemon):
    daemon.post(path("k", "failure"))
    before = time.time() * 1000
    answer = put(daemon, "k", seconds=60)
    assert answer.status == 200
    override = answer.json()
    assert set(override) == {"mode", "reason", "since", "until"}
    assert override["mode"] == "forced-open" and override["reason"] == "bad deploy"
    assert override["until"] - override["since"] == 60000
    assert abs(override["since"] - before) < 5000
    assert daemon.get(path("k", "override")).json() == override
    shown = daemon.get(path("k")).json()
    assert shown["state"] == "open" and shown["failureCount"] == 1
    assert abs(shown["lastStateChange"] - time.time() * 1000) < 5000
    decision = acquire(daemon, "k")
    assert decision["allowed"] is False and decision["reason"] == "forced-open"
    assert decision["state"] == "closed" and 0 < decision["retryAfterMs"] <= 60000
    # The circuit underneath goes on, and writes answer with its snapshot.
    expect(daemon.post(path("k", "failure")), state="closed", failureCount=2)
    [item] = daemon.get("/v1/circuits").json()["circuits"]
    assert item["state"] == "closed" and item["override"] == override
    assert daemon.get("/v1/circuits?state=open").json()["circuits"] == []
    assert daemon.request("DELETE", path("k", "override")).status == 204
    assert daemon.request("DELETE", path("k", "override")).status == 204
    problem(daemon.get(path("k", "override")), "no_override")
    expect(daemon.get(path("k")), state="closed", failureCount=2)
    assert acquire(daemon, "k")["allowed"] is True
    assert "override" not in daemon.get("/v1/circuits").json()["circuits"][0]


def test_forced_closed_lets_all_pass(daemon):
    opened = daemon.post(path("k", "transition"), {"to": "open"}).json()
    put(daemon, "k", mode="forced-closed")
    expect(daemon.get(path("k")), state="closed", lastStateChange=opened["lastStateChange"])
    decision = acquire(daemon, "k")
    assert decision["allowed"] is True and decision["reason"] == "forced-closed"
    assert decision["state"] == "open"
    answer = daemon.post(path("k", "report"), {"permit": decision["permit"], "outcome": "failure"})
    assert answer.json() == {"counted": False, "was": "open", "state": "open",
                             "reason": "overridden"}
    # `from` means the circuit underneath.
    expect(daemon.post(path("k", "transition"), {"to": "half-open", "from": "open"}),
           state="half-open")


def test_put_replaces_and_reset_removes(daemon):
    put(daemon, "k", seconds=60)
    second = put(daemon, "k", mode="forced-closed", reason="again", seconds=2592000).json()
    assert daemon.get(path("k", "override")).json() == second
    assert daemon.request("DELETE", path("k")).status == 204
    problem(daemon.get(path("k", "override")), "no_override")
    expect(daemon.get(path("k")), state="closed")


def test_it_ends_by_itself(daemon):
    override = put(daemon, "k", seconds=1).json()
    seen = []

    def over():
        seen.append(time.time() * 1000)
        return daemon.get(path("k", "override")).status == 404

    until(over, "the override has ended")
    assert -50 < seen[-1] - override["until"] < 500
    expect(daemon.get(path("k")), state="closed")


@pytest.mark.parametrize("body", [
    {}, [], {"mode": "forced-open"}, {"reason": "r"}, {"mode": "open", "reason": "r"},
    {"mode": "forced-open", "reason": ""}, {"mode": "forced-open", "reason": "a\nb"},
    {"mode": "forced-open", "reason": "r" * 201}, {"mode": "forced-open", "reason": 1},
    {"mode": "forced-open", "reason": "r", "seconds": 0},
    {"mode": "forced-open", "reason": "r", "seconds": 2592001},
    {"mode": "forced-open", "reason": "r", "seconds": 1.5},
    {"mode": "forced-open", "reason": "r", "seconds": "60"},
    {"mode": "forced-open", "reason": "r", "seconds": None},
    {"mode": "forced-open", "reason": "r", "until": 5},
])
def test_bad_bodies(memory_daemon, body):
    answer = memory_daemon.request("PUT", path("k", "override"), body=body)
    problem(answer, "invalid_body", applied="no")
    assert memory_daemon.get("/v1/circuits").json()["circuits"] == []


def test_a_hostile_reason_and_key_are_text(daemon):
    key = "a\"</td>\\'é"
    assert len(HOSTILE.encode()) <= 200
    put(daemon, key, reason=HOSTILE)
    assert daemon.get(path(key, "override")).json()["reason"] == HOSTILE
    [item] = daemon.get("/v1/circuits").json()["circuits"]
    assert item["key"] == key and item["override"]["reason"] == HOSTILE


def test_the_log_says_who_why_and_until_when(memory_daemon):
    put(memory_daemon, "k", reason="say \"why\"")
    memory_daemon.request("DELETE", path("k", "override"))
    until(lambda: "override_ended" in memory_daemon.stderr(), "the end is logged")
    [line] = [l for l in memory_daemon.stderr().splitlines() if "override_set" in l]
    for part in ("key=", "mode=forced-open", "until=2", "by=127.0.0.1:", "say \\\"why\\\""):
        assert part in line, line


def test_an_overridden_circuit_outlives_its_ttl_and_the_bound(start):
    daemon = start(ttl=1, max_circuits=2)
    put(daemon, "held", seconds=100)
    for n in range(5):
        daemon.post(path(f"n{n}", "failure"))
    until(lambda: daemon.metric("breakerd_expirations_total") > 0, "other circuits expire")
    assert daemon.get(path("held", "override")).status == 200
    expect(daemon.get(path("held")), state="open")


def test_state_file_keeps_it(start, directory):
    file = directory + "/state"
    daemon = start(state_file=file)
    override = put(daemon, "k", seconds=1000).json()
    daemon.stop()
    again = start(state_file=file)
    assert again.get(path("k", "override")).json() == override
    assert acquire(again, "k")["reason"] == "forced-open"


def test_two_daemons_obey_it_within_ten_milliseconds(start_on, redis):
    one, two = start_on("redis"), start_on("redis")
    times = []
    for n in range(20):
        key = f"k{n}"
        acquire(two, key)
        put(one, key)
        began = time.monotonic()
        until(lambda: acquire(two, key)["reason"] == "forced-open", "the other daemon obeys", step=0)
        times.append(time.monotonic() - began)
    assert statistics.median(times) < 0.01
    one.signal(9)
    one.expect_exit(-9)
    assert two.get(path("k0", "override")).status == 200
    del redis


def test_time_to_live_in_redis_is_as_long_as_the_override(redis_daemon, redis):
    put(redis_daemon, "k", seconds=200000)
    for verb in ("failure", "success", "acquire"):
        redis_daemon.post(path("k", verb))
        assert 199000 < redis.call("TTL", "stoma:cb:k") <= 200001, verb
    redis_daemon.request("DELETE", path("k", "override"))
    assert redis.call("TTL", "stoma:cb:k") <= 86400


@pytest.mark.parametrize("mode", ["local", "error"])
def test_while_redis_is_away_none_is_set(start, private_redis, mode):
    server = private_redis()
    daemon = start(store=server.url, on_store_failure=mode, ttl=1000).wait_ready()
    put(daemon, "k")
    assert daemon.get(path("k")).json()["state"] == "open"
    server.kill()
    until(lambda: daemon.readyz() != "ready", "Redis is away")
    for answer in (put(daemon, "k", mode="forced-closed"),
                   daemon.request("DELETE", path("k", "override"))):
        problem(answer, "store_unavailable", applied="no")
    if mode == "local":
        # The override known last stays in force.
        assert daemon.get(path("k")).json()["state"] == "open"
        assert acquire(daemon, "k")["reason"] == "forced-open"
        assert json.loads(daemon.get(path("k", "override")).body)["mode"] == "forced-open"


@pytest.mark.parametrize("what", ["get", "success", "failure", "transition", "override", "fold"])
def test_what_another_daemon_did_to_it_is_remembered_once_it_was_read(start, private_redis, what):
    server = private_redis()
    # With these settings nothing is answered from memory while Redis is there.
    settings = dict(store=server.url, max_staleness=0, report_interval=0)
    one, two = (start(**settings).wait_ready() for _ in range(2))
    put(one, "ended")
    assert two.request("DELETE", path("ended", "override")).status == 204
    put(two, "set")
    for key in ("ended", "set"):
        if what == "get":
            one.get(path(key))
        elif what == "override":
            one.get(path(key, "override"))
        elif what == "fold":
            server.freeze()
            until(lambda: one.get(path("other")) and one.readyz() != "ready", "Redis is away")
            one.post(path(key, "failure"))
            server.thaw()
            until(lambda: one.readyz() == "ready", "Redis is back")
            until(lambda: one.metric("breakerd_folds_pending") == 0, "all steps are folded")
        else:
            one.post(path(key, what), {"to": "closed"} if what == "transition" else None)
    server.kill()
    until(lambda: one.readyz() != "ready", "Redis is away")
    assert acquire(one, "ended")["reason"] == "closed"
    assert acquire(one, "set")["reason"] == "forced-open"
    assert one.get(path("ended", "override")).status == 404
    assert one.get(path("set", "override")).status == 200


def test_a_reset_while_redis_is_away_is_folded_in_whatever_the_override(start, private_redis):
    server = private_redis()
    daemon = start(store=server.url, ttl=60).wait_ready()
    for key, seconds in (("none", 0), ("short", 30), ("long", 3600)):
        daemon.post(path(key, "failure"))
        if seconds:
            put(daemon, key, seconds=seconds)
    server.freeze()
    until(lambda: daemon.get(path("other")) and daemon.readyz() != "ready", "Redis is away")
    for key in ("none", "short", "long"):
        assert daemon.request("DELETE", path(key)).status == 204
    server.thaw()
    until(lambda: daemon.readyz() == "ready", "Redis is back")
    until(lambda: daemon.metric("breakerd_folds_pending") == 0, "the resets are folded")
    assert server.call("KEYS", "*") == []


def test_state_file_keeps_an_override_that_is_longer_than_the_ttl(start, directory):
    file = directory + "/state"
    daemon = start(state_file=file, ttl=1)
    override = put(daemon, "k", seconds=1000).json()
    daemon.post(path("gone", "failure"))
    daemon.stop()
    stopped = time.monotonic()
    until(lambda: time.monotonic() > stopped + 1.1, "the time to live is over")
    again = start(state_file=file, ttl=1)
    assert again.get(path("k", "override")).json() == override
    assert [c["key"] for c in again.get("/v1/circuits").json()["circuits"]] == ["k"]


def test_a_closed_circuit_whose_override_is_over_makes_room(start):
    daemon = start(max_circuits=3)
    for key in ("a", "b"):
        assert put(daemon, key, seconds=1).status == 200
    assert put(daemon, "lasts", seconds=1000).status == 200
    problem(daemon.post(path("c", "failure")), "store_full", applied="no")
    until(lambda: daemon.get(path("b", "override")).status == 404, "the overrides have ended")
    for key in ("c", "d"):
        expect(daemon.post(path(key, "failure")), failureCount=1)
    keys = {c["key"] for c in daemon.get("/v1/circuits").json()["circuits"]}
    assert keys == {"c", "d", "lasts"}


def test_a_reset_that_has_no_room_while_redis_is_away_leaves_the_override(start, redis):
    gate = Gate(redis.address).open()
    daemon = start(store=gate.url, max_circuits=3).wait_ready()
    assert put(daemon, "k").status == 200
    gate.shut()
    until(lambda: daemon.readyz() == "degraded", "Redis is away")
    for key in ("a", "b", "c"):
        assert daemon.post(path(key, "success")).status == 200
    problem(daemon.delete(path("k")), "store_full", applied="no")
    problem(daemon.post(path("k", "failure")), "store_full", applied="no")
    assert acquire(daemon, "k")["reason"] == "forced-open"
