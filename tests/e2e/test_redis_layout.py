"""The layout of circuits in Redis."""

import json
import re

import pytest

from contract import expect, path, problem, snapshot
from decisions import acquire
from sse import Stream
from wait import until

KEY = "stoma:cb:a"


@pytest.fixture
def daemon(redis_daemon):
    """All tests here are about Redis."""
    return redis_daemon


@pytest.fixture
def client(redis):
    with redis.client() as connection:
        yield connection


def stored(client, key=KEY):
    value = client.call("GET", key)
    return None if value is None else value.decode("utf-8")


def as_stoma_writes_it(snap):
    """The text that JSON.stringify makes of Stoma's entry: members in its order, no spaces."""
    return json.dumps({name: snap[name] for name in (
        "state", "failureCount", "successCount", "lastFailureTime", "lastStateChange")},
        separators=(",", ":"))


def test_the_value_byte_for_byte(daemon, client):
    for verb, body in (("failure", b""), ("success", b""), ("transition", {"to": "open"}),
                       ("transition", {"to": "half-open"}), ("transition", {"to": "closed"})):
        answer = daemon.post(path("a", verb), body)
        assert stored(client) == as_stoma_writes_it(snapshot(answer))
    assert client.call("TYPE", KEY) == b"string"


def test_prefix(redis, start, client):
    daemon = start(store=redis.url, prefix="a b:{x}:").wait_ready()
    daemon.post(path("/api/ключ", "failure"))
    assert client.keys() == ["a b:{x}:cb:/api/ключ".encode()]
    assert daemon.delete(path("/api/ключ")).status == 204
    assert client.keys() == []


def test_writes_renew_the_time_to_live_reads_do_not(daemon, client):
    def age():
        client.call("EXPIRE", KEY, 100)

    def ttl():
        return client.call("TTL", KEY)

    daemon.post(path("a", "failure"))
    assert 86390 <= ttl() <= 86400
    for write in (lambda: daemon.post(path("a", "failure")),
                  lambda: daemon.post(path("a", "success")),
                  lambda: daemon.post(path("a", "transition"), {"to": "closed"}),
                  lambda: daemon.post(path("a", "transition"), {"to": "open", "from": "closed"})):
        age()
        snapshot(write())
        assert ttl() > 86390
    age()
    snapshot(daemon.get(path("a")))
    assert daemon.head(path("a")).status == 200
    problem(daemon.post(path("a", "transition"), {"to": "open", "from": "closed"}),
            "state_conflict", "no")
    assert len(daemon.get("/v1/circuits").json()["circuits"]) == 1
    assert ttl() <= 100


def test_ttl_is_a_setting(redis, start, client):
    daemon = start(store=redis.url, ttl=7).wait_ready()
    daemon.post(path("a", "failure"))
    assert 1 <= client.call("TTL", KEY) <= 7


def test_times_may_be_fractions(redis, start, client):
    daemon = start(store=redis.url, ttl="7.5s", idle_timeout="1.5", request_timeout="1.5s").wait_ready()
    daemon.post(path("a", "failure"))
    assert 7000 < client.call("PTTL", KEY) <= 7500


def test_a_value_without_time_to_live_gets_one(daemon, client):
    client.call("SET", KEY, '{"state":"closed"}')
    snapshot(daemon.get(path("a")))
    assert client.call("TTL", KEY) == -1, "a read gave it a time to live"
    daemon.post(path("a", "failure"))
    assert client.call("TTL", KEY) > 86390


UNKNOWN = (r'{"note":[],"state":"open","obj":{},"failureCount":3,"nested":{"a":[1,2.50,{"b":null}],'
           r'"failureCount":99},"successCount":1,"big":12345678901234567890,"lastFailureTime":5,'
           r'"float":1.10,"exp":1E400,"neg":-0.0,"text":"\u00e9\"\\ \ud83d\ude00 /\/ é","t":true,'
           r'"n":null,"lastStateChange":7,"empty":""}')


def members(text):
    """{member: value}, with numbers as strings in their spelling."""
    return json.loads(text, parse_int=str, parse_float=str)


@pytest.mark.parametrize("spaces", [False, True], ids=["dense", "spaced"])
def test_unknown_members_are_kept_as_they_are(daemon, client, spaces):
    text = UNKNOWN
    if spaces:
        text = " \n" + text.replace(",", " ,\t").replace(":", " :\r\n") + " "
    client.call("SET", KEY, text)
    expect(daemon.get(path("a")), state="open", failureCount=3, successCount=1, lastFailureTime=5,
           lastStateChange=7)
    assert stored(client) == text, "a read changed the value"
    ours = {"state", "failureCount", "successCount", "lastFailureTime", "lastStateChange"}
    before = {n: v for n, v in members(text).items() if n not in ours}
    for verb, body in (("failure", b""), ("success", b""), ("transition", {"to": "half-open"}),
                       ("transition", {"to": "closed", "from": "half-open"})):
        snap = snapshot(daemon.post(path("a", verb), body))
        now = stored(client)
        assert {n: v for n, v in members(now).items() if n not in ours} == before
        assert {n: v for n, v in json.loads(now).items() if n in ours} == snap
        if not spaces:
            for piece in ('"note":[]', '"obj":{}', '"big":12345678901234567890', '"float":1.10',
                          '"exp":1E400', r'"text":"\u00e9\"\\ \ud83d\ude00 /\/ é"'):
                assert piece in now


