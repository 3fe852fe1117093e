"""
A model of the policy machine, as simple as possible: exact fractions, all calls kept, nothing packed.
tests/unit/proto/check_breaker_lua.c compares proto/breaker.c and proto/circuit.lua with it, through
breaker_history.py.

Where the documents leave room, these rules hold:
- The length of an opening and the deadline of a probe are fixed when these begin. But a probe that has more
  than probe_timeout and a second left gets probe_timeout from the moment when that is found.
- A stamp that is ahead of the clock by more than a minute comes from another clock, or from this one before
  it was set back: an opening with such a stamp is over.
- A transition by one of the five operations empties the window and forgets permits that are out and former
  openings, even within the same millisecond. A permit of a closed circuit belongs to its lastStateChange.
- While the clock is behind the newest slot by less than a window, that slot is the current one; if the clock
  is further behind, the window is empty.
- If the window's length changes, the counts of each slot go into the new slot in which the old one began.
- A permit that does not count is judged first: its reason precedes `ignored`.
- A permit that was given while there was no circuit counts if there still is none, or a closed one that has
  not changed its state since its creation. On a circuit that the five operations created, without a decision
  so far, that is so if anything is counted in it.
"""

import math
from dataclasses import dataclass, field
from fractions import Fraction

INT_MAX = 2**53 - 1
AHEAD_MAX = 60000
CLOCKS_APART = 1000


@dataclass
class Policy:
    """The settings, under their own names; times in milliseconds, open_growth a Fraction."""

    consecutive_failures: int = 5
    failure_rate: int = 50
    slow_time: int = 0
    slow_rate: int = 100
    window: int = 30000
    min_calls: int = 20
    min_reporters: int = 1
    open_time: int = 30000
    open_growth: Fraction = Fraction(2)
    open_time_max: int = 300000
    probes: int = 1
    probe_successes: int = 1
    probe_timeout: int = 30000
    enforce: bool = True


@dataclass
class Permit:
    """A permit; for a probe, with its deadline and whether it has ended."""

    kind: str  # closed, absent, probe, observed, overridden
    since: int = 0  # the circuit's lastStateChange
    deadline: int = 0
    ended: bool = False  # reported or lost


@dataclass
class Circuit:  # pylint: disable=too-many-instance-attributes
    """A circuit, and what the machine knows since the last change of state by another program."""

    state: str = "closed"
    failures: int = 0
    successes: int = 0
    last_failure: int = 0
    changed: int = 0
    fresh: bool = False  # no change of state since its creation
    decided: bool = False  # a decision has written the circuit
    calls: list = field(default_factory=list)  # (slot, failed, slow, reporter)
    newest: int = 0
    window: int = 0
    run: int = 0
    openings: int = 0  # n
    meant: int = 0  # how long the last opening was meant to last; 0: there was none
    half_open: int = 0  # the lastStateChange with which it was last half-open
    probes: list = field(default_factory=list)  # the permits given since then
    passed: int = 0  # successful probes since then

    def snapshot(self):
        """The five fields."""
        return (self.state, self.failures, self.successes, self.last_failure, self.changed)


