"""What it costs while nothing happens, and how soon it serves."""

import os
import subprocess
import time

import pytest

from breakerd import BINARY, environment
from contract import path
from stopwatch import queued_seconds
from wait import until
from wire import Wire

pytestmark = pytest.mark.skipif(bool(os.environ.get("SANITIZED")),
                                reason="a sanitizer has threads and a pace of its own")


def wakeups(daemon):
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status
                    if line.startswith("voluntary_ctxt_switches"))


def sleeps(daemon, seconds):
    """True once it has not been woken for so long."""
    since, seen = time.monotonic(), wakeups(daemon)

    def look():
        nonlocal since, seen
        if wakeups(daemon) != seen:
            since, seen = time.monotonic(), wakeups(daemon)
        return time.monotonic() - since >= seconds

    return until(look, "it sleeps", 20)


@pytest.mark.slow
@pytest.mark.parametrize("connection", ["closed", "kept"])
def test_an_idle_daemon_sleeps(daemon, connection):
    """No timer runs without a reason: soon after the last request there is not one wake-up. A
    connection that is kept is looked at once, request_timeout after its last request."""
    for i in range(50):
        daemon.post(path(f"k{i}", "failure"))
    if connection == "closed":
        daemon.client().get("/healthz")
        daemon._client.close()  # pylint: disable=protected-access
    assert sleeps(daemon, 2)


def test_it_serves_soon(directory):
    """From the start of the process to the first answer: under 50 ms, and much less as a rule.
    The time in which it waits for a processor does not count."""
    took = []
    for i in range(7):
        name = f"{directory}/s{i}"
        began = time.monotonic()
        process = subprocess.Popen([BINARY, f"--listen=unix:{name}"], stderr=subprocess.DEVNULL,
                                   env=environment())
        try:
            while True:
                try:
                    wire = Wire(name)
                    break
                except OSError:
                    assert time.monotonic() - began < 10
                    time.sleep(0.0005)
            with wire:
                assert wire.ask("GET", "/readyz").status == 200
            took.append(time.monotonic() - began - queued_seconds(process.pid))
        finally:
            process.kill()
            process.wait()
    # This process waits for the processors too, but hardly with all seven.
    assert min(took) < 0.05, took
    print("start to first answer, ms:", [round(t * 1000, 1) for t in sorted(took)])
