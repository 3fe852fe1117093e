"""Conditions of a Redis server, one by one, and what /readyz, the metrics, the log and the answers show of each.

Some concern the link: the server cannot be written at all, so it counts as away, and the daemon uses it again by itself
when the condition is over. Others concern a single operation: 502 with the server's words, in both modes.
"""

import json
import os
import socket
import time

import pytest

from chaos import full
from contract import expect, path, problem, snapshot
from gate import Impostor
from redis_server import RedisError
from storm import Storm
from wait import until
from wire import Client

SECRET = "s3cr3t-of-the-link"
MODES = ("error", "local")


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


# For slow tests: one mode, or both with CHAOS=full.
one_mode = pytest.mark.parametrize("mode", ["error", pytest.param("local", marks=full)])


def begin(start, mode, url, **settings):
    """Starts a daemon on that store. It logs at debug, so that keeps_secrets() sees every line."""
    settings.setdefault("log_level", "debug")
    return start(store=url, on_store_failure=mode, **settings)


def reason(daemon):
    """The reason in /readyz, or None if the store is ready."""
    answer = Client(daemon.address).get("/readyz")
    body = answer.json()
    if body["status"] == "ready":
        return None
    assert (answer.status, body["status"]) in ((503, "unavailable"), (200, "degraded")), answer
    assert body["store"] == "redis" and isinstance(body["since"], int)
    return body["reason"]


# {words of the reason: the label of breakerd_redis_failures_total}
LABELS = {"user or the password": "wrongpass", "asks for a password": "noauth",
          "still loading": "loading", "busy with": "busy", "limit of clients": "maxclients",
          "cannot save": "misconf", "no answer in time": "connect",
          "says nothing": "handshake"}


def is_away(daemon, mode, words, deadline=10):
    """Waits until Redis is away for the reason `words`, and checks all that shows it."""
    def says():
        said = reason(daemon)
        return said is not None and words in said

    try:
        until(says, words, deadline)
    except AssertionError as error:
        raise AssertionError(f"{error}; it says {reason(daemon)!r}") from None
    assert daemon.metric("breakerd_store_up") == 0
    assert daemon.metric("breakerd_store_degraded") == (mode == "local")
    for part, label in LABELS.items():
        if part in words:
            assert daemon.metric("breakerd_redis_failures_total", reason=label) > 0
    lines = [line for line in daemon.stderr().splitlines() if "warning redis_" in line]
    assert any(words in line for line in lines), lines
    began = time.monotonic()
    if mode == "error":
        problem(daemon.get(path("away")), "store_unavailable", contains=words)
        problem(daemon.post(path("away", "failure")), "store_unavailable", "no")
        problem(daemon.post(path("away", "transition"), {"to": "open"}), "store_unavailable", "no")
        problem(daemon.delete(path("away")), "store_unavailable", "no")
    else:
        for answer in (daemon.get(path("away")), daemon.post(path("away", "failure")),
                       daemon.post(path("away", "transition"), {"to": "open"}),
                       daemon.delete(path("away"))):
            assert answer.status in (200, 204)
            assert answer.header("Breakerd-Degraded") == "true"
    assert time.monotonic() - began < 1, "requests wait for a link that is down"
    assert daemon.get("/healthz").status == 200
    keeps_secrets(daemon)


def is_back(daemon):
    daemon.wait_ready()
    until(lambda: daemon.metric("breakerd_folds_pending") == 0, "all steps are folded")

    def answer():
        """None if Redis's reply came too late, as on a busy machine."""
        got = daemon.post(path("back", "failure"))
        return got if got.status == 200 and got.header("Breakerd-Degraded") is None else None

    snapshot(until(answer, "an answer comes from Redis"))
    assert daemon.metric("breakerd_store_up") == 1
    assert daemon.metric("breakerd_store_degraded") == 0
    keeps_secrets(daemon)


def keeps_secrets(daemon):
    said = daemon.stderr()
    for route in ("/readyz", "/metrics", "/", path("a")):
        said += daemon.get(route).body.decode()
    assert SECRET not in said


def with_password(url):
    return url.replace("//", f"//:{SECRET}@")


# --- conditions of the link, with a real server ---------------------------------------------


