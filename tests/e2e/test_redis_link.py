"""The link to Redis: addresses, passwords, databases, and the answers when Redis cannot be reached or used.

test_outage*.py has the tests of outages with on_store_failure = local and under load.
"""

import os
import re
import time

import pytest

from breakerd import ROOT
from contract import expect, path, problem
from decisions import acquire, report
from gate import Gate
from ports import free_port
from preload import preload
from sse import Stream
from wait import until
from wire import Wire, request_bytes

SECRET = "s3cr3t-p%ss w/rd"
SECRET_IN_URL = "s3cr3t-p%25ss%20w%2Frd"


def refused(daemon):
    """The reason in /readyz, for on_store_failure = error; None while the daemon has a store."""
    answer = daemon.get("/readyz")
    if answer.status != 503:
        return None
    body = answer.json()
    assert set(body) == {"status", "store", "reason", "since"}
    assert body["status"] == "unavailable" and body["store"] == "redis"
    assert isinstance(body["since"], int)
    return body["reason"]


def works(daemon):
    daemon.wait_ready()
    expect(daemon.post(path("a", "failure")), failureCount=1)
    expect(daemon.get(path("a")), failureCount=1)
    assert daemon.delete(path("a")).status == 204


def no_secret(daemon, *secrets):
    said = daemon.stderr()
    for route in ("/readyz", "/metrics", "/", path("a"), "/nowhere"):
        answer = daemon.get(route)
        said += answer.body.decode() + repr(answer.headers)
    said += daemon.post(path("a", "failure")).body.decode()
    for secret in secrets:
        assert secret not in said


def test_unix_socket(redis, start):
    works(start(store=redis.unix_url))


def test_a_name_for_the_host(redis, start):
    works(start(store=f"redis://localhost:{redis.port}"))


def test_the_name_is_looked_up_afresh_each_time(redis, start, directory):
    """Redis has moved: the daemon follows, though it was started with the old address."""
    def moves_to(address):
        with open(f"{directory}/hosts", "w", encoding="ascii") as file:
            file.write(f"{address} redis.test\n")

    moves_to("127.0.0.3")
    daemon = start(store=f"redis://redis.test:{redis.port}", on_store_failure="error", env=preload(directory, f"""
        #include <fcntl.h>
        #include <stdio.h>
        #include <string.h>
        FILE *fopen(const char *path, const char *mode)
        {{
            int fd = open(strcmp(path, "/etc/hosts") == 0 ? "{directory}/hosts" : path, O_RDONLY | O_CLOEXEC);

            (void)mode; /* the daemon only reads in this way */
            return fd < 0 ? NULL : fdopen(fd, "r");
        }}
        FILE *fopen64(const char *path, const char *mode) {{ return fopen(path, mode); }}"""))
    until(lambda: "127.0.0.3" in (refused(daemon) or ""), "it says where it tries")
    moves_to("127.0.0.1")
    works(daemon)


def test_connection_name(redis, redis_daemon):
    """The connections of the link and of the channel have a name."""
    del redis_daemon

    def names():
        return redis.call("CLIENT", "LIST").decode().count("name=breakerd")

    until(lambda: names() == 2, "both connections have their name")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_database(redis, start, kind):
    url = redis.url + "/3" if kind == "tcp" else redis.unix_url + "?db=3"
    daemon = start(store=url).wait_ready()
    daemon.post(path("a", "failure"))
    with redis.client() as client:
        assert client.keys() == []
        client.call("SELECT", 3)
        assert client.keys() == [b"stoma:cb:a"]


def test_password(private_redis, start):
    redis = private_redis("--requirepass", SECRET)
    daemon = start(store=f"redis://:{SECRET_IN_URL}@127.0.0.1:{redis.port}")
    works(daemon)
    no_secret(daemon, SECRET, SECRET_IN_URL)


