"""GET /v1/events and /v1/circuits/{key}/changes."""

import random
import socket
import struct
import time

import pytest

from contract import path, problem
from sse import Stream
from wait import until
from wire import request_bytes


def move(daemon, key, to):
    return daemon.post(path(key, "transition"), {"to": to}).json()


def force(daemon, key, mode="forced-open", seconds=60, reason="why"):
    return daemon.request("PUT", path(key, "override"),
                          body={"mode": mode, "reason": reason, "seconds": seconds}).json()


def brief(event):
    return event.data["key"], event.data["state"], event.data["by"]


def test_the_beginning_and_what_follows(daemon):
    move(daemon, "open", "open")
    daemon.post(path("closed", "failure"))
    override = force(daemon, "held")
    with Stream(daemon) as stream:
        assert stream.status == 200 and "text/event-stream" in stream.head
        first = stream.until_ready()
        assert sorted(brief(e) for e in first) == [("held", "closed", "elsewhere"),
                                                   ("open", "open", "elsewhere")]
        assert all(e.kind == "circuit" for e in first)
        [held] = [e for e in first if e.data["key"] == "held"]
        assert held.data["override"] == override
        assert set(held.data) == {"key", "state", "failureCount", "successCount",
                                  "lastFailureTime", "lastStateChange", "override", "by"}
        move(daemon, "open", "half-open")
        move(daemon, "open", "half-open")  # no change
        daemon.post(path("open", "failure"))
        assert brief(stream.next()) == ("open", "half-open", "transition")
        daemon.request("DELETE", path("open"))
        event = stream.next()
        assert brief(event) == ("open", "closed", "reset") and event.data["failureCount"] == 0
        daemon.request("DELETE", path("held", "override"))
        event = stream.next()
        assert brief(event) == ("held", "closed", "override") and "override" not in event.data
        assert stream.quiet()


def test_reports_and_acquires_move_circuits(start_on, store):
    daemon = start_on(store, consecutive_failures=2, open_time="50ms")
    with Stream(daemon) as stream:
        stream.until_ready()
        for _ in range(2):
            daemon.post(path("k", "report"), {"outcome": "failure"})
        assert brief(stream.next()) == ("k", "open", "report")
        permit = until(lambda: daemon.post(path("k", "acquire")).json().get("permit"), "a probe is allowed")
        assert brief(stream.next()) == ("k", "half-open", "acquire")
        daemon.post(path("k", "report"), {"permit": permit, "outcome": "success"})
        assert brief(stream.next()) == ("k", "closed", "report")
    changes = daemon.get(path("k", "changes")).json()["changes"]
    assert [(c["from"], c["to"], c["by"]) for c in changes] == [
        ("half-open", "closed", "report"), ("open", "half-open", "acquire"),
        ("closed", "open", "report")]
    assert changes[2]["why"] == "2 consecutive failures"
    assert all(c["why"] for c in changes)


def test_the_last_twenty_changes(memory_daemon):
    assert memory_daemon.get(path("k", "changes")).json() == {"changes": []}
    for _ in range(15):
        move(memory_daemon, "k", "open")
        move(memory_daemon, "k", "closed")
    changes = memory_daemon.get(path("k", "changes")).json()["changes"]
    assert len(changes) == 20
    assert [c["to"] for c in changes] == ["closed", "open"] * 10
    assert [c["at"] for c in changes] == sorted((c["at"] for c in changes), reverse=True)


def test_changes_are_bounded_by_max_circuits(start):
    """Those of circuits that are open, too: the oldest go first."""
    daemon = start(max_circuits=30)
    for key in "abcd":
        for _ in range(10):
            move(daemon, key, "open")
            move(daemon, key, "closed")
        move(daemon, key, "open")
    kept = [len(daemon.get(path(key, "changes")).json()["changes"]) for key in "abcd"]
    assert kept[3] == 20 and sum(kept) <= 30, kept
    daemon = start(max_circuits=3)
    for to in ("open", "closed", "open", "half-open", "open"):
        move(daemon, "k", to)
    changes = daemon.get(path("k", "changes")).json()["changes"]
    assert [c["to"] for c in changes] == ["open", "half-open", "open"]


