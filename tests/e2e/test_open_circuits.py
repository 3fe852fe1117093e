"""Circuits that are not closed: breakerd_circuits counts them, breakerd_circuit_open_seconds and GET / name them."""

import re
import shutil
import subprocess
import time

import pytest

from contract import path
from sse import Stream
from wait import until

HOSTILE = ['a"b\\c', 'x"} 1\nbreakerd_evil 1'.replace("\n", " "), "\\", '"', "a,b={}", "\u202eabc",
           "\u0085\u009b2J", "k" * 1024, "\\" * 1024, "\U0001f4a5", "#", " ", "key=\"a\",state=\"open\""]


def move(daemon, key, to):
    return daemon.post(path(key, "transition"), {"to": to}).json()


def force(daemon, key, mode="forced-open", seconds=60):
    return daemon.request("PUT", path(key, "override"),
                          body={"mode": mode, "reason": "why", "seconds": seconds})


def unescape(text):
    return re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), text)


def named(daemon):
    """[(key, state, seconds)] from /metrics, in its order."""
    text = daemon.get("/metrics").body.decode("utf-8")
    return [(unescape(m[1]), m[2], float(m[3])) for m in re.finditer(
        r'^breakerd_circuit_open_seconds\{key="((?:[^"\\\n]|\\[\\"n])*)",state="([a-z-]+)"\} (\S+)$',
        text, re.M)]


def lines(daemon):
    """[(state, age, rest)] from GET /, and its text."""
    text = daemon.get("/").body.decode("utf-8")
    return re.findall(r"^(open|half-open) +(\S+) +(.+)$", text, re.M), text


def next_millisecond():
    """Waits until the next change has another stamp, also by Redis's clock."""
    until_ms = int(time.time() * 1000) + 2
    while time.time() * 1000 < until_ms:
        pass


def keys(daemon):
    return [key for key, _, _ in named(daemon)]


def test_counts_and_names(daemon):
    for key in ("a", "b", "c"):
        move(daemon, key, "open")
        next_millisecond()
    daemon.post(path("closed", "failure"))
    force(daemon, "held")  # closed underneath
    until(lambda: keys(daemon) == ["a", "b", "c"], "all three are named")
    move(daemon, "a", "half-open")
    move(daemon, "b", "closed")
    until(lambda: [n[:2] for n in named(daemon)] == [("a", "half-open"), ("c", "open")],
          "a is still first, and b is gone")
    assert daemon.metric("breakerd_circuits", state="open") == 1
    assert daemon.metric("breakerd_circuits", state="half-open") == 1
    shown, text = lines(daemon)
    assert [(state, rest) for state, _, rest in shown] == [("half-open", '"a"'), ("open", '"c"')]
    assert "3 closed, 1 open, 1 half-open" in text
    force(daemon, "c", "forced-closed")
    until(lambda: ("open", '"c", forced-closed') in [(s, r) for s, _, r in lines(daemon)[0]], "GET / shows the override")
    daemon.delete(path("c"))
    until(lambda: keys(daemon) == ["a"], "the circuit that was reset is gone")


def test_ages_count_from_when_it_left_closed(daemon):
    before = time.time()
    move(daemon, "a", "half-open")
    after = time.time()
    until(lambda: keys(daemon) == ["a"], "the circuit is named")
    time.sleep(0.3)  # shows if the age begins anew with the next change
    move(daemon, "a", "open")
    until(lambda: [n[1] for n in named(daemon)] == ["open"], "the state is shown")
    [(_, _, seconds)] = named(daemon)
    assert time.time() - after - 0.01 <= seconds + 0.25, "the age does not count from the first change"
    assert seconds >= 0.29 and seconds <= time.time() - before + 0.05
    assert re.fullmatch(r"\d+s", lines(daemon)[0][0][1])


def test_another_daemon_and_a_new_one_name_them(start_on):
    one, two = start_on("redis"), start_on("redis")
    move(one, "a", "open")
    until(lambda: keys(two) == ["a"], "the other daemon names a", deadline=1)
    move(two, "b", "half-open")
    new = start_on("redis")
    until(lambda: keys(new) == ["a", "b"], "a new daemon names a and b")
    assert new.metric("breakerd_circuits", state="open") == 1
    assert new.metric("breakerd_circuits", state="half-open") == 1


