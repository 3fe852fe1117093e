"""report_listen: lines of access logs are reports."""

import os
import signal
import socket
from random import Random

import pytest

from breakerd import run
from contract import path, snapshot
from decisions import acquire
from ports import free_port
from wait import until
from wire import Wire, request_bytes


class Sender:
    def __init__(self, address):
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self.socket.connect(address[5:])
        else:
            host, port = address.rsplit(":", 1)
            host = host.strip("[]")
            self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.connect((host, int(port)))

    def __call__(self, *lines):
        for line in lines:
            self.socket.send(line if isinstance(line, bytes) else line.encode())


def lines(daemon, result):
    return daemon.metric("breakerd_report_lines_total", result=result)


def wait_for(daemon, **results):
    until(lambda: all(lines(daemon, r) == n for r, n in results.items()), f"{results}")


@pytest.fixture
def address(directory):
    return f"unix:{directory}/report.sock"


@pytest.mark.parametrize("kind", ["unix", "v4", "v6"])
def test_failures_open(start_on, store, address, kind):
    where = {"unix": address, "v4": f"127.0.0.1:{free_port()}", "v6": f"[::1]:{free_port()}"}[kind]
    daemon = start_on(store, report_listen=where)
    send = Sender(where)
    for n in range(5):
        send(f"<190>x: circuit=a%2Fb permit={acquire(daemon, 'a/b')['permit']} status=502, 503 time=0.1")
        wait_for(daemon, used=n + 1)
    assert not acquire(daemon, "a/b")["allowed"]
    assert daemon.metric("breakerd_reports_total", outcome="failure", result="counted") == 5
    until(lambda: "by=report_listen" in daemon.stderr(), "the transition is logged")
    assert 'why="5 consecutive failures"' in daemon.stderr()


def test_a_probe_and_its_outcome(start_on, store, address):
    daemon = start_on(store, report_listen=address, open_time="50ms", open_time_max="50ms", probe_timeout="1m")
    send = Sender(address)
    send(*["circuit=k status=500"] * 5)
    wait_for(daemon, used=5)
    probe = until(lambda: (d := acquire(daemon, "k"))["allowed"] and d, "the opening is over")
    assert not acquire(daemon, "k")["allowed"]
    # Status -: the end user has left. The permit is given back, and the next acquire gets one.
    send(f"circuit=k status=- permit={probe['permit']}")
    wait_for(daemon, used=6)
    probe = acquire(daemon, "k")
    assert probe["reason"] == "probe"
    send(f"circuit=k status=200 permit={probe['permit']} time=0.01")
    wait_for(daemon, used=7)
    assert acquire(daemon, "k")["reason"] == "closed"


def test_json_as_caddy_writes_it(start_on, address):
    daemon = start_on("memory", report_listen=address, slow_time="100ms", slow_rate=100, min_calls=2)
    Sender(address)('{"level":"info","ts":1.5,"logger":"http.log.access","msg":"handled request",'
                    '"permit":"","time":0.25,"circuit":"k","status":200}\n',
                    '{"circuit":"k","status":"200","time":"100ms"}')
    wait_for(daemon, used=2)
    assert acquire(daemon, "k")["reason"] == "open"


def test_unusable_lines_are_counted_and_logged_within_limits(start_on, address):
    daemon = start_on("memory", report_listen=address)
    send = Sender(address)
    permit = acquire(daemon, "k")["permit"]
    bad = ["", "x", "circuit=k", "status=500", "circuit=k status=500 ua=x circuit=other",
           "circuit=k status=500 permit=forged", f"circuit=other status=500 permit={permit}",
           "circuit=%00 status=500", "{", b"\xff\x00", "circuit=k status=500 " + "x" * 9000]
    send(*bad)
    wait_for(daemon, unusable=len(bad), used=0)
    assert daemon.get("/v1/circuits").json()["circuits"] == []
    for _ in range(50):
        send(*["circuit=k \x1b[31m \n forged=1"] * 10)
    wait_for(daemon, unusable=len(bad) + 500)
    shown = [line for line in daemon.stderr().splitlines() if "report_line_unusable" in line]
    assert len(shown) < 250 and "\x1b" not in "".join(shown)
    assert daemon.metric("breakerd_log_lines_suppressed_total") > 0


def test_an_end_user_cannot_write_a_report(start_on, address):
    """What an end user writes into a log beside the fields can make the line unusable, but not change its report."""
    daemon = start_on("memory", report_listen=address)
    evil = ["circuit=other status=500", '" circuit=other status=500 "', "\tstatus=500", "x\nstatus=500",
            '\\x22 status=500', '{"circuit":"other","status":500}', ': {"circuit":"other","status":500}']
    for text in evil:
        Sender(address)(f'ua="{text}" circuit=k status=200', f"circuit=k status=200 ua={text}")
    until(lambda: lines(daemon, "used") + lines(daemon, "unusable") == 2 * len(evil), "all lines are read")
    keys = {c["key"] for c in daemon.get("/v1/circuits").json()["circuits"]}
    assert keys <= {"k"}
    assert snapshot(daemon.get(path("k")))["failureCount"] == 0