def test_wrong_password(private_redis, start, mode):
    redis = private_redis("--requirepass", "right")
    daemon = begin(start, mode, with_password(redis.url))
    is_away(daemon, mode, "refuses the user or the password")
    with redis.client() as client:
        client.call("AUTH", "right")
        client.call("CONFIG", "SET", "requirepass", SECRET)
    is_back(daemon)


def test_no_password(private_redis, start, mode):
    redis = private_redis("--requirepass", "right")
    daemon = begin(start, mode, redis.url)
    is_away(daemon, mode, "asks for a password")
    with redis.client() as client:
        client.call("AUTH", "right")
        client.call("CONFIG", "SET", "requirepass", "")
    is_back(daemon)


def test_a_user_that_is_deleted(private_redis, start, mode):
    redis = private_redis()
    redis.call("ACL", "SETUSER", "gate", "on", ">" + SECRET, "~*", "+@all")
    daemon = begin(start, mode, redis.url.replace("//", f"//gate:{SECRET}@"))
    is_back(daemon)
    redis.call("ACL", "DELUSER", "gate")
    is_away(daemon, mode, "refuses the user or the password")
    redis.call("ACL", "SETUSER", "gate", "on", ">" + SECRET, "~*", "+@all")
    is_back(daemon)


def test_no_permission_to_load_the_script(private_redis, start, mode):
    redis = private_redis()
    redis.call("ACL", "SETUSER", "gate", "on", ">" + SECRET, "~*", "+@all", "-script", "-evalsha")
    daemon = begin(start, mode, redis.url.replace("//", f"//gate:{SECRET}@"))
    is_back(daemon)
    expect(daemon.post(path("eval", "failure")), failureCount=1)
    expect(daemon.post(path("eval", "transition"), {"to": "open"}), failureCount=1)
    assert daemon.delete(path("eval")).status == 204
    stats = redis.call("INFO", "commandstats").decode()
    assert "cmdstat_eval:" in stats and "cmdstat_evalsha:" not in stats


@pytest.mark.parametrize("how", ["acl", "renamed"])
def test_the_script_may_not_be_called_by_its_hash(private_redis, start, mode, how):
    """Only EVALSHA is forbidden, or renamed. From then on the daemon sends the whole script."""
    redis = private_redis(*(["--rename-command", "EVALSHA", ""] if how == "renamed" else []))
    redis.call("ACL", "SETUSER", "gate", "on", ">" + SECRET, "~*", "&*", "+@all")
    if how == "acl":
        redis.call("ACL", "SETUSER", "gate", "-evalsha")
    daemon = begin(start, mode, redis.url.replace("//", f"//gate:{SECRET}@"))
    is_back(daemon)
    with Storm([daemon.address], 8, lambda line: (f"k{line}", "failure")) as storm:
        until(lambda: len(storm.answers) > 200, "operations are answered")
    assert set(storm.statuses()) == {200}
    expect(daemon.post(path("eval", "transition"), {"to": "open"}), state="open")
    expect(daemon.get(path("eval")), state="open")
    assert daemon.delete(path("eval")).status == 204
    stats = redis.call("INFO", "commandstats").decode()
    refused = [line for line in stats.splitlines() if line.startswith("cmdstat_evalsha:")]
    assert all(int(line.split("rejected_calls=")[1].split(",")[0]) < 20 for line in refused), refused


def test_a_server_with_cluster_mode_on(private_redis, start, mode):
    """One node has all slots. Each call of the script, and each read of a listing, names one key."""
    redis = private_redis("--cluster-enabled", "yes")
    redis.call("CLUSTER", "ADDSLOTS", *range(16384))
    until(lambda: b"cluster_state:ok" in redis.call("CLUSTER", "INFO"), "the cluster is up")
    daemon = begin(start, mode, redis.url)
    is_back(daemon)
    names = sorted([f"k{n}" for n in range(40)] + ["back"])
    for name in names:
        expect(daemon.post(path(name, "transition"), {"to": "open"}), state="open")
    listed, cursor = [], ""
    while cursor is not None:
        page = daemon.get(f"/v1/circuits?limit=7&state=open&cursor={cursor}").json()
        listed += [circuit["key"] for circuit in page["circuits"]]
        cursor = page["cursor"]
    assert sorted(listed) == names


