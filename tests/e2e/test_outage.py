"""on_store_failure = local: operations made while Redis was away are folded into it when it is back.

The daemon reaches Redis through a gate. While the gate is shut, others still reach Redis.
"""

import functools
import glob
import json
import time
from collections import Counter

import pytest

from chaos import FULL, SANITIZED, full, process_seconds
from contract import expect, path, problem, snapshot
from decisions import acquire
from gate import Gate
from load import hammer
from redis_server import RedisError
from sse import Stream
from storm import Storm
from wait import until
from wire import request_bytes

# Seconds by which a stamp may be wrong. The daemon measures the offset to Redis's clock over a round trip: to some
# milliseconds, or less well where the gate waits for a processor.
APART = 0.5


def force(daemon, key):
    body = {"mode": "forced-open", "reason": "why", "seconds": 3600}
    assert daemon.request("PUT", path(key, "override"), body=body).status == 200


class Site:
    """One Redis, the daemon `a` behind the gate, and the daemon `b` connected directly."""

    def __init__(self, redis, start, **settings):
        self.redis = redis
        self.gate = Gate(redis.address).open()
        self.a = start(store=self.gate.url, **settings).wait_ready()
        self.b = start(store=redis.url).wait_ready()

    def cut(self):
        self.gate.shut()
        until(lambda: self.a.readyz() == "degraded", "the daemon notices the loss")

    def join(self):
        self.gate.open()
        self.a.wait_ready()
        folded(self.a)

    def stored(self, key="k"):
        value = self.redis.call("GET", f"stoma:cb:{key}")
        return value and json.loads(value)


def folded(daemon, deadline=30):
    until(lambda: daemon.metric("breakerd_folds_pending") == 0, "all steps are folded", deadline)


def degraded(answer):
    assert answer.header("Breakerd-Degraded") == "true", answer
    return answer


def same_time(stamp, other):
    """Checks that the stamps are nearly equal: one of them may have been corrected meanwhile."""
    assert abs(stamp - other) < APART * 1000, stamp - other


def record(daemon, key="k", failures=0, successes=0):
    for verb, times in (("failure", failures), ("success", successes)):
        for _ in range(times):
            snapshot(daemon.post(path(key, verb)))


def move(daemon, to, key="k"):
    return expect(daemon.post(path(key, "transition"), {"to": to}), state=to)


@pytest.fixture
def start(start):  # pylint: disable=function-redefined
    """start with a long store_timeout: on a busy machine the gate, a thread of this process, may be slow."""
    return functools.partial(start, store_timeout=5000)


@pytest.fixture
def site(private_redis, start):
    sites = []

    def make(*options, **settings):
        sites.append(Site(private_redis(*options), start, **settings))
        return sites[-1]

    yield make
    for one in sites:
        one.gate.shut()


def test_counts_are_added(site):
    s = site()
    record(s.a, failures=3, successes=1)
    s.cut()
    record(s.a, failures=2, successes=5)
    got = snapshot(degraded(s.a.get(path("k"))))
    assert (got["failureCount"], got["successCount"]) == (5, 6)
    record(s.b, failures=4, successes=1)
    s.join()
    got = expect(s.a.get(path("k")), failureCount=9, successCount=7, state="closed")
    assert s.a.get(path("k")).header("Breakerd-Degraded") is None
    assert s.stored() == got
    assert s.a.metric("breakerd_folds_total") == 1
    assert s.redis.call("TTL", "stoma:cb:k") > 86000


def test_closed_meanwhile(site):
    """Closing zeroes the counts before it, those of this daemon and those in Redis."""
    s = site()
    record(s.a, failures=3, successes=1)
    move(s.a, "open")
    s.cut()
    record(s.a, failures=2)
    at = move(s.a, "closed")["lastStateChange"]
    record(s.a, failures=1, successes=2)
    record(s.b, failures=4)
    s.join()
    got = expect(s.b.get(path("k")), state="closed", failureCount=1, successCount=2)
    same_time(got["lastStateChange"], at)


def test_half_open_meanwhile(site):
    s = site()
    record(s.a, failures=3, successes=4)
    move(s.a, "open")
    s.cut()
    move(s.a, "half-open")
    record(s.a, failures=1, successes=2)
    s.join()
    expect(s.b.get(path("k")), state="half-open", failureCount=4, successCount=2)


