"""How much of the machine other programs took during a run, and waiting until they take little."""

import os
import resource
import time

TOLERATED = 0.08  # of all processors
STEP = 0.3


def jiffies():
    """(busy, all) of all processors since they were started; stolen time is others' too."""
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, f.readline().split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy, busy + idle + iowait


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Watch:
    """From its making to others(): the share of all processors that was not ours."""

    def __init__(self):
        self.stat = jiffies()
        self.children = children_seconds()

    def others(self, ours_seconds):
        """`ours_seconds`: of the servers; wrk has ended and is counted as a child."""
        busy, whole = (after - before for before, after in zip(self.stat, jiffies()))
        ours = (children_seconds() - self.children + ours_seconds) * os.sysconf("SC_CLK_TCK")
        return max(0.0, (busy - ours) / max(whole, 1))


class Patience:
    """Waits for quiet moments, for so many seconds in all."""

    def __init__(self, seconds):
        self.left = seconds

    def wait(self):
        while self.left > 0:
            watch = Watch()
            time.sleep(STEP)
            if watch.others(0) <= TOLERATED:
                return
            self.left -= STEP

    def again(self, others, seconds):
        """Whether a run in which others took so much is worth repeating."""
        if others <= TOLERATED or self.left <= 0:
            return False
        self.left -= seconds
        return True