class Model:
    """One circuit, with a clock that the caller moves and a policy that the caller may change."""

    def __init__(self):
        self.now = 0
        self.policy = Policy()
        self.circuit = None
        self.forced = None  # (mode, until)

    # --- the five -----------------------------------------------------------------------------

    def _absent(self):
        return Circuit(changed=self.now, fresh=True)

    def _create(self):
        if self.circuit is None:
            self.circuit = self._absent()
        return self.circuit

    def get(self):
        """getState."""
        return (self.circuit or self._absent()).snapshot()

    def success(self):
        """recordSuccess."""
        c = self._create()
        c.successes = min(c.successes + 1, INT_MAX)
        return c.snapshot()

    def failure(self):
        """recordFailure."""
        c = self._create()
        c.failures = min(c.failures + 1, INT_MAX)
        c.last_failure = self.now
        return c.snapshot()

    def transition(self, to, expected=None):
        """transition. The machine's knowledge of the circuit is forgotten."""
        if expected and expected != (self.circuit.state if self.circuit else "closed"):
            return self.get()
        old = self._create()
        self._move(old, to)
        self.circuit = Circuit(
            old.state,
            old.failures,
            old.successes,
            old.last_failure,
            old.changed,
            decided=old.decided,
            half_open=self.now if to == "half-open" else 0,
        )
        return self.circuit.snapshot()

    def reset(self):
        """reset. Removes the override, too."""
        self.circuit = self.forced = None

    # --- an operator, and another program -----------------------------------------------------

    def override(self, mode, length):
        """Sets an override; creates the circuit if there is none."""
        if self.circuit is None:
            self.circuit = self._absent()
            self.circuit.decided = True
        self._decide(self.circuit)
        self.forced = (mode, self.now + length)

    def end_override(self):
        """Ends the override, if there is one."""
        self.forced = None

    def drop(self):
        """Another program drops the member: window, permits and override are lost."""
        old = self.circuit
        self.forced = None
        if old is None:
            return
        self.circuit = Circuit(
            *old.snapshot(), half_open=old.changed if old.state == "half-open" else 0
        )

    def _move(self, c, to):
        c.state = to
        c.changed = self.now
        c.fresh = False
        if to == "closed":
            c.failures = 0
        if to != "open":
            c.successes = 0

    # --- the machine --------------------------------------------------------------------------

    def _length(self, n):
        p = self.policy
        length = Fraction(p.open_time)
        for _ in range(n):
            if p.open_growth == 1 or length >= p.open_time_max:
                break
            length *= p.open_growth
        return math.ceil(min(length, p.open_time_max))

    def _open(self, c, n):
        c.openings = n
        c.meant = self._length(n)
        self._move(c, "open")

    def _close(self, c):
        c.calls, c.run = [], 0
        self._move(c, "closed")

    def _age(self, c):
        """How long the circuit has been in its state."""
        age = self.now - c.changed
        return math.inf if age < -AHEAD_MAX else max(age, 0)

    def _find_lost(self, c):
        lost = [p for p in c.probes if not p.ended and p.deadline <= self.now]
        for p in c.probes if c.state == "half-open" else ():
            if p.deadline > self.now + self.policy.probe_timeout + CLOCKS_APART:
                p.deadline = self.now + self.policy.probe_timeout
        if c.state == "half-open" and lost:
            for p in lost:
                p.ended = True
            self._open(c, c.openings)
            return True
        return False

    def _decide(self, c):
        """Before the first decision writes the circuit: fresh is what can be told from the five fields."""
        if not c.decided:
            c.fresh = c.state == "closed" and c.failures + c.successes > 0
            c.decided = True

    def acquire(self):
        """(allowed, state, reason, retry_after, permit or None)"""
        c = self.circuit
        if c:
            self._find_lost(c)
        mode, until = self.forced or (None, 0)
        if until <= self.now:
            mode = None
        if mode == "forced-open":
            return False, c.state, mode, until - self.now, None
        if c is None:
            return True, "closed", "closed", 0, Permit("absent")
        if c.state == "closed":
            return True, "closed", mode or "closed", 0, Permit("closed", c.changed)
        allowed, state, reason, retry_after, permit = self._ask(c)
        if mode:
            if permit is None or permit.kind == "observed":
                permit = Permit("overridden")
            return True, state, mode, 0, permit
        return allowed, state, reason, retry_after, permit

    def _ask(self, c):
        p = self.policy
        if c.state == "open":
            meant = c.meant or self._length(0)
            left = meant - self._age(c)
            if left > 0:
                return self._refuse(c, "open", left)
            c.meant = meant
            self._move(c, "half-open")
            c.half_open, c.probes, c.passed = self.now, [], 0
        out = [q for q in c.probes if not q.ended]
        if len(out) >= p.probes:
            left = min(q.deadline for q in out) - self.now
            return self._refuse(c, "probing", max(1, min(left, 1000)))
        permit = Permit("probe", c.changed, self.now + p.probe_timeout)
        c.probes.append(permit)
        self._decide(c)
        return True, c.state, "probe", 0, permit

    def _refuse(self, c, reason, retry_after):
        if self.policy.enforce:
            return False, c.state, reason, retry_after, None
        return True, c.state, "observed", 0, Permit("observed")

    def _judge(self, c, permit):
        """None if the permit lets a report count, else why not."""
        if permit is None:
            return None if c is None or c.state == "closed" else "stale"
        if permit.kind == "overridden":
            return "overridden"
        if permit.kind == "observed":
            return "stale"
        if permit.kind == "absent":
            if c is None:
                return None
            fresh = c.fresh if c.decided else c.failures + c.successes > 0
            return None if c.state == "closed" and fresh else "stale"
        if permit.kind == "closed":
            same = c and c.state == "closed" and permit.since == c.changed
            return None if same else "stale"
        if c is None or permit.since != c.half_open:
            return "stale"
        if permit.ended or not any(q is permit for q in c.probes):
            return "spent"
        return None if c.state == "half-open" else "stale"

    def report(self, permit, outcome, slow=False, reporter=0):
        """(counted, was, state, reason or None)"""
        c = self.circuit
        was = c.state if c else "closed"
        if c:
            self._find_lost(c)
        why = self._judge(c, permit)
        if why is None and outcome == "ignored":
            why = "ignored"
            if permit and permit.kind == "probe":
                permit.ended = True
        if why:
            return False, was, c.state if c else "closed", why
        if c is None:
            c = self.circuit = self._absent()
            c.decided = True
        self._decide(c)
        self._count(c, permit, outcome == "failure", slow, reporter)
        return True, was, c.state, None

    def _count(self, c, permit, failed, slow, reporter):
        if failed:
            self.failure()
        else:
            self.success()
        if c.state == "closed":
            self._note(c, failed, slow, reporter)
            if self._trips(c):
                again = c.meant and self._age(c) < c.meant
                self._open(c, c.openings + 1 if again else 0)
            return
        permit.ended = True
        if failed or (slow and self.policy.slow_time):
            self._open(c, c.openings + 1)
            return
        c.passed += 1
        if c.passed >= self.policy.probe_successes:
            self._close(c)

    def _note(self, c, failed, slow, reporter):
        width = Fraction(self.policy.window, 10)
        if c.calls and c.window != self.policy.window:
            begins = Fraction(c.window, 10)
            c.calls = [(math.floor(math.floor(s * begins) / width), *rest) for s, *rest in c.calls]
            c.newest = math.floor(math.floor(c.newest * begins) / width)
        slot = math.floor(self.now / width)
        if c.calls and c.newest > slot:
            if c.newest - slot >= 10:
                c.calls = []
            else:
                slot = c.newest
        c.window, c.newest = self.policy.window, slot
        c.calls.append((slot, failed, slow, reporter))
        c.calls = [call for call in c.calls if call[0] > slot - 10]
        c.run = c.run + 1 if failed else 0

    def _trips(self, c):
        p = self.policy
        calls = len(c.calls)
        failures = sum(1 for _, failed, _, _ in c.calls if failed)
        slow = sum(1 for _, _, was_slow, _ in c.calls if was_slow)
        reporters = {who for _, failed, was_slow, who in c.calls if failed or was_slow}
        if len(reporters) < p.min_reporters:
            return False
        if p.consecutive_failures and c.run >= p.consecutive_failures:
            return True
        if calls < p.min_calls:
            return False
        if p.failure_rate and failures * 100 >= p.failure_rate * calls:
            return True
        return bool(p.slow_time) and slow * 100 >= p.slow_rate * calls