def test_the_later_state_stands(site):
    s = site()
    record(s.a, failures=1)
    record(s.a, "l", failures=1)
    s.cut()
    move(s.a, "open")
    move(s.b, "half-open", "l")
    time.sleep(APART)
    theirs = move(s.b, "half-open")["lastStateChange"]
    ours = move(s.a, "open", "l")["lastStateChange"]
    s.join()
    expect(s.b.get(path("k")), state="half-open", lastStateChange=theirs)
    same_time(expect(s.b.get(path("l")), state="open")["lastStateChange"], ours)


def test_the_later_failure_stands(site):
    s = site()
    record(s.a, failures=1)
    record(s.a, "l", failures=1)
    s.cut()
    record(s.a, failures=1)
    record(s.b, "l", failures=1)
    time.sleep(APART)
    record(s.b, failures=1)
    record(s.a, "l", failures=1)
    theirs = snapshot(s.b.get(path("k")))["lastFailureTime"]
    ours = snapshot(s.a.get(path("l")))["lastFailureTime"]
    s.join()
    expect(s.b.get(path("k")), lastFailureTime=theirs, failureCount=3)
    same_time(expect(s.b.get(path("l")), failureCount=3)["lastFailureTime"], ours)


@pytest.mark.parametrize("since", [None, "failure", "success", "transition"])
def test_reset_meanwhile(site, since):
    """The circuit is removed if nobody wrote it since the reset, and otherwise left as it is."""
    s = site()
    record(s.a, failures=3)
    s.cut()
    record(s.b, failures=1)
    time.sleep(APART)
    assert degraded(s.a.delete(path("k"))).status == 204
    expect(degraded(s.a.get(path("k"))), failureCount=0)
    time.sleep(APART)
    if since:
        theirs = snapshot(s.b.post(path("k", since), {"to": "open"} if since == "transition" else b""))
    s.join()
    assert s.stored() == (theirs if since else None)
    expect(s.a.get(path("k")), failureCount=theirs["failureCount"] if since else 0)


@pytest.mark.parametrize("seconds", [3600, 172_800])  # less and more than the time to live
def test_a_reset_meanwhile_leaves_an_override_that_is_newer(site, seconds):
    s = site()
    record(s.a, failures=3)
    s.cut()
    assert degraded(s.a.delete(path("k"))).status == 204
    time.sleep(APART)
    word = json.dumps({"mode": "forced-open", "reason": "r", "seconds": seconds})
    assert s.b.request("PUT", path("k", "override"), body=word).status == 200
    s.join()
    assert s.b.get(path("k", "override")).status == 200
    assert not s.a.post(path("k", "acquire")).json()["allowed"]


def test_reset_and_written_again_meanwhile(site):
    s = site()
    record(s.a, failures=3)
    move(s.a, "open")
    s.cut()
    assert s.a.delete(path("k")).status == 204
    record(s.a, failures=2)
    expect(s.a.get(path("k")), state="closed", failureCount=2)
    s.join()
    expect(s.b.get(path("k")), state="closed", failureCount=2, successCount=0)


def test_a_refused_transition_folds_nothing(site):
    s = site()
    record(s.a, failures=1)
    s.cut()
    answer = s.a.post(path("k", "transition"), {"to": "closed", "from": "open"})
    problem(answer, "state_conflict", "no")
    degraded(answer)
    before = s.redis.call("GET", "stoma:cb:k")
    s.join()
    assert s.redis.call("GET", "stoma:cb:k") == before
    assert s.a.metric("breakerd_folds_total") == 0


def test_members_of_others_are_kept(site):
    s = site()
    value = (b'{"owner":{"team":[],"n":1.50},"state":"closed","failureCount":3,"successCount":0,'
             b'"lastFailureTime":5,"lastStateChange":6,"note":"\\u0041"}')
    s.redis.call("SET", "stoma:cb:k", value)
    expect(s.a.get(path("k")), failureCount=3)
    s.cut()
    record(s.a, failures=2)
    s.join()
    got = s.redis.call("GET", "stoma:cb:k")
    assert b'"owner":{"team":[],"n":1.50}' in got and b'"note":"\\u0041"' in got
    assert json.loads(got)["failureCount"] == 5