def test_a_stamp_that_is_missing_or_in_the_future_is_no_age(start_on, redis):
    daemon = start_on("redis")
    future = int(time.time() * 1000) + 3_600_000
    for key, stamp in (("none", 0), ("future", future)):
        redis.call("SET", f"stoma:cb:{key}", '{"state":"open","failureCount":1,"successCount":0,'
                   '"lastFailureTime":5,"lastStateChange":%d}' % stamp)
    new = start_on("redis")
    until(lambda: len(named(new)) == 2, "both circuits are named")
    assert all(0 <= seconds < 60 for _, _, seconds in named(new))
    del daemon


def test_the_longest_first_at_most_metrics_circuits(start_on, store, redis):
    daemon = start_on(store, metrics_circuits=3)
    with Stream(daemon) as stream:
        stream.until_ready()  # the first listing is over: from now on the daemon knows each change at once
    for n in range(200):
        move(daemon, f"k{n}", "open")
        if n < 5:
            next_millisecond()
        if n % 2:
            move(daemon, f"k{n - 1}", "half-open")
    until(lambda: daemon.metric("breakerd_circuits", state="open") == 100, "all open circuits are known")
    assert keys(daemon) == ["k0", "k1", "k2"]
    seconds = [s for _, _, s in named(daemon)]
    assert seconds == sorted(seconds, reverse=True)
    move(daemon, "k1", "closed")
    until(lambda: keys(daemon) == ["k0", "k2", "k3"], "the next oldest is named")
    shown, text = lines(daemon)
    assert len(shown) == 100 and "\n          and 99 more\n" in text
    assert [rest for _, _, rest in shown[:3]] == ['"k0"', '"k2"', '"k3"']


def test_none_are_named_if_so_set(start_on):
    daemon = start_on("memory", metrics_circuits=0)
    move(daemon, "a", "open")
    assert named(daemon) == []
    assert daemon.metric("breakerd_circuits", state="open") == 1


def test_sighup_changes_how_many(start, directory):
    conf = f"{directory}/conf"
    with open(conf, "w", encoding="ascii") as file:
        file.write("metrics_circuits = 1\n")
    daemon = start(config=conf)
    for key in "abc":
        move(daemon, key, "open")
        next_millisecond()
    assert keys(daemon) == ["a"]
    with open(conf, "w", encoding="ascii") as file:
        file.write("metrics_circuits = 2\n")
    daemon.hangup()
    until(lambda: keys(daemon) == ["a", "b"], "the reload is applied")


@pytest.mark.parametrize("key", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_key_is_text(daemon, key):
    move(daemon, key, "open")
    until(lambda: keys(daemon) == [key], "the key is named unchanged")
    text = daemon.get("/metrics").body.decode("utf-8")
    assert text.count("breakerd_circuit_open_seconds{") == 1
    assert len([l for l in text.split("\n") if key[:10] in l and l.startswith("breakerd_evil")]) == 0
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", "metrics"], input=text.encode(),
                              capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    page = daemon.get("/").body.decode("utf-8")
    assert "\x9b" not in page and "\x85" not in page
    assert max(map(len, page.split("\n"))) < 400


@pytest.mark.slow
def test_they_are_forgotten_when_they_have_run_out(start_on, store):
    daemon = start_on(store, ttl="1s", open_time="10ms", open_time_max="10ms")
    move(daemon, "a", "open")
    until(lambda: keys(daemon) == ["a"], "the circuit is named")
    until(lambda: keys(daemon) == [], "the circuit has expired", deadline=8)
    assert daemon.metric("breakerd_circuits", state="open") == 0


@pytest.mark.slow
def test_metrics_stay_small_and_quick_with_many_open(memory_daemon):
    daemon = memory_daemon
    wire = daemon.wire()
    count = 20000
    for begin in range(0, count, 100):
        wire.send(b"".join(b"POST /v1/circuits/%s%d/transition HTTP/1.1\r\nHost: localhost\r\n"
                           b"Content-Length: 13\r\n\r\n{\"to\":\"open\"}" % (b"x" * 100, n)
                           for n in range(begin, begin + 100)))
        for _ in range(100):
            assert wire.receive().status == 200
    assert daemon.metric("breakerd_circuits", state="open") == count
    assert len(named(daemon)) == 100
    assert len(daemon.get("/metrics").body) < 100_000
    assert len(daemon.get("/").body) < 20_000
    wire.close()
