"""Start, sockets and stop."""

import contextlib
import fcntl
import os
import re
import signal
import socket
import stat
import subprocess
import time

import pytest

from breakerd import Breakerd, run
from contract import expect, path, problem, snapshot
from ports import free_port
from preload import preload
from wait import until
from wire import Wire, request_bytes


def test_port_in_use(start):
    first = start()
    done = run("--listen=%s:%d" % first.address)
    assert done.returncode == 1
    assert "%s:%d" % first.address in done.stderr
    assert "in use" in done.stderr
    assert first.get("/healthz").status == 200


def test_one_bad_address_of_several_refuses_the_start(start, directory):
    first = start()
    done = run(f"--listen=unix:{directory}/s", "--listen=%s:%d" % first.address)
    assert done.returncode == 1
    assert not os.path.exists(f"{directory}/s")


def test_several_addresses(start, directory):
    ports = [free_port(), free_port()]
    daemon = start(listen=[f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", f"unix:{directory}/s"])
    for n, address in enumerate([("127.0.0.1", ports[0]), ("127.0.0.1", ports[1]),
                                 f"{directory}/s"], 1):
        with Wire(address) as wire:
            expect(wire.ask("POST", path("a", "failure"), body=b""), failureCount=n)
    assert daemon.lives()


def test_unix_socket(start, directory):
    name = f"{directory}/s"
    daemon = start(listen=f"unix:{name}")
    mode = os.stat(name).st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660
    expect(daemon.post(path("a", "failure")), failureCount=1)
    daemon.stop()
    assert not os.path.exists(name)


def connects_as(name, group):
    """Whether the user nobody, in this group, may connect."""
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    return subprocess.run(["/usr/bin/python3", "-c", code, name], user=65534, group=group,
                          extra_groups=[], stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.parametrize("mode,group,others", [("0600", False, False), ("0660", True, False),
                                               ("0666", True, True)])
def test_mode_and_owner_of_a_unix_socket(start, directory, mode, group, others):
    """The socket belongs to breakerd's user and group, and the mode decides who else may connect."""
    name = f"{directory}/s"
    os.chmod(directory, 0o755)
    start(listen=f"unix:{name}", socket_mode=mode)
    status = os.stat(name)
    assert stat.S_IMODE(status.st_mode) == int(mode, 8)
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    if os.geteuid() == 0:  # only root can connect as another user
        assert connects_as(name, os.getegid()) == group
        assert connects_as(name, 65534) == others


def test_stale_socket_file_is_replaced(start, directory):
    name = f"{directory}/s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(name)
        stale.listen()
    assert os.path.exists(name)
    daemon = start(listen=f"unix:{name}")
    assert daemon.get("/healthz").status == 200


def test_socket_file_left_by_a_killed_daemon(start, directory):
    name = f"{directory}/s"
    first = start(listen=f"unix:{name}")
    first.signal(signal.SIGKILL)
    first.expect_exit(-signal.SIGKILL)
    assert os.path.exists(name)
    assert start(listen=f"unix:{name}").get("/healthz").status == 200


def test_live_socket_is_an_error(start, directory):
    name = f"{directory}/s"
    first = start(listen=f"unix:{name}")
    done = run(f"--listen=unix:{name}")
    assert done.returncode == 1 and name in done.stderr
    assert first.get("/healthz").status == 200
    with Wire(name) as wire:
        assert wire.ask("GET", "/healthz").status == 200


def test_a_file_that_is_no_socket_is_not_touched(directory):
    name = f"{directory}/s"
    with open(name, "w", encoding="ascii") as file:
        file.write("precious")
    done = run(f"--listen=unix:{name}")
    assert done.returncode == 1 and name in done.stderr
    with open(name, encoding="ascii") as file:
        assert file.read() == "precious"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop(start, number):
    daemon = start()
    wire = daemon.wire()
    snapshot(wire.ask("POST", path("a", "failure"), body=b""))
    began = time.monotonic()
    daemon.signal(number)
    daemon.expect_exit(0)
    assert time.monotonic() - began < 2, "an idle connection delays the stop"
    assert wire.ended()
    wire.close()


def test_stop_finishes_what_is_in_flight(private_redis, start):
    redis = private_redis()
    daemon = start(store=redis.url, store_timeout=20000).wait_ready()
    redis.freeze()
    wires = [daemon.wire() for _ in range(5)]
    for wire in wires:
        wire.send(request_bytes("POST", path("a", "failure"), body=b""))
    until(lambda: daemon.metric("breakerd_store_operations_in_flight") == 5, "five operations are in flight")
    daemon.signal(signal.SIGTERM)
    until(lambda: refuses(daemon.address), "new connections are refused")
    assert daemon.lives()
    redis.thaw()
    answers = [wire.receive() for wire in wires]
    assert sorted(a.json()["failureCount"] for a in answers) == [1, 2, 3, 4, 5]
    assert all((a.header("Connection") or "").lower() == "close" for a in answers)
    assert all(wire.ended() for wire in wires)
    daemon.expect_exit(0)
    assert redis.call("GET", "stoma:cb:a").startswith(b'{"state":"closed","failureCount":5')


def test_what_is_sent_behind_the_last_answer_does_not_destroy_it(start):
    """The daemon closes the connection without a reset, which would destroy the part of the answer that is on its way."""
    daemon = start()
    with daemon.wire() as wire:
        for n in range(300):
            wire.ask("POST", path(f"circuit-{n}", "failure"), body=b"")
    with daemon.wire() as wire:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        wire.send(1000 * request_bytes("GET", "/v1/circuits?limit=300"))
        until(lambda: daemon.metric("breakerd_http_requests_in_flight") == 1, "an answer waits for its client")
        daemon.signal(signal.SIGTERM)
        until(lambda: refuses(daemon.address), "new connections are refused")
        while (answer := wire.receive()).header("Connection") is None:
            pass
        assert len(answer.json()["circuits"]) == 300
        assert wire.sock.recv(1) == b""
    daemon.expect_exit(0)


def refuses(address):
    try:
        socket.create_connection(address, 1).close()
        return False
    except OSError:
        return True


@contextlib.contextmanager
def a_write_waits(private_redis, start):
    """A daemon, and a connection with a write that Redis never answers."""
    redis = private_redis()
    daemon = start(store=redis.url, store_timeout=60000).wait_ready()
    redis.freeze()
    with daemon.wire() as wire:
        wire.send(request_bytes("POST", path("a", "failure"), body=b""))
        until(lambda: daemon.metric("breakerd_store_operations_in_flight") == 1, "the write is in flight")
        yield daemon, wire


@pytest.mark.slow
def test_stop_ends_within_five_seconds(private_redis, start):
    """Also when the store never answers: the waiting client is told `applied: unknown`."""
    with a_write_waits(private_redis, start) as (daemon, wire):
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        problem(wire.receive(), "store_unavailable", "unknown")
        daemon.expect_exit(0)
        assert time.monotonic() - began < 5


def ends_at_a_second_signal(daemon):
    daemon.signal(signal.SIGTERM)
    until(lambda: refuses(daemon.address), "the daemon has noticed the first signal")
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    daemon.ended = True
    daemon.wait()
    assert time.monotonic() - began < 1
    daemon.check_stderr()


def test_a_second_signal_ends_at_once(private_redis, start):
    with a_write_waits(private_redis, start) as (daemon, _):
        ends_at_a_second_signal(daemon)


def test_a_second_signal_does_not_wait_for_a_disk_that_hangs(start, directory):
    daemon = start(state_file=f"{directory}/state", env=preload(directory, """
        #include <unistd.h>
        int fsync(int fd) { (void)fd; for (;;) pause(); }"""))
    with daemon.wire() as wire:
        wire.send(b"POST /v1/circuits/a/transition HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        daemon.post(path("a", "failure"))
        ends_at_a_second_signal(daemon)


@pytest.mark.slow
def test_a_request_that_never_arrives_does_not_hold_up_the_stop(start):
    daemon = start()
    with daemon.wire() as wire:
        wire.send(b"POST /v1/circuits/a/transition HTTP/1.1\r\nHost: localhost\r\n"
                  b"Content-Length: 100\r\n\r\n{")
        daemon.get("/healthz")
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        daemon.expect_exit(0)
        assert time.monotonic() - began < 5


def test_restart_on_the_same_port(start):
    """Connections of the previous daemon in TIME_WAIT do not prevent the start."""
    first = start()
    for _ in range(10):
        with first.wire() as wire:
            wire.ask("GET", "/healthz", {"Connection": "close"})
    listen = "%s:%d" % first.address
    first.stop()
    assert start(listen=listen).get("/healthz").status == 200


def test_connection_limit_is_left_again(start):
    """At the limit, with no idle connection, a new one waits. It is served when another one ends."""
    daemon = start(max_connections=5)
    wires = [daemon.wire() for _ in range(5)]
    for wire in wires:
        assert wire.ask("GET", "/healthz").status == 200
        wire.send(b"POST /v1/circuits/a/failure HTTP/1.1\r\nHost: localhost\r\n")
    waiting = daemon.wire()
    waiting.send(request_bytes("GET", "/healthz"))
    waiting.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        waiting.receive()
    wires.pop().close()
    waiting.sock.settimeout(5)
    assert waiting.receive().status == 200
    for wire in [*wires, waiting]:
        wire.close()
    until(lambda: daemon.get("/healthz").status == 200, "new connections are accepted again")


def test_log_lines_are_one_line_each(start):
    """A client cannot forge a line of the log by what it sends."""
    daemon = start(log_level="debug")
    daemon.post(path('a"b\\c é', "transition"), {"to": "open"})
    daemon.get("/%0Aforged%20line")
    daemon.get("/v1/circuits/%0D%0Aforged")
    until(lambda: "state_change" in daemon.stderr(), "the change is logged")
    for line in daemon.stderr().splitlines():
        assert line.startswith("20"), line
    assert "from=closed to=open" in daemon.stderr()


def test_state_changes_are_logged_once_with_who_asked(start):
    daemon = start()
    for to in ("open", "open", "half-open"):
        daemon.post(path("/api/users", "transition"), {"to": to})
    daemon.post(path("/api/users", "failure"))
    until(lambda: daemon.stderr().count("state_change") == 2, "both changes are logged")
    line = [li for li in daemon.stderr().splitlines() if "state_change" in li][0]
    assert "/api/users" in line and "127.0.0.1:" in line


def test_a_flapping_circuit_does_not_flood_the_log(start):
    """A hundred lines are logged, then ten a second. Lines left out are counted, and the log tells how many."""
    daemon = start()

    def flap(times):
        for i in range(times):
            daemon.post(path("a", "transition"), {"to": ("open", "closed")[i % 2]})

    def lines():
        text = daemon.stderr()
        assert text.endswith("\n")
        return sum(1 for line in text.splitlines() if " state_change " in line)

    began = time.monotonic()
    flap(600)
    most = 100 + 10 * (time.monotonic() - began) + 2
    assert 100 <= lines() <= most
    left_out = daemon.metric("breakerd_log_lines_suppressed_total")
    assert left_out == 600 - lines() > 0

    def said():
        flap(2)
        return re.findall(r"suppressed kind=state_change lines=(\d+)", daemon.stderr())

    until(lambda: sum(map(int, said())) >= left_out, "the log tells how many lines were left out")


def unread(kind):
    """A pipe, terminal or pair of sockets that nobody reads: (the reader's end, stderr)."""
    if kind == "pipe":
        return os.pipe()
    if kind == "terminal":
        return os.openpty()
    ends = socket.socketpair()
    return ends[0].detach(), ends[1].detach()


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
def test_a_log_that_nobody_reads_holds_up_nobody(directory, kind):
    reader, stderr = unread(kind)
    daemon = Breakerd(directory, log_level="debug")
    try:
        daemon.start(stderr=stderr)
        for i in range(1200):
            answer = daemon.post(path("a", "transition"), {"to": ("open", "closed")[i % 2]})
            assert answer.status == 200
        assert daemon.metric("breakerd_log_lines_suppressed_total") > 0
        assert not fcntl.fcntl(stderr, fcntl.F_GETFL) & os.O_NONBLOCK, "O_NONBLOCK is set for all who share stderr"
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(10) == 0
        assert time.monotonic() - began < 5
    finally:
        daemon.kill()
        os.close(reader)
        os.close(stderr)


def test_a_log_whose_reader_is_gone_does_not_keep_it_from_starting(directory):
    """A line is written before anything else: of a variable that breakerd does not know."""
    reader, stderr = os.pipe()
    os.close(reader)
    daemon = Breakerd(directory, env={"BREAKERD_NONSENSE": "1"})
    try:
        daemon.start(stderr=stderr)
        assert daemon.get("/healthz").status == 200
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(10) == 0
    finally:
        daemon.kill()
        os.close(stderr)


def test_an_access_log_at_debug_only(start, directory):
    conf = f"{directory}/conf"
    with open(conf, "w", encoding="ascii") as file:
        file.write("log_level = info\n")
    daemon = start(config=conf)

    def asked(n):
        daemon.get(f"/v1/circuits/number-{n}")
        return f"number-{n}" in daemon.stderr()

    assert not asked(1)
    with open(conf, "w", encoding="ascii") as file:
        file.write("log_level = debug\n")
    daemon.hangup()
    until(lambda: "reloaded" in daemon.stderr(), "the settings are reloaded")
    assert asked(2)
    lines = [line for line in daemon.stderr().splitlines() if "number-2" in line]
    assert len(lines) == 1, "a request has more than one line"
    assert "status=200" in lines[0] and "127.0.0.1:" in lines[0]


def test_idle_memory_is_small(start):
    if os.environ.get("SANITIZED"):
        return  # a sanitizer's own memory would count
    daemon = start()
    daemon.get("/")
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as status:
        resident = [int(li.split()[1]) for li in status if li.startswith("VmRSS")][0]
    assert resident < 10 * 1024, f"{resident} KiB"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_right_after_the_start(start, number):
    """Signals are handled as usual from the moment at which the daemon accepts connections."""
    for _ in range(10):
        daemon = start()
        daemon.signal(number)
        if number == signal.SIGHUP:
            assert daemon.get("/healthz").status == 200
        else:
            daemon.expect_exit(0)