def test_never_reached(private_redis, start):
    """A daemon that has never reached Redis starts from nothing, and folds when Redis comes."""
    redis = private_redis()
    redis.call("SET", "stoma:cb:k", '{"state":"open","failureCount":7,"successCount":0,'
                                    '"lastFailureTime":5,"lastStateChange":6}')
    gate = Gate(redis.address)
    daemon = start(store=gate.url)
    expect(degraded(daemon.get(path("k"))), state="closed", failureCount=0)
    record(daemon, failures=2)
    record(daemon, "new", successes=1)
    assert daemon.readyz() == "degraded"
    gate.open()
    daemon.wait_ready()
    folded(daemon)
    # The daemon only counted, so the state in Redis stands.
    expect(daemon.get(path("k")), state="open", failureCount=9, lastStateChange=6)
    expect(daemon.get(path("new")), successCount=1)
    gate.shut()


def test_redis_comes_back_empty(private_redis, start):
    redis = private_redis()
    daemon = start(store=redis.url).wait_ready()
    record(daemon, failures=5)
    at = move(daemon, "open")["lastStateChange"]
    record(daemon, "untouched", failures=5)
    redis.kill()
    until(lambda: daemon.readyz() == "degraded", "the daemon notices the loss")
    record(daemon, failures=2)
    redis.start()
    daemon.wait_ready()
    folded(daemon)
    expect(daemon.get(path("k")), state="open", failureCount=2, lastStateChange=at)
    expect(daemon.get(path("untouched")), failureCount=0)
    record(daemon, failures=1)
    expect(daemon.get(path("k")), failureCount=3)


def test_what_is_unknown_is_not_repeated(private_redis, start):
    """A transition is in doubt, and Redis has not done it: steps behind it do not do it either."""
    redis = private_redis("--appendonly", "yes", "--appendfsync", "always")
    daemon = start(store=redis.url, store_timeout=1000).wait_ready()
    record(daemon, failures=5)
    at = move(daemon, "open")["lastStateChange"]
    redis.freeze()
    answer = degraded(daemon.post(path("k", "transition"), {"to": "closed"}))
    expect(answer, state="closed", failureCount=0)
    redis.kill()
    until(lambda: daemon.readyz() == "degraded", "the daemon notices the loss")
    expect(degraded(daemon.post(path("k", "failure"))), state="closed", failureCount=1)
    redis.start()
    daemon.wait_ready()
    folded(daemon)
    expect(daemon.get(path("k")), state="open", failureCount=6, lastStateChange=at)


def fill(daemon, circuits):
    """Records two failures on each of `circuits` circuits."""
    answers = hammer([daemon.address], 32,
                     (request_bytes("POST", path(f"k{n % circuits}", "failure"), body=b"")
                      for n in range(2 * circuits)))
    assert all(status == 200 for status, _, _ in answers)


@pytest.mark.slow
def test_live_traffic_while_folding(private_redis, start):
    """Requests do not wait while steps are folded."""
    circuits = 20000 if FULL else 4000
    redis = private_redis()
    gate = Gate(redis.address)
    daemon = start(store=gate.url, store_timeout=250)
    fill(daemon, circuits)
    turn = iter(range(10**9))
    # The requests are for circuits with steps to fold, and for as many others.
    with Storm([daemon.address], 8, lambda _: (f"k{next(turn) * 37 % (2 * circuits)}", "failure"),
               rate=1000) as storm:
        gate.open()
        daemon.wait_ready()
        began = time.monotonic()
        folded(daemon)
        took = time.monotonic() - began
    slowest = max(a.took for a in storm.answers if not a.degraded)
    live = sorted(a.within for a in storm.answers if not a.degraded)
    print(f"{circuits} circuits in {took:.3f} s; {len(live)} live answers meanwhile, half within "
          f"{live[len(live) // 2] * 1000:.1f} ms, the slowest {live[-1] * 1000:.1f} ms")
    assert {a.status for a in storm.answers} == {200}
    assert slowest < 0.25
    gate.shut()
    book = storm.book()
    for n in range(circuits):
        more = book[f"k{n}"]["acknowledged"] if f"k{n}" in book else 0
        assert stored_count(redis, n) == 2 + more
    assert daemon.metric("breakerd_folds_lost_total") == 0


def stored_count(redis, n):
    if not hasattr(redis, "reader"):
        redis.reader = redis.client()
    value = redis.reader.call("GET", f"stoma:cb:k{n}")
    return json.loads(value)["failureCount"] if value else 0


def size(redis):
    try:
        return redis.call("DBSIZE")
    except RedisError:  # LOADING
        return 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "cut", pytest.param("freeze", marks=full)])