def test_user_and_password(private_redis, start):
    redis = private_redis()
    redis.call("ACL", "SETUSER", "gate/w@y:%", "on", ">" + SECRET, "~stoma:*", "+@all")
    redis.call("ACL", "SETUSER", "default", "off")
    daemon = start(store=f"redis://gate%2Fw%40y%3A%25:{SECRET_IN_URL}@127.0.0.1:{redis.port}")
    works(daemon)
    no_secret(daemon, SECRET, SECRET_IN_URL)


@pytest.mark.parametrize("newline", ["", "\n"])
def test_password_file(private_redis, start, directory, newline):
    redis = private_redis("--requirepass", SECRET)
    name = os.path.join(directory, "password")
    with open(name, "w", encoding="utf-8") as file:
        file.write(SECRET + newline)
    daemon = start(store=redis.url, redis_password_file=name)
    works(daemon)
    no_secret(daemon, SECRET)


# (options of Redis, login in the URL, a word that the reason must contain).
UNREACHABLE = {
    "wrong-password": (["--requirepass", "right"], ":wr0ng-secret@", "password"),
    "no-password": (["--requirepass", "right"], "", "password"),
    "unknown-user": ([], "nobody:wr0ng-secret@", "password"),
}


@pytest.mark.parametrize("options,login,word", UNREACHABLE.values(), ids=UNREACHABLE)
def test_login_refused(private_redis, start, options, login, word):
    redis = private_redis(*options)
    daemon = start(store=f"redis://{login}127.0.0.1:{redis.port}", on_store_failure="error")
    reason = until(lambda: refused(daemon), "/readyz tells a reason")
    until(lambda: word.lower() in (refused(daemon) or "").lower(), f"the reason names {word}: {reason}")
    problem(daemon.get(path("a")), "store_unavailable")
    problem(daemon.post(path("a", "failure")), "store_unavailable", "no")
    no_secret(daemon, "wr0ng-secret", "right")


def test_nobody_listens(start):
    daemon = start(store=f"redis://127.0.0.1:{free_port()}", on_store_failure="error")
    until(lambda: refused(daemon), "/readyz tells a reason")
    began = time.monotonic()
    for _ in range(20):
        problem(daemon.get(path("a")), "store_unavailable")
        for verb, body in (("failure", b""), ("success", b""), ("transition", {"to": "open"})):
            problem(daemon.post(path("a", verb), body), "store_unavailable", "no")
        problem(daemon.delete(path("a")), "store_unavailable", "no")
        problem(daemon.get("/v1/circuits"), "store_unavailable")
    assert time.monotonic() - began < 2, "answers wait for a link that is down"
    assert daemon.get("/healthz").status == 200
    assert daemon.metric("breakerd_store_up") == 0
    assert daemon.get("/").status == 200


def test_no_such_unix_socket(start, directory):
    daemon = start(store=f"redis+unix://{directory}/none", on_store_failure="error")
    until(lambda: refused(daemon), "/readyz tells a reason")
    problem(daemon.get(path("a")), "store_unavailable")


def test_no_such_unix_socket_whose_name_is_no_utf8(start, directory):
    """The reason names the path, and is shown as UTF-8."""
    daemon = start(store=f"redis+unix://{directory}/%FF", on_store_failure="error")
    until(lambda: "\N{REPLACEMENT CHARACTER}" in (refused(daemon) or ""), "/readyz tells a reason with the path")
    assert "\N{REPLACEMENT CHARACTER}" in daemon.get("/").body.decode()


def test_a_unix_socket_whose_name_is_no_utf8(private_redis, start, directory):
    """GET / names the server, as UTF-8."""
    private_redis("--unixsocket", f"{directory}/\udcff")
    daemon = start(store=f"redis+unix://{directory}/%FF").wait_ready()
    assert f"{directory}/\N{REPLACEMENT CHARACTER}" in daemon.get("/").body.decode()


def test_no_such_host(start):
    """A name look-up that fails or hangs does not delay requests."""
    daemon = start(store="redis://no-such-host.invalid:6379", on_store_failure="error")
    began = time.monotonic()
    for _ in range(10):
        problem(daemon.get(path("a")), "store_unavailable")
    assert time.monotonic() - began < 1


