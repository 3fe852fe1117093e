"""Many lines a second on report_listen, and requests over HTTP meanwhile. REPORT_LOAD=full sends 100,000 lines a
second for 5 s and requires a 99th percentile under 20 ms, which needs a quiet machine; -s shows the figures."""

import os
import subprocess
import sys
import time

import pytest

from ports import free_port
from wire import Wire, request_bytes

FULL = os.environ.get("REPORT_LOAD") == "full"
RATE, SECONDS = (100_000, 5) if FULL else (10_000, 1)

# A process of its own, with the arguments port, lines a second, seconds. Prints how many lines a second it sent.
SENDER = """
import socket, sys, time
port, rate, seconds = map(int, sys.argv[1:])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("127.0.0.1", port))
lines = [b"<190>nginx: circuit=orders-%d permit=- status=%d time=0.012" % (n % 100, 200 if n % 50 else 404) for n in range(rate // 500)]
send = s.send
began = time.perf_counter()
for step in range(seconds * 500):
    time.sleep(max(0, began + step / 500 - time.perf_counter()))
    for line in lines:
        send(line)
print(int(seconds * rate / (time.perf_counter() - began)))
"""


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_lines_by_the_hundred_thousand_hold_up_no_request(kind, start_on):
    reports = f"127.0.0.1:{free_port()}"
    daemon = start_on(kind, report_listen=reports)
    seconds = []
    with Wire(daemon.address) as wire:
        ask = request_bytes("POST", "/v1/circuits/other/acquire", body="")
        wire.send(ask)
        assert wire.receive().status == 200
        with subprocess.Popen([sys.executable, "-c", SENDER, reports.rpartition(":")[2], str(RATE), str(SECONDS)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as sender:
            while sender.poll() is None:
                began = time.perf_counter()
                wire.send(ask)
                assert wire.receive().status == 200
                seconds.append(time.perf_counter() - began)
                time.sleep(0.0005)  # leaves the processor to the daemon and the sender between requests
            rate = int(sender.stdout.read())
    read = daemon.metric("breakerd_report_lines_total", result="used")
    assert daemon.metric("breakerd_report_lines_total", result="unusable") == 0
    assert daemon.metric("breakerd_report_lines_total", result="failed") == 0
    assert 0 < read <= RATE * SECONDS
    seconds.sort()
    p99, worst = seconds[len(seconds) * 99 // 100] * 1000, seconds[-1] * 1000
    print(f"\n{kind}: {rate} lines/s sent, {read * 100 / (RATE * SECONDS):.1f}% read, {len(seconds)} requests, "
          f"p99 {p99:.2f} ms, worst {worst:.2f} ms")
    if FULL:
        assert rate > 0.95 * RATE
        assert p99 < 20