def test_an_interrupted_fold_back_goes_on(private_redis, start, how):
    """Redis goes away three times while steps are folded. No step is counted twice, and none is lost."""
    circuits = 20000 if FULL else 3000
    redis = private_redis("--appendonly", "yes", "--appendfsync", "always")
    gate = Gate(redis.address)
    daemon = start(store=gate.url)
    fill(daemon, circuits)
    for part in range(1, 4):
        if redis.process is None:
            redis.start()
        gate.open()
        until(lambda p=part: size(redis) > p * circuits / 5, "folding has begun", step=0.001)
        if how == "kill":
            redis.kill()
            gate.shut()
        elif how == "cut":
            gate.shut()
        else:
            redis.freeze()
            until(lambda: daemon.readyz() == "degraded", "the daemon notices the loss")
            gate.shut()
            redis.thaw()
        until(lambda: daemon.readyz() == "degraded", "the daemon notices the loss")
    if redis.process is None:
        redis.start()
    gate.open()
    daemon.wait_ready()
    folded(daemon)
    counts = Counter(stored_count(redis, n) for n in range(circuits))
    print(how, dict(counts))
    assert counts == {2: circuits}
    assert daemon.metric("breakerd_folds_lost_total") == 0
    gate.shut()


def test_what_others_did_to_circuits_that_nobody_asks_for(site):
    """When Redis goes away, circuits go on from what the channel told last."""
    s = site()
    for key in ("opened", "forced", "closed", "reset"):
        record(s.a, key, failures=1)
    for key in ("closed", "reset"):
        move(s.a, "open", key)
    force(s.a, "ended")
    with Stream(s.a) as stream:
        stream.until_ready()
        move(s.b, "open", "opened")
        force(s.b, "forced")
        move(s.b, "closed", "closed")
        assert s.b.delete(path("reset")).status == 204
        assert s.b.delete(path("ended", "override")).status == 204
        told = [stream.next().data["key"] for _ in range(5)]
        assert told == ["opened", "forced", "closed", "reset", "ended"]
    s.cut()
    got = {key: acquire(s.a, key, degraded=True)["allowed"] for key in told}
    assert got == {"opened": False, "forced": False, "closed": True, "reset": True, "ended": True}


def test_what_the_own_listing_showed_goes_on_without_redis(private_redis, start):
    redis = private_redis()
    other = start(store=redis.url).wait_ready()
    move(other, "open", "opened")
    force(other, "forced")
    gate = Gate(redis.address).open()
    daemon = start(store=gate.url).wait_ready()
    until(lambda: daemon.metric("breakerd_overrides", mode="forced-open") == 1 and
          daemon.metric("breakerd_circuits", state="open") == 1, "the daemon has listed both")
    gate.shut()
    until(lambda: daemon.readyz() == "degraded", "the daemon notices the loss")
    assert not acquire(daemon, "opened", degraded=True)["allowed"]
    assert not acquire(daemon, "forced", degraded=True)["allowed"]


def faketime():
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    return found[0] if found else None


@pytest.mark.skipif(not faketime(), reason="needs Debian's package libfaketime")
@pytest.mark.skipif(SANITIZED, reason="ASan must be the first library, and so must faketime")
@pytest.mark.parametrize("skew", ["+3600", "-3600"])
def test_a_skewed_clock(private_redis, start, skew):
    """Stamps made while Redis is away are in Redis's time, by the offset measured last. If the daemon has measured
    none yet, its stamps are corrected when they are folded."""
    redis = private_redis()
    env = {"LD_PRELOAD": faketime(), "FAKETIME": skew, "DONT_FAKE_MONOTONIC": "1"}
    gate = Gate(redis.address)
    a = start(store=gate.url, env=env)
    b = start(store=redis.url).wait_ready()
    began = redis.client().now_ms()
    record(a, "early", failures=1)
    move(a, "open", "early")
    gate.open()
    a.wait_ready()
    folded(a)
    got = snapshot(b.get(path("early")))
    record(a, failures=1)
    gate.shut()
    until(lambda: a.readyz() == "degraded", "the daemon notices the loss")
    move(b, "half-open")
    time.sleep(APART)
    here = move(a, "open")
    gate.open()
    a.wait_ready()
    folded(a)
    end = redis.client().now_ms()
    for stamp in (got["lastFailureTime"], got["lastStateChange"], here["lastStateChange"]):
        assert began - APART * 1000 <= stamp <= end + APART * 1000, (stamp - began, got, here)
    expect(b.get(path("k")), state="open", failureCount=1)
    gate.shut()


