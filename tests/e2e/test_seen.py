"""Answers from memory, successes that are held back, and the channel."""

import concurrent.futures
import json
import os
import re
import socket
import statistics
import threading
import time

import pytest

from chaos import SANITIZED
from contract import path, snapshot
from decisions import acquire, fails, report
from gate import FarGate, Gate
from redis_clock import RedisClock
from sse import Stream
from wait import until
from wire import request_bytes

CHANNEL = "stoma:cb:events"


def metric(daemon, name):
    text = daemon.get("/metrics").body.decode()
    return float(next(line.split()[1] for line in text.splitlines()
                      if line.startswith(f"breakerd_{name} ")))


def commands(redis):
    """{command: calls}, those made by scripts included."""
    with redis.client() as client:
        text = client.call("INFO", "commandstats").decode()
    return {line.split(":")[0][8:]: int(line.split("calls=")[1].split(",")[0])
            for line in text.splitlines() if line.startswith("cmdstat_")}


def commands_since(redis, before):
    return {name: n - before.get(name, 0) for name, n in commands(redis).items()
            if n > before.get(name, 0) and name != "info"}


def far(start, redis, delay, **settings):
    gate = FarGate(redis.address, delay).open()
    settings.setdefault("store_timeout", 5000)
    return gate, start(store=gate.url, **settings).wait_ready()


def quick(daemon):
    """Returns ask(method, path, body), which returns the answer's body, and costs much less than a Client."""
    s = socket.create_connection(daemon.address, timeout=30)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(method, target, body=b""):
        s.sendall(b"%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
                  % (method.encode(), target.encode(), len(body), body))
        head, _, rest = s.recv(65536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])
        while len(rest) < length:
            rest += s.recv(65536)
        return rest

    return ask


# SCALE_FULL=1 tests the default max_staleness, half a minute a test. Otherwise it is so long that a busy machine
# keeps within it.
FULL = bool(os.environ.get("SCALE_FULL"))
ACQUIRES = 100000 if FULL else 10000


@pytest.mark.parametrize("state", ["closed", "open"])
def test_no_acquire_waits_for_a_redis_that_is_far_away(start, redis, state):
    gate, daemon = far(start, redis, 0.020, max_staleness="100ms" if FULL else "1s")
    try:
        if state == "open":
            fails(daemon, "k", 5)
        acquire(daemon, "k")
        before = metric(daemon, "cached_answers_total")
        times, ask, said = [], quick(daemon), b'"reason":"%s"' % state.encode()
        for _ in range(ACQUIRES):
            begun = time.perf_counter()
            decision = ask("POST", path("k", "acquire"))
            times.append(time.perf_counter() - begun)
            assert said in decision
        # All answers came from memory: none waited for Redis.
        assert metric(daemon, "cached_answers_total") - before == ACQUIRES
        assert statistics.median(times) < (0.0005 if FULL else 0.005)
        print(f"{state}: median {statistics.median(times) * 1e6:.0f} us, longest "
              f"{max(times) * 1000:.1f} ms of {ACQUIRES}")
    finally:
        gate.shut()


def test_acquires_that_miss_together_share_one_read(start, private_redis):
    redis = private_redis()
    gate, daemon = far(start, redis, 0.200, max_staleness="10s")
    try:
        before = commands(redis)
        clients = [daemon.client() for _ in range(50)]
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            assert all(d["allowed"] for d in pool.map(lambda c: acquire(c, "k"), clients))
        for client in clients:
            client.close()
        calls = commands_since(redis, before)
        assert calls["getrange"] == 1 and "evalsha" not in calls
    finally:
        gate.shut()


def test_with_max_staleness_0_each_acquire_asks_redis(start, private_redis):
    redis = private_redis()
    daemon = start(store=redis.url, max_staleness=0, store_timeout=5000).wait_ready()
    before = commands(redis)
    for _ in range(20):
        acquire(daemon, "k")
    assert commands_since(redis, before)["evalsha"] == 20


