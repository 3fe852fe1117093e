"""acquire and report through one daemon, on both stores."""

import json

import pytest

from contract import path, problem, snapshot
from decisions import acquire, fails, report
from wait import until
from wire import request_bytes

# Short openings, and a long time for probes.
SOON = {"open_time": "50ms", "open_time_max": "50ms", "probe_timeout": "1m"}


def wait_for_probe(client, key):
    """Repeats acquire until the opening is over, and returns the probe's decision."""
    return until(lambda: (d := acquire(client, key))["reason"] == "probe" and d,
                 "the opening is over")


def next_millisecond(client):
    """Waits until the store's clock has another millisecond: changes of state differ by their stamps."""

    def now():
        return snapshot(client.get(path("nobody")))["lastStateChange"]

    before = now()
    until(lambda: now() > before, "the store's clock goes on")


def test_acquire_creates_nothing(daemon):
    first = acquire(daemon, "k", body=b"what is sent is read and ignored")
    assert (first["state"], first["reason"]) == ("closed", "closed")
    assert daemon.get("/v1/circuits").json()["circuits"] == []


def test_a_counted_report_creates_and_counts(daemon):
    permit = acquire(daemon, "k")["permit"]
    assert report(daemon, "k", permit) == {"counted": True, "was": "closed", "state": "closed"}
    assert report(daemon, "k", permit, "failure")["counted"]
    assert report(daemon, "k")["counted"]
    circuit = snapshot(daemon.get(path("k")))
    assert (circuit["successCount"], circuit["failureCount"]) == (2, 1)
    assert circuit["lastFailureTime"] >= circuit["lastStateChange"] > 0


def test_five_failures_in_a_row_open(daemon):
    assert fails(daemon, "k", 4) == {"counted": True, "was": "closed", "state": "closed"}
    report(daemon, "k")
    assert fails(daemon, "k", 4)["state"] == "closed"
    assert fails(daemon, "k", 1) == {"counted": True, "was": "closed", "state": "open"}
    refused = acquire(daemon, "k")
    assert (refused["allowed"], refused["reason"]) == (False, "open")
    assert 0 < refused["retryAfterMs"] <= 30000
    until(lambda: 'why="5 consecutive failures"' in daemon.stderr(), "the transition is logged")
    assert daemon.metric("breakerd_transitions_total", **{"from": "closed", "to": "open"}) == 1


def test_status_is_judged(start_on, store):
    daemon = start_on(store, consecutive_failures=2, failure_status="500-599,429",
                      ignore_status="404")
    for status, counts in ((200, True), (301, True), (404, False), (499, True), (100, True)):
        said = report(daemon, f"s{status}", status=status)
        assert said["counted"] == counts, status
        assert said.get("reason") == (None if counts else "ignored")
        report(daemon, f"s{status}", status=500)
        assert report(daemon, f"s{status}", status=status)["state"] == "closed"
    for status in (500, 599, 429, 0):
        report(daemon, f"f{status}", status=status)
        assert report(daemon, f"f{status}", status=status)["state"] == "open", status


def test_slow_calls_open(start_on, store):
    daemon = start_on(store, slow_time="100ms", slow_rate=50, min_calls=4, failure_rate=0)
    for duration in (99.9, 100, 0):
        assert report(daemon, "k", durationMs=duration)["state"] == "closed"
    assert report(daemon, "k", durationMs=100.0)["state"] == "open"
    until(lambda: 'why="50% of 4 calls were slow, 1 reporter"' in daemon.stderr(), "the transition is logged")


def test_a_probe_closes_or_opens(start_on, store):
    daemon = start_on(store, **SOON)
    fails(daemon, "k", 5)
    probe = wait_for_probe(daemon, "k")
    assert (probe["state"], probe["reason"]) == ("half-open", "probe")
    refused = acquire(daemon, "k")
    assert (refused["reason"], refused["retryAfterMs"]) == ("probing", 1000)
    # A report without a permit counts only while the circuit is closed.
    assert report(daemon, "k")["reason"] == "stale"
    assert report(daemon, "k", probe["permit"], "failure") == {
        "counted": True, "was": "half-open", "state": "open"}
    probe = wait_for_probe(daemon, "k")
    assert report(daemon, "k", probe["permit"], "ignored")["reason"] == "ignored"
    again = acquire(daemon, "k")
    assert again["reason"] == "probe"
    assert report(daemon, "k", again["permit"])["state"] == "closed"
    assert snapshot(daemon.get(path("k")))["failureCount"] == 0
    assert acquire(daemon, "k")["reason"] == "closed"


