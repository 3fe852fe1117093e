"""The length of the outage tests (CHAOS=full in continuous integration, otherwise a short form), and
what a daemon uses of the machine."""

import os

import pytest

FULL = os.environ.get("CHAOS") == "full"
SANITIZED = bool(os.environ.get("SANITIZED"))

full = pytest.mark.skipif(not FULL, reason="CHAOS=full runs it")


def process_seconds(daemon):
    """The processor time that the daemon has used so far."""
    with open(f"/proc/{daemon.process.pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def resident_kib(daemon):
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii", errors="replace") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