@one_mode
def test_loading(private_redis, start, mode):
    redis = private_redis("--appendonly", "no")
    with redis.client() as client:
        client.call("EVAL", "for i = 1, 1000 do redis.call('SET', 'k' .. i, 'v') end", 0)
        client.call("SAVE")
    redis.kill()
    redis.options += ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"]
    redis.start()
    daemon = begin(start, mode, redis.url)
    is_away(daemon, mode, "is still loading its data")
    is_back(daemon)


@pytest.mark.parametrize("stale", ["yes", "no"])
def test_demoted(private_redis, start, mode, stale):
    """Operations get READONLY or MASTERDOWN. Then the daemon finds that the server is a replica."""
    redis = private_redis("--replica-serve-stale-data", stale)
    daemon = begin(start, mode, redis.url)
    is_back(daemon)
    redis.call("REPLICAOF", "127.0.0.1", 1)
    if mode == "error":
        problem(daemon.post(path("a", "failure")), "store_unavailable", "no")
    else:
        assert daemon.post(path("a", "failure")).header("Breakerd-Degraded") == "true"
    is_away(daemon, mode, "replica")
    words = "is a read-only replica" if stale == "yes" else "has lost its master"
    assert words in daemon.stderr()
    redis.call("REPLICAOF", "NO", "ONE")
    is_back(daemon)


def test_busy(private_redis, start, mode):
    """Another client's script does not end: first Redis does not answer, then it answers BUSY."""
    redis = private_redis("--lua-time-limit", "600")
    daemon = begin(start, mode, redis.url)
    is_back(daemon)
    busy = redis.client()
    busy.send("EVAL", "while true do end", 0)
    try:
        until(lambda: daemon.post(path("a", "failure")).header("Breakerd-Degraded") or
              daemon.get(path("a")).status != 200, "an answer shows the condition")
        times = []
        for _ in range(12):
            began = time.monotonic()
            answer = daemon.post(path("a", "failure"))
            times.append(time.monotonic() - began)
            if mode == "error":
                # A write behind a call without a reply was not sent, so it was not applied.
                assert answer.status in (503, 504), answer
                assert answer.json()["applied"] in ("unknown", "no"), answer
            else:
                assert answer.header("Breakerd-Degraded") == "true", answer
        assert max(times) < 0.25 + 0.25
        assert sum(t > 0.2 for t in times) <= 4
        is_away(daemon, mode, "busy with somebody's script", deadline=15)
    finally:
        until(lambda: script_kill(redis), "the script is killed")
        busy.close()
    is_back(daemon)


def script_kill(redis):
    try:
        return redis.call("SCRIPT", "KILL") == b"OK"
    except RedisError as error:
        return "NOTBUSY" in str(error)


def test_max_clients(private_redis, start, mode):
    redis = private_redis()
    with redis.client() as client:
        daemon = begin(start, mode, redis.url)
        is_back(daemon)
        client.call("CONFIG", "SET", "maxclients", 1)
        client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        is_away(daemon, mode, "limit of clients")
        client.call("CONFIG", "SET", "maxclients", 100)
        is_back(daemon)


