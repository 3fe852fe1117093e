"""How long something takes the daemon, on a machine that has other things to do.

As a program: what tells the pauses of the machine. Its lines on stdin are two moments (of
time.monotonic), answered with the seconds between them in which the machine stood still.
"""

import os
import select
import subprocess
import sys
import time

TICK = 0.005  # seconds between two looks at the clock
PAUSE = 0.02  # so much later than that, and more: a pause


def queued_seconds(pid):
    """For how many seconds the process was ready to run and no processor was free."""
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as stat:
            return int(stat.read().split()[1]) / 1e9
    except OSError:
        return 0  # not every kernel counts it


class Stopwatch:
    """with Stopwatch(pid, ..) as watch: watch.start() ... watch.took() tells the seconds since start, less
    those in which these processes waited for a processor, or in which the whole machine stood still,
    as a virtual one does now and then."""

    def __init__(self, *pids):
        self.pids = pids
        self.pauses = subprocess.Popen([sys.executable, os.path.abspath(__file__)], text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.began = self.queued = 0
        self.start()
        self._paused(self.began)  # it runs from now on

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pauses.communicate()

    def _queued(self):
        return sum(map(queued_seconds, self.pids))

    def _paused(self, ended):
        self.pauses.stdin.write(f"{self.began} {ended}\n")
        self.pauses.stdin.flush()
        return float(self.pauses.stdout.readline())

    def start(self):
        self.queued, self.began = self._queued(), time.monotonic()

    def took(self):
        ended = time.monotonic()
        queued = self._queued() - self.queued
        paused = self._paused(ended) if ended - self.began > PAUSE else 0
        # Who waits for a processor while the machine stands still counts in both.
        return max(0, ended - self.began - max(queued, paused))


def tell_pauses():
    pauses = []
    looked = time.monotonic()
    while True:
        asked = select.select([sys.stdin], [], [], TICK)[0]
        now = time.monotonic()
        if now - looked > TICK + PAUSE:
            pauses.append((looked, now))
        looked = now
        if not asked:
            continue
        line = sys.stdin.readline()
        if not line:
            return
        began, ended = map(float, line.split())
        print(sum(max(0, min(ended, to) - max(began, since)) for since, to in pauses), flush=True)


if __name__ == "__main__":
    tell_pauses()