SEEDS = [b"<190>Nov 26 20:44:02 host nginx: circuit=a%2Fb permit=- status=502, 200 : 504 time=0.1, 0.2",
         b'circuit="k" status="-" permit="" time=12ms', b"circuit=k permit=- status=-1", b"circuit=%F0%9F%98%80 status=0",
         b'{"level":"info","circuit":"k","status":200,"time":0.25,"permit":"","a":[1,{"b":null}]}',
         b'2026/11/26 INFO x {"user_id": " circuit=k permit= status=499 time=01.5ms ", "size": 1}']
WORDS = [b"circuit=", b"status=", b"permit=", b"time=", b'"', b"%", b"{", b"}", b",", b":", b" ", b"-", b"\n", b"\0", b"=", b"\\u0000"]


def mutated(random):
    if random.random() < 0.2:
        return random.randbytes(random.randrange(200))
    line = bytearray(random.choice(SEEDS))
    for _ in range(random.randrange(1, 6)):
        at, end = sorted(random.randrange(len(line) + 1) for _ in range(2))
        line[at:random.choice((at, at, end, min(end, at + 2)))] = random.choice(
            (b"", random.choice(WORDS), random.randbytes(1), bytes(line[at:end]), random.choice(SEEDS)[at:end]))
        del line[9000:]
    return bytes(line)


def test_random_and_mutated_lines(start_on, address):
    """For a long run: REPORT_LINES=1000000, with a daemon built with the sanitizers."""
    count = int(os.environ.get("REPORT_LINES", "5000"))
    daemon = start_on("memory", report_listen=address, max_circuits=1000)
    random = Random(20261126)
    send = Sender(address)
    for _ in range(count):
        send(mutated(random))  # blocks while the socket's queue is full
    results = ("used", "unusable", "failed")
    until(lambda: sum(lines(daemon, result) for result in results) == count, "all lines are read")
    assert lines(daemon, "used") > count / 20 and lines(daemon, "unusable") > count / 20
    for result in results:
        print(result, lines(daemon, result))


def test_errors_of_the_store_are_counted(start, private_redis, address):
    redis = private_redis()
    daemon = start(store=redis.url, on_store_failure="error", report_listen=address).wait_ready()
    redis.call("RPUSH", "stoma:cb:list", "x")
    Sender(address)("circuit=list status=500")
    wait_for(daemon, failed=1)


def test_lines_leave_room_for_clients(start, private_redis):
    """Lines take at most a quarter of max_in_flight. Further ones wait in the kernel, and none is lost."""
    redis = private_redis()
    address = f"127.0.0.1:{free_port()}"
    daemon = start(store=redis.url, on_store_failure="error", report_listen=address, max_in_flight=40,
                   store_timeout="5s").wait_ready()
    redis.freeze()
    send = Sender(address)
    send(*[f"circuit=k{n} status=500" for n in range(100)])
    until(lambda: daemon.metric("breakerd_store_operations_in_flight") == 10, "lines wait for Redis")
    with Wire(daemon.address) as client:
        client.send(request_bytes("GET", path("other")))
        until(lambda: daemon.metric("breakerd_store_operations_in_flight") == 11, "a client waits, too")
        assert daemon.metric("breakerd_report_lines_total", result="failed") == 0
        redis.thaw()
        assert client.receive().status == 200
    wait_for(daemon, used=100, failed=0)


def test_a_stop_reads_what_is_there(start_on, store, redis, directory):
    """There are more lines than one turn of the loop reads."""
    address = f"127.0.0.1:{free_port()}"
    settings = {"state_file": f"{directory}/state"} if store == "memory" else {}
    daemon = start_on(store, report_listen=address, consecutive_failures=0, failure_rate=0, **settings)
    send = Sender(address)
    daemon.signal(signal.SIGSTOP)
    send(*["circuit=k status=500"] * 200)
    daemon.signal(signal.SIGTERM)
    daemon.signal(signal.SIGCONT)
    daemon.expect_exit(0)
    again = start_on(store, **settings)
    assert snapshot(again.get(path("k")))["failureCount"] == 200


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(start_on, address):
    first = start_on("memory", report_listen=address)
    done = run(f"--listen=127.0.0.1:{free_port()}", f"--report-listen={address}")
    assert done.returncode == 1 and "in use" in done.stderr
    first.kill()
    first.ended = True
    assert os.path.exists(address[5:])
    second = start_on("memory", report_listen=address, socket_mode="0600")
    assert os.stat(address[5:]).st_mode & 0o777 == 0o600
    Sender(address)("circuit=k status=200")
    wait_for(second, used=1)
    second.stop()
    assert not os.path.exists(address[5:])


@pytest.mark.parametrize("value", ["0.0.0.0:8514", "192.0.2.1:8514", "[::]:8514", "example.com:1", "unix:x", "8514"])
def test_nothing_but_loopback(value):
    done = run("--check-config", f"--report-listen={value}")
    assert done.returncode == 1 and "report_listen" in done.stderr.replace("-", "_"), done.stderr
