"""GET /v1/circuits."""

from urllib.parse import quote

import pytest

from contract import FIELDS, STATES, check_fields, path, problem, snapshot
from load import hammer
from wait import until
from wire import request_bytes


def page(daemon, **query):
    text = "&".join(f"{n}={quote(str(v), safe='')}" for n, v in query.items())
    answer = daemon.get("/v1/circuits" + ("?" + text if text else ""))
    assert answer.status == 200, answer
    assert answer.type == "application/json"
    body = answer.json()
    assert set(body) == {"circuits", "cursor"}
    assert body["cursor"] is None or isinstance(body["cursor"], str) and body["cursor"]
    for circuit in body["circuits"]:
        assert set(circuit) == FIELDS | {"key"}
        check_fields({n: v for n, v in circuit.items() if n != "key"})
    return body


def pages(daemon, **query):
    """All pages in order. Checks that each is within the limit."""
    out = []
    cursor = {}
    for _ in range(10000):
        body = page(daemon, **query, **cursor)
        assert len(body["circuits"]) <= query.get("limit", 100)
        out.append(body["circuits"])
        if body["cursor"] is None:
            return out
        cursor = {"cursor": body["cursor"]}
    raise AssertionError("the listing does not end")


def keys(list_of_pages):
    out = [c["key"] for circuits in list_of_pages for c in circuits]
    assert len(set(out)) == len(out), "a circuit came twice"
    return sorted(out)


def fill(daemon, names, verb="failure", body=b""):
    answers = hammer([daemon.address], 8,
                     [request_bytes("POST", path(name, verb), body=body) for name in names])
    assert all(status == 200 for status, _, _ in answers)


def test_empty(daemon):
    assert page(daemon) == {"circuits": [], "cursor": None}


def test_items_are_the_snapshots(daemon):
    daemon.post(path("a", "failure"))
    daemon.post(path("b", "transition"), {"to": "open"})
    for item in page(daemon)["circuits"]:
        key = item.pop("key")
        assert item == snapshot(daemon.get(path(key)))


@pytest.mark.parametrize("limit", [1, 2, 7, 100, 1000])
def test_each_circuit_exactly_once(daemon, limit):
    names = sorted(f"key-{n}" for n in range(250 if limit > 2 else 40))
    fill(daemon, names)
    assert keys(pages(daemon, limit=limit)) == names


def test_a_cursor_is_good_for_the_store_that_gave_it(private_redis, start):
    """With Redis away the listing is another one: its middle is not taken for Redis's, nor the other way."""
    redis = private_redis()
    daemon = start(store=redis.url, store_timeout=5000).wait_ready()
    with redis.client() as client:
        for n in range(1500):
            client.call("SET", f"stoma:cb:{n}", '{"state":"closed","failureCount":1,"successCount":0,'
                        '"lastFailureTime":1,"lastStateChange":1}')
        cursor = client.call("SCAN", 0, "COUNT", 500)[0].decode()
    assert page(daemon, cursor=cursor)["circuits"]
    redis.kill()
    until(lambda: daemon.readyz() == "degraded", "the loss is noticed")
    problem(daemon.get(f"/v1/circuits?cursor={cursor}"), "invalid_query", contains="cursor")
    fill(daemon, ["a", "b", "c"])
    cursor = page(daemon, limit=1)["cursor"]
    assert page(daemon, limit=1, cursor=cursor)["circuits"]
    redis.start()
    daemon.wait_ready()
    problem(daemon.get(f"/v1/circuits?cursor={cursor}"), "invalid_query", contains="cursor")


def test_a_cursor_does_not_outlive_its_daemon(start, directory):
    """The circuits do, but not in their order."""
    daemon = start(state_file=f"{directory}/state")
    fill(daemon, ["a", "b", "c"])
    cursor = page(daemon, limit=1)["cursor"]
    daemon.stop()
    problem(start(state_file=f"{directory}/state").get(f"/v1/circuits?cursor={cursor}"), "invalid_query",
            contains="cursor")