def test_a_lost_probe_opens_again(start_on, store):
    daemon = start_on(store, open_time="10ms", open_time_max="10ms", probe_timeout="30ms")
    fails(daemon, "k", 5)
    lost = wait_for_probe(daemon, "k")["permit"]
    until(lambda: acquire(daemon, "k")["state"] == "open", "the probe is found lost")
    assert report(daemon, "k", lost)["reason"] in ("spent", "stale")
    # Each lost probe is followed by another one: the circuit is not stuck.
    for _ in range(5):
        assert wait_for_probe(daemon, "k")["reason"] == "probe"
    until(lambda: 'why="a probe was lost"' in daemon.stderr(), "the transition is logged")


LATE = {
    "late": (lambda d, permit: fails(d, "k", 5), "stale"),
    "twice moved": (lambda d, permit: (d.post(path("k", "transition"), {"to": "open"}),
                                       d.post(path("k", "transition"), {"to": "closed"})),
                    "stale"),
    "reset": (lambda d, permit: (d.delete(path("k"))), "stale"),
}


@pytest.mark.parametrize("case", LATE)
def test_a_late_report_is_as_if_it_had_not_come(daemon, case):
    act, reason = LATE[case]
    report(daemon, "k")
    permit = acquire(daemon, "k")["permit"]
    next_millisecond(daemon)
    act(daemon, permit)
    before = snapshot(daemon.get(path("k")))
    said = report(daemon, "k", permit, "failure")
    assert said["reason"] == reason and said["was"] == said["state"]
    after = snapshot(daemon.get(path("k")))
    if case == "reset":  # lastStateChange of a circuit that does not exist is the time of the read
        before.pop("lastStateChange"), after.pop("lastStateChange")
    assert after == before


def test_a_probe_that_is_reported_twice_is_spent(start_on, store):
    daemon = start_on(store, probe_successes=2, **SOON)
    fails(daemon, "k", 5)
    permit = wait_for_probe(daemon, "k")["permit"]
    assert report(daemon, "k", permit)["state"] == "half-open"
    assert report(daemon, "k", permit, "failure")["reason"] == "spent"
    second = acquire(daemon, "k")["permit"]
    assert report(daemon, "k", second)["state"] == "closed"
    assert report(daemon, "k", second)["reason"] == "spent"


def test_permits_of_other_circuits_are_refused(daemon):
    report(daemon, "a")
    permit = acquire(daemon, "a")["permit"]
    problem(daemon.post(path("b", "report"), {"permit": permit, "outcome": "success"}),
            "invalid_permit", "no")
    for forged in ("", "x", "c", permit[:-1], permit + "0", permit.upper(), "ü", "a" * 65):
        problem(daemon.post(path("a", "report"), {"permit": forged, "outcome": "success"}),
                "invalid_permit", "no")
    assert snapshot(daemon.get(path("a")))["successCount"] == 1


def test_the_five_operations_are_obeyed_and_feed_nothing(daemon):
    for _ in range(10):
        daemon.post(path("k", "failure"))
    assert acquire(daemon, "k")["reason"] == "closed"
    fails(daemon, "k", 4)
    daemon.post(path("k", "success"))  # does not end the run of failures
    assert fails(daemon, "k", 1)["state"] == "open"
    daemon.post(path("k", "transition"), {"to": "closed"})
    assert fails(daemon, "k", 4)["state"] == "closed"  # the run of failures began anew
    daemon.post(path("k", "transition"), {"to": "half-open"})
    assert acquire(daemon, "k")["reason"] == "probe"
    daemon.delete(path("k"))
    assert acquire(daemon, "k")["reason"] == "closed"
    assert daemon.get("/v1/circuits").json()["circuits"] == []


def test_observed(start_on, store):
    daemon = start_on(store, enforce="no")
    fails(daemon, "k", 5)
    decision = acquire(daemon, "k")
    assert (decision["allowed"], decision["reason"], decision["state"]) == (True, "observed", "open")
    assert report(daemon, "k", decision["permit"])["reason"] == "stale"


