"""Curves from benchmarks.json, drawn by gnuplot as SVG."""

import statistics
import subprocess

STYLES = {"breakerd": "lc rgb '#c0392b' lw 3 pt 7", "breakerd redis": "lc rgb '#c0392b' lw 3 pt 7",
          "nginx return": "lc rgb '#27ae60' lw 2 pt 5", "nginx dict": "lc rgb '#2980b9' lw 2 pt 9",
          "minimal handler": "lc rgb '#7f8c8d' lw 2 pt 4", "webdis": "lc rgb '#2980b9' lw 2 pt 9"}
EMBEDDED = ("breakerd", "nginx return", "nginx dict", "minimal handler")
ON_REDIS = ("breakerd redis", "webdis")


class Panel:
    """A plot of several curves; the horizontal axis is logarithmic."""

    def __init__(self, title, x, y, log_y=False):
        self.settings = [f"set title '{title}'", f"set xlabel '{x}'", f"set ylabel '{y}'",
                         "set logscale y" if log_y else "unset logscale y; set yrange [0:*]",
                         "set yrange [*:*]" if log_y else ""]
        self.curves = []

    def add(self, title, style, points):
        if points:
            self.curves.append((title, style, sorted(points)))

    def text(self, number):
        blocks, plots = [], []
        for i, (title, style, points) in enumerate(self.curves):
            name = f"$p{number}c{i}"
            blocks += [f"{name} << EOD", *(f"{x} {y}" for x, y in points), "EOD"]
            plots.append(f"{name} using 1:2 with linespoints {style} title '{title}'")
        if not plots:
            return "set multiplot next"
        return "\n".join([*blocks, *self.settings, "plot " + ", ".join(plots)])


def draw(path, panels, columns, width=1200, height=400):
    rows = (len(panels) + columns - 1) // columns
    script = "\n".join([
        f"set terminal svg size {width},{height * rows} background 'white' font 'sans,12'",
        f"set output '{path}'", f"set multiplot layout {rows},{columns}",
        "set logscale x", "set format x '%.0s%c'", "set key below", "set grid",
        *(panel.text(i) for i, panel in enumerate(panels)), "unset multiplot", ""])
    subprocess.run(["gnuplot"], input=script, text=True, check=True, timeout=60)


def of_connections(result, server, workload, circuits, figure):
    return [(row["connections"], statistics.median(figure(f) for f in row["rounds"]))
            for row in result["rows"] if (row["server"], row["workload"], row["circuits"])
            == (server, workload, circuits)]


def throughput(path, result):
    panels = []
    for names, where in ((EMBEDDED, "embedded"), (ON_REDIS, "on Redis")):
        for workload, title in (("read", "getState"), ("write", "recordFailure"),
                                ("mix", "getState and recordSuccess in turn")):
            panel = Panel(f"{title}, one circuit, {where}", "connections", "1,000 requests/s")
            for name in names:
                panel.add(name, STYLES[name], of_connections(
                    result, name, workload, 1, lambda f: f["rate"] / 1000))
            panels.append(panel)
    for circuits in (1, 1000, 100000):
        panel = Panel(f"recordFailure, {circuits} circuit{'s' * (circuits > 1)}", "connections",
                      "Redis, ms of processor a 1,000")
        for name in ON_REDIS:
            panel.add(name, STYLES[name], of_connections(
                result, name, "write", circuits, lambda f: f["cpu"]["redis"]))
        panels.append(panel)
    draw(path, panels, 3)


def growth(path, result):
    def points(server, kind, workload, figure):
        return [(row["size"], figure(row)) for row in result["growth"]
                if (row["server"], row["kind"], row["workload"]) == (server, kind, workload)]

    panels = []
    for server, where in (("breakerd", "embedded"), ("breakerd redis", "on Redis")):
        work = Panel(f"Work, {where}", "connections", "us of processor a request")
        work.add("all busy", "lc rgb '#c0392b' lw 3 pt 7",
                 points(server, "busy connections", "read", lambda f: f["cpu"]["server"]))
        work.add("10 busy, others idle", "lc rgb '#2980b9' lw 2 pt 9",
                 points(server, "idle connections", "read", lambda f: f["cpu"]["server"]))
        if server == "breakerd":
            for other in ("minimal handler", "nginx return"):
                work.add(f"{other}, all busy", STYLES[other],
                         points(other, "busy connections", "read", lambda f: f["cpu"]["server"]))
        waits = Panel(f"10 busy connections among many, {where}", "connections", "us", True)
        rises = Panel(f"16 connections, {where}", "circuits", "us", True)
        for figure, style in (("p50", "lw 3 pt 7"), ("p99", "lw 2 pt 9")):
            waits.add(f"getState {figure}", "lc rgb '#2980b9' " + style,
                      points(server, "idle connections", "read", lambda f, n=figure: f[n]))
            for workload, title, colour in (("read", "getState", "#2980b9"),
                                            ("write", "recordFailure", "#c0392b")):
                rises.add(f"{title} {figure}", f"lc rgb '{colour}' {style}",
                          points(server, "circuits", workload, lambda f, n=figure: f[n]))
        panels += [work, waits, rises]
    draw(path, panels, 3)