def test_the_writes_of_another_program_are_seen(daemon, client):
    daemon.post(path("a", "failure"))
    client.call("SET", KEY, '{"state":"open","failureCount":41,"successCount":2,'
                '"lastFailureTime":1700000000000,"lastStateChange":1700000000001}')
    expect(daemon.get(path("a")), state="open", failureCount=41, successCount=2,
           lastFailureTime=1700000000000, lastStateChange=1700000000001)
    expect(daemon.post(path("a", "failure")), failureCount=42)
    client.call("DEL", KEY)
    expect(daemon.get(path("a")), state="closed", failureCount=0)


@pytest.mark.parametrize("value", ["garbage", '{"state":"closed","failureCount":-1}'], ids=["text", "negative"])
def test_a_damaged_value_that_only_acquire_meets(daemon, client, value):
    """The value is counted and logged once, however often memory and the daemon's own listings read it."""
    def reads():
        stats = client.call("INFO", "commandstats").decode()
        return int(re.search("cmdstat_getrange:calls=([0-9]+)", stats)[1])

    client.call("SET", KEY, value)
    assert acquire(daemon, "a")["reason"] == "closed"
    before = reads()
    until(lambda: acquire(daemon, "a") and reads() >= before + 3, "memory has read the value three times")
    for _ in range(3):
        with Stream(daemon) as stream:
            stream.until_ready()  # a listing has read the value
    assert daemon.metric("breakerd_corrupt_entries_total") == 1
    assert daemon.stderr().count("corrupt_entry") == 1
    assert client.call("GET", KEY) == value.encode()


# (value, the members that it reads as; None: it reads as a circuit that does not exist).
DAMAGED = {
    "empty": ("", None),
    "text": ("garbage", None),
    "array": ("[1,2]", None),
    "string": ('"open"', None),
    "number": ("42", None),
    "null": ("null", None),
    "cut": ('{"state":"open"', None),
    "trailing": ('{"state":"open"}}', None),
    "binary": (b"\x00\xff\xfe", None),
    "deep": ("[" * 60000, None),
    "empty-object": ("{}", {}),
    "state-unknown": ('{"state":"ajar","failureCount":3}', {"failureCount": 3}),
    "state-number": ('{"state":1,"failureCount":3}', {"failureCount": 3}),
    "only-state": ('{"state":"open"}', {"state": "open"}),
    "negative": ('{"state":"open","failureCount":-1,"successCount":2}',
                 {"state": "open", "successCount": 2}),
    "fraction": ('{"state":"open","failureCount":1.5}', {"state": "open"}),
    "too-large": ('{"state":"open","failureCount":9007199254740992}', {"state": "open"}),
    "far-too-large": ('{"state":"open","failureCount":1e400}', {"state": "open"}),
    "text-count": ('{"state":"open","failureCount":"3"}', {"state": "open"}),
    "null-count": ('{"state":"open","failureCount":null}', {"state": "open"}),
    "true-count": ('{"state":"open","failureCount":true}', {"state": "open"}),
    "stamps": ('{"state":"open","lastFailureTime":-5,"lastStateChange":"x"}', {"state": "open"}),
}


@pytest.mark.parametrize("value,reads", DAMAGED.values(), ids=DAMAGED)
def test_damaged_value(daemon, client, value, reads):
    client.call("SET", KEY, value)
    before = client.now_ms()
    got = snapshot(daemon.get(path("a")))
    if reads is None:
        assert before <= got["lastStateChange"] <= client.now_ms()
        assert dict(got, lastStateChange=0) == {
            "state": "closed", "failureCount": 0, "successCount": 0, "lastFailureTime": 0,
            "lastStateChange": 0}
    else:
        assert got == {"state": "closed", "failureCount": 0, "successCount": 0,
                       "lastFailureTime": 0, "lastStateChange": 0, **reads}
    raw = client.call("GET", KEY)
    assert raw == (value if isinstance(value, bytes) else value.encode()), "a read replaced the value"

    # Damaged values are counted, and logged once for each key, however often they are read.
    counted = daemon.metric("breakerd_corrupt_entries_total")
    assert counted >= 1
    snapshot(daemon.get(path("a")))
    snapshot(daemon.get(path("a")))
    client.call("SET", "stoma:cb:second", "garbage")
    snapshot(daemon.get(path("second")))
    until(lambda: "second" in daemon.stderr(), "the second value is logged")
    lines = [line for line in daemon.stderr().splitlines() if "corrupt" in line.lower()]
    assert len(lines) == 2, daemon.stderr()
    assert daemon.metric("breakerd_corrupt_entries_total") > counted

    # The next write replaces the damaged value.
    snap = snapshot(daemon.post(path("a", "failure")))
    assert snap["failureCount"] == (reads or {}).get("failureCount", 0) + 1
    assert json.loads(stored(client)) == snap
    assert client.call("TTL", KEY) > 86390