# --- rates ---

RATES = {"consecutive_failures": 0, "failure_rate": 50, "min_calls": 20, "window": "1h"}


def run_of(client, key, outcomes):
    """Reports the outcomes in order ("f": a failure). Returns the number of the report that opened the
    circuit, or None."""
    states = []
    with client.wire() as wire:
        for begin in range(0, len(outcomes), 200):
            batch = outcomes[begin:begin + 200]
            for one in batch:
                body = {"outcome": "failure" if one == "f" else "success"}
                wire.send(request_bytes("POST", path(key, "report"), body=body))
            states += [wire.receive().json()["state"] for _ in batch]
    return states.index("open") + 1 if "open" in states else None


def test_one_failure_in_a_thousand_never_opens(start):
    daemon = start(**{**RATES, "consecutive_failures": 5})
    assert run_of(daemon, "k", ("s" * 500 + "f" + "s" * 499) * 10) is None
    circuit = snapshot(daemon.get(path("k")))
    assert (circuit["failureCount"], circuit["successCount"]) == (10, 9990)


@pytest.mark.parametrize("outcomes,opens", [
    ("f" * 100, 20), ("sf" * 50, 20), ("s" + "sf" * 49 + "s", None), ("s" * 30 + "f" * 29, None),
    ("s" * 30 + "f" * 30, 60), ("f" * 19, None)])
def test_rates(start, outcomes, opens):
    assert run_of(start(**RATES), "k", outcomes) == opens


# --- bodies ---

NO_REPORT = {
    "nothing": b"", "no-json": b"outcome=failure", "array": b"[]", "empty": b"{}",
    "both": b'{"outcome":"success","status":200}', "permit-alone": b'{"permit":"x"}',
    "outcome-number": b'{"outcome":1}', "outcome-null": b'{"outcome":null}',
    "status-string": b'{"status":"200"}', "status-bool": b'{"status":true}',
    "duration-string": b'{"status":200,"durationMs":"1"}',
    "duration-negative": b'{"status":200,"durationMs":-0.001}',
    "duration-infinite": b'{"status":200,"durationMs":1e999}',
    "permit-number": b'{"status":200,"permit":1}', "permit-null": b'{"status":200,"permit":null}',
    "unknown": b'{"status":200,"key":"k"}', "twice": b'{"status":200,"status":200}',
    "outcome-twice": b'{"outcome":"success","outcome":"success"}',
    "trailing": b'{"status":200}x', "utf8": b'{"outcome":"\xff"}', "leading-zero": b'{"status":0200}',
    "no-digits": b'{"status":200.}', "cut": b'{"status":200', "comma": b'{"status":200,}',
}
NO_OUTCOME = (b'{"outcome":"Success"}', b'{"outcome":""}', b'{"outcome":"failure\\u0000"}',
              b'{"status":1}', b'{"status":99}', b'{"status":600}', b'{"status":-200}',
              b'{"status":200.5}', b'{"status":1e300}')
REPORTS = (b'{"outcome":"success"}', b' {\n"status" : 200 }\r\n', b'{"status":2e2}',
           b'{"status":200.0}', b'{"\\u006futcome":"succes\\u0073"}',
           b'{"durationMs":0,"outcome":"success"}', b'{"outcome":"success","durationMs":1e3}',
           b'{"outcome":"success","durationMs":123456789012345678}',
           b'{"durationMs":0.0001,"status":599.0,"outcome2":1}'.replace(b',"outcome2":1', b""))


@pytest.mark.parametrize("body", NO_REPORT.values(), ids=NO_REPORT)
def test_what_is_no_report(memory_daemon, body):
    problem(memory_daemon.post(path("k", "report"), body), "invalid_body", "no")
    assert memory_daemon.get("/v1/circuits").json()["circuits"] == []


@pytest.mark.parametrize("body", NO_OUTCOME)
def test_what_is_no_outcome(memory_daemon, body):
    problem(memory_daemon.post(path("k", "report"), body), "invalid_outcome", "no")
    assert memory_daemon.get("/v1/circuits").json()["circuits"] == []


@pytest.mark.parametrize("body", REPORTS)
def test_what_is_a_report(memory_daemon, body):
    answer = memory_daemon.post(path("k", "report"), body)
    assert answer.status == 200 and answer.json()["counted"], answer


