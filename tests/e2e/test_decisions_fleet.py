"""acquire and report where several daemons share one Redis, and where Redis goes away."""

import concurrent.futures
import json
import os
import random

import pytest

from contract import path, snapshot
from decisions import acquire, fails, report
from gate import Gate
from wait import until

DAEMONS = 3


@pytest.fixture
def fleet(start, redis):
    """fleet(**settings): three daemons on one Redis."""

    def start_all(**settings):
        settings.setdefault("store_timeout", 5000)
        return [start(store=redis.url, **settings).wait_ready() for _ in range(DAEMONS)]

    return start_all


def at_once(daemons, connections, each, do):
    """Runs do(client, n) `each` times on each connection, all connections at once, spread over the daemons.
    Returns all results."""

    def run(number):
        client = daemons[number % len(daemons)].client()
        try:
            return [do(client, number * each + n) for n in range(each)]
        finally:
            client.close()

    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        return [answer for answers in pool.map(run, range(connections)) for answer in answers]


def redis_now(redis):
    with redis.client() as client:
        return client.now_ms()


@pytest.mark.parametrize("probes", [1, 7])
def test_of_the_whole_fleet_so_many_probes(fleet, redis, probes):
    daemons = fleet(probes=probes, open_time="50ms", probe_timeout="1m")
    for round_ in range(3):
        key = f"k{round_}"
        fails(daemons[0], key, 5)
        # The opening must be over for all of them, by Redis's clock.
        opened = snapshot(daemons[0].get(path(key)))["lastStateChange"]
        until(lambda opened=opened: redis_now(redis) > opened + 50, "the opening is over")
        decisions = at_once(daemons, 30, 10, lambda c, _, key=key: acquire(c, key))
        allowed = [d["permit"] for d in decisions if d["allowed"]]
        assert len(decisions) == 300 and len(allowed) == len(set(allowed)) == probes
        assert {d["reason"] for d in decisions} == {"probe", "probing"}


def test_failures_from_64_connections_are_all_counted(fleet):
    daemons = fleet(consecutive_failures=0, failure_rate=0)
    said = at_once(daemons, 64, 16, lambda c, _: report(c, "k", outcome="failure"))
    assert all(s["counted"] for s in said)
    assert snapshot(daemons[0].get(path("k")))["failureCount"] == 64 * 16


def test_exactly_one_report_moves_the_circuit(fleet):
    daemons = fleet(consecutive_failures=5)
    for round_ in range(20):
        said = at_once(daemons, 12, 4, lambda c, _, r=round_: report(c, f"k{r}", outcome="failure"))
        moved = [s for s in said if s["was"] != s["state"]]
        assert moved == [{"counted": True, "was": "closed", "state": "open"}]
        assert sum(s["counted"] for s in said) == 5
        assert {s["reason"] for s in said if not s["counted"]} == {"stale"}
    total = sum(d.metric("breakerd_transitions_total", **{"from": "closed", "to": "open"})
                for d in daemons)
    assert total == 20


def test_min_reporters(fleet):
    daemons = fleet(min_reporters=2)
    # Each daemon draws one of 936 numbers: daemons[1] may have that of daemons[0], and then daemons[2] opens.
    assert fails(daemons[0], "k", 40)["state"] == "closed"
    assert acquire(daemons[1], "k")["allowed"]
    moved = [fails(d, "k", 1)["state"] for d in daemons[1:]]
    assert "open" in moved


def test_permits_are_good_at_every_daemon(fleet):
    daemons = fleet(open_time="10ms", open_time_max="10ms", probe_timeout="1m")
    permit = acquire(daemons[0], "k")["permit"]
    assert report(daemons[1], "k", permit, "failure")["counted"]
    fails(daemons[2], "k", 4)
    probe = until(lambda: (d := acquire(daemons[0], "k"))["reason"] == "probe" and d, "the opening is over")
    assert report(daemons[2], "k", permit)["reason"] == "stale"
    assert report(daemons[1], "k", probe["permit"])["state"] == "closed"
    assert report(daemons[2], "k", probe["permit"])["reason"] == "spent"


class HalfOpen:
    """The permits of one circuit's probes that are out, as the gateways know them."""

    def __init__(self, key):
        self.key = key
        self.alive = []  # permits whose gateways live and will report
        self.dead = 0  # permits whose gateways have died, in this half-open state
        self.died = 0  # all gateways that have died

    def saw(self, state):
        if state != "half-open":
            self.alive, self.dead = [], 0


def one_step(rng, daemons, circuit, probes):
    decision = acquire(rng.choice(daemons), circuit.key)
    circuit.saw(decision["state"])
    if decision["reason"] == "closed":
        circuit.saw(report(rng.choice(daemons), circuit.key, decision["permit"], "failure")["state"])
    elif decision["reason"] == "probe":
        circuit.alive.append(decision["permit"])
    assert len(circuit.alive) + circuit.dead <= probes
    if circuit.alive and rng.random() < 0.6:
        permit = circuit.alive.pop(rng.randrange(len(circuit.alive)))
        if rng.random() < 0.4:
            circuit.dead += 1
            circuit.died += 1
        else:
            outcome = rng.choice(("failure", "success", "ignored"))
            circuit.saw(report(rng.choice(daemons), circuit.key, permit, outcome)["state"])


