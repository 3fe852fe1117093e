"""The clients in docs/clients (client_drivers.py) against the real daemon."""

import signal

from contract import KEYS, path, snapshot
from ports import free_port
from wait import until

UNREACHABLE = "allowed - - unreachable 0 unreachable"
# LONG: no time ends within a test, even on a busy machine. SHORT: an opening is over at once.
LONG = {"consecutive_failures": 3, "open_time": "1h", "open_time_max": "1h", "open_growth": 1, "probe_timeout": "1h"}
SHORT = {**LONG, "open_time": "10ms"}


def client(start_driver, daemon, **kw):
    driver = start_driver()
    url = "unix:" + daemon.address if isinstance(daemon.address, str) else "http://%s:%d" % daemon.address
    assert driver.new(url, **kw) == "made"
    return driver


def state(daemon, key="orders"):
    return snapshot(daemon.get(path(key)))


def words(answer):
    """(allowed, permit, state, reason, milliseconds, answered) of an acquire's line"""
    allowed, permit, circuit, reason, after, answered = answer.split(" ")
    return allowed, permit, circuit, reason, int(after), answered


def test_the_failures_of_all_open_the_circuit_for_all(start_driver, start):
    daemon = start(**LONG)
    clients = [client(start_driver, daemon), client(start_driver, daemon)]
    assert [c.say("run", "orders", "ok") for c in clients] == ["passed", "passed"]
    assert [clients[n % 2].say("run", "orders", "fail") for n in range(3)] == ["failed"] * 3
    assert state(daemon)["state"] == "open"
    for one in clients:
        allowed, permit, circuit, reason, after, answered = words(one.say("acquire", "orders"))
        assert (allowed, permit, circuit, reason, answered) == ("refused", "-", "open", "open", "answered")
        assert 3_000_000 < after <= 3_600_000
        assert one.say("run", "orders", "ok").startswith("refused open ")
    assert state(daemon)["failureCount"] == 3
    assert [c.log()[0] for c in clients] == [0, 0]


def test_one_of_them_probes(start_driver, start):
    daemon = start(**SHORT)
    one, other = client(start_driver, daemon), client(start_driver, daemon)
    daemon.post(path("orders", "transition"), {"to": "open"})
    for outcome, after in (("failure", "open"), ("success", "closed")):
        probe = until(lambda: [answer for answer in [one.say("acquire", "orders")] if answer.startswith("allowed ")], "a probe is allowed")
        _, permit, circuit, reason, _, _ = words(probe[0])
        assert (circuit, reason) == ("half-open", "probe")
        assert words(other.say("acquire", "orders"))[:4] == ("refused", "-", "half-open", "probing")
        assert one.say("report", "orders", permit, outcome, 1.5) == "counted"
        assert state(daemon)["state"] == after
        assert other.say("report", "orders", permit, outcome, "-") == "not counted"
    assert one.log()[0] == other.log()[0] == 0


def test_the_policy_judges_the_status(start_driver, start):
    daemon = start(**LONG, ignore_status="418")
    one = client(start_driver, daemon)
    for status in (200, 404, 418, 502, 0):
        assert one.say("run", "orders", status) == "passed"
    assert (state(daemon)["successCount"], state(daemon)["failureCount"]) == (2, 2)
    assert one.say("run", "orders", "ignored") == "passed"
    assert (state(daemon)["successCount"], state(daemon)["failureCount"]) == (2, 2)
    assert one.log()[0] == 0


def test_a_slow_success_counts_as_slow(start_driver, start):
    """The client sends the duration in milliseconds."""
    daemon = start(**LONG, slow_time="100ms", slow_rate=100, min_calls=3)
    one = client(start_driver, daemon)
    for duration in (99.9, 100.1, 100.1):
        assert one.say("report", "orders", "-", "success", duration) == "counted"
    assert state(daemon)["state"] == "closed"
    daemon.delete(path("orders"))
    for duration in (100.1, 100.1, 100.1):
        assert one.say("report", "orders", "-", "success", duration) == "counted"
    assert state(daemon)["state"] == "open"


