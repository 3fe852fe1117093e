"""Each operation is one linearizable step, however many clients act at once."""

import json
import time
from collections import Counter

import pytest

from contract import expect, path
from load import hammer
from wire import Wire, request_bytes


@pytest.fixture(params=["one-on-memory", "one-on-redis", "two-on-redis"])
def fleet(request, start_on):
    """The daemons that share one store."""
    kind = "memory" if request.param == "one-on-memory" else "redis"
    return [start_on(kind) for _ in range(2 if request.param.startswith("two") else 1)]


@pytest.mark.parametrize("round_", range(3))
def test_one_of_a_hundred_moves_the_circuit_on(fleet, round_):
    del round_
    fleet[0].post(path("a", "transition"), {"to": "open"})
    wires = [Wire(fleet[i % len(fleet)].address) for i in range(100)]
    try:
        request = request_bytes("POST", path("a", "transition"),
                                body='{"to":"half-open","from":"open"}')
        for wire in wires:
            wire.send(request)
        answers = [wire.receive() for wire in wires]
    finally:
        for wire in wires:
            wire.close()
    assert Counter(a.status for a in answers) == {200: 1, 409: 99}
    for answer in answers:
        body = answer.json()
        circuit = body["circuit"] if answer.status == 409 else body
        assert circuit["state"] == "half-open"
    assert len({json.dumps(a.json()["circuit"]) for a in answers if a.status == 409}) == 1


def test_twenty_thousand_failures(fleet, request):
    """20,000 recordFailure from 64 connections: none is lost, none counted twice."""
    began = time.monotonic()
    answers = hammer([d.address for d in fleet], 64,
                     [request_bytes("POST", path("hot", "failure"), body=b"")] * 20_000)
    took = time.monotonic() - began
    assert Counter(status for status, _, _ in answers) == {200: 20_000}
    counts = sorted(json.loads(body)["failureCount"] for _, body, _ in answers)
    assert counts == list(range(1, 20_001))
    for daemon in fleet:
        expect(daemon.get(path("hot")), failureCount=20_000)
    if "redis" in request.node.name:
        stored = json.loads(request.getfixturevalue("redis").call("GET", "stoma:cb:hot"))
        assert stored["failureCount"] == 20_000
    print(f"{20_000 / took:.0f} requests/s")


def test_mixed_operations_add_up(fleet):
    """Failures and successes over many circuits at once."""
    requests = [request_bytes("POST", path(f"k{n % 50}", "failure" if n % 3 else "success"), body=b"")
                for n in range(6000)]
    answers = hammer([d.address for d in fleet], 32, requests)
    assert Counter(status for status, _, _ in answers) == {200: 6000}
    for k in range(50):
        mine = [n for n in range(6000) if n % 50 == k]
        failures = sum(1 for n in mine if n % 3)
        for daemon in fleet:
            expect(daemon.get(path(f"k{k}")), failureCount=failures,
                   successCount=len(mine) - failures)


def test_answers_on_one_connection_are_its_own(fleet):
    """Requests for different circuits in flight at once never get each other's answers."""
    wires = [Wire(fleet[i % len(fleet)].address) for i in range(40)]
    try:
        for i, wire in enumerate(wires):
            wire.send(b"".join(request_bytes("POST", path(f"own-{i}", "success"), body=b"")
                               for _ in range(10)))
        for wire in wires:
            got = [wire.receive().json()["successCount"] for _ in range(10)]
            assert got == list(range(1, 11))
    finally:
        for wire in wires:
            wire.close()


def test_clients_that_leave_do_no_harm(fleet):
    """Sixty clients leave without waiting for their answers. Those that come later are served."""
    for n in range(60):
        wire = Wire(fleet[n % len(fleet)].address)
        wire.send(request_bytes("POST", path("a", "failure"), body=b"") * 5)
        wire.close()
    wires = [Wire(fleet[0].address) for _ in range(20)]
    for wire in wires:
        assert wire.ask("POST", path("b", "failure"), body=b"").status == 200
        wire.close()
    for daemon in fleet:
        expect(daemon.get(path("b")), failureCount=20)
        assert daemon.lives()