def test_it_comes_back_by_itself(private_redis, start):
    redis = private_redis()
    daemon = start(store=redis.url, on_store_failure="error").wait_ready()
    expect(daemon.post(path("a", "failure")), failureCount=1)
    redis.kill()
    until(lambda: refused(daemon), "the daemon notices the loss")
    problem(daemon.get(path("a")), "store_unavailable")
    redis.start()
    daemon.wait_ready()
    expect(daemon.post(path("a", "failure")), failureCount=1)
    assert daemon.metric("breakerd_store_up") == 1


def test_a_redis_that_starts_later(private_redis, start):
    redis = private_redis()
    redis.kill()
    daemon = start(store=redis.url, on_store_failure="error")
    until(lambda: refused(daemon), "/readyz tells a reason")
    redis.start()
    works(daemon)


def test_the_log_on_a_link_that_comes_and_goes(private_redis, start):
    """Few lines are logged. Those left out are counted, in the log and in the metric, and the last line tells the state
    that holds."""
    redis = private_redis()
    gate = Gate(redis.address).open()
    daemon = start(store=gate.url).wait_ready()
    for _ in range(6):
        gate.shut()
        until(lambda: daemon.readyz() == "degraded", "the daemon notices the loss", step=0.001)
        gate.open()
        daemon.wait_ready()
    losses = daemon.metric("breakerd_redis_disconnects_total")
    assert losses >= 6
    counted = daemon.metric("breakerd_log_lines_suppressed_total")
    daemon.stop()
    text = daemon.stderr()
    lines = re.findall(r" (redis_(?:ready|away|suspect) .*)", text)
    left_out = sum(map(int, re.findall(r"suppressed kind=redis_link lines=(\d+)", text)))
    # The metric counts suppressed lines of events_away, too.
    assert 0 < left_out <= counted
    # Each loss makes a line or more, and each return makes one.
    assert len(lines) + left_out >= 2 * losses + 1
    assert len(lines) <= 9
    assert lines[-1].startswith("redis_ready ")
    assert int(re.search(r"away_ms=(\d+)", lines[-1])[1]) < 5000
    gate.shut()


def test_no_answer_in_time(private_redis, start):
    """A read that is not answered is a time-out; a write may have happened."""
    redis = private_redis()
    daemon = start(store=redis.url, store_timeout=200, on_store_failure="error").wait_ready()
    expect(daemon.post(path("a", "failure")), failureCount=1)
    redis.freeze()
    try:
        wires = [daemon.wire() for _ in range(6)]
        began = time.monotonic()
        for wire, (method, route, body) in zip(wires, [
                ("GET", path("a"), None), ("POST", path("a", "failure"), b""),
                ("POST", path("a", "success"), b""), ("DELETE", path("b"), None),
                ("POST", path("c", "transition"), b'{"to":"open"}'), ("GET", "/v1/circuits", None)]):
            wire.send(request_bytes(method, route, body=body))
        problem(wires[0].receive(), "store_timeout")
        applied = []
        for wire in wires[1:5]:
            reply = wire.receive()
            applied.append(reply.json()["applied"])
            # After three deadlines the link is given up, and so are the operations that wait.
            code = "store_timeout" if applied[-1] == "unknown" else reply.json()["code"]
            assert code in ("store_timeout", "store_unavailable")
            problem(reply, code, applied[-1])
        problem(wires[5].receive(), "store_timeout")
        assert 0.15 < time.monotonic() - began < 0.2 + 0.5
        for wire in wires:
            wire.close()
    finally:
        redis.thaw()
    daemon.wait_ready()
    # The operations sent have happened, and their late replies went to no request.
    until(lambda: daemon.get(path("a")).status == 200, "the daemon serves again")
    # Those not sent yet have not happened. Which these are depends on how the requests came together.
    done = [word == "unknown" for word in applied]
    assert done[0] and set(applied) <= {"unknown", "no"}
    expect(daemon.get(path("a")), failureCount=1 + done[0], successCount=int(done[1]))
    expect(daemon.get(path("c")), state="open" if done[3] else "closed")