@pytest.mark.skipif(not faketime(), reason="needs Debian's package libfaketime")
@pytest.mark.skipif(SANITIZED, reason="ASan must be the first library, and so must faketime")
@pytest.mark.parametrize("steps", [("+7200", "+0"), ("+0", "+7200"), ("-7200", "+0")])
@pytest.mark.parametrize("known", [True, False])
def test_a_clock_that_is_set_while_redis_is_away(private_redis, start, tmp_path, steps, known):
    """Stamps made before the clock was set are still folded in Redis's time, and none is later than Redis's now."""
    redis = private_redis()
    clock = tmp_path / "clock"
    clock.write_text(steps[0] + "\n")
    env = {"LD_PRELOAD": faketime(), "FAKETIME_TIMESTAMP_FILE": str(clock),
           "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}
    gate = Gate(redis.address)
    if known:
        gate.open()
    daemon = start(store=gate.url, env=env)
    if known:
        daemon.wait_ready()
        gate.shut()
        until(lambda: daemon.readyz() == "degraded", "the daemon notices the loss")
    began = redis.client().now_ms()
    record(daemon, failures=1)
    move(daemon, "open")
    clock.write_text(steps[1] + "\n")
    gate.open()
    daemon.wait_ready()
    folded(daemon)
    got, end = snapshot(daemon.get(path("k"))), redis.client().now_ms()
    for stamp in (got["lastFailureTime"], got["lastStateChange"]):
        assert began - APART * 1000 <= stamp <= end + APART * 1000, (stamp - began, got)
    gate.shut()


@pytest.mark.skipif(not faketime(), reason="needs Debian's package libfaketime")
@pytest.mark.skipif(SANITIZED, reason="ASan must be the first library, and so must faketime")
@pytest.mark.parametrize("steps", [("+7200", "+7200"), ("+0", "+7200")])
def test_an_override_holds_by_the_clock_of_redis(private_redis, start, tmp_path, steps):
    """The daemon's clock is two hours ahead, or is set ahead. The override holds in streams and metrics, and while Redis
    is away, when only the override keeps the circuit from expiring."""
    redis = private_redis()
    clock = tmp_path / "clock"
    clock.write_text(steps[0] + "\n")
    env = {"LD_PRELOAD": faketime(), "FAKETIME_TIMESTAMP_FILE": str(clock),
           "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1"}
    gate = Gate(redis.address)
    gate.open()
    daemon = start(store=gate.url, ttl=1, env=env).wait_ready()
    clock.write_text(steps[1] + "\n")
    with Stream(daemon) as stream:
        stream.until_ready()
        force(daemon, "k")
        assert "override" in stream.next().data
        assert daemon.metric("breakerd_overrides", mode="forced-open") == 1
        assert daemon.get(path("k", "override")).status == 200
    gate.shut()
    until(lambda: daemon.readyz() == "degraded", "the daemon notices the loss")
    seen = time.monotonic()
    until(lambda: time.monotonic() - seen > 1.5, "the circuit's time to live is over")
    assert acquire(daemon, "k", degraded=True)["reason"] == "forced-open"
    assert daemon.get(path("k", "override")).status == 200
    gate.shut()


@pytest.mark.parametrize("words", ["WRONGTYPE", "TOOLARGE"])
def test_a_value_that_is_none_of_ours_to_change(site, words):
    """A step that can never be folded is logged and dropped. The value stays as it is, and other steps are folded."""
    s = site()
    s.cut()
    record(s.a, failures=1)
    record(s.a, "other", failures=1)
    if words == "WRONGTYPE":
        s.redis.call("LPUSH", "stoma:cb:k", "x")
    else:
        s.redis.call("SET", "stoma:cb:k", "x" * 70000)
    s.join()
    assert s.redis.call("TYPE", "stoma:cb:k") == (b"list" if words == "WRONGTYPE" else b"string")
    assert words == "WRONGTYPE" or s.redis.call("STRLEN", "stoma:cb:k") == 70000
    assert s.stored("other")["failureCount"] == 1
    assert s.a.metric("breakerd_folds_lost_total") == 1
    assert words in s.a.stderr()
    problem(s.a.get(path("k")), "store_error", contains=words)


@pytest.mark.parametrize("condition", ["OOM", pytest.param("NOPERM", marks=full)])
def test_refused_for_a_while(private_redis, start, condition):
    """Redis is there but refuses all steps. The steps wait, with few log lines and little processor time."""
    redis = private_redis()
    redis.call("ACL", "SETUSER", "gate", "on", ">pw", "~*", "+@all")
    gate = Gate(redis.address)
    a = start(store=gate.url.replace("//", "//gate:pw@"))
    for n in range(300):
        record(a, f"k{n}", failures=2)
    if condition == "OOM":
        redis.call("CONFIG", "SET", "maxmemory", "1")
    else:
        redis.call("ACL", "SETUSER", "gate", "resetkeys", "~other:*")
    gate.open()
    a.wait_ready()
    used = process_seconds(a)
    time.sleep(1.5)
    used = process_seconds(a) - used
    assert a.metric("breakerd_folds_pending") == 300
    problem(a.post(path("k1", "failure")), "store_error", "no", contains=condition)
    assert a.stderr().count("fold_refused") < 5
    assert condition in a.stderr()
    assert used < 0.25, f"{used:.2f} s of a processor in 1.5 s"
    if condition == "OOM":
        redis.call("CONFIG", "SET", "maxmemory", "0")
    else:
        redis.call("ACL", "SETUSER", "gate", "~*")
    folded(a)
    for n in range(300):
        expect(a.get(path(f"k{n}")), failureCount=2)
    assert a.metric("breakerd_folds_lost_total") == 0
    gate.shut()


def test_a_replica_takes_no_steps(private_redis, start):
    master = private_redis("--repl-diskless-sync-delay", 0)
    redis = private_redis()
    daemon = start(store=redis.url).wait_ready()
    record(daemon, failures=1)
    redis.call("REPLICAOF", "127.0.0.1", master.port)
    until(lambda: redis.call("ROLE")[3] == b"connected", "Redis is a replica")
    degraded(daemon.post(path("k", "failure")))
    until(lambda: daemon.readyz() == "degraded", "the replica counts as away")
    record(daemon, failures=2)
    redis.call("REPLICAOF", "NO", "ONE")
    daemon.wait_ready()
    folded(daemon)
    # As a replica Redis has taken the master's empty data, without the first failure.
    expect(daemon.get(path("k")), failureCount=3)
    assert daemon.metric("breakerd_folds_lost_total") == 0


def test_bounded_memory(private_redis, start):
    redis = private_redis()
    gate = Gate(redis.address)
    daemon = start(store=gate.url, max_circuits=100)
    for n in range(100):
        record(daemon, f"k{n}", failures=1)
    for n in range(100, 150):
        problem(degraded(daemon.post(path(f"k{n}", "failure"))), "store_full", "no")
        expect(degraded(daemon.get(path(f"k{n}"))), failureCount=0)
    record(daemon, "k3", failures=1)
    gate.open()
    daemon.wait_ready()
    folded(daemon)
    record(daemon, "k100", failures=1)
    with redis.client() as client:
        assert len(client.keys()) == 101
    expect(daemon.get(path("k3")), failureCount=2)
    gate.shut()


def test_few_in_flight(private_redis, start):
    """Steps under way do not count in max_in_flight."""
    redis = private_redis()
    gate = Gate(redis.address)
    daemon = start(store=gate.url, max_in_flight=4)
    for n in range(2000):
        record(daemon, f"k{n}", failures=1)
    with Storm([daemon.address], 4, lambda line: (f"live{line}", "failure"), rate=4000) as storm:
        gate.open()
        daemon.wait_ready()
        folded(daemon)
    assert set(storm.statuses()) == {200}
    with redis.client() as client:
        assert len(client.keys()) == 2004
    for line in range(4):
        assert json.loads(redis.call("GET", f"stoma:cb:live{line}"))["failureCount"] == \
            sum(a.line == line for a in storm.answers)
    gate.shut()


def test_a_stop_waits_for_the_steps(private_redis, start):
    """A clean stop while steps are under way loses none."""
    redis = private_redis()
    gate = Gate(redis.address)
    daemon = start(store=gate.url)
    for n in range(3000):
        record(daemon, f"k{n}", failures=1)
    gate.open()
    until(lambda: redis.call("DBSIZE") > 0, "folding has begun", step=0.001)
    daemon.stop()
    assert redis.call("DBSIZE") == 3000
    gate.shut()


def test_a_stop_without_redis_does_not_wait(start):
    from ports import free_port
    daemon = start(store=f"redis://127.0.0.1:{free_port()}")
    record(daemon, failures=1)
    began = time.monotonic()
    daemon.stop()
    assert time.monotonic() - began < 1
    assert "folds_dropped" in daemon.stderr()