# --- policies ---


def test_policies(start, directory):
    with open(f"{directory}/conf", "w", encoding="utf-8") as file:
        file.write("open_time = 2s\n[policy slow]\nkeys = db/*, cache?\nslow_time = 0.5s\n"
                   "[policy all-db]\nkeys = db*\nenforce = no\n")
    daemon = start(f"--config={directory}/conf")
    listed = daemon.get("/v1/policies").json()["policies"]
    assert [p["name"] for p in listed] == ["slow", "all-db", "default"]
    assert listed[0]["keys"] == ["db/*", "cache?"] and listed[2]["keys"] == ["*"]
    assert listed[0]["slow_time"] == 500 and listed[0]["open_time"] == 2000
    for key, name in (("db%2Fa", "slow"), ("cache1", "slow"), ("db", "all-db"), ("x", "default"),
                      ("cache", "default"), ("db+", "all-db")):
        alone = daemon.get(f"/v1/policies?key={key}").json()["policies"]
        assert [p["name"] for p in alone] == [name], key
    for query in ("key=", "key=%00", "key=a&key=b", "name=slow", "key"):
        problem(daemon.get(f"/v1/policies?{query}"), "invalid_query")
    # Each circuit obeys its policy. A reload changes the policies, and counts stay.
    fails(daemon, "db", 4)
    assert fails(daemon, "db", 1)["state"] == "open"
    assert acquire(daemon, "db")["reason"] == "observed"
    fails(daemon, "x", 2)
    with open(f"{directory}/conf", "w", encoding="utf-8") as file:
        file.write("consecutive_failures = 3\n")
    daemon.hangup()
    until(lambda: len(daemon.get("/v1/policies").json()["policies"]) == 1, "the policies are reloaded")
    assert acquire(daemon, "db")["reason"] == "open"
    assert fails(daemon, "x", 1)["state"] == "open"


# --- what is counted ---


def test_metrics(start_on, store):
    daemon = start_on(store, **SOON)
    fails(daemon, "k", 5)
    acquire(daemon, "k")
    report(daemon, "k", outcome="failure")
    report(daemon, "k", outcome="ignored")
    report(daemon, "new", outcome="ignored")
    probe = wait_for_probe(daemon, "k")["permit"]
    report(daemon, "k", probe)
    report(daemon, "k", probe)
    count = lambda o, r: daemon.metric("breakerd_reports_total", outcome=o, result=r)  # noqa: E731
    assert count("failure", "counted") == 5
    assert count("failure", "stale") == 1
    assert count("ignored", "stale") == 1
    assert count("ignored", "ignored") == 1
    assert count("success", "counted") == 1
    assert count("success", "spent") == 1
    assert daemon.metric("breakerd_decisions_total", reason="probe") == 1
    assert daemon.metric("breakerd_decisions_total", reason="open") >= 1
    assert daemon.metric("breakerd_store_operations_total", operation="report", result="ok") == 10
    assert daemon.metric("breakerd_transitions_total", **{"from": "half-open", "to": "closed"}) == 1


# --- the member in Redis ---


def test_the_member_is_behind_the_five_and_only_once_decided_on(redis_daemon, redis):
    redis_daemon.post(path("k", "failure"))
    assert "breakerd" not in json.loads(redis.call("GET", "stoma:cb:k"))
    redis.call("SET", "stoma:cb:k", '{"x":[],"state":"closed","failureCount":1,"successCount":0,'
               '"lastFailureTime":5,"lastStateChange":5}')
    report(redis_daemon, "k", outcome="failure")
    value = json.loads(redis.call("GET", "stoma:cb:k"))
    assert value["breakerd"].startswith("1 ") and value["x"] == []
    assert len(redis.call("KEYS", "*")) == 1


@pytest.mark.parametrize("member", ['"9 what is this"', '"1 0"', "{}", "5", "null", '""'])
def test_a_member_that_is_not_understood_is_none_and_is_replaced(redis_daemon, redis, member):
    redis.call("SET", "stoma:cb:k", '{"state":"closed","failureCount":1,"successCount":0,'
               f'"lastFailureTime":5,"lastStateChange":5,"breakerd":{member}}}')
    assert acquire(redis_daemon, "k")["reason"] == "closed"
    assert report(redis_daemon, "k", outcome="failure")["counted"]
    assert json.loads(redis.call("GET", "stoma:cb:k"))["breakerd"].startswith("1 ")
    assert redis_daemon.metric("breakerd_corrupt_entries_total") == 0