def cost(redis, daemon, seconds, rate, reports):
    """Sends rounds for so many seconds: a round is an acquire, or an acquire and a report. `rate`: requests a second, or
    as many as the daemon answers. Returns Redis's commands a second, those of scripts included, and the rounds."""
    asked = [request_bytes("POST", path("k", "acquire"))]
    if reports:
        asked.append(request_bytes("POST", path("k", "report"), body=b'{"outcome":"success"}'))
    burst = max(1, rate // 500 // len(asked))
    text, answers = b"".join(asked) * burst, burst * len(asked)
    with socket.create_connection(daemon.address, timeout=30) as s:
        before, begun, rounds = commands(redis), time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            s.sendall(text)
            said = b""
            while said.count(b"HTTP/1.1 ") < answers or b"}" not in said[-2:]:
                said += s.recv(1 << 20)
            assert said.count(b'"allowed":true') == burst
            assert said.count(b'"counted":true') == (burst if reports else 0)
            rounds += burst
            time.sleep(max(0.0, begun + rounds * len(asked) / rate - time.monotonic()))
        return sum(commands_since(redis, before).values()) / (time.monotonic() - begun), rounds


@pytest.mark.parametrize("rate", [100, 50000])
def test_what_a_closed_circuit_costs_redis(start, private_redis, rate):
    """The commands a second have a limit, however many requests there are."""
    redis = private_redis()
    daemon = start(store=redis.url, store_timeout=5000).wait_ready()
    total = 0
    for reports, most in ((False, 30), (True, 30 + 15)):
        rates = []
        # Each pause of the machine that is longer than max_staleness costs another command.
        while not rates or (rates[-1] > most and len(rates) < 4):
            commands_a_second, rounds = cost(redis, daemon, 3, rate, reports)
            rates.append(commands_a_second)
            total += rounds if reports else 0
        print(f"{'with reports' if reports else 'acquires'}: {rates} commands/s at "
              f"{rounds / 3:.0f} rounds/s")
        assert min(rates) <= most
    assert snapshot(daemon.get(path("k")))["successCount"] == total


def times_to_obey(one, other, rounds, pace=0.0):
    """Makes transitions at `one`, with `pace` seconds between them. Returns the times until `other` obeys each."""
    times = []
    for n in range(rounds):
        time.sleep(pace)
        acquire(other, "k")
        state = "closed" if n % 2 else "open"
        assert one.post(path("k", "transition"), {"to": state}).status == 200
        begun = time.perf_counter()
        while acquire(other, "k")["allowed"] != (state == "closed"):
            assert time.perf_counter() - begun < 10
        times.append(time.perf_counter() - begun)
    return times


def test_a_transition_reaches_other_daemons_at_once(start, redis):
    # With so long a max_staleness only the channel can tell the other daemon.
    one, other = [start(store=redis.url, max_staleness="10s", store_timeout=5000).wait_ready()
                  for _ in range(2)]
    wait_subscribed(redis, 2)
    assert statistics.median(times_to_obey(one, other, 200)) < 0.010


def wait_subscribed(redis, count):
    with redis.client() as client:
        until(lambda: client.call("PUBSUB", "NUMSUB", CHANNEL)[1] >= count, "the daemons have subscribed")


@pytest.mark.parametrize("every, rounds", [(0.2, 40), (1.0, 200)])
def test_a_subscription_that_is_killed_again_and_again(start, private_redis, every, rounds):
    redis = private_redis()
    one, other = [start(store=redis.url, max_staleness="500ms", store_timeout=5000).wait_ready()
                  for _ in range(2)]
    wait_subscribed(redis, 2)
    over = threading.Event()

    def kill():
        with redis.client() as client:
            while not over.wait(every):
                client.call("CLIENT", "KILL", "TYPE", "pubsub")

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        times = times_to_obey(one, other, rounds, pace=every / 50)
        # max_staleness, and the time between two requests.
        assert max(times) < 0.5 + 0.25
        print(f"median {statistics.median(times) * 1000:.2f} ms, longest {max(times) * 1000:.1f} ms")
        assert every < 1 or statistics.median(times) < 0.010
    finally:
        over.set()
        killer.join()
    wait_subscribed(redis, 2)


def test_a_change_is_obeyed_behind_a_stamp_that_is_ahead(start, private_redis):
    """Another program, whose clock is ahead, has written the circuit. A message with a smaller stamp is obeyed anyway."""
    redis = private_redis()
    one, other = [start(store=redis.url, max_staleness="10s", store_timeout=5000).wait_ready()
                  for _ in range(2)]
    wait_subscribed(redis, 2)
    value = json.dumps({"state": "closed", "failureCount": 0, "successCount": 0, "lastFailureTime": 0,
                        "lastStateChange": int(time.time() * 1000) + 30000})
    with Stream(one) as stream:
        stream.until_ready()
        for key in "abcde":
            redis.call("SET", f"stoma:cb:{key}", value)
            assert acquire(one, key)["allowed"]
            other.post(path(key, "transition"), {"to": "open"})
            event = stream.next()
            while (event.data["key"], event.data["state"]) != (key, "open"):
                event = stream.next()
            assert not acquire(one, key)["allowed"]


def test_a_server_that_forbids_the_channel_loses_that_alone(start, private_redis):
    redis = private_redis()
    with redis.client() as client:
        client.call("ACL", "SETUSER", "plain", "on", ">p", "~*", "+@all", "resetchannels")
    url = f"redis://plain:p@127.0.0.1:{redis.port}"
    one, other = [start(store=url, max_staleness="200ms", store_timeout=5000).wait_ready()
                  for _ in range(2)]
    assert max(times_to_obey(one, other, 6)) < 0.2 + 0.25
    assert one.readyz() == "ready"
    assert "events_away" in one.stderr()


def test_what_is_published(start, redis):
    daemon = start(store=redis.url, max_staleness=0, report_interval=0, store_timeout=5000).wait_ready()
    with redis.client() as listener:
        listener.call("SUBSCRIBE", CHANNEL)

        def message():
            kind, channel, text = listener.receive()
            assert (kind, channel) == (b"message", CHANNEL.encode())
            words, member, key = text.decode().split("\n")
            assert key == "stoma:cb:k"
            return words.split()[2:5], member

        daemon.post(path("k", "success"))  # creates the circuit, which is no change of state
        acquire(daemon, "k")
        report(daemon, "k")
        daemon.post(path("k", "transition"), {"to": "open"})
        assert message()[0] == ["t", "0", "1"]
        assert daemon.post(path("k", "transition"), {"to": "closed", "from": "half-open"}).status == 409
        daemon.post(path("k", "transition"), {"to": "closed"})
        assert message()[0] == ["t", "1", "0"]
        fails(daemon, "k", 5)
        words, member = message()
        assert words == ["r", "0", "1"] and member.startswith("1 1 ")
        daemon.delete(path("k"))
        assert message()[0] == ["d", "1", "3"]
        daemon.delete(path("k"))  # the circuit does not exist: no message
        daemon.request("PUT", path("k", "override"),
                       body=json.dumps({"mode": "forced-open", "reason": "r"}))
        assert message()[0][0] == "o"


def test_successes_survive_stops(start, private_redis):
    redis = private_redis()
    keys = [f"k{n}" for n in range(10)]
    counted = dict.fromkeys(keys, 0)
    daemons = [None] * 3
    for round_ in range(12):
        n = round_ % 3
        if daemons[n]:
            daemons[n].stop()
        daemons[n] = start(store=redis.url, report_interval="300ms", store_timeout=5000).wait_ready()
        for daemon in filter(None, daemons):
            for key in keys:
                acquire(daemon, key)
                for _ in range(20):
                    counted[key] += report(daemon, key)["counted"]
    for daemon in daemons:
        daemon.stop()
    with redis.client() as client:
        stored = {key: json.loads(client.call("GET", f"stoma:cb:{key}"))["successCount"]
                  for key in keys}
    assert stored == counted


def test_a_crash_loses_what_is_pending_at_most(start, private_redis):
    redis = private_redis()
    daemon = start(store=redis.url, report_interval="10s", max_staleness="10s",
                   store_timeout=5000).wait_ready()
    acquire(daemon, "k")
    for _ in range(50):
        report(daemon, "k")
    daemon.get(path("k"))  # sends the 50 first
    for _ in range(30):
        report(daemon, "k")
    assert metric(daemon, "reports_pending") == 30
    daemon.process.kill()
    daemon.process.wait()
    daemon.ended = True
    with redis.client() as client:
        assert json.loads(client.call("GET", "stoma:cb:k"))["successCount"] == 50


def test_a_success_that_opens_does_not_wait(start, redis):
    daemon = start(store=redis.url, consecutive_failures=0, min_calls=20, failure_rate=50,
                   report_interval="10s", max_staleness="10s", store_timeout=5000).wait_ready()
    fails(daemon, "k", 10)
    for _ in range(9):
        assert report(daemon, "k") == {"counted": True, "was": "closed", "state": "closed"}
    assert report(daemon, "k") == {"counted": True, "was": "closed", "state": "open"}
    assert not acquire(daemon, "k")["allowed"]


def test_getState_counts_what_is_held_back(start, redis):
    daemon = start(store=redis.url, report_interval="10s", store_timeout=5000).wait_ready()
    acquire(daemon, "k")
    for n in range(1, 50):
        report(daemon, "k")
        assert snapshot(daemon.get(path("k")))["successCount"] == n


def test_with_error_a_memory_does_not_answer_for_a_redis_that_is_away(start, redis):
    gate = Gate(redis.address).open()
    daemon = start(store=gate.url, on_store_failure="error", max_staleness="10s", report_interval="10s",
                   store_timeout=5000).wait_ready()
    acquire(daemon, "k")
    acquire(daemon, "k")
    for _ in range(20):
        report(daemon, "k")
    gate.shut()
    until(lambda: daemon.readyz() == "unavailable", "Redis is away")
    assert daemon.post(path("k", "acquire")).status == 503
    assert daemon.post(path("k", "report"), {"outcome": "success"}).status == 503
    gate.open()
    until(lambda: daemon.readyz() == "ready", "Redis is back")
    until(lambda: metric(daemon, "reports_pending") == 0, "the successes held back are sent")
    assert snapshot(daemon.get(path("k")))["successCount"] == 20


# So few that even a slow daemon takes all of them within report_interval.
MANY = 2000 if SANITIZED else 8000


def hold(daemon, count):
    """Reports one success on each of `count` circuits. All are answered, and most are still held back."""
    keys = [f"held{n}" for n in range(count)]

    def one(mine):
        ask = quick(daemon)
        for key in mine:
            ask("POST", path(key, "acquire"))
        for key in mine:
            assert json.loads(ask("POST", path(key, "report"), b'{"outcome":"success"}'))["counted"]

    with concurrent.futures.ThreadPoolExecutor(30) as pool:
        list(pool.map(one, [keys[n::30] for n in range(30)]))
    assert metric(daemon, "reports_pending") > count / 2


@pytest.mark.parametrize("delay, count", [(0, MANY), (0.02, MANY // 4)], ids=["near", "far"])
def test_a_stop_sends_all_that_is_held_back(start, private_redis, delay, count):
    redis = private_redis()
    gate, daemon = far(start, redis, delay, store_timeout=250, report_interval="10s", max_staleness="10s")
    hold(daemon, count)
    daemon.stop()
    with redis.client() as client:
        assert client.call("DBSIZE") == count
    assert not re.search("redis_suspect|folds_dropped|reports_lost|drain_cut", daemon.stderr())


def test_many_circuits_on_a_redis_far_away_are_answered_from_it(start, redis):
    """900 writes at once, each on a circuit of its own, take few round trips of 100 ms."""
    _, daemon = far(start, redis, 0.1, store_timeout=600)
    clients = [socket.create_connection(daemon.address, timeout=30) for _ in range(900)]
    for n, client in enumerate(clients):
        client.sendall(request_bytes("POST", path(f"far{n}", "failure")))
    answers = [client.recv(65536).lower() for client in clients]
    assert all(answer.startswith(b"http/1.1 200 ") for answer in answers)
    assert sum(b"breakerd-degraded" in answer for answer in answers) == 0
    for client in clients:
        client.close()


def test_one_lost_connection_with_much_held_back_disturbs_nobody(start, private_redis):
    redis = private_redis()
    daemon = start(store=redis.url, on_store_failure="error", report_interval="10s", max_staleness="10s")
    daemon.wait_ready()
    hold(daemon, MANY)
    with redis.client() as client:
        client.call("CLIENT", "KILL", "TYPE", "normal")
    until(lambda: metric(daemon, "redis_disconnects_total") == 1, "the daemon notices the loss")
    until(lambda: daemon.readyz() == "ready", "the connection is back")
    statuses = set()
    while metric(daemon, "reports_pending"):
        statuses.add(daemon.post(path("other", "failure")).status)
    assert statuses <= {200}
    assert metric(daemon, "reports_lost_total") == 0
    with redis.client() as client:
        assert client.call("DBSIZE") >= MANY


def test_what_was_held_back_when_redis_went_is_folded(start, redis):
    gate = Gate(redis.address).open()
    daemon = start(store=gate.url, max_staleness="10s", report_interval="10s", store_timeout=5000)
    daemon.wait_ready()
    acquire(daemon, "k")
    for _ in range(20):
        report(daemon, "k")
    gate.shut()
    until(lambda: daemon.readyz() == "degraded", "Redis is away")
    for _ in range(5):
        report(daemon, "k", degraded=True)
    gate.open()
    until(lambda: daemon.readyz() == "ready", "Redis is back")
    until(lambda: metric(daemon, "folds_pending") == 0, "all steps are folded")
    assert snapshot(daemon.get(path("k")))["successCount"] == 25


def test_a_flush_shows_within_max_staleness(start, private_redis):
    redis = private_redis()
    daemon = start(store=redis.url, max_staleness="300ms", store_timeout=5000).wait_ready()
    daemon.post(path("k", "transition"), {"to": "open"})
    acquire(daemon, "k")
    with redis.client() as client:
        client.call("FLUSHALL")
    begun = time.monotonic()
    while not acquire(daemon, "k")["allowed"]:
        pass
    assert time.monotonic() - begun < 0.3 + 0.25


def test_read_cache_answers_getState(start, private_redis):
    redis = private_redis()
    daemon = start(store=redis.url, read_cache="yes", max_staleness="10s", report_interval=0,
                   store_timeout=5000).wait_ready()
    wait_subscribed(redis, 1)
    acquire(daemon, "k")
    before = commands(redis)
    for _ in range(20):
        snapshot(daemon.get(path("k")))
    assert not {"get", "getrange", "evalsha"} & set(commands_since(redis, before))
    for n in range(1, 20):
        daemon.post(path("k", "failure"))
        assert snapshot(daemon.get(path("k")))["failureCount"] == n


# --- the clock of Redis is set, while the link is up ---


def test_an_opening_is_over_by_a_clock_of_redis_that_was_set(directory, private_redis, start):
    """Ahead: stamps seem to come from later than now, and an opening would last so much longer."""
    clock = RedisClock(directory)
    redis = private_redis(env=clock.env)
    daemon = start(store=redis.url, open_time="1s").wait_ready()
    assert acquire(daemon, "k")["allowed"]
    clock.set(50)
    fails(daemon, "k", 5)
    assert acquire(daemon, "k")["reason"] == "open"
    assert until(lambda: (d := acquire(daemon, "k"))["allowed"] and d, "the opening is over")["reason"] == "probe"


@pytest.mark.parametrize("mode", ["forced-open", "forced-closed"])
def test_an_override_holds_by_a_clock_of_redis_that_was_set(directory, private_redis, start, mode):
    """Set back it holds for longer, set ahead it is over, whatever this daemon remembers of it."""
    clock = RedisClock(directory)
    redis = private_redis(env=clock.env)
    daemon = start(store=redis.url, read_cache="yes").wait_ready()
    assert acquire(daemon, "k")["allowed"]
    override = daemon.request("PUT", path("k", "override"), body={"mode": mode, "reason": "r", "seconds": 3}).json()
    clock.set(-600)
    until(lambda: acquire(daemon, "k")["reason"] != mode or time.time() * 1000 > override["until"] + 500,
          "it would be over by the clock of before")
    assert acquire(daemon, "k")["reason"] == mode
    assert snapshot(daemon.get(path("k")))["state"] == ("open" if mode == "forced-open" else "closed")
    assert daemon.get("/v1/circuits").json()["circuits"][0]["override"] == override
    clock.set(600)
    until(lambda: acquire(daemon, "k")["reason"] == "closed", "it is over")
    until(lambda: "override" not in daemon.get("/v1/circuits").json()["circuits"][0], "the listing knows")
