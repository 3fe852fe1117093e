"""The cost of a store that is away: processor time, log lines, descriptors, memory."""

import os
import threading
import time

import pytest

from chaos import FULL, SANITIZED, descriptors, process_seconds, resident_kib
from contract import path, snapshot
from gate import Impostor
from ports import free_port
from storm import Storm
from wait import until

# Reconnects of one daemon. The waits between them grow: a thousand take a quarter of an hour.
RECONNECTS = int(os.environ.get("CHAOS_RECONNECTS", "60" if FULL else "0"))


def silent(s):
    while s.recv(65536):
        pass


def close_at_once(s):
    s.close()


@pytest.mark.slow
def test_a_dead_store_costs_an_idle_daemon_nothing(start):
    """Under a hundredth of a core, and a handful of log lines a minute."""
    seconds = 60 if FULL else 3
    mute, rude = Impostor(silent), Impostor(close_at_once)
    stores = {"refused": f"redis://127.0.0.1:{free_port()}", "silent": mute.url,
              "closes": rude.url, "no such name": "redis://no-such-host.invalid:6379",
              "no such socket": "redis+unix:///nowhere/redis.sock",
              "no sentinels": f"redis-sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/m"}
    daemons = {name: start(store=url) for name, url in stores.items()}
    time.sleep(0.5)
    before = {name: (process_seconds(d), d.stderr().count("\n")) for name, d in daemons.items()}
    time.sleep(seconds)
    for name, d in daemons.items():
        used = process_seconds(d) - before[name][0]
        said = d.stderr().count("\n")
        print(f"{name}: {used / seconds * 100:.2f} % of a core, {said} lines in {seconds + 0.5} s, "
              f"{said - before[name][1]} of them after the first half")
        assert used <= 0.01 * seconds * (5 if SANITIZED else 1), name
        # Two of the lines are those of the start.
        assert said - 2 <= 12, d.stderr()
        assert said - before[name][1] <= 8, d.stderr()
    mute.end()
    rude.end()


def kill_clients(redis, times, daemons, deadline):
    """Kills the daemons' connections `times` times, each time when all are up."""
    with redis.client() as client:
        own = client.call("CLIENT", "ID")
        for _ in range(times):
            until(lambda: all(d.metric("breakerd_store_up") for d in daemons), "all links are up", deadline)
            for d in daemons:
                snapshot(d.post(path("k", "failure")))
            client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            until(lambda: client.call("CLIENT", "LIST").count(b"name=breakerd") < len(daemons) or
                  all(d.metric("breakerd_redis_disconnects_total") for d in daemons), "the connections are gone")
            assert client.call("CLIENT", "ID") == own


def channels(redis):
    """How many daemons have subscribed."""
    return redis.call("PUBSUB", "NUMSUB", "stoma:cb:events")[1]


@pytest.mark.slow
def test_reconnecting_leaves_nothing_behind(private_redis, start):
    """Neither descriptors nor memory grow with the number of reconnects, and not each reconnect is logged."""
    count = 8 if FULL else 4
    warm, times = (25, 125) if FULL else (3, 6)
    redis = private_redis()
    daemons = [start(store=redis.url).wait_ready() for _ in range(count)]
    for d in daemons:
        d.get("/metrics")
    began = time.monotonic()
    kill_clients(redis, warm, daemons, 20)
    until(lambda: all(d.metric("breakerd_store_up") for d in daemons), "all links are up")
    until(lambda: channels(redis) == count, "all daemons have subscribed")
    before = [(descriptors(d), resident_kib(d)) for d in daemons]
    kill_clients(redis, times - warm, daemons, 20)
    until(lambda: all(d.metric("breakerd_store_up") for d in daemons), "all links are up")
    until(lambda: channels(redis) == count, "all daemons have subscribed again", 20)
    took = time.monotonic() - began
    connects = sum(d.metric("breakerd_redis_connects_total") for d in daemons)
    after = [(descriptors(d), resident_kib(d)) for d in daemons]
    lines = [d.stderr().count("\n") for d in daemons]
    print(f"{connects:.0f} connects in {took:.0f} s, descriptors and KiB: {before} then {after}; "
          f"lines {lines}")
    assert connects >= (times - 1) * count
    for (fds, kib), (fds_now, kib_now) in zip(before, after):
        assert fds_now <= fds
        if not SANITIZED:
            assert kib_now - kib <= 256
    # The log's limit: some lines a minute, and some at once at the beginning.
    assert max(lines) < 20 + took / 60 * 15


@pytest.mark.slow
def test_the_dns_is_asked_afresh_and_blocks_nothing(start):
    """Requests are answered at once while a name cannot be resolved."""
    daemon = start(store="redis://no-such-host.invalid:6379")
    with Storm([daemon.address], 8, lambda line: (f"k{line}", "failure"), rate=500) as storm:
        time.sleep(1.5)
    assert set(storm.statuses()) == {200}
    assert storm.slowest().took < 0.25


def test_memory_while_away_is_bounded(start):
    """max_circuits bounds the steps kept for Redis, however many circuits are written meanwhile."""
    limit = 20000 if FULL else 1000
    daemon = start(store=f"redis://127.0.0.1:{free_port()}", max_circuits=limit)
    turn = iter(range(10**9))
    sizes = []
    for _ in range(3):
        with Storm([daemon.address], 16, lambda _: (f"key-{next(turn)}", "failure"), rate=20000) as storm:
            until(lambda: len(storm.answers) > 1.2 * limit, f"{1.2 * limit:.0f} circuits have been written", 60)
        sizes.append(resident_kib(daemon))
    assert set(storm.statuses()) == {503}
    print(f"KiB after each {1.2 * limit:.0f} new circuits: {sizes}")
    if not SANITIZED:
        assert sizes[2] - sizes[0] < 1024
    assert daemon.metric("breakerd_folds_pending") == limit


@pytest.mark.skipif(not RECONNECTS, reason="CHAOS=full runs it")
def test_reconnects_of_one_daemon(private_redis, start):
    """The server ends each connection right after its handshake, RECONNECTS times."""
    redis = private_redis()
    daemon = start(store=redis.url).wait_ready()
    stop = threading.Event()

    def kill():
        with redis.client() as client:
            while not stop.wait(0.002):
                client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        until(lambda: daemon.metric("breakerd_redis_connects_total") > 20, "20 connects", 120, step=0.2)
        before = (descriptors(daemon), resident_kib(daemon))
        until(lambda: daemon.metric("breakerd_redis_connects_total") >= RECONNECTS, f"{RECONNECTS} connects", 3600, step=1)
        after = (descriptors(daemon), resident_kib(daemon))
    finally:
        stop.set()
        killer.join()
    print(f"{RECONNECTS} reconnects: descriptors, KiB {before} then {after}; "
          f"{daemon.stderr().count(chr(10))} lines")
    assert after[0] <= before[0] + 1
    assert SANITIZED or after[1] - before[1] <= 256
    daemon.wait_ready()