def test_a_lost_answer_may_have_been_applied(private_redis, start):
    redis = private_redis()
    daemon = start(store=redis.url, store_timeout=5000, on_store_failure="error").wait_ready()
    redis.freeze()
    with daemon.wire() as write, daemon.wire() as read:
        write.send(request_bytes("POST", path("a", "failure"), body=b""))
        read.send(request_bytes("GET", path("a")))
        until(lambda: daemon.metric("breakerd_store_operations_in_flight") == 2, "both operations are in flight")
        # Operations are sent to Redis within two more turns of the loop.
        for _ in range(3):
            assert daemon.get("/healthz").status == 200
        redis.kill()
        problem(write.receive(), "store_unavailable", "unknown")
        problem(read.receive(), "store_unavailable")


def test_overloaded(private_redis, start):
    redis = private_redis()
    daemon = start(store=redis.url, store_timeout=5000, max_in_flight=3,
                   on_store_failure="error").wait_ready()
    redis.freeze()
    wires = [daemon.wire() for _ in range(3)]
    for wire in wires:
        wire.send(request_bytes("POST", path("a", "failure"), body=b""))
    until(lambda: daemon.metric("breakerd_store_operations_in_flight") == 3, "three operations are in flight")
    problem(daemon.get(path("a")), "overloaded")
    problem(daemon.post(path("a", "failure")), "overloaded", "no")
    problem(daemon.delete(path("a")), "overloaded", "no")
    problem(daemon.get("/v1/circuits"), "overloaded")
    assert daemon.get("/healthz").status == 200
    assert daemon.metric("breakerd_store_overloaded_total") == 4
    redis.thaw()
    assert sorted(w.receive().json()["failureCount"] for w in wires) == [1, 2, 3]
    for wire in wires:
        wire.close()
    expect(daemon.get(path("a")), failureCount=3)


def test_out_of_memory_is_the_store_s_error(private_redis, start):
    redis = private_redis()
    daemon = start(store=redis.url).wait_ready()
    expect(daemon.post(path("a", "failure")), failureCount=1)
    redis.call("CONFIG", "SET", "maxmemory", "1")
    problem(daemon.post(path("a", "failure")), "store_error", "no", contains="OOM")
    expect(daemon.get(path("a")), failureCount=1)
    assert daemon.get("/readyz").json()["status"] == "ready"
    redis.call("CONFIG", "SET", "maxmemory", "0")
    expect(daemon.post(path("a", "failure")), failureCount=2)


def test_no_permission_is_the_store_s_error(private_redis, start):
    redis = private_redis()
    redis.call("ACL", "SETUSER", "gate", "on", ">pw-of-gate", "~stoma:*", "+@all")
    daemon = start(store=f"redis://gate:pw-of-gate@127.0.0.1:{redis.port}").wait_ready()
    expect(daemon.post(path("a", "failure")), failureCount=1)
    redis.call("ACL", "SETUSER", "gate", "resetkeys", "~other:*")
    problem(daemon.get(path("a")), "store_error", contains="NOPERM")
    problem(daemon.post(path("a", "failure")), "store_error", "no", contains="NOPERM")
    redis.call("ACL", "SETUSER", "gate", "~stoma:*")
    expect(daemon.post(path("a", "failure")), failureCount=2)
    assert redis.call("GET", "stoma:cb:a").startswith(b'{"state":"closed","failureCount":2')


