"""Measures how much of the machine other programs take, and waits until that is little."""

import os
import resource
import time

TOLERATED = 0.08  # share of all processors
STEP = 0.3


def jiffies():
    """(busy, total) time of all processors since boot. Stolen time counts as busy."""
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, f.readline().split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy, busy + idle + iowait


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Watch:
    """Measures which share of all processors other programs took since the Watch was made."""

    def __init__(self):
        self.stat = jiffies()
        self.children = children_seconds()

    def others(self, ours_seconds):
        """ours_seconds: processor time of the servers. wrk has ended and is counted as a child."""
        busy, whole = (after - before for before, after in zip(self.stat, jiffies()))
        ours = (children_seconds() - self.children + ours_seconds) * os.sysconf("SC_CLK_TCK")
        return max(0.0, (busy - ours) / max(whole, 1))


class Patience:
    """Waits for moments with little other load, for at most `seconds` in all."""

    def __init__(self, seconds):
        self.left = seconds

    def wait(self):
        while self.left > 0:
            watch = Watch()
            time.sleep(STEP)
            if watch.others(0) <= TOLERATED:
                return
            self.left -= STEP

    def wants_repeat(self, others, seconds):
        """Whether to repeat a run in which other programs took the share `others`."""
        if others <= TOLERATED or self.left <= 0:
            return False
        self.left -= seconds
        return True
