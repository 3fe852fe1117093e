"""Compares breakerd with what a user would pick instead: throughput, latency, processor time, memory.

All servers run at the same time and are measured one after the other, in several rounds, so that other
load on the machine affects all of them. A verdict is the median over the rounds of the ratios within each
round; absolute figures do not hold for another machine.

usage: bench.py [--quick] [--rounds N] [--seconds N] [--patience MINUTES] [--circuits N...]
                [--connections N...] [--only PART] [--out DIR]
parts: embedded, redis, decisions, stoma, growth, instructions
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

import growth
import instructions
import machine
import paths
import servers
import wrk
from quiet import TOLERATED, Patience

EMBEDDED = [servers.Breakerd, servers.NginxReturn, servers.NginxDict, servers.Minimal]
ON_REDIS = [servers.BreakerdOnRedis, servers.Webdis]
# The last two show how much of the growth is libmicrohttpd's or the kernel's.
GROWING = [servers.Breakerd, servers.BreakerdOnRedis, servers.Minimal, servers.NginxReturn]
WORKLOADS = ("read", "write", "mix")
DECIDING = [servers.Breakerd, servers.BreakerdOnRedis, servers.BreakerdFar, servers.Webdis]
DECISIONS = ("acquire", "decide")
MANY = (16, 64, 256)  # the numbers of connections that verdicts use
PARTS = ("embedded", "redis", "decisions", "stoma", "growth", "instructions")

# What the benchmark must show: name, workload, circuits, our server, the other server, figure, connections,
# and the bound on ours / theirs.
TARGETS = [
    ("embedded, getState, throughput / nginx return 200", "read", 1, "breakerd", "nginx return",
     "rate", MANY, ">=", 0.95),
    ("embedded, recordFailure, throughput / nginx with a shared dictionary", "write", 1,
     "breakerd", "nginx dict", "rate", MANY, ">=", 0.95),
    ("Redis, one circuit, recordFailure, throughput / webdis", "write", 1, "breakerd redis",
     "webdis", "rate", MANY, ">=", 2.0),
    ("Redis, one circuit, recordFailure, p99 / webdis", "write", 1, "breakerd redis", "webdis",
     "p99", MANY, "<=", 0.5),
    ("Redis, 1,000 circuits, recordFailure, throughput / webdis", "write", 1000,
     "breakerd redis", "webdis", "rate", MANY, ">=", 1.4),
    ("Redis, one circuit, getState, throughput / webdis GET", "read", 1, "breakerd redis",
     "webdis", "rate", MANY, ">=", 1.5),
    ("Redis's processor time, recordFailure, one circuit, 64 connections / webdis", "write", 1,
     "breakerd redis", "webdis", "redis", (64,), "<=", 0.2),
    ("Redis, acquire and report of success, 64 connections, throughput / the embedded store",
     "decide", 1, "breakerd redis", "breakerd", "rate", (64,), ">=", 0.85),
    ("Redis, acquire and report of success, 64 connections, throughput / webdis, a script each",
     "decide", 1, "breakerd redis", "webdis", "rate", (64,), ">=", 5.0),
    ("Redis 1 ms away, acquire, p99 / the embedded store", "acquire", 1,
     "breakerd redis far", "breakerd", "p99", MANY, "<=", 1.5),
]
INSTRUCTION_TARGETS = {"getState": 1.25, "recordFailure": 1.35}


def value(figures, name):
    if name in figures["cpu"]:
        return figures["cpu"][name]
    if name == "cpu total":
        return sum(figures["cpu"].values())
    return figures[name]


def measure(contenders, workloads, circuits, connections, rounds, seconds, patience, directory):
    """A row, with all its rounds, for each server, workload, number of circuits and of connections."""
    rows = []
    with servers.running(servers.present(contenders), directory) as started:
        for count in circuits:
            for server in started:
                server.fill(count)
            for workload in workloads:
                asked = [s for s in started if workload in s.requests
                         and (count == 1 or not isinstance(s, (servers.Minimal,
                                                               servers.NginxReturn)))]
                for at_once in connections:
                    got = {s.name: [] for s in asked}
                    for turn in range(rounds):
                        # Each round begins with another server.
                        for server in asked[turn % len(asked):] + asked[:turn % len(asked)]:
                            got[server.name].append(
                                wrk.run(server, workload, count, at_once, seconds, patience))
                    for server in asked:
                        rows.append({"server": server.name, "workload": workload,
                                     "circuits": count, "connections": at_once,
                                     "rounds": got[server.name]})
                        show(rows[-1], rows)
    return rows


def median(row, name):
    return statistics.median(value(figures, name) for figures in row["rounds"])


def find(rows, server, workload, circuits, connections):
    for row in rows:
        if (row["server"], row["workload"], row["circuits"], row["connections"]) == \
                (server, workload, circuits, connections):
            return row
    return None


def ratio(ours, theirs, name):
    """The median of the ratios of each round."""
    return statistics.median(value(a, name) / max(value(b, name), 1e-9)
                             for a, b in zip(ours["rounds"], theirs["rounds"]))


HEADER = (f"{'':16} {'':6} {'circuits':>8} {'conn':>5} {'requests/s':>10} {'p50 us':>8} "
          f"{'p99 us':>8} {'p99.9':>8} {'cpu us':>7} {'redis':>6} {'MiB':>6}  breakerd is")


def show(row, rows):
    memory = sum(row["rounds"][-1]["memory"].values()) / 1024
    redis = f"{median(row, 'redis'):6.2f}" if "redis" in row["rounds"][0]["cpu"] else " " * 6
    ours = find(rows, "breakerd redis" if redis.strip() else "breakerd", row["workload"],
                row["circuits"], row["connections"])
    factor = "" if ours in (row, None) else f"{ratio(ours, row, 'rate'):.2f} x"
    failed = sum(figures["failed"] for figures in row["rounds"])
    print(f"{row['server']:16} {row['workload']:6} {row['circuits']:8} {row['connections']:5} "
          f"{median(row, 'rate'):10.0f} {median(row, 'p50'):8.0f} {median(row, 'p99'):8.0f} "
          f"{median(row, 'p999'):8.0f} {median(row, 'server'):7.2f} {redis} {memory:6.1f}  {factor}"
          + (f"  {failed} FAILED" if failed else ""), flush=True)


def show_growth(row):
    print(f"{row['server']:16} {row['workload']:6} {row['kind']:17} {row['size']:8} "
          f"{row['rate']:10.0f} {row['p50']:8} {row['p99']:8} {row['cpu']['server']:7.2f} "
          f"{row['cpu'].get('redis', 0):6.2f}" + (f"  {row['failed']} FAILED" if row['failed'] else ""),
          flush=True)


def stoma(seconds, directory):
    """Measures Stoma's own store, in Node."""
    if not os.path.exists(os.path.join(paths.ROOT, "tests/interop/node_modules/ioredis")):
        print("Not installed, so not measured: Stoma's own store (`scripts/interop install`)")
        return None
    with servers.running([servers.BreakerdOnRedis], directory) as (server,):
        done = subprocess.run(
            ["node", os.path.join(paths.HERE, "stoma.mjs"), str(server.redis.port),
             str(server.port), str(seconds), "1", "16", "64", "256"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=60 + 20 * seconds, check=True)
    return json.loads(done.stdout)


def show_stoma(results):
    print("\nrecordFailure on one circuit from one Node process, on Redis")
    print(f"{'':12} {'at once':>8} {'a second':>9} {'p50 us':>8} {'p99 us':>8} {'recorded':>9} "
          f"{'stored':>8} {'lost':>6}")
    for name, label in (("stoma", "Stoma's own"), ("breakerd", "breakerd")):
        for run in results[name]:
            lost = 1 - run["stored"] / run["recorded"]
            print(f"{label:12} {run['concurrency']:8} {run['rate']:9.0f} {run['p50']:8} "
                  f"{run['p99']:8} {run['recorded']:9} {run['stored']:8} {lost:6.1%}")


def verdicts(rows, counted):
    """[(what, measured ratio, relation, bound, whether it is met, their processor time a request / ours)]"""
    out = []
    for what, workload, circuits, ours, theirs, name, connections, relation, bound in TARGETS:
        pairs = [(find(rows, ours, workload, circuits, n), find(rows, theirs, workload, circuits, n))
                 for n in connections]
        ratios = [ratio(a, b, name) for a, b in pairs if a and b]
        if ratios:
            got = statistics.median(ratios)
            work = statistics.median(ratio(b, a, "cpu total") for a, b in pairs if a and b)
            out.append((what, got, relation, bound,
                        got >= bound if relation == ">=" else got <= bound,
                        work if name == "rate" else None))
    for operation, (ours, least) in (counted or {}).items():
        bound = INSTRUCTION_TARGETS[operation]
        out.append((f"embedded, {operation}, instructions / minimal handler", ours / least, "<=",
                    bound, ours / least <= bound, None))
    return out


def show_verdicts(out):
    print("\nWhat the benchmark must show (medians over 16, 64 and 256 connections unless stated)")
    for what, got, relation, bound, reached, work in out:
        print(f"{'reached' if reached else 'MISSED':8} {got:6.2f} ({relation} {bound:.2f})  {what}"
              + (f"; by processor time {work:.2f}" if work else ""))


def others(result):
    """How much of the machine other programs took during the runs."""
    shares = [figures["others"] for row in result["rows"] for figures in row["rounds"]]
    shares += [row["others"] for row in result["growth"]]
    return {"median": statistics.median(shares or [0]),
            "disturbed": sum(share > TOLERATED for share in shares) / max(len(shares), 1)}


def arguments():
    parser = argparse.ArgumentParser(description="Compares breakerd with what a user would pick instead.")
    parser.add_argument("--circuits", type=int, nargs="+", default=[1, 1000, 100000])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--quick", action="store_true", help="one circuit, 64 connections, once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=1, help="of each run")
    parser.add_argument("--patience", type=float, default=0, metavar="MINUTES",
                        help="how long to wait, in all, for moments with little other load")
    parser.add_argument("--only", action="append", choices=PARTS, help="repeatable")
    parser.add_argument("--out", default=os.path.join(paths.BUILD, "bench"),
                        help="directory for benchmarks.json")
    return parser.parse_args()