def test_the_permissions_in_the_manual_suffice(private_redis, start):
    """They suffice for the link and the channel, all operations, a listing, a reconnect and the folding after it: Redis's
    log of denied commands stays empty."""
    with open(os.path.join(ROOT, "docs", "redis.md"), encoding="utf-8") as file:
        user, rules = re.search(r"^ACL SETUSER (\w+) (.*)$", file.read(), re.M).groups()
    redis = private_redis()
    redis.call("ACL", "SETUSER", user, *rules.replace(">password", ">pw").split())
    with redis.client() as other:
        other.call("SELECT", 1)
        other.call("SET", "stoma:cb:empty", "")
        other.call("SET", "stoma:cb:long", '{"state":"open","x":"' + 5000 * "x" + '"}')
    gate = Gate(redis.address).open()
    daemon = start(store=gate.url.replace("//", f"//{user}:pw@") + "/1", read_cache="yes",
                   store_timeout=5000).wait_ready()
    with Stream(daemon) as stream:
        stream.until_ready()
        expect(daemon.post(path("a", "failure")), failureCount=1)
        expect(daemon.post(path("a", "success")), successCount=1)
        expect(daemon.post(path("a", "transition"), {"to": "open", "from": "closed"}), state="open")
        assert stream.next().data["by"] == "transition"
        force = {"mode": "forced-open", "reason": "why"}
        assert daemon.request("PUT", path("a", "override"), body=force).status == 200
        assert daemon.get(path("a", "override")).status == 200
        assert daemon.delete(path("a", "override")).status == 204
    assert acquire(daemon, "b")["allowed"]
    for outcome in ("success", "failure"):
        assert report(daemon, "b", outcome=outcome)["counted"]
    expect(daemon.get(path("empty")), state="closed")
    assert {c["key"] for c in daemon.get("/v1/circuits").json()["circuits"]} == {"a", "b", "long"}
    gate.shut()
    until(lambda: daemon.readyz() == "degraded", "the daemon notices the loss")
    assert daemon.delete(path("a")).status == 204
    expect(daemon.post(path("c", "failure")), failureCount=1)
    gate.open()
    daemon.wait_ready()
    until(lambda: daemon.metric("breakerd_folds_pending") == 0, "all steps are folded")
    expect(daemon.get(path("a")), state="closed", failureCount=0)
    expect(daemon.get(path("c")), failureCount=1)
    assert redis.call("ACL", "LOG") == []
    gate.shut()


def test_a_replica_is_no_store(private_redis, start):
    """A server that cannot be written counts as away."""
    master = private_redis("--repl-diskless-sync-delay", 0)
    replica = private_redis("--replicaof", "127.0.0.1", master.port)
    until(lambda: b"master_link_status:up" in replica.call("INFO", "replication"), "the replica is connected")
    daemon = start(store=replica.url, on_store_failure="error")
    until(lambda: refused(daemon), "/readyz tells a reason")
    problem(daemon.post(path("a", "failure")), "store_unavailable", "no")
    replica.call("REPLICAOF", "NO", "ONE")
    works(daemon)


def test_many_clients_wait_and_all_are_answered(private_redis, start):
    """A hundred writes wait when Redis dies, and each gets one answer. The one that was sent may have been applied; those
    that waited for their turn were not."""
    redis = private_redis()
    daemon = start(store=redis.url, store_timeout=5000, on_store_failure="error").wait_ready()
    redis.freeze()
    wires = [Wire(daemon.address) for _ in range(100)]
    for n, wire in enumerate(wires):
        wire.send(request_bytes("POST", path("hot", "failure"), body=b""))
        if n == 0:
            until(lambda: daemon.metric("breakerd_store_operations_in_flight") == 1, "the first write is in flight")
            # The write is sent at the end of its turn of the loop, and later ones on the same circuit wait for
            # it. A new connection is accepted in a later turn.
            with daemon.wire() as newcomer:
                newcomer.send(request_bytes("GET", "/healthz"))
                assert newcomer.receive().status == 200
    until(lambda: daemon.metric("breakerd_store_operations_in_flight") == 100, "all writes are in flight")
    redis.kill()
    applied = []
    for wire in wires:
        reply = wire.receive()
        applied.append(reply.json()["applied"])
        problem(reply, "store_unavailable", applied[-1])
        wire.close()
    assert applied == ["unknown"] + 99 * ["no"]