def test_filters(daemon):
    move(daemon, "a1", "open")
    move(daemon, "b1", "open")
    with Stream(daemon, "?prefix=a&state=open") as stream:
        assert [brief(e)[:2] for e in stream.until_ready()] == [("a1", "open")]
        move(daemon, "b1", "half-open")
        move(daemon, "a1", "half-open")  # it leaves the state, so one more event comes
        move(daemon, "a1", "closed")
        move(daemon, "a2", "half-open")
        move(daemon, "a2", "open")
        assert brief(stream.next())[:2] == ("a1", "half-open")
        assert brief(stream.next())[:2] == ("a2", "open")
    for query in ("?state=ajar", "?x=1", "?prefix=a&prefix=b"):
        with Stream(daemon, query) as stream:
            assert stream.status == 400


def test_an_override_that_ends_by_itself_is_told(daemon):
    with Stream(daemon) as stream:
        stream.until_ready()
        override = force(daemon, "k", seconds=1)
        assert stream.next().data["override"] == override
        event = stream.next()
        assert brief(event) == ("k", "closed", "override") and "override" not in event.data
        assert abs(time.time() * 1000 - override["until"]) < 500


def test_last_event_id_misses_nothing(daemon):
    rng = random.Random(5)
    seen, states, last = [], {}, None
    stream = Stream(daemon)
    stream.until_ready()
    sent = []
    for _ in range(200):
        for _ in range(rng.randrange(4)):
            key = f"k{rng.randrange(5)}"
            states[key] = "closed" if states.get(key) == "open" else "open"
            move(daemon, key, states[key])
            sent.append((key, states[key]))
        for _ in range(rng.randrange(4)):
            if len(seen) < len(sent):
                seen.append(brief(stream.next())[:2])
        if rng.random() < 0.5:
            last = stream.last_id
            stream.close()
            stream = Stream(daemon, last_id=last)
            missed = stream.until_ready()
            assert all(e.kind == "circuit" for e in missed)
            seen += [brief(e)[:2] for e in missed]
    while len(seen) < len(sent):
        seen.append(brief(stream.next())[:2])
    stream.close()
    assert seen == sent


def test_an_unknown_id_brings_reset_and_the_beginning(daemon):
    move(daemon, "k", "open")
    for last in ("", "x", "0000000000000000-1", "\N{SNOWMAN}"):
        with Stream(daemon, last_id=last) as stream:
            events = stream.until_ready()
            assert events[0].kind == "reset" and events[0].data == {}
            assert [brief(e)[:2] for e in events[1:]] == [("k", "open")]
    with Stream(daemon) as stream:
        stream.until_ready()
        old = stream.last_id
    for n in range(1100):
        move(daemon, "n", "open" if n % 2 == 0 else "closed")
    with Stream(daemon, last_id=old) as stream:
        assert stream.next().kind == "reset"


def test_max_streams_stands_beside_max_connections(start):
    daemon = start(max_streams=3, max_connections=2)
    streams = [Stream(daemon) for _ in range(3)]
    for stream in streams:
        stream.until_ready()
    assert daemon.metric("breakerd_event_streams") == 3
    problem(daemon.get("/v1/events"), "overloaded")
    streams.pop().close()
    until(lambda: daemon.metric("breakerd_event_streams") == 2, "the daemon notices the stream's end", deadline=2)
    with Stream(daemon) as again:
        again.until_ready()
    for stream in streams:
        stream.close()


def test_a_drain_ends_streams(start):
    daemon = start()
    with Stream(daemon) as stream:
        stream.until_ready()
        began = time.monotonic()
        daemon.stop()
        assert time.monotonic() - began < 3
        with pytest.raises(EOFError):
            stream.next()


