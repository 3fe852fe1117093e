"""
The policy machine as docs describe it, written in the plainest way: exact fractions, whole
histories kept, nothing packed. tests/e2e/test_breaker_history.py holds proto/breaker.c and
proto/circuit.lua against it.

Where several readings are possible, these hold:
- An opening's length and a probe's deadline are fixed when they begin. But a probe that is found with
  more than probe_timeout and a second left has probe_timeout from then on.
- A stamp ahead of the clock by more than a minute is of another clock, or of this one before it was
  set back: an opening since then is over.
- A transition by one of the five leaves nothing of the window, of permits that are out and of former
  openings, at whatever time it comes. A permit of a closed circuit is told by lastStateChange.
- While the clock is behind the newest slot by less than a window, that slot is the current one;
  if it is further behind, the window is empty.
- A window of another length keeps each slot's counts, in the new slot in which the old one began.
- What a permit is decides before `ignored` does.
- A permit of a circuit that did not exist counts where there is none, or a closed one that has
  not changed its state since it was created. No decision has been made on a circuit that the
  five created: then it has not, if something is counted in it.
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
    """A permit. What became of a probe is written on it."""

    kind: str  # closed, absent, probe, observed, overridden
    since: int = 0  # the circuit's lastStateChange
    deadline: int = 0
    ended: bool = False  # reported, or lost


@dataclass
class Circuit:  # pylint: disable=too-many-instance-attributes
    """A circuit and all that was ever said of it since its last foreign change of state."""

    state: str = "closed"
    failures: int = 0
    successes: int = 0
    last_failure: int = 0
    changed: int = 0
    fresh: bool = False  # created, and no change of state since
    decided: bool = False  # the machine has written
    calls: list = field(default_factory=list)  # (slot, failed, slow, reporter)
    newest: int = 0
    window: int = 0
    run: int = 0
    openings: int = 0  # n
    meant: int = 0  # how long the last opening was meant to last; 0: there was none
    half_open: int = 0  # lastStateChange of the last half-open time
    probes: list = field(default_factory=list)  # its permits
    passed: int = 0

    def snapshot(self):
        """The five fields."""
        return (self.state, self.failures, self.successes, self.last_failure, self.changed)


class Model:
    """One circuit, with a clock that the caller moves and a policy that he may change."""

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
        """transition. Everything decided is forgotten."""
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
        """reset. The override goes, too."""
        self.circuit = self.forced = None

    # --- an operator, and another program -----------------------------------------------------

    def override(self, mode, length):
        """Sets an override; it makes the circuit, if there is none."""
        if self.circuit is None:
            self.circuit = self._absent()
            self.circuit.decided = True
        self._decide(self.circuit)
        self.forced = (mode, self.now + length)

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
        """Before the first write of the machine: what can be seen of the circuit's creation."""
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