def test_default_limit(daemon):
    fill(daemon, [f"key-{n}" for n in range(101)])
    got = pages(daemon)
    assert max(map(len, got)) <= 100
    assert len(keys(got)) == 101


def test_circuits_that_stay_are_listed_while_others_come_and_go(daemon):
    stay = sorted(f"stay-{n}" for n in range(200))
    fill(daemon, stay)
    seen, cursor, n = [], {}, 0
    while True:
        body = page(daemon, limit=20, **cursor)
        seen += [c["key"] for c in body["circuits"]]
        fill(daemon, [f"new-{n}-{i}" for i in range(20)])
        if n:
            for i in range(20):
                assert daemon.delete(path(f"new-{n - 1}-{i}")).status == 204
        daemon.post(path(stay[n % 200], "failure"))
        n += 1
        if body["cursor"] is None or n > 500:
            break
        cursor = {"cursor": body["cursor"]}
    assert n <= 500, "the listing does not end"
    assert sorted(k for k in seen if k.startswith("stay-")) == stay


def test_by_state(daemon):
    for n, state in enumerate(STATES):
        fill(daemon, [f"{state}-{i}" for i in range(5 + n)], "transition", f'{{"to":"{state}"}}')
    for n, state in enumerate(STATES):
        for limit in (3, 1000):
            got = pages(daemon, state=state, limit=limit)
            assert keys(got) == sorted(f"{state}-{i}" for i in range(5 + n))
            assert all(c["state"] == state for circuits in got for c in circuits)


PREFIXED = ["a", "a b", "a+b", "a*", "a?", "a[b", "a]b", "a\\b", "aa", "b", "ключ", "клад", "%", "%25"]


@pytest.mark.parametrize("prefix", ["a", "a ", "a+", "a*", "a?", "a[", "a]", "a\\", "aa", "к", "клю",
                                    "%", "%2", "nothing", "", "k" * 1024])
def test_by_prefix(daemon, prefix):
    fill(daemon, PREFIXED)
    assert keys(pages(daemon, prefix=prefix)) == sorted(k for k in PREFIXED if k.startswith(prefix))


def test_prefix_and_state_together(daemon):
    fill(daemon, ["a1", "a2", "b1"])
    fill(daemon, ["a2", "b2"], "transition", '{"to":"open"}')
    assert keys(pages(daemon, prefix="a", state="open")) == ["a2"]
    assert keys(pages(daemon, prefix="a", state="open", limit=1)) == ["a2"]


def test_plus_is_a_space_in_a_query(daemon):
    fill(daemon, ["a b", "a+b"])
    assert [c["key"] for c in daemon.get("/v1/circuits?prefix=a+").json()["circuits"]] == ["a b"]
    assert [c["key"] for c in daemon.get("/v1/circuits?prefix=a%2B").json()["circuits"]] == ["a+b"]
    assert [c["key"] for c in daemon.get("/v1/circuits?prefix=a%20").json()["circuits"]] == ["a b"]


def test_parameters_may_be_escaped_and_come_in_any_order(daemon):
    fill(daemon, ["ab"])
    for query in ("limit=5&state=closed&prefix=a", "prefix=%61&limit=%35&st%61te=closed"):
        assert [c["key"] for c in daemon.get(f"/v1/circuits?{query}").json()["circuits"]] == ["ab"]


