"""Values of more than 64 KiB in Redis."""

import json

import pytest

from contract import expect, path, problem
from test_listing import keys, pages

KEY = "stoma:cb:large"
MAX = 65536
MB = 1 << 20
FIVE = '{"state":"open","failureCount":1,"successCount":2,"lastFailureTime":3,"lastStateChange":4'

# Foreign members of 1 MB, one of each kind.
FOREIGN = {
    "string": '"' + "x" * MB + '"',
    "escapes": '"' + "\\u0041" * (MB // 6) + '"',
    "number": "7" * MB,
    "array": "[" + "0," * (MB // 2) + "0]",
    "arrays": "[" + "[],[]," * (MB // 6) + "[]]",
    "object": "{" + '"a":1,' * (MB // 6) + '"a":1}',
    "deep": "[" * (MB // 2) + "]" * (MB // 2),
    "spaces": " " * MB + "1",
}
VALUES = {kind: f'{FIVE},"x":{member}}}' for kind, member in FOREIGN.items()}
VALUES["no-json-70-MB"] = "x" * (70 * MB)


def of_size(size):
    return f'{FIVE},"x":"{"x" * (size - len(FIVE) - 8)}"}}'


@pytest.fixture
def daemon(redis_daemon):
    return redis_daemon


@pytest.fixture
def client(redis):
    with redis.client() as connection:
        yield connection


def watch_slowlog(client):
    client.call("CONFIG", "SET", "slowlog-log-slower-than", 20000)
    client.call("SLOWLOG", "RESET")


def check_nothing_was_held_up(daemon, client):
    slow = [entry for entry in client.call("SLOWLOG", "GET", 100)]
    assert not slow, [(entry[2], entry[3][:1]) for entry in slow]
    assert daemon.get("/readyz").json()["status"] == "ready"
    assert daemon.metric("breakerd_redis_connects_total") == 1


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_large_value_is_its_circuits_error(daemon, client, value):
    client.call("SET", KEY, value)
    watch_slowlog(client)
    words = "larger than 64 KiB"
    problem(daemon.get(path("large")), "store_error", contains=words)
    for verb, body in (("failure", b""), ("success", b""), ("transition", {"to": "open"}),
                       ("transition", {"to": "closed", "from": "open"})):
        problem(daemon.post(path("large", verb), body), "store_error", "no", contains=words)
        answer = daemon.post(path("other", "failure"))
        expect(answer)
        assert "degraded" not in repr(answer).lower(), answer
    problem(daemon.delete(path("large")), "store_error", "no", contains=words)
    assert keys(pages(daemon)) == ["other"]
    check_nothing_was_held_up(daemon, client)
    assert client.call("STRLEN", KEY) == len(value)
    assert client.call("TTL", KEY) == -1


def test_a_listing_among_a_hundred_of_them(daemon, client):
    for n in range(100):
        client.call("SET", f"stoma:cb:large-{n}", VALUES["string"])
        client.call("SET", f"stoma:cb:fits-{n}", of_size(5000))
        client.call("SET", f"stoma:cb:small-{n}", FIVE + "}")
    watch_slowlog(client)
    names = sorted([f"small-{n}" for n in range(100)] + [f"fits-{n}" for n in range(100)])
    assert keys(pages(daemon)) == names
    assert keys(pages(daemon, limit=1000, state="open")) == names
    check_nothing_was_held_up(daemon, client)


@pytest.mark.parametrize("size", [4095, 4096, 4097, MAX - 1, MAX])
def test_up_to_the_bound_it_is_a_circuit_like_any(daemon, client, size):
    client.call("SET", KEY, of_size(size))
    expect(daemon.get(path("large")), state="open", failureCount=1)
    assert keys(pages(daemon)) == ["large"]
    expect(daemon.post(path("large", "success")), successCount=3)


def test_a_write_that_would_make_it_too_large(daemon, client):
    value = of_size(MAX)
    client.call("SET", KEY, value)
    # lastFailureTime grows from 1 digit to 13.
    problem(daemon.post(path("large", "failure")), "store_error", "no",
            contains="would become larger than 64 KiB")
    assert client.call("GET", KEY).decode() == value
    expect(daemon.post(path("large", "success")), successCount=3)
    assert json.loads(client.call("GET", KEY))["successCount"] == 3


def test_many_of_them_in_one_call(daemon, client):
    """Circuits that are written together share a call of the script. One that is too large does not fail the others."""
    from load import hammer
    from wire import request_bytes
    for n in range(0, 64, 2):
        client.call("SET", f"stoma:cb:k{n}", VALUES["array"])
    watch_slowlog(client)
    answers = hammer([daemon.address], 64,
                     [request_bytes("POST", path(f"k{n}", "failure"), body=b"") for n in range(64)])
    assert sorted(status for status, _, _ in answers) == [200] * 32 + [502] * 32
    check_nothing_was_held_up(daemon, client)
