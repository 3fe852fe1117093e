"""Instructions a request: breakerd compared with a minimal libmicrohttpd handler, under callgrind.

Unlike a time, this does not depend on other load. Each server is run twice, with few requests and with
many: the difference is what the further requests cost, without start-up and warm-up. The budget is the
ratio of the two servers that budget.json has for this release of the system, because libraries and compiler
matter too; over 5% more fails. acquire and report together may cost 15% more than getState and
recordFailure.

callgrind counts `rep stosb` as one instruction a byte. libmicrohttpd clears a connection's memory with it
for each request, which would be most of the count. So glibc is told to clear with plain stores. --raw leaves
glibc as it is.

usage: instructions.py [--renew | --raw]      MINIMAL and BREAKERD are the binaries
"""

import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile

import paths
from keepalive import ACQUIRE, CHECK, GET_STATE, RECORD_FAILURE, REPORT, send_requests
from ports import free_port
from wait import until

FEW, MANY = 500, 2500
SLACK = 1.05
BUDGET = os.path.join(paths.HERE, "budget.json")
PLAIN_STORES = "glibc.cpu.x86_rep_stosb_threshold=1000000000"
OPERATIONS = {"getState": GET_STATE, "recordFailure": RECORD_FAILURE,
              "acquire": ACQUIRE, "report": REPORT, "check": CHECK}
DECISIONS = 1.15  # bound on (acquire + report) / (getState + recordFailure)
CHECKS = 1.1  # bound on check / acquire


def breakerd(port):
    return [paths.BREAKERD, f"--listen=127.0.0.1:{port}", "--log-level=error"]


def minimal(port):
    return [paths.MINIMAL, str(port)]


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def instructions(command, operation, count, tunables):
    """The instructions that a server executes from its start to its end, with `count` requests."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        log = os.path.join(directory, "log")
        out = os.path.join(directory, "out")
        server = subprocess.Popen(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--log-file={log}",
             *command(port)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "GLIBC_TUNABLES": tunables} if tunables else None)
        try:
            until(lambda: listens(port) or server.poll() is not None, "the server listens", 60)
            # Creates the circuit, so that the snapshot is as long as the minimal handler's.
            send_requests(port, RECORD_FAILURE, 1)
            send_requests(port, operation, count)
            server.send_signal(signal.SIGTERM)
            server.wait(30)
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
        with open(log, encoding="utf-8", errors="replace") as lines:
            text = lines.read()
    found = re.search(r"Collected : (\d+)", text)
    if not found:
        raise RuntimeError(f"callgrind says nothing:\n{text}")
    return int(found[1])


def measure(tunables=PLAIN_STORES):
    """{operation: (breakerd, minimal handler)} in instructions a request."""
    def total(job):
        command, operation, count = job
        return instructions(command, OPERATIONS[operation], count, tunables)

    jobs = [(command, operation, count) for operation in OPERATIONS
            for command in (breakerd, minimal) for count in (FEW, MANY)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        totals = dict(zip(jobs, pool.map(total, jobs)))
    slope = {(command, operation): (totals[command, operation, MANY]
                                    - totals[command, operation, FEW]) / (MANY - FEW)
             for command, operation, _ in jobs}
    return {operation: (slope[breakerd, operation], slope[minimal, operation])
            for operation in OPERATIONS}


def release():
    """The release that a budget is for: other libraries or another compiler need another budget."""
    fields = {}
    with open("/etc/os-release", encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.strip().partition("=")
            fields[name] = value.strip('"')
    return f"{fields.get('ID', '?')}-{fields.get('VERSION_ID', '?')}-{os.uname().machine}"


def main():
    if sys.argv[1:] not in ([], ["--renew"], ["--raw"]):
        sys.exit("usage: instructions.py [--renew | --raw]")
    renew, raw = "--renew" in sys.argv, "--raw" in sys.argv
    with open(BUDGET, encoding="utf-8") as f:
        budgets = json.load(f)
    baseline = {} if raw else budgets.get(release(), {})
    measured = measure(None if raw else PLAIN_STORES)
    over_budget = []
    print(f"instructions a request    breakerd  minimal   ratio  recorded ({release()})")
    for operation, (ours, least) in measured.items():
        ratio, recorded = ours / least, baseline.get(operation)
        print(f"{operation:24} {ours:9.0f} {least:8.0f} {ratio:7.3f}  {recorded or 'nothing'}")
        if recorded and ratio > recorded * SLACK:
            over_budget.append(operation)
    pair = ((measured["acquire"][0] + measured["report"][0])
            / (measured["getState"][0] + measured["recordFailure"][0]))
    print(f"(acquire + report) / (getState + recordFailure): {pair:.3f}, at most {DECISIONS}")
    if pair > DECISIONS and not raw:
        sys.exit("acquire and report take too many instructions.")
    check = measured["check"][0] / measured["acquire"][0]
    print(f"check / acquire: {check:.3f}, at most {CHECKS}")
    if check > CHECKS and not raw:
        sys.exit("check takes too many instructions.")
    if renew:
        budgets[release()] = {operation: round(ours / least, 3)
                              for operation, (ours, least) in measured.items()}
        with open(BUDGET, "w", encoding="utf-8") as f:
            json.dump(budgets, f, indent=2, sort_keys=True)
            f.write("\n")
        print("recorded in tests/bench/budget.json")
    elif over_budget:
        sys.exit(f"More than 5% over the budget: {', '.join(over_budget)}. If that is worth it, run"
                 " `make instructions-renew` and say why in the commit.")


if __name__ == "__main__":
    main()