def main():
    args = arguments()
    quick = args.quick
    parts = args.only or (("embedded", "redis") if quick else PARTS)
    circuits, connections = ((1,), (64,)) if quick else (args.circuits, args.connections)
    rounds = 2 if quick else args.rounds
    patience = Patience(60 * args.patience)
    result = {"machine": machine.describe(), "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
              "load_before": machine.load(), "rounds": rounds, "seconds": args.seconds,
              "rows": [], "growth": [], "stoma": None, "instructions": None}
    print("  ".join(f"{k} {v}" for k, v in result["machine"].items()))
    print(f"load average before: {result['load_before']}\n\n{HEADER}")
    with tempfile.TemporaryDirectory(prefix="breakerd-bench-") as directory:
        def fresh(name):
            path = os.path.join(directory, name)
            os.makedirs(path)
            return path

        for name, contenders, workloads, counts in (
                ("embedded", EMBEDDED, WORKLOADS, circuits), ("redis", ON_REDIS, WORKLOADS, circuits),
                ("decisions", DECIDING, DECISIONS, circuits[:1])):
            if name in parts:
                result["rows"] += measure(contenders, workloads, counts, connections, rounds,
                                          args.seconds, patience, fresh(name))
        if "growth" in parts:
            print("\nAs the work grows")
            for contender in servers.present(GROWING):
                with servers.running([contender], fresh("growth-" + contender.__name__)) as (server,):
                    how = (server, args.seconds, patience, show_growth)
                    result["growth"] += growth.by_connections(*how)
                    if "write" in server.requests:
                        result["growth"] += growth.by_circuits(*how)
        if "stoma" in parts:
            result["stoma"] = stoma(args.seconds, fresh("stoma"))
    if result["stoma"]:
        show_stoma(result["stoma"])
    if "instructions" in parts:
        result["instructions"] = instructions.measure()
    result["verdicts"] = verdicts(result["rows"], result["instructions"])
    result["load_after"] = machine.load()
    result["others"] = others(result)
    show_verdicts(result["verdicts"])
    print(f"\nload average after: {result['load_after']} (the benchmark itself is 2 to 3)")
    print(f"other programs took {result['others']['median']:.0%} of the machine (median over the "
          f"runs), more than {TOLERATED:.0%} in {result['others']['disturbed']:.0%} of the runs")
    os.makedirs(args.out, exist_ok=True)
    path = os.path.join(args.out, "benchmarks.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
        f.write("\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