BAD_QUERIES = {
    "unknown": ("x=1", "x"),
    "unknown-case": ("State=open", "State"),
    "unknown-empty": ("verbose", "verbose"),
    "state": ("state=OPEN", "state"),
    "state-empty": ("state=", "state"),
    "state-twice": ("state=open&state=open", "state"),
    "limit-0": ("limit=0", "limit"),
    "limit-1001": ("limit=1001", "1000"),
    "limit-negative": ("limit=-1", "limit"),
    "limit-plus": ("limit=%2B5", "limit"),
    "limit-space": ("limit=+5", "limit"),
    "limit-text": ("limit=ten", "limit"),
    "limit-tail": ("limit=5x", "limit"),
    "limit-fraction": ("limit=1.5", "limit"),
    "limit-hex": ("limit=0x10", "limit"),
    "limit-empty": ("limit=", "limit"),
    "limit-huge": ("limit=99999999999999999999999", "limit"),
    "limit-wraps": ("limit=4294967297", "limit"),
    "limit-twice": ("limit=5&limit=6", "limit"),
    "limit-nul": ("limit=5%00", "limit"),
    "prefix-escape": ("prefix=%zz", "prefix"),
    "prefix-cut": ("prefix=a%2", "prefix"),
    "prefix-utf8": ("prefix=%FF", "prefix"),
    "prefix-control": ("prefix=%00", "prefix"),
    "prefix-1025": ("prefix=" + "k" * 1025, "prefix"),
    "prefix-twice": ("prefix=a&prefix=b", "prefix"),
    "cursor-nonsense": ("cursor=nonsense", "cursor"),
    "cursor-negative": ("cursor=-1", "cursor"),
    "cursor-control": ("cursor=%00%01", "cursor"),
    "cursor-long": ("cursor=" + "9" * 5000, "cursor"),
    "cursor-quote": ("cursor=%22%3B--", "cursor"),
    "name-escape": ("%zz=1", ""),
}


@pytest.mark.parametrize("query,word", BAD_QUERIES.values(), ids=BAD_QUERIES)
def test_bad_query(daemon, query, word):
    fill(daemon, ["a"])
    problem(daemon.get("/v1/circuits?" + query), "invalid_query", contains=word)
    assert keys(pages(daemon)) == ["a"]


def test_foreign_keys_on_redis_are_not_listed(redis, redis_daemon):
    with redis.client() as client:
        for n in range(300):
            client.call("SET", f"other:{n}", "x")
            client.call("SET", f"stoma:rl:{n}", "1")
            client.call("RPUSH", f"stoma:list:{n}", "1")
        client.call("SET", "Stoma:cb:upper", "{}")
        client.call("SET", "xstoma:cb:before", "{}")
    names = sorted(f"mine-{n}" for n in range(50))
    fill(redis_daemon, names)
    assert keys(pages(redis_daemon, limit=10)) == names


def test_prefix_setting_is_no_pattern(redis, start):
    """A prefix with the characters of a glob pattern is taken literally."""
    one = start(store=redis.url, prefix="g[a]*:").wait_ready()
    two = start(store=redis.url, prefix="ga:").wait_ready()
    fill(one, ["x"])
    fill(two, ["y"])
    assert redis.client().keys() == [b"g[a]*:cb:x", b"ga:cb:y"]
    assert keys(pages(one)) == ["x"]
    assert keys(pages(two)) == ["y"]


def test_keys_of_redis_that_we_would_not_take_are_not_listed(redis, redis_daemon):
    """Another program may have written keys that are invalid here. They are left out, and the JSON stays valid."""
    with redis.client() as client:
        client.call("SET", b"stoma:cb:\xff\xfe", "{}")
        client.call("SET", b"stoma:cb:a\nb", "{}")
        client.call("SET", b"stoma:cb:", "{}")
        client.call("SET", b"stoma:cb:" + b"k" * 1025, "{}")
    fill(redis_daemon, ["good"])
    assert keys(pages(redis_daemon)) == ["good"]


def test_wrong_types_on_redis_do_not_break_the_listing(redis, redis_daemon):
    redis.call("RPUSH", "stoma:cb:list", "1")
    redis.call("HSET", "stoma:cb:hash", "state", "open")
    fill(redis_daemon, ["good"])
    assert keys(pages(redis_daemon)) == ["good"]
