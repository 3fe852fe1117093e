"""Keys, and how they are written in paths."""

from urllib.parse import quote

import pytest

from contract import KEYS, expect, path, problem, snapshot


def listing(daemon, query=""):
    answer = daemon.get("/v1/circuits" + query)
    assert answer.status == 200, answer
    return {c["key"] for c in answer.json()["circuits"]}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_key_through_every_operation(daemon, store, request, key):
    expect(daemon.get(path(key)), failureCount=0)
    expect(daemon.post(path(key, "failure")), failureCount=1)
    expect(daemon.post(path(key, "success")), successCount=1)
    opened = expect(daemon.post(path(key, "transition"), {"to": "open"}), state="open")
    assert snapshot(daemon.get(path(key))) == opened
    problem(daemon.post(path(key, "transition"), {"to": "open", "from": "closed"}),
            "state_conflict", "no")
    assert listing(daemon) == {key}
    assert listing(daemon, "?prefix=" + quote(key, safe="")) == {key}
    if store == "redis":
        keys = request.getfixturevalue("redis").client().keys()
        assert keys == [b"stoma:cb:" + key.encode("utf-8")]
    assert daemon.delete(path(key)).status == 204
    assert listing(daemon) == set()


def test_keys_stay_apart(daemon):
    for n, key in enumerate(KEYS.values(), 1):
        for _ in range(n):
            daemon.post(path(key, "failure"))
    for n, key in enumerate(KEYS.values(), 1):
        expect(daemon.get(path(key)), failureCount=n)
    assert listing(daemon) == set(KEYS.values())


@pytest.mark.parametrize("one,other", [
    ("a%2Fb", "a%2fb"), ("%61", "a"), ("a+b", "a%2Bb"), ("a%7Eb", "a~b"), ("%C3%A9", "%c3%a9"),
    ("..", "%2E%2e"), (".", "%2E"), ("a:b@c!$&'()*,;=", "a%3Ab%40c%21%24%26%27%28%29%2A%2C%3B%3D"),
])
def test_two_ways_to_write_one_key(daemon, one, other):
    daemon.post(f"/v1/circuits/{one}/failure")
    expect(daemon.post(f"/v1/circuits/{other}/failure"), failureCount=2)


@pytest.mark.parametrize("one,other", [
    ("a+b", "a%20b"), ("A", "a"), ("a%2Fb", "a%252Fb"), ("%C3%A9", "e%CC%81"), ("a", "a%20"),
])
def test_keys_that_are_not_the_same(daemon, one, other):
    daemon.post(f"/v1/circuits/{one}/failure")
    expect(daemon.post(f"/v1/circuits/{other}/failure"), failureCount=1)


def test_a_slash_that_is_not_escaped_separates(daemon):
    expect(daemon.post("/v1/circuits/%2Fapi%2Fusers/failure"), failureCount=1)
    problem(daemon.get("/v1/circuits//api/users"), "not_found")
    # A key may have the name of an operation.
    expect(daemon.post("/v1/circuits/failure/failure"), failureCount=1)
    expect(daemon.get("/v1/circuits/failure"), failureCount=1)


BAD = {
    "1025-bytes": "k" * 1025,
    "1025-escaped": "%6B" * 1025,
    "1025-of-utf8": quote("é" * 512 + "k"),
    "3000-bytes": "k" * 3000,
    "nul": "a%00b",
    "nul-alone": "%00",
    "newline": "a%0Ab",
    "us": "%1F",
    "tab": "%09",
    "del": "a%7Fb",
    "escape-cut-1": "a%",
    "escape-cut-2": "a%2",
    "escape-no-hex": "a%zz",
    "escape-half-hex": "a%2g",
    "escape-sign": "a%+1",
    "escape-space": "a%%20",
    "utf8-ff": "%FF",
    "utf8-lone-continuation": "%80",
    "utf8-cut": "%E2%82",
    "utf8-overlong-slash": "%C0%AF",
    "utf8-overlong-nul": "%C0%80",
    "utf8-overlong-3": "%E0%80%AF",
    "utf8-surrogate": "%ED%A0%80",
    "utf8-too-large": "%F4%90%80%80",
    "latin-1": "%E9t%E9",
    "empty": "",
}


@pytest.mark.parametrize("segment", BAD.values(), ids=BAD)
def test_bad_key(daemon, store, request, segment):
    if segment:  # test_the_empty_key tests /v1/circuits/
        problem(daemon.get(f"/v1/circuits/{segment}"), "invalid_key")
        problem(daemon.delete(f"/v1/circuits/{segment}"), "invalid_key", "no")
    for verb in ("failure", "success", "transition"):
        problem(daemon.post(f"/v1/circuits/{segment}/{verb}", {"to": "open"}), "invalid_key", "no")
    assert listing(daemon) == set()
    if store == "redis":
        assert request.getfixturevalue("redis").client().keys() == []
    expect(daemon.post(path("good", "failure")), failureCount=1)


def test_the_empty_key(daemon):
    problem(daemon.get("/v1/circuits/"), "invalid_key")
    problem(daemon.delete("/v1/circuits/"), "invalid_key", "no")


@pytest.mark.parametrize("route,words", [
    ("/v1/circuits/" + "k" * 1025, "1024"), ("/v1/circuits/%zz", "%"),
    ("/v1/circuits/%FF", "UTF-8"), ("/v1/circuits/a%00", "control"),
])
def test_the_sentence_says_what_is_wrong(memory_daemon, route, words):
    problem(memory_daemon.get(route), "invalid_key", contains=words)
