"""Puts figures into the documentation: docs/benchmarks.json, two SVGs, and the tables between the
marks in docs/benchmarks.md. The rest of that page is written by hand.

usage: report.py FIGURES.json...     several files: parts of one benchmark that were measured apart
"""

import json
import os
import shutil
import statistics
import sys

import bench
import paths
import plot

DOCS = os.path.join(paths.ROOT, "docs")
BEGIN, END = "<!-- figures: tests/bench/report.py -->", "<!-- end of figures -->"
NAMES = {"breakerd redis": "breakerd", "nginx return": "nginx `return 200`",
         "nginx dict": "nginx, shared dictionary"}
WORKLOADS = {"read": "getState", "write": "recordFailure", "mix": "gateway mix",
             "acquire": "acquire", "decide": "acquire and report"}


def merge(results):
    """Merges the files; a later one replaces the same figures of an earlier one."""
    whole = results[0]
    whole["parts"] = [{name: result[name] for name in
                       ("began", "rounds", "seconds", "load_before", "load_after")}
                      for result in results]
    for other in results[1:]:
        for part in ("growth", "stoma", "instructions"):
            whole[part] = other[part] or whole[part]
        whole["rows"] = [row for row in whole["rows"] if not bench.find(
            other["rows"], row["server"], row["workload"], row["circuits"], row["connections"])
        ] + other["rows"]
    whole["verdicts"] = bench.verdicts(whole["rows"], whole["instructions"])
    whole["others"] = bench.others(whole)
    return whole


def machine(result):
    m = result["machine"]
    return (f"{m['processors']} processors ({m['processor']}{', virtual' if m['virtual'] else ''}), "
            f"{m['memory_gib']} GiB, {m['system']}, Linux {m['kernel']}; breakerd {m['commit']}, "
            f"libmicrohttpd {m['libmicrohttpd']}, Redis {m['redis']}, nginx {m['nginx']}, webdis "
            f"{m['webdis']}, Node {m['node']}, wrk {m['wrk']}. "
            + " ".join(f"{part['began']}: rounds of {part['seconds']} s, {part['rounds']} of them, "
                       f"load average {part['load_before']} before and {part['load_after']} after."
                       for part in result["parts"])
            + f" Other programs took {result['others']['median']:.0%} of the "
            f"machine (median over the runs); more than {bench.TOLERATED:.0%} in "
            f"{result['others']['disturbed']:.0%} of the runs.")


def table(head, rows):
    return "\n".join(["| " + " | ".join(head) + " |",
                      "|" + "|".join(" --- " if i == 0 else " ---: " for i in range(len(head))) + "|",
                      *("| " + " | ".join(map(str, row)) + " |" for row in rows), ""])


def verdicts(result):
    return table(["", "wanted", "measured", "", "by processor time"],
                 [[what, f"{'≥' if relation == '>=' else '≤'} {bound:.2f}", f"{got:.2f}",
                   "reached" if reached else "**missed**", f"{work:.2f}" if work else ""]
                  for what, got, relation, bound, reached, work in result["verdicts"]])


def sides(result, names):
    out = []
    for row in result["rows"]:
        if row["server"] not in names:
            continue
        ours = bench.find(result["rows"], names[0], row["workload"], row["circuits"],
                          row["connections"])
        cpu = f"{bench.median(row, 'server'):.1f}"
        if "redis" in row["rounds"][0]["cpu"]:
            cpu += f" + {bench.median(row, 'redis'):.1f}"
        memory = statistics.median(sum(f["memory"].values()) for f in row["rounds"]) / 1024
        out.append([f"{WORKLOADS[row['workload']]}, {row['circuits']:,}", row["connections"],
                    NAMES.get(row["server"], row["server"]), f"{bench.median(row, 'rate'):,.0f}",
                    "" if ours is row else f"{bench.ratio(ours, row, 'rate'):.2f}",
                    *(f"{bench.median(row, p):,.0f}" for p in ("p50", "p99", "p999")),
                    cpu, f"{memory:.0f}"])
    return table(["workload, circuits", "connections", "", "requests/s", "breakerd's / its",
                  "p50 µs", "p99", "p99.9", "processor µs a request", "MiB"], out)


def grown(result):
    return table(["", "", "size", "requests/s", "p50 µs", "p99", "processor µs a request"],
                 [[f"{row['server']}, {WORKLOADS[row['workload']]}", row["kind"], f"{row['size']:,}", f"{row['rate']:,.0f}", f"{row['p50']:,}",
                   f"{row['p99']:,}",
                   " + ".join(f"{v:.1f}" for v in row["cpu"].values())]
                  for row in result["growth"]])


def stoma(result):
    return table(["at once", "", "a second", "p50 µs", "p99", "recorded", "stored", "lost"],
                 [[run["concurrency"], label, f"{run['rate']:,.0f}", f"{run['p50']:,}",
                   f"{run['p99']:,}", f"{run['recorded']:,}", f"{run['stored']:,}",
                   f"{1 - run['stored'] / run['recorded']:.1%}"]
                  for pair in zip(result["stoma"]["stoma"], result["stoma"]["breakerd"])
                  for run, label in zip(pair, ("Stoma's own store", "breakerd"))])


def text(result):
    parts = ["## The verdict\n", verdicts(result), machine(result) + "\n"]
    if result["instructions"]:
        parts += ["## Instructions a request\n",
                  table(["", "breakerd", "minimal handler", "ratio"],
                        [[name, f"{ours:,.0f}", f"{least:,.0f}", f"{ours / least:.2f}"]
                         for name, (ours, least) in result["instructions"].items()])]
    parts += ["## Throughput\n", "![Requests a second against connections](benchmarks.svg)\n"]
    if result["growth"]:
        parts += ["## As the work grows\n",
                  "![Cost against connections and circuits](benchmarks-growth.svg)\n",
                  details("The figures", grown(result))]
    if result["stoma"]:
        parts += ["## Stoma's own store\n",
                  "`recordFailure` on one circuit from one Node process, on one Redis: Stoma's own "
                  "store through ioredis in the process itself, breakerd over HTTP. Node's HTTP client "
                  "costs Node more than breakerd costs to answer it, and is what bounds the latter here.\n",
                  stoma(result)]
    parts += ["## All figures\n",
              details("Embedded store", sides(result, plot.EMBEDDED)),
              details("Redis (the processor time of breakerd or webdis + that of its Redis)",
                      sides(result, plot.ON_REDIS))]
    return "\n".join(parts)


def details(summary, body):
    return f"<details><summary>{summary}</summary>\n\n{body}\n</details>\n"


def main():
    results = []
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as f:
            results.append(json.load(f))
    if not results:
        sys.exit("usage: report.py FIGURES.json...")
    result = merge(results)
    with open(os.path.join(DOCS, "benchmarks.json"), "w", encoding="utf-8") as f:
        json.dump(result, f, separators=(",", ":"))
        f.write("\n")
    plot.throughput(os.path.join(DOCS, "benchmarks.svg"), result)
    if result["growth"]:
        plot.growth(os.path.join(DOCS, "benchmarks-growth.svg"), result)
    path = os.path.join(DOCS, "benchmarks.md")
    with open(path, encoding="utf-8") as f:
        before, _, rest = f.read().partition(BEGIN)
    _, _, after = rest.partition(END)
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(f"{before}{BEGIN}\n{text(result)}{END}{after}")
    shutil.move(path + ".new", path)


if __name__ == "__main__":
    main()