@pytest.mark.parametrize("spelling,value", [
    ("3.0", 3), ("1.7e12", 1700000000000), ("17E11", 1700000000000), ("0", 0), ("-0", 0),
    ("9007199254740991", 2**53 - 1), ("3.000", 3), ("30e-1", 3),
])
def test_integers_in_every_spelling(daemon, client, spelling, value):
    client.call("SET", KEY, '{"state":"open","failureCount":%s,"successCount":%s,'
                '"lastFailureTime":%s,"lastStateChange":%s}' % ((spelling,) * 4))
    expect(daemon.get(path("a")), state="open", failureCount=value, successCount=value,
           lastFailureTime=value, lastStateChange=value)
    assert daemon.metric("breakerd_corrupt_entries_total") == 0


def test_a_sound_value_is_not_counted_as_corrupt(daemon, client):
    client.call("SET", KEY, UNKNOWN)
    for _ in range(3):
        daemon.get(path("a"))
        daemon.post(path("a", "failure"))
    assert daemon.metric("breakerd_corrupt_entries_total") == 0


OTHER_TYPES = {
    "list": (["RPUSH", KEY, "x"], ["LRANGE", KEY, 0, -1]),
    "hash": (["HSET", KEY, "state", "open"], ["HGETALL", KEY]),
    "set": (["SADD", KEY, "x"], ["SMEMBERS", KEY]),
    "zset": (["ZADD", KEY, 1, "x"], ["ZRANGE", KEY, 0, -1]),
    "stream": (["XADD", KEY, "1-1", "a", "b"], ["XRANGE", KEY, "-", "+"]),
}


@pytest.mark.parametrize("make,read", OTHER_TYPES.values(), ids=OTHER_TYPES)
def test_key_of_another_type_is_left_alone(daemon, client, make, read):
    client.call(*make)
    before = client.call(*read)
    problem(daemon.get(path("a")), "store_error", contains="WRONGTYPE")
    for verb, body in (("failure", b""), ("success", b""), ("transition", {"to": "open"}),
                       ("transition", {"to": "open", "from": "closed"})):
        problem(daemon.post(path("a", verb), body), "store_error", "no", contains="WRONGTYPE")
    problem(daemon.delete(path("a")), "store_error", "no", contains="WRONGTYPE")
    assert client.call(*read) == before
    assert client.call("TTL", KEY) == -1
    # Other circuits are not affected.
    expect(daemon.post(path("b", "failure")), failureCount=1)
    assert daemon.get("/readyz").json()["status"] == "ready"


def test_nothing_else_is_written(daemon, client):
    for key in ("a", "b", "c"):
        daemon.get(path(key + "-read"))
        daemon.post(path(key, "failure"))
        daemon.post(path(key, "transition"), {"to": "open"})
        daemon.post(path(key + "-refused", "transition"), {"to": "open", "from": "open"})
        daemon.get("/v1/circuits")
        daemon.get("/metrics")
        daemon.get("/")
    daemon.delete(path("c"))
    daemon.delete(path("never"))
    assert client.keys() == [b"stoma:cb:a", b"stoma:cb:b"]
    # No other database has keys.
    assert client.call("INFO", "keyspace").count(b"db") == 1


def test_script_flush_is_not_noticed(daemon, client):
    for n in range(1, 11):
        client.call("SCRIPT", "FLUSH")
        expect(daemon.post(path("a", "failure")), failureCount=n)
    client.call("SCRIPT", "FLUSH")
    expect(daemon.get(path("a")), failureCount=10)
    client.call("SCRIPT", "FLUSH")
    assert daemon.delete(path("a")).status == 204
    assert stored(client) is None


def test_script_flush_under_load_loses_nothing(daemon, client):
    from wire import Wire, request_bytes
    wires = [Wire(daemon.address) for _ in range(20)]
    try:
        for _ in range(20):
            for wire in wires:
                wire.send(request_bytes("POST", path("a", "failure"), body=b"") * 5)
            client.call("SCRIPT", "FLUSH")
        counts = sorted(snapshot(w.receive())["failureCount"] for w in wires for _ in range(100))
    finally:
        for wire in wires:
            wire.close()
    assert counts == list(range(1, 2001))


def test_writes_are_evalsha(daemon, client):
    daemon.post(path("warm", "failure"))
    client.call("CONFIG", "RESETSTAT")
    for _ in range(10):
        daemon.post(path("a", "failure"))
    stats = client.call("INFO", "commandstats").decode()
    assert "cmdstat_evalsha:" in stats
    assert "cmdstat_eval:" not in stats


def test_reset_frees_the_key(daemon, client):
    daemon.post(path("a", "failure"))
    assert client.call("EXISTS", KEY) == 1
    assert daemon.delete(path("a")).status == 204
    assert client.call("EXISTS", KEY) == 0