def test_head_and_other_methods(memory_daemon):
    head = memory_daemon.request("HEAD", "/v1/events")
    assert head.status == 200
    with Stream(memory_daemon) as stream:
        lines = [tuple(line.split(": ", 1)) for line in stream.head.strip().split("\r\n")[1:]]
    own = {"Date", "Content-Length", "Transfer-Encoding"}
    assert [pair for pair in head.headers if pair[0] not in own] == [pair for pair in lines if pair[0] not in own]
    problem(memory_daemon.post("/v1/events"), "method_not_allowed", applied="no")


@pytest.mark.slow
def test_who_reads_nothing_is_disconnected_and_others_miss_nothing(memory_daemon):
    daemon = memory_daemon
    idle = [Stream(daemon) for _ in range(20)]
    client = daemon.client()
    with Stream(daemon) as reader:
        reader.until_ready()
        seen = []
        for n in range(12000):
            client.request("POST", path(f"k{n % 7}" + "x" * 900, "transition"),
                           body={"to": "open" if n // 7 % 2 == 0 else "closed"})
            seen.append(reader.next().id)
    assert len(set(seen)) == 12000
    numbers = [int(i.split("-")[1]) for i in seen]
    assert numbers == list(range(numbers[0], numbers[0] + 12000))
    until(lambda: daemon.metric("breakerd_event_streams") == 0, "the streams have ended")
    assert daemon.metric("breakerd_events_total", result="lost") == 20
    for stream in idle:
        stream.close()


def test_a_comment_every_fifteen_seconds(memory_daemon):
    with Stream(memory_daemon) as stream:
        stream.until_ready()
        stream.sock.settimeout(17)
        began = time.monotonic()
        while b":\n\n" not in stream.text:
            stream._chunk()  # pylint: disable=protected-access
        assert 13 < time.monotonic() - began < 17


# --- changes made by others on Redis


def test_another_daemon_shows_it_within_milliseconds(start_on):
    one, two = start_on("redis"), start_on("redis")
    times = []
    with Stream(two) as stream:
        stream.until_ready()
        for n in range(50):
            began = time.monotonic()
            move(one, "k", "open" if n % 2 == 0 else "closed")
            assert brief(stream.next())[2] == "transition"
            times.append(time.monotonic() - began)
    assert sorted(times)[25] < 0.02
    assert len(two.get(path("k", "changes")).json()["changes"]) == 20


def test_the_beginning_is_that_of_the_whole_prefix(start_on, redis):
    daemon = start_on("redis")
    with Stream(daemon) as stream:
        stream.until_ready()
    redis.call("SET", "stoma:cb:other", '{"state":"open","failureCount":1,"successCount":0,'
                                        '"lastFailureTime":5,"lastStateChange":6}')
    with Stream(daemon) as stream:
        [event] = stream.until_ready()
        assert brief(event) == ("other", "open", "elsewhere")
        assert event.data["lastStateChange"] == 6


def test_what_happened_while_the_link_was_down_is_shown(start, private_redis):
    server = private_redis()
    one = start(store=server.url).wait_ready()
    move(one, "a", "open")
    with Stream(one) as stream:
        assert [brief(e)[0] for e in stream.until_ready()] == ["a"]
        # One transaction kills the daemon's connections and changes circuits before the daemon is back.
        with server.client() as redis:
            redis.send("MULTI")
            redis.receive()
            for words in (("CLIENT", "KILL", "SKIPME", "yes", "TYPE", "normal"),
                          ("CLIENT", "KILL", "TYPE", "pubsub"), ("DEL", "stoma:cb:a"),
                          ("SET", "stoma:cb:b", '{"state":"open","failureCount":1,'
                           '"successCount":0,"lastFailureTime":5,"lastStateChange":6}')):
                redis.send(*words)
                redis.receive()
            redis.send("EXEC")
            redis.receive()
        got = {stream.next().data["key"]: None for _ in range(2)}
        assert set(got) == {"a", "b"}


def test_a_server_that_forbids_publish_loses_that_alone(start, private_redis):
    server = private_redis()
    server.call("ACL", "SETUSER", "default", "-publish")
    daemon = start(store=server.url, on_store_failure="error").wait_ready()
    assert move(daemon, "k", "open")["state"] == "open"
    assert force(daemon, "k")["mode"] == "forced-open"
    with Stream(daemon) as stream:
        assert [brief(e)[0] for e in stream.until_ready()] == ["k"]


def test_messages_that_anybody_publishes_are_passed_over(start_on, redis):
    daemon = start_on("redis")
    with Stream(daemon) as stream:
        stream.until_ready()
        for text in ("", "x", "1", "1 0 t", "1 0 t 0 1 0 0 0 5", "1 0 t 0 1 0 0 0 5\n-", "1 0 t 0 1 0 0 0 5\n-\n",
                     "1 0 t 0 1 0 0 0 5\n-\nstoma:cb:", "1 0 t 0 1 0 0 0 5\n-\nother:cb:x", "1 t 0 1 0 0 0 5\n-\nstoma:cb:x",
                     "2 0 t 0 1 0 0 0 5\n-\nstoma:cb:x", "1 0 q 0 1 0 0 0 5\n-\nstoma:cb:x", "1 0 \0 0 1 0 0 0 5\n-\nstoma:cb:x",
                     "1 0 t 0 9 0 0 0 5\n-\nstoma:cb:x",
                     "1 0 t 0 1 0 0 0 99999999999999999999\n-\nstoma:cb:x", "1 0 t 0 1 0 0 0 5\n-\nstoma:cb:a\nb",
                     "1 99999999999 t 0 1 0 0 0 5\n-\nstoma:cb:x", "1 7 t 0 1 0 0 0 5\n-\nstoma:cb:x"):
            redis.call("PUBLISH", "stoma:cb:events", text)
        redis.call("PUBLISH", "stoma:cb:events", "1 0 t 0 1 0 0 0 5\n-\nstoma:cb:sound")
        assert brief(stream.next()) == ("sound", "open", "transition")


def test_databases_of_one_server_know_nothing_of_each_other(start, private_redis):
    """All databases of a server share its channels; a daemon ignores messages of other databases."""
    url = private_redis().url
    ours, other = (start(store=f"{url}/{db}", max_staleness="10s").wait_ready() for db in (0, 1))
    assert ours.post("/v1/circuits/k/acquire").json()["allowed"]
    with Stream(ours) as stream:
        stream.until_ready()
        move(other, "k", "open")
        move(other, "k", "closed")
        move(other, "k", "open")
        move(ours, "end", "open")
        assert brief(stream.next()) == ("end", "open", "transition")
    assert ours.post("/v1/circuits/k/acquire").json()["allowed"]
    assert not other.post("/v1/circuits/k/acquire").json()["allowed"]


def test_an_open_circuit_stays_in_the_beginning_of_a_busy_daemon(daemon):
    """Long turns of the loop must not make the listing's timer fire early: circuits that the listing had
    shown would count as gone."""
    move(daemon, "open", "open")
    for _ in range(20):
        wires = [daemon.wire() for _ in range(20)]
        for wire in wires:
            wire.send(request_bytes("GET", path("x")) * 40)
        with Stream(daemon) as stream:
            assert [brief(e)[:2] for e in stream.until_ready()] == [("open", "open")]
        for wire in wires:
            wire.close()
    changes = daemon.get(path("open", "changes")).json()["changes"]
    assert [c["to"] for c in changes] == ["open"]


OPEN = ('{"state":"open","failureCount":1,"successCount":0,"lastFailureTime":5,'
        '"lastStateChange":6}')


@pytest.mark.parametrize("read", ["get", "acquire", "list"])
def test_what_another_program_does_is_shown_once_it_is_read(start_on, redis, read):
    daemon, other = start_on("redis"), start_on("redis")
    with Stream(daemon) as stream:
        stream.until_ready()
        for value, state in ((OPEN, "open"), (OPEN.replace("open", "half-open"), "half-open"),
                             (None, "closed")):
            if value:
                redis.call("SET", "stoma:cb:k", value)
            else:
                redis.call("DEL", "stoma:cb:k")
            time.sleep(0.15)  # longer than max_staleness, so that acquire asks Redis
            if read == "get":
                daemon.get(path("k"))
            elif read == "acquire":
                daemon.post(path("k", "acquire"))
            else:
                daemon.get("/v1/circuits")
            if read == "acquire" and state == "open":
                while brief(stream.next())[1] != "half-open":  # the opening was over, so acquire probes
                    pass
                continue
            if read == "acquire" and state == "half-open":
                continue
            assert brief(stream.next()) == ("k", state, "elsewhere")
    del other


@pytest.mark.slow
def test_the_end_of_its_time_is_told(start_on, store):
    """When a circuit's time to live ends nobody writes it: the daemon finds it gone by itself."""
    daemon = start_on(store, ttl="1s", open_time="10ms", open_time_max="10ms")
    with Stream(daemon) as stream:
        stream.until_ready()
        move(daemon, "k", "open")
        assert brief(stream.next()) == ("k", "open", "transition")
        event = stream.next()
        assert brief(event) == ("k", "closed", "elsewhere") and event.data["failureCount"] == 0
    assert daemon.metric("breakerd_circuits", state="open") == 0


@pytest.mark.slow
def test_a_message_that_was_lost_is_made_up_for(start, private_redis):
    """The server forbids SUBSCRIBE and PUBLISH, so no messages come. The daemon reads circuits that are not
    closed again by itself."""
    server = private_redis()
    server.call("ACL", "SETUSER", "default", "-publish", "-subscribe")
    daemon, other = (start(store=server.url).wait_ready() for _ in range(2))
    move(daemon, "k", "open")
    with Stream(daemon) as stream:
        assert [brief(e)[0] for e in stream.until_ready()] == ["k"]
        move(other, "k", "closed")
        assert brief(stream.next()) == ("k", "closed", "elsewhere")


def test_the_log_says_when_an_override_is_over(daemon):
    force(daemon, "k", seconds=1)
    until(lambda: 'override_over key="k" mode=forced-open' in daemon.stderr(), "override_over is logged", 3)


@pytest.mark.slow
def test_streams_begin_however_many_more_come(start_on, redis):
    """A stream's beginning waits for the first listing that starts after it, and not for those that later streams
    cause."""
    redis.call("EVAL", "for i = 1, 30000 do redis.call('SET', 'stoma:cb:k' .. i, ARGV[1]) end", "0",
               OPEN.replace("open", "closed"))
    daemon = start_on("redis", max_streams=2000)
    with Stream(daemon) as first:
        first.until_ready()
    later = []
    try:
        with Stream(daemon) as stream:
            stream.sock.settimeout(0.01)
            for _ in range(500):
                later.append(Stream(daemon))
                try:
                    assert stream.next(0.01).kind == "ready"
                    break
                except TimeoutError:
                    pass
            else:
                raise AssertionError("the stream does not become ready")
    finally:
        for one in later:
            one.close()


def test_a_stream_that_is_reset_is_over_at_once(daemon):
    """A stream reset by its client ends at once, also with unread bytes from the client, and its connection keeps no place
    until request_timeout."""
    before = daemon.connections()
    streams = [Stream(daemon) for _ in range(20)]
    for stream in streams:
        stream.until_ready()
        stream.sock.sendall(b"x" * 10)
    until(lambda: daemon.metric("breakerd_event_streams") == 20, "all streams are open")
    for stream in streams:
        stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.sock.close()
    until(lambda: daemon.metric("breakerd_event_streams") == 0, "all streams have ended", 5)
    until(lambda: daemon.connections() == before, "all connections have ended", 5)


def test_bytes_behind_the_request_of_a_stream_cost_nothing(daemon):
    with Stream(daemon) as stream:
        stream.until_ready()
        stream.sock.sendall(b"x" * 1000)
        move(daemon, "k", "open")
        assert brief(stream.next()) == ("k", "open", "transition")
        before = daemon.metric("process_cpu_seconds_total")
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 1, "a second has passed")
        assert daemon.metric("process_cpu_seconds_total") - before < 0.3
        move(daemon, "k", "closed")
        assert brief(stream.next()) == ("k", "closed", "transition")
