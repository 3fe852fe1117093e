"""Waiting for a condition with a deadline."""

import time

DEADLINE = 10.0


def until(condition, what, deadline=DEADLINE, step=0.005):
    """Calls condition until it returns something true, and returns that."""
    end = time.monotonic() + deadline
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {what}")
        time.sleep(step)
