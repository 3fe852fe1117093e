#!/usr/bin/env python3
"""
Prints a random history of circuits, with the model's answer to each step: `breaker_history.py SEED STEPS`
prints STEPS lines, each a step (tests/unit/steps.h), a tab, and the answer. "begin" starts without a circuit.
"""

import random
import sys
from fractions import Fraction

from breaker_model import Model, Policy

START = 1700000000000
STATES = ("closed", "open", "half-open")
MOVES = ("acquire", "report", "report one", "record", "get", "transition", "reset", "override", "drop")


class History:
    """Random steps on one circuit."""

    def __init__(self, rng):
        self.rng = rng
        self.model = Model()
        self.model.now = START
        self.permits = []
        self.known = 0
        # The most milliseconds between two steps: some histories are fast, some slow beside their window.
        self.pace = rng.choice((1, 5, 50, 400, 3000))
        self.weights = [rng.choice((0, 1, 5, 20)) for _ in MOVES]
        self.weights[0] += 10
        self.weights[1] += 10
        self.failing = rng.choice((0.05, 0.3, 0.6, 1))
        self.daemons = rng.choice((1, 2, 20))

    def policy(self):
        """A step that changes the policy."""
        rng = self.rng
        p = Policy(
            consecutive_failures=rng.choice((0, 1, 3, 5, 1000000)),
            failure_rate=rng.choice((0, 1, 20, 50, 100)),
            slow_time=rng.choice((0, 0, 100)),
            slow_rate=rng.choice((1, 30, 100)),
            window=rng.choice((1000, 1005, 9999, 30000, 3600000)),
            min_calls=rng.choice((1, 2, 8, 20)),
            min_reporters=rng.choice((1, 1, 1, 2, 3, 16)),
            open_time=rng.choice((10, 33, 1000, 30000)),
            open_growth=rng.choice((Fraction(1), Fraction(2), Fraction(11, 10), Fraction(1001, 1000),
                                    Fraction(15, 10), Fraction(10))),
            probes=rng.choice((1, 1, 2, 5, 100)),
            probe_successes=rng.choice((1, 1, 2, 7)),
            probe_timeout=rng.choice((10, 500, 30000)),
            enforce=rng.random() < 0.9,
        )
        p.open_time_max = p.open_time * rng.choice((1, 3, 100))
        self.model.policy = p
        words = [f"{name}={self.number(value)}" for name, value in vars(p).items()]
        return "policy " + " ".join(words), "ok"

    @staticmethod
    def number(value):
        """A setting's value as a step writes it."""
        return int(value * 1000) if isinstance(value, Fraction) else int(value)

    def wait(self):
        """A step that moves the clock: mostly forward, sometimes by 0, now and then back."""
        rng, p = self.rng, self.model.policy
        kind = rng.random()
        # Not specified: whether an override that has ended holds again if the clock goes back before its end.
        ended = self.model.forced and self.model.forced[1] <= self.model.now
        if kind < 0.05 and not ended:
            ms = rng.choice((1, 20, p.window // 10, p.window // 3, p.window + 1))
            ms = min(ms, 600000)
            self.model.now -= ms
            return f"back {ms}", "ok"
        if kind < 0.2:
            ms = rng.choice((p.open_time, p.open_time_max, p.probe_timeout, p.window // 10,
                             p.window, p.open_time - 1, p.probe_timeout - 1))
        else:
            ms = rng.randrange(self.pace + 1)
        self.model.now += ms
        return f"wait {ms}", "ok"

    def snapshot(self, fields):
        """The five fields as an answer writes them."""
        state, failures, successes, failed, changed = fields
        return (f"{state} {failures} {successes} {failed - START if failed else 0} "
                f"{changed - START if changed else 0}")

    def acquire(self):
        """acquire."""
        allowed, state, reason, retry_after, permit = self.model.acquire()
        if allowed:
            self.permits.append(permit)
        return "acquire", f"{'yes' if allowed else 'no'} {state} {reason} {retry_after}"

    def pick_permit(self):
        """None, or the number of a permit, mostly of a recent one."""
        rng = self.rng
        if not self.known or rng.random() < 0.2:
            return None
        if rng.random() < 0.8:
            return max(0, self.known - 1 - int(rng.expovariate(0.3)))
        return rng.randrange(self.known)

    def report(self, many):
        """report; with `many`, of several equal reports if they are plain successes."""
        rng = self.rng
        number = self.pick_permit()
        permit = None if number is None else self.permits[number]
        outcome = rng.choices(("success", "failure", "ignored"),
                              (1 - self.failing, self.failing, 0.08))[0]
        slow = bool(self.model.policy.slow_time) and rng.random() < 0.3
        daemon = rng.randrange(self.daemons) * 41
        step = f"report {'-' if number is None else number} {outcome}"
        if many and outcome == "success" and not slow and not (permit and permit.kind == "probe"):
            count = rng.randrange(2, 30)
            answers = [self.model.report(permit, outcome) for _ in range(count)]
            counted = sum(1 for answer in answers if answer[0])
            return f"{step} x{count}", f"{counted} counted {answers[0][1]} {answers[-1][2]}"
        counted, was, state, reason = self.model.report(permit, outcome, slow, daemon)
        step += f"{' slow' if slow else ''} by {daemon}"
        return step, f"{'counted' if counted else reason} {was} {state}"

    def operation(self, moves):
        """One of the operations among `moves`."""
        rng, model = self.rng, self.model
        move = rng.choices(moves, [self.weights[MOVES.index(m)] + 0.01 for m in moves])[0]
        if move == "acquire":
            return self.acquire()
        if move in ("report", "report one"):
            return self.report(move == "report" and rng.random() < 0.3)
        if move == "record":
            if rng.random() < self.failing:
                return "failure", self.snapshot(model.failure())
            return "success", self.snapshot(model.success())
        if move == "get":
            return "get", self.snapshot(model.get())
        if move == "transition":
            to, expected = rng.choice(STATES), rng.choice((None, None, *STATES))
            return (f"transition {to}" + (f" from {expected}" if expected else ""),
                    self.snapshot(model.transition(to, expected)))
        if move == "override":
            mode, length = rng.choice(("forced-open", "forced-closed", None)), rng.choice((1, 300, 5000))
            if mode is None:
                # One that is over stays as it is: the clock must not go back before its end (wait, above).
                if model.forced and model.forced[1] > model.now:
                    model.end_override()
                return "unforce", "ok"
            model.override(mode, length)
            return f"force {mode} {length}", "ok"
        if move == "drop":
            model.drop()
            return "drop", "ok"
        model.reset()
        return "reset", "ok"

    def steps(self):
        """Yields each step with its answer."""
        rng = self.rng
        yield "begin", "ok"
        yield self.policy()
        for _ in range(rng.randrange(10, 400)):
            if rng.random() < 0.02:
                yield self.policy()
            yield self.wait()
            self.known = len(self.permits)  # a call cannot use permits that it gives itself
            if rng.random() < 0.2:
                # Several operations, one call.
                parts = [self.operation(("acquire", "report", "record", "get", "transition", "reset"))
                         for _ in range(rng.randrange(2, 8))]
                yield tuple(" | ".join(part[i] for part in parts) for i in range(2))
            elif rng.random() < 0.9:
                yield self.operation(MOVES[:5])
            else:
                yield self.operation(MOVES[5:])


def main():
    """Prints the history."""
    rng = random.Random(int(sys.argv[1]))
    left = int(sys.argv[2])
    while left > 0:
        for step, answer in History(rng).steps():
            print(f"{step}\t{answer}")
            left -= 1
            if left == 0:
                break


main()