def test_writes_stopped_because_nothing_can_be_saved(private_redis, start, mode):
    redis = private_redis("--enable-protected-configs", "yes")
    os.mkdir(os.path.join(redis.directory, "taken"))
    daemon = begin(start, mode, redis.url)
    is_back(daemon)
    with redis.client() as client:
        client.call("CONFIG", "SET", "dbfilename", "taken")
        client.call("CONFIG", "SET", "save", "3600 1")
        client.call("BGSAVE")
        until(lambda: b"rdb_last_bgsave_status:err" in client.call("INFO", "persistence"), "the save fails")
        answer = daemon.post(path("a", "failure"))
        assert answer.status == (503 if mode == "error" else 200), answer
        is_away(daemon, mode, "cannot save its data")
        client.call("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
        is_back(daemon)


@one_mode
def test_too_few_replicas(private_redis, start, mode):
    """This condition shows only in a write: the link comes and goes, and every answer is right."""
    redis = private_redis()
    daemon = begin(start, mode, redis.url)
    is_back(daemon)
    redis.call("CONFIG", "SET", "min-replicas-to-write", 1)
    for _ in range(20):
        answer = daemon.post(path("a", "failure"))
        if mode == "error":
            problem(answer, "store_unavailable", "no")
        else:
            assert answer.status == 200 and answer.header("Breakerd-Degraded") == "true"
        time.sleep(0.02)
    assert "too few good replicas" in daemon.stderr()
    redis.call("CONFIG", "SET", "min-replicas-to-write", 0)
    is_back(daemon)
    got = snapshot(daemon.get(path("a")))
    assert got["failureCount"] == (20 if mode == "local" else 0)


@one_mode
def test_cluster_down(private_redis, start, mode):
    """The node of a cluster has no slots."""
    redis = private_redis("--cluster-enabled", "yes")
    daemon = begin(start, mode, redis.url)
    until(lambda: reason(daemon) != "not connected yet", "the daemon has tried to connect")
    answer = daemon.post(path("a", "failure"))
    assert answer.status == (503 if mode == "error" else 200), answer
    assert "the cluster is down" in daemon.stderr()
    redis.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    until(lambda: b"cluster_state:ok" in redis.call("CLUSTER", "INFO"), "the cluster is up")
    is_back(daemon)


# --- conditions of the operation -------------------------------------------------------------


def test_out_of_memory(private_redis, start, mode):
    redis = private_redis()
    daemon = begin(start, mode, redis.url)
    is_back(daemon)
    redis.call("CONFIG", "SET", "maxmemory", "1")
    problem(daemon.post(path("back", "failure")), "store_error", "no", contains="OOM")
    problem(daemon.post(path("new", "transition"), {"to": "open"}), "store_error", "no", contains="OOM")
    expect(daemon.get(path("back")), failureCount=1)
    assert reason(daemon) is None
    assert daemon.metric("breakerd_store_operations_total", operation="record_failure",
                         result="error") == 1
    redis.call("CONFIG", "SET", "maxmemory", "0")
    is_back(daemon)


@pytest.mark.parametrize("lacks", ["-evalsha -eval", "-getrange", "-set", "-del"])
def test_no_permission(private_redis, start, mode, lacks):
    redis = private_redis()
    redis.call("ACL", "SETUSER", "gate", "on", ">" + SECRET, "~*", "+@all")
    daemon = begin(start, mode, redis.url.replace("//", f"//gate:{SECRET}@"))
    is_back(daemon)
    redis.call("ACL", "SETUSER", "gate", *lacks.split())
    answers = {"-evalsha -eval": daemon.post(path("back", "failure")),
               "-getrange": daemon.get(path("back")),
               "-set": daemon.post(path("back", "success")),
               "-del": daemon.delete(path("back"))}
    for command, answer in answers.items():
        if command == lacks or (lacks == "-evalsha -eval" and command in ("-set", "-del")) or \
                (lacks == "-getrange" and command != "-getrange") or (lacks == "-set" and command == "-evalsha -eval"):
            detail = problem(answer, "store_error", None if command == "-getrange" else "no")["detail"]
            assert "permission" in detail or "can't run this command" in detail, answer
        else:
            assert answer.status in (200, 204), answer
    assert reason(daemon) is None
    redis.call("ACL", "SETUSER", "gate", "+@all")
    is_back(daemon)


def test_another_type(private_redis, start, mode):
    redis = private_redis()
    daemon = begin(start, mode, redis.url)
    is_back(daemon)
    redis.call("LPUSH", "stoma:cb:list", "x")
    for answer in (daemon.post(path("list", "failure")), daemon.delete(path("list"))):
        problem(answer, "store_error", "no", contains="WRONGTYPE")
    problem(daemon.get(path("list")), "store_error", contains="WRONGTYPE")
    assert redis.call("LLEN", "stoma:cb:list") == 1
    assert reason(daemon) is None


@one_mode
def test_the_slot_is_elsewhere(private_redis, start, mode):
    """MOVED concerns the operation alone: circuits whose slots are on this node go on."""
    nodes = [private_redis("--cluster-enabled", "yes") for _ in range(2)]
    nodes[0].call("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    nodes[1].call("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    nodes[0].call("CLUSTER", "MEET", "127.0.0.1", nodes[1].port)
    for node in nodes:
        until(lambda n=node: b"cluster_state:ok" in n.call("CLUSTER", "INFO"), "the cluster is up", 20)
    daemon = begin(start, mode, nodes[0].url)
    daemon.wait_ready()
    seen = set()
    for n in range(40):
        answer = daemon.post(path(f"k{n}", "failure"))
        seen.add(answer.status)
        if nodes[0].call("CLUSTER", "KEYSLOT", f"stoma:cb:k{n}") < 8192:
            expect(answer, failureCount=1)
        else:
            problem(answer, "store_error", "no", contains="MOVED")
    assert seen == {200, 502}
    assert reason(daemon) is None


def test_scripts_are_forgotten_under_load(private_redis, start):
    """SCRIPT FLUSH in a loop shows in no answer."""
    redis = private_redis()
    daemons = [start(store=redis.url, on_store_failure="error", store_timeout=5000).wait_ready()
               for _ in range(2)]
    with Storm([d.address for d in daemons], 16, lambda line: (f"k{line % 4}", "failure")) as storm:
        with redis.client() as client:
            end = time.monotonic() + 1.0
            flushes = 0
            while time.monotonic() < end:
                client.call("SCRIPT", "FLUSH")
                flushes += 1
    assert set(storm.statuses()) == {200}
    book = storm.book()
    for key, entry in book.items():
        assert json.loads(redis.call("GET", f"stoma:cb:{key}"))["failureCount"] == entry["acknowledged"]
    assert sum(d.metric("breakerd_redis_noscript_total") for d in daemons) > 10
    print(f"{flushes} flushes, {len(storm.answers)} answers")


# --- servers that are no Redis ------------------------------------------------------------------


def silent(s):
    while s.recv(65536):
        pass


def close_at_once(s):
    s.close()


def reset_at_once(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()


def close_on_the_first_word(s):
    s.recv(1)
    s.close()


def garbage(s):
    s.recv(65536)
    s.sendall(bytes(range(256)) * 64)
    silent(s)


def http(s):
    s.recv(65536)
    s.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    silent(s)


def speaks_first(s):
    s.sendall(b"+hello\r\n" * 3)
    silent(s)


def pushes(s):
    s.sendall(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n")
    silent(s)


def echo(s):
    while data := s.recv(65536):
        s.sendall(data)


def echo_as_errors(s):
    while data := s.recv(65536):
        text = data.replace(b"\r\n", b" ")
        s.sendall(b"-ERR unknown command, with args beginning with: " + text + b"\r\n")


def secret_as_error(s):
    s.recv(65536)
    s.sendall(b"-" + SECRET.encode() + b" is what you said\r\n" * 1)
    silent(s)


def endless_line(s):
    while True:
        s.sendall(b"$" + b"1" * 65535)


def huge_array(s):
    s.recv(65536)
    s.sendall(b"*2147483647\r\n" * 8)
    silent(s)


def drip(s):
    s.recv(65536)
    for byte in b"$1000000\r\n" + b"x" * 1000:
        s.sendall(bytes([byte]))
        time.sleep(0.05)


IMPOSTORS = {
    silent: "lets us in and says nothing",
    close_at_once: "",
    reset_at_once: "",
    close_on_the_first_word: "",
    garbage: "does not speak Redis's protocol",
    http: "does not speak Redis's protocol",
    speaks_first: "",
    pushes: "",
    echo: "does not say that it is a master",
    echo_as_errors: "",
    secret_as_error: "",
    endless_line: "",
    huge_array: "",
    drip: "lets us in and says nothing",
}

SLOW = (endless_line, drip)
QUICK = [("error", b) for b in IMPOSTORS if b not in SLOW] + [("local", garbage)]


@pytest.mark.parametrize("mode,behave", [
    pytest.param(m, b, id=f"{b.__name__}-{m}", marks=[] if (m, b) in QUICK else full)
    for b in IMPOSTORS for m in MODES])
def test_no_redis(start, behave, mode):
    impostor = Impostor(behave)
    try:
        daemon = begin(start, mode, with_password(impostor.url))
        until(lambda: reason(daemon) not in (None, "not connected yet"), "/readyz tells a reason")
        is_away(daemon, mode, IMPOSTORS[behave])
        assert daemon.lives()
    finally:
        impostor.end()


@one_mode
def test_a_port_that_never_answers(start, mode):
    """The connect itself gets no answer, as from a host behind a firewall."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        # The listener's queue is full, so the kernel drops further connects.
        fillers = []
        for _ in range(4):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(address)
            fillers.append(s)
        daemon = begin(start, mode, with_password("redis://%s:%d" % address))
        is_away(daemon, mode, "no answer in time")
        for s in fillers:
            s.close()