def test_a_policy_that_is_only_tried(start_driver, start):
    daemon = start(**LONG, enforce="no")
    one = client(start_driver, daemon)
    daemon.post(path("orders", "transition"), {"to": "open"})
    allowed, permit, circuit, reason, after, _ = words(one.say("acquire", "orders"))
    assert (allowed, circuit, reason, after) == ("allowed", "open", "observed", 0) and permit != "-"
    assert one.say("run", "orders", "ok") == "passed"


def test_keys_come_through_whole(start_driver, memory_daemon):
    one = client(start_driver, memory_daemon)
    for key in KEYS.values():
        assert words(one.say("acquire", key))[0] == "allowed"
        assert one.say("report", key, "-", "failure", "-") == "counted"
    listed = memory_daemon.get("/v1/circuits").json()["circuits"]
    assert sorted(c["key"] for c in listed) == sorted(KEYS.values())
    assert all(c["failureCount"] == 1 for c in listed)
    assert one.log()[0] == 0


def test_a_token_and_a_wrong_one(start_driver, start, directory):
    with open(f"{directory}/token", "w", encoding="ascii") as file:
        file.write("t0k-._~+/n==\n")
    daemon = start(token_file=f"{directory}/token")
    assert words(client(start_driver, daemon, token="t0k-._~+/n==").say("acquire", "orders"))[-1] == "answered"
    for token in ("wrong", "-"):
        one = client(start_driver, daemon, token=token)
        assert one.say("acquire", "orders") == UNREACHABLE
        assert one.say("run", "orders", "ok") == "passed"
        count, text = one.log()
        assert count == 1 and "401" in text


def test_a_restart_costs_nothing(start_driver, start):
    port = free_port()
    daemon = start(listen=f"127.0.0.1:{port}")
    one = client(start_driver, daemon)
    assert one.say("run", "orders", "fail") == "failed"
    daemon.stop()
    daemon = start(listen=f"127.0.0.1:{port}")
    assert one.say("run", "orders", "fail") == "failed"
    assert state(daemon)["failureCount"] == 1
    assert one.log()[0] == 0


def test_breakerd_is_frozen_and_thaws(start_driver, start):
    daemon = start(**LONG)
    one = client(start_driver, daemon, timeout_ms=300, retry_ms=10)
    # The first call may take longer than the timeout where the language has a virtual machine.
    until(lambda: one.say("acquire", "orders") != UNREACHABLE, "an acquire is answered")
    daemon.signal(signal.SIGSTOP)
    try:
        assert one.say("acquire", "orders") == UNREACHABLE
        assert one.say("run", "orders", "fail") == "failed"
    finally:
        daemon.signal(signal.SIGCONT)
    until(lambda: words(one.say("acquire", "orders"))[-1] == "answered", "an acquire is answered again")


def test_breakerd_is_gone(start_driver, start):
    daemon = start()
    one = client(start_driver, daemon)
    assert words(one.say("acquire", "orders"))[-1] == "answered"
    daemon.stop()
    assert one.say("acquire", "orders") == UNREACHABLE
    assert one.say("many", 100, "orders", 1) == "100 passed (0 waited)"


def test_redis_is_away(start_driver, start):
    daemon = start(store=f"redis://127.0.0.1:{free_port()}", on_store_failure="error")
    one = client(start_driver, daemon)
    assert one.say("acquire", "orders") == UNREACHABLE
    assert one.say("run", "orders", "ok") == "passed"
    assert "503" in one.log()[1]


def test_a_unix_socket(start_driver, start, directory):
    daemon = start(listen=f"unix:{directory}/b.sock", **LONG)
    one = client(start_driver, daemon)
    assert one.say("run", "orders", 500) == "passed"
    assert state(daemon)["failureCount"] == 1
    assert one.log()[0] == 0
