"""Events for changes that no message tells, or that one tells at a bad moment: races with a listing, clocks
that are ahead, servers without PUBLISH or SUBSCRIBE, operations in doubt."""

import time

import pytest

from contract import path
from sse import Stream
from wait import until

STORED = ('{"state":"%s","failureCount":0,"successCount":0,"lastFailureTime":0,'
          '"lastStateChange":%d}')


def move(daemon, key, to):
    answer = daemon.post(path(key, "transition"), {"to": to})
    assert answer.status == 200
    return answer.json()


def brief(event):
    return event.data["key"], event.data["state"], event.data["by"]


def store_many(server, keys):
    with server.client() as redis:
        for key in keys:
            redis.send("SET", f"stoma:cb:{key}", STORED % ("open", 6))
        for _ in keys:
            redis.receive()


@pytest.mark.slow
def test_what_closes_while_it_is_listed_is_closed(start, private_redis):
    """A message about a circuit not known yet is not lost if it comes after Redis has read a page of the listing
    and before the daemon notes that page."""
    server = private_redis()
    one, other = (start(store=server.url).wait_ready() for _ in range(2))
    for n in range(5):
        keys = [f"r{n}.{i}" for i in range(300)]
        store_many(server, keys)
        client = other.client()
        with Stream(one):  # makes the daemon `one` list the store
            for key in keys:
                client.request("POST", path(key, "transition"), body={"to": "closed"})
            # The daemon also reads an open circuit again by itself, but not within the first 2 s.
            until(lambda: one.metric("breakerd_circuits", state="open") == 0, "all are known as closed", deadline=1.2)


def test_a_change_behind_a_stamp_that_is_ahead_is_told(start_on, redis):
    """Another program, whose clock is ahead, changed the circuit: the next change has a smaller stamp."""
    one, other = start_on("redis"), start_on("redis")
    redis.call("SET", "stoma:cb:k", STORED % ("open", (time.time() + 30) * 1000))
    with Stream(one) as stream:
        assert [brief(e)[:2] for e in stream.until_ready()] == [("k", "open")]
        move(other, "k", "closed")
        assert brief(stream.next(timeout=1.2))[:2] == ("k", "closed")


@pytest.mark.parametrize("forbidden", ["-publish", "-subscribe"])
def test_a_daemon_sees_what_it_does_itself_without_the_channel(start, private_redis, forbidden):
    server = private_redis()
    server.call("ACL", "SETUSER", "default", forbidden)
    daemon = start(store=server.url, consecutive_failures=2, open_time="50ms").wait_ready()
    with Stream(daemon) as stream:
        stream.until_ready()
        move(daemon, "k", "open")
        assert brief(stream.next()) == ("k", "open", "transition")
        daemon.request("DELETE", path("k"))
        assert brief(stream.next()) == ("k", "closed", "reset")
        for _ in range(2):
            daemon.post(path("m", "report"), {"outcome": "failure"})
        assert brief(stream.next()) == ("m", "open", "report")
        until(lambda: daemon.post(path("m", "acquire")).json().get("permit"), "a probe is allowed")
        assert brief(stream.next()) == ("m", "half-open", "acquire")
        daemon.request("PUT", path("o", "override"), body={"mode": "forced-open", "reason": "why"})
        event = stream.next()
        assert brief(event) == ("o", "closed", "override") and event.data["override"]["reason"] == "why"
        daemon.request("DELETE", path("o", "override"))
        event = stream.next()
        assert brief(event) == ("o", "closed", "override") and "override" not in event.data
    changes = daemon.get(path("m", "changes")).json()["changes"]
    assert [(c["to"], c["by"]) for c in changes] == [("half-open", "acquire"), ("open", "report")]
    assert changes[1]["why"] == "2 consecutive failures"


@pytest.mark.slow
@pytest.mark.parametrize("before,to", [("closed", "open"), ("open", "closed")])
def test_what_redis_refuses_in_the_end_is_taken_back(start, private_redis, before, to):
    """Redis does not answer in time, so the operation is in doubt and is done in memory. Later Redis refuses it:
    an event takes the change back."""
    server = private_redis()
    daemon = start(store=server.url).wait_ready()
    with Stream(daemon) as stream:
        stream.until_ready()
        if before == "open":
            move(daemon, "k", "open")
            assert brief(stream.next())[:2] == ("k", "open")
        else:
            daemon.post(path("k", "success"))
        server.call("CLIENT", "PAUSE", "600", "WRITE")
        server.call("CONFIG", "SET", "maxmemory", "1")
        assert move(daemon, "k", to)["state"] == to
        assert brief(stream.next()) == ("k", to, "transition")
        assert brief(stream.next()) == ("k", before, "elsewhere")
    assert daemon.metric("breakerd_circuits", state="open") == (before == "open")
    server.call("CONFIG", "SET", "maxmemory", "0")


def test_a_reset_in_doubt_is_one_event(start, private_redis):
    """The reset is done in memory while Redis does not answer; Redis's own message later makes no second event."""
    server = private_redis()
    daemon = start(store=server.url).wait_ready()
    with Stream(daemon) as stream:
        stream.until_ready()
        move(daemon, "k", "open")
        assert brief(stream.next())[:2] == ("k", "open")
        server.call("CLIENT", "PAUSE", "500", "WRITE")
        assert daemon.request("DELETE", path("k")).status == 204
        assert brief(stream.next()) == ("k", "closed", "reset")
        until(lambda: server.call("EXISTS", "stoma:cb:k") == 0, "Redis has removed the circuit")
        until(lambda: daemon.get("/readyz").json()["status"] == "ready", "nothing is in doubt")
        move(daemon, "end", "open")
        assert brief(stream.next())[:2] == ("end", "open")
        # A later reset makes an event again.
        move(daemon, "k", "open")
        assert brief(stream.next())[:2] == ("k", "open")
        daemon.request("DELETE", path("k"))
        assert brief(stream.next()) == ("k", "closed", "reset")


def test_the_end_of_an_override_shows_the_circuit_as_it_is_then(daemon):
    with Stream(daemon) as stream:
        stream.until_ready()
        daemon.request("PUT", path("k", "override"),
                       body={"mode": "forced-open", "reason": "why", "seconds": 1})
        assert "override" in stream.next().data
        for _ in range(3):
            daemon.post(path("k", "failure"))
        event = stream.next()
        assert brief(event) == ("k", "closed", "override") and "override" not in event.data
        assert event.data["failureCount"] == 3
