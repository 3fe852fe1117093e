"""Memory where several daemons share one Redis. No success is lost or counted twice over stops, a crash loses few, and
the policy machine holds although the daemons' memories learn of changes late or by no message."""

import json
import os
import random
import threading
import time

import pytest

from chaos import SANITIZED
from contract import path
from decisions import acquire, report
from wait import until
from wire import connect

SUCCESS = b'{"outcome":"success"}'
# A million takes a minute or two: SUCCESSES=1000000.
SUCCESSES = int(os.environ.get("SUCCESSES", "60000"))
# The length of the randomised test in seconds, and the seed that repeats a run.
SECONDS = float(os.environ.get("MACHINE_SECONDS", "6"))
SEED = int(os.environ.get("MACHINE_SEED", "0")) or random.randrange(1, 1 << 30)
PIPELINED = 100
ENDS = 6
KEYS = [f"k{n}" for n in range(10)]


# --- every success is counted once ------------------------------------------------------------


def requests(keys):
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
    return b"".join(head % (path(key, "report").encode(), len(SUCCESS), SUCCESS) for key in keys)


class Reporter(threading.Thread):
    """A client that reports successes until `left` are counted, PIPELINED at a time, on all circuits in turn. When its
    daemon ends it goes on at the next one.

    A report without an answer is not counted here, and is made again. A gateway would not do that, but a daemon that
    stops answers every report that it takes. When `left` has come down to `floor` the client waits until `floor` is
    lowered: on a busy machine starting the next daemon takes long."""

    def __init__(self, fleet, number, left):
        super().__init__(daemon=True)
        self.fleet, self.number, self.left = fleet, number, left
        self.floor = left
        self.counted = dict.fromkeys(KEYS, 0)
        self.unanswered = 0

    def run(self):
        while self.left > 0:
            daemon = self.fleet[self.number % len(self.fleet)]
            try:
                with connect(daemon.address) as s:
                    while self.left > 0:
                        if not self.batch(s):
                            break
            except OSError:
                pass
            time.sleep(0.005)  # the daemon that stops is gone soon
            self.number += 1

    def batch(self, s):
        """Sends some reports and reads the answers. False when the connection has ended."""
        while self.left <= self.floor:
            time.sleep(0.001)
        keys = [KEYS[n % len(KEYS)] for n in range(min(PIPELINED, self.left))]
        text = b""
        try:
            s.sendall(requests(keys))
            while text.count(b'"state":') < len(keys) and (piece := s.recv(1 << 18)):
                text += piece
        except OSError:
            pass  # the answers that have come count
        answered = text.count(b'"state":')
        # The answers come in order, and each says that the report was counted.
        assert text.count(b'"counted":true,"was":"closed","state":"closed"') == answered, text[-300:]
        for key in keys[:answered]:
            self.counted[key] += 1
        self.left -= answered
        self.unanswered += len(keys) - answered
        return answered == len(keys) and b"onnection: close" not in text


def stored(redis):
    with redis.client() as client:
        return {key: json.loads(client.call("GET", f"stoma:cb:{key}"))["successCount"] for key in KEYS}