# CIRCUITS=1 makes all the openings on one circuit, which takes half a minute.
CIRCUITS = int(os.environ.get("CIRCUITS", "20"))


def test_a_thousand_openings_with_gateways_that_die(fleet):
    """No circuit is stuck, and at no time more than `probes` permits are out."""
    probes = 3
    daemons = fleet(open_time="10ms", open_time_max="10ms", probe_timeout="20ms", probes=probes,
                    consecutive_failures=1)
    rng = random.Random(1)
    circuits = [HalfOpen(f"k{n}") for n in range(CIRCUITS)]

    def openings():
        return sum(d.metric("breakerd_transitions_total", **{"from": state, "to": "open"})
                   for d in daemons for state in ("closed", "half-open"))

    reached = 0
    while reached < 1000:
        before = reached

        def goes_on(before=before):
            for _ in range(50):
                for circuit in circuits:
                    one_step(rng, daemons, circuit, probes)
            return openings() > before

        until(goes_on, "the circuits open again")
        reached = openings()
    assert sum(circuit.died for circuit in circuits) > 50


# --- Redis away ---


@pytest.fixture
def gated(start, redis):
    """gated(**settings): a daemon that reaches Redis through a gate, and the gate."""
    gates = []

    def start_one(**settings):
        gate = Gate(redis.address).open()
        gates.append(gate)
        settings.setdefault("store_timeout", 1000)
        return start(store=gate.url, **settings).wait_ready(), gate

    yield start_one
    for gate in gates:
        gate.shut()


def leave(daemon, gate):
    gate.shut()
    until(lambda: daemon.get("/readyz").json()["status"] != "ready", "Redis is away")


def come_back(daemon, gate):
    gate.open()
    daemon.wait_ready()
    until(lambda: daemon.metric("breakerd_folds_pending") == 0, "all steps are folded")


def test_decisions_go_on_and_are_folded(gated, redis):
    daemon, gate = gated(open_time="1m")
    fails(daemon, "k", 3)
    permit = acquire(daemon, "k")["permit"]
    leave(daemon, gate)
    assert acquire(daemon, "k", degraded=True)["reason"] == "closed"
    # Three failures and a permit from Redis's time still count.
    assert report(daemon, "k", permit, "failure", degraded=True)["state"] == "closed"
    assert report(daemon, "k", permit, "failure", degraded=True)["state"] == "open"
    assert acquire(daemon, "k", degraded=True)["reason"] == "open"
    come_back(daemon, gate)
    value = json.loads(redis.call("GET", "stoma:cb:k"))
    assert (value["state"], value["failureCount"]) == ("open", 5)
    assert acquire(daemon, "k")["reason"] == "open"


def test_a_window_of_the_time_without_redis_is_not_folded(gated, redis):
    daemon, gate = gated()
    fails(daemon, "k", 3)
    leave(daemon, gate)
    permit = acquire(daemon, "k", degraded=True)["permit"]
    fails(daemon, "k", 1, degraded=True)
    come_back(daemon, gate)
    # The failure is in failureCount, but not in the run of failures. The permit given meanwhile is valid.
    assert snapshot(daemon.get(path("k")))["failureCount"] == 4
    assert report(daemon, "k", permit, "failure") == {
        "counted": True, "was": "closed", "state": "closed"}
    assert report(daemon, "k", permit, "failure")["state"] == "open"


def test_a_probe_across_the_absence(gated):
    daemon, gate = gated(open_time="10ms", open_time_max="10ms", probe_timeout="1m")
    fails(daemon, "k", 5)
    probe = until(lambda: (d := acquire(daemon, "k"))["reason"] == "probe" and d,
                  "the opening is over")["permit"]
    leave(daemon, gate)
    assert acquire(daemon, "k", degraded=True)["reason"] == "probing"
    assert report(daemon, "k", probe, degraded=True)["state"] == "closed"
    fails(daemon, "k", 5, degraded=True)
    other = until(lambda: (d := acquire(daemon, "k", degraded=True))["reason"] == "probe" and d,
                  "the opening is over")["permit"]
    come_back(daemon, gate)
    before = snapshot(daemon.get(path("k")))
    assert before["state"] == "half-open"
    # Redis does not know this permit: its report changes nothing, and another probe may go.
    assert not report(daemon, "k", other)["counted"]
    assert snapshot(daemon.get(path("k"))) == before
    assert acquire(daemon, "k")["reason"] == "probe"


def test_as_the_five_with_error(gated):
    daemon, gate = gated(on_store_failure="error")
    leave(daemon, gate)
    for verb, body in (("acquire", b""), ("report", b'{"status":500}')):
        answer = daemon.post(path("k", verb), body)
        assert answer.status == 503 and answer.json()["code"] == "store_unavailable"
        assert answer.json()["applied"] == "no" and answer.header("Retry-After")