def test_each_is_one_call(start_on, redis):
    """Each acquire and each report is one call of the script, where none is answered from memory."""
    daemon = start_on("redis", max_staleness=0, report_interval=0)

    def calls():
        info = redis.call("INFO", "commandstats")
        info = info.decode() if isinstance(info, bytes) else info
        return sum(int(line.split("calls=")[1].split(",")[0]) for line in info.splitlines()
                   if line.startswith(("cmdstat_evalsha:", "cmdstat_eval:")))

    report(daemon, "k")
    before = calls()
    for _ in range(10):
        report(daemon, "k", acquire(daemon, "k")["permit"])
    assert calls() - before == 20


def test_a_value_that_is_too_large_is_a_store_error(redis_daemon, redis):
    redis.call("SET", "stoma:cb:k", "x" * 65537)
    problem(redis_daemon.post(path("k", "acquire")), "store_error", "no")
    problem(redis_daemon.post(path("k", "report"), {"status": 200}), "store_error", "no")


# --- restarts of the embedded store ---


def test_windows_and_permits_outlive_a_restart(start, directory):
    settings = {"state_file": f"{directory}/state", "open_time": "10ms", "probe_timeout": "1m"}
    daemon = start(**settings)
    fails(daemon, "run", 4)
    permit = acquire(daemon, "run")["permit"]
    fails(daemon, "probing", 5)
    probe = wait_for_probe(daemon, "probing")["permit"]
    daemon.stop()
    daemon = start(**settings)
    assert acquire(daemon, "probing")["reason"] == "probing"
    assert report(daemon, "probing", probe)["state"] == "closed"
    assert report(daemon, "run", permit, "failure")["state"] == "open"


def test_an_opening_a_probe_and_the_growth_outlive_the_time_to_live(start_on, store):
    daemon = start_on(store, ttl=1, consecutive_failures=1, open_time="2s", open_time_max="1m",
                      probe_timeout="20s")
    assert fails(daemon, "k", 1)["state"] == "open"
    daemon.post(path("k", "success"))
    decision = until(lambda: (d := acquire(daemon, "k"))["reason"] != "open" and d,
                     "the opening is over")
    assert decision["reason"] == "probe"
    daemon.post(path("other", "failure"))
    until(lambda: daemon.get("/v1/circuits?prefix=other").json()["circuits"] == [],
          "a time to live is over")
    assert acquire(daemon, "k")["reason"] == "probing"
    assert report(daemon, "k", decision["permit"], "failure")["state"] == "open"
    assert acquire(daemon, "k")["retryAfterMs"] > 2000


def test_time_to_live_in_redis_is_as_long_as_the_opening(start_on, redis):
    daemon = start_on("redis", ttl=60, consecutive_failures=1, open_time="1d", open_time_max="7d")
    fails(daemon, "k", 1)
    for verb in ("failure", "success"):
        assert 172700 < redis.call("TTL", "stoma:cb:k") <= 172800
        daemon.post(path("k", verb))
    daemon.post(path("k", "transition"), {"to": "closed"})
    assert redis.call("TTL", "stoma:cb:k") <= 60


def test_successes_sent_in_the_background_take_no_request_s_place(start, private_redis):
    server = private_redis()
    daemon = start(store=server.url, max_in_flight=2, max_staleness="10s", report_interval="100ms",
                   store_timeout=400).wait_ready()
    for n in range(50):
        report(daemon, f"k{n}", acquire(daemon, f"k{n}")["permit"])
        report(daemon, f"k{n}", acquire(daemon, f"k{n}")["permit"])
    server.freeze()
    for n in range(50):
        report(daemon, f"k{n}", acquire(daemon, f"k{n}")["permit"])
    try:
        answers = []
        until(lambda: answers.append(daemon.post(path("other", "success")).status)
              or daemon.readyz() != "ready", "Redis is away")
        assert set(answers) == {200}
    finally:
        server.thaw()
    until(lambda: daemon.metric("breakerd_reports_pending") == 0, "the successes are sent")