def reported(start, redis, end):
    """Six clients report successes to three daemons. ENDS times end(daemon, reporters) ends a daemon, and a new one takes
    its place. Returns what the clients know to be counted, and the number of requests without an answer."""
    def one():
        return start(store=redis.url, report_interval="100ms", store_timeout=5000).wait_ready()

    fleet = [one() for _ in range(3)]
    for key in KEYS:
        acquire(fleet[0], key)
        report(fleet[0], key)
    each = SUCCESSES // 6
    reporters = [Reporter(fleet, n, each) for n in range(6)]
    for reporter in reporters:
        reporter.start()
    for ends in range(ENDS):
        # The clients still have reports to make while the daemon ends.
        for reporter in reporters:
            reporter.floor = each - each * (ends + 2) // (ENDS + 2)
        until(lambda ends=ends: open_reports(reporters) <= 6 * (each - each * (ends + 1) // (ENDS + 2)),
              "the clients have made this part of their reports", deadline=120)
        new, old = one(), fleet[ends % 3]
        fleet[ends % 3] = new
        end(old, reporters)
    for reporter in reporters:
        reporter.floor = -1
    for reporter in reporters:
        reporter.join()
    for daemon in fleet:
        daemon.stop()
    counted = {key: 1 + sum(r.counted[key] for r in reporters) for key in KEYS}
    assert sum(counted.values()) == 6 * each + len(KEYS)
    return counted, sum(r.unanswered for r in reporters)


def open_reports(reporters):
    return sum(reporter.left for reporter in reporters)


def test_every_success_is_counted_once_over_stops(start, private_redis):
    redis = private_redis()
    counted, unanswered = reported(start, redis, lambda daemon, _: daemon.stop())
    print(f"{sum(counted.values())} counted, {unanswered} requests without an answer")
    assert stored(redis) == counted


def test_a_crash_loses_what_is_pending_at_most(start, private_redis):
    redis = private_redis()
    pending = []

    def crash(daemon, reporters):
        left = open_reports(reporters)
        most = daemon.metric("breakerd_reports_pending")
        daemon.process.kill()
        daemon.process.wait()
        daemon.ended = True
        # Successes reported since the metric was read may be pending, too.
        pending.append(most + left - open_reports(reporters) + len(reporters) * PIPELINED)

    counted, unanswered = reported(start, redis, crash)
    there = stored(redis)
    lost = sum(counted.values()) - sum(there.values())
    print(f"{sum(counted.values())} counted, {lost} lost by {len(pending)} crashes, of {sum(pending):.0f} "
          f"at most; {unanswered} requests without an answer")
    # Reports without an answer may have been counted.
    assert -unanswered <= lost <= sum(pending)


# --- the policy machine, with memory ----------------------------------------------------------

OPEN, STALENESS, PROBES = 1.0, 0.2, 2
# Seconds by which a busy machine may delay each of two times that are compared.
SLACK = 0.5 if SANITIZED else 0.15


class Log:
    """What the gateways saw of one circuit."""

    def __init__(self):
        self.lock = threading.Lock()
        self.openings = {}  # {end, rounded: (when an answer first told of the opening, end)}
        self.passed = []  # (begun, ended, daemon) of acquires that a closed circuit allowed
        self.alive = {}  # {permit of a probe that is out: its half-open period}


def gateway(daemon, number, key, log, over, rng):
    """A gateway: acquires, and reports failures and successes, until `over` is set."""
    client = daemon.client()
    while not over.is_set():
        begun = time.monotonic()
        decision = acquire(client, key)
        ended = time.monotonic()
        if not decision["allowed"]:
            if decision["reason"] == "open":
                # The circuit was open at `ended` at the latest, and stays open for `left` seconds.
                left = decision["retryAfterMs"] / 1000
                with log.lock:
                    log.openings.setdefault(round((ended + left) * 20), (ended, ended + left))
            time.sleep(rng.random() * 0.005)
            continue
        if decision["reason"] == "probe":
            with log.lock:
                # Permits of an earlier half-open period do not count: they are void, although not reported yet.
                log.alive[decision["permit"]] = decision["permit"].split(".")[0]
                out = list(log.alive.values()).count(log.alive[decision["permit"]])
            assert out <= PROBES, f"{out} permits out, of {PROBES}"
            time.sleep(rng.random() * 0.01)
            with log.lock:
                # Before the report, because from then on another permit may be given.
                del log.alive[decision["permit"]]
        else:
            assert decision["reason"] == "closed"
            with log.lock:
                log.passed.append((begun, ended, number))
        # The upstream fails for the gateways of one daemon after another. The other gateways only acquire: the answer to a
        # report would tell their daemon of an opening, which it must learn in time without.
        fails = int(begun) % 3 == number
        if fails or decision["reason"] == "probe":
            outcome = "failure" if fails and rng.random() < 0.7 else "success"
            report(client, key, decision["permit"], outcome)
    client.close()


def missed(log):
    """The acquires that were allowed as closed although an answer had told of an opening more than max_staleness
    before, and the opening was not over."""
    found = []
    for told, till in log.openings.values():
        for begun, ended, number in log.passed:
            if told + STALENESS + SLACK < begun and ended < till - SLACK:
                found.append((number, begun - told, till - ended))
    return found


def forbid_channel(redis):
    """The URL of the store for a user who may not use channels."""
    with redis.client() as client:
        client.call("ACL", "SETUSER", "plain", "on", ">p", "~*", "+@all", "resetchannels")
    return f"redis://plain:p@127.0.0.1:{redis.port}"


@pytest.mark.parametrize("channel", ["stands", "is killed again and again", "is forbidden"])
def test_the_machine_with_memory(start, private_redis, channel):
    print(f"MACHINE_SEED={SEED}")
    redis = private_redis()
    url = forbid_channel(redis) if channel == "is forbidden" else redis.url
    daemons = [start(store=url, store_timeout=5000, max_staleness=f"{STALENESS}s", probes=PROBES,
                     consecutive_failures=3, open_time=f"{OPEN}s", open_time_max=f"{OPEN}s",
                     probe_timeout="1m").wait_ready() for _ in range(3)]
    over, failures = threading.Event(), []
    logs = {f"k{n}": Log() for n in range(2)}

    def watched(*args):
        try:
            gateway(*args)
        except BaseException as e:  # noqa: B036 # pylint: disable=broad-exception-caught
            failures.append(e)
            over.set()

    threads = [threading.Thread(target=watched, args=(daemon, number, key, log, over,
                                                      random.Random(SEED + 10 * number + i)))
               for number, daemon in enumerate(daemons) for i, (key, log) in enumerate(logs.items())
               for _ in range(2)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + SECONDS
    with redis.client() as client:
        while time.monotonic() < end and not over.wait(0.05):
            if channel == "is killed again and again":
                client.call("CLIENT", "KILL", "TYPE", "pubsub")
    over.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    opened = sum(d.metric("breakerd_transitions_total", **{"from": "closed", "to": "open"})
                 for d in daemons)
    passed = sum(len(log.passed) for log in logs.values())
    print(f"{opened:.0f} openings, {passed} acquires let through")
    assert opened >= 2 and passed > 100
    assert sum(d.metric("breakerd_cached_answers_total") for d in daemons) > passed / 2
    for log in logs.values():
        assert not missed(log)
