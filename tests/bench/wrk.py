"""One run of wrk, with the processor time and memory of the servers."""

import json
import os
import re
import subprocess

import paths
from quiet import Patience, Watch
from servers import cpu_ns, memory_kb


def run(server, workload, circuits, connections, seconds, patience=Patience(0)):
    """{rate (requests/s), p50, p99, p999 (us), failed, cpu (us a request) and memory (KiB) by process,
    others (the share of the machine that other programs took)}."""
    while True:
        patience.wait()
        figures = once(server, workload, circuits, connections, seconds)
        if not patience.wants_repeat(figures["others"], seconds):
            return figures


def once(server, workload, circuits, connections, seconds):
    watch = Watch()
    before = {name: cpu_ns(pid) for name, pid in server.processes.items()}
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s",
               os.path.join(paths.HERE, "load.lua"), f"http://127.0.0.1:{server.port}", "--",
               str(circuits), *server.requests[workload]]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=seconds + 60, check=False)
    found = re.search(r"^FIGURES (.*)$", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        raise RuntimeError(f"wrk failed: {done.stdout}{done.stderr}")
    figures = json.loads(found[1])
    count = max(figures["requests"], 1)
    cpu = {name: cpu_ns(pid) - before[name] for name, pid in server.processes.items()}
    return {
        "rate": figures["requests"] * 1e6 / figures["us"],
        **{name: figures[name] for name in ("p50", "p99", "p999", "failed")},
        "cpu": {name: spent / 1000 / count for name, spent in cpu.items()},
        "others": watch.others(sum(cpu.values()) / 1e9),
        "memory": {name: memory_kb(pid) for name, pid in server.processes.items()},
    }
