"""Describes the machine and the programs that were measured."""

import os
import platform
import re
import subprocess

import paths
from servers import nginx_binary, webdis_binary


def first_line(*command):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=10, check=False)
    except OSError:
        return "absent"
    return (done.stdout + done.stderr).strip().split("\n")[0] or "?"


def field(path, pattern, otherwise="?"):
    with open(path, encoding="utf-8", errors="replace") as f:
        found = re.search(pattern, f.read(), re.MULTILINE)
    return found[1].strip() if found else otherwise


def describe():
    memory = int(field("/proc/meminfo", r"^MemTotal:\s*(\d+)", "0"))
    return {
        "processor": field("/proc/cpuinfo", r"^model name\s*: (.*)$"),
        "processors": os.cpu_count(),
        "memory_gib": round(memory / (1 << 20), 1),
        "virtual": " hypervisor" in field("/proc/cpuinfo", r"^flags\s*(.*)$"),
        "system": field("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)'),
        "kernel": platform.release(),
        "breakerd": first_line(paths.BREAKERD, "--version"),
        "commit": first_line("git", "-C", paths.ROOT, "rev-parse", "--short", "HEAD"),
        "redis": field_of(first_line("redis-server", "--version"), r"v=(\S+)"),
        "nginx": field_of(first_line(nginx_binary() or "nginx", "-v"), r"/(\S+)"),
        "webdis": package("webdis") if webdis_binary() else "absent",
        "libmicrohttpd": first_line("pkg-config", "--modversion", "libmicrohttpd"),
        "node": first_line("node", "--version"),
        "wrk": field_of(first_line("wrk", "-v"), r"wrk (?:debian/)?(\S+)"),
    }


def field_of(text, pattern):
    found = re.search(pattern, text)
    return found[1] if found else text


def package(name):
    if os.environ.get("WEBDIS"):
        return os.path.basename(os.environ["WEBDIS"])
    return first_line("dpkg-query", "-W", "-f", "${Version}", name)


def load():
    """The load average of the last minute, which includes the benchmark's own processes."""
    return round(os.getloadavg()[0], 2)
