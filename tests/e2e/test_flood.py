"""Clients that take what they can get, beside one that has got its connection."""

import resource

from contract import path
from flood import Load
from stopwatch import Stopwatch
from wait import until
from wire import Wire

SLOW = 600
ENOUGH = 1500  # answers of which a percentile is taken
# More than fit into the table of connections and the kernel's queue together.
FLOOD = min(6000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100)


def percentile(seconds, share):
    return sorted(seconds)[int(len(seconds) * share)]


class Watch:
    """What the steady client sees from phase to phase."""

    def __init__(self, steady):
        self.steady = steady
        self.seconds = []

    def over(self, done):
        """Until the phase is, and enough has been seen of it."""
        def look():
            self.seconds += self.steady.tell()["seconds"]
            return done() and len(self.seconds) >= ENOUGH

        until(look, "the phase is over", 30, step=0.1)

    def check(self, phase):
        self.seconds += self.steady.tell()["seconds"]
        ms = [1000 * s for s in self.seconds]
        self.seconds = []
        print(f"{phase}: {len(ms)} answers, in ms p50 {percentile(ms, 0.5):.2f}, "
              f"p99 {percentile(ms, 0.99):.2f}, slowest {max(ms):.2f}")
        assert percentile(ms, 0.99) < 100, phase


def new_connection(daemon, watch):
    """Seconds from the watch's start until a new connection is answered. As gateways do it gives up
    early and tries anew: while the kernel's queue is full it drops a connection's first packet, and
    the second comes after a second (RFC 6298)."""
    while True:
        try:
            with Wire(daemon.address, 0.1) as wire:
                assert wire.ask("GET", path("new")).status == 200
                return watch.took()
        except TimeoutError:
            assert watch.took() < 10, "no new connection is answered"


def test_slow_senders_and_a_flood(start):
    """600 slow senders, then a flood beyond max_connections and the kernel's queue behind it: who has
    a connection is served as ever, and who comes when the flood is over is within a second."""
    daemon = start(request_timeout=2)
    most = daemon.metric("breakerd_http_connections_limit")

    with Load("steady", daemon.address, daemon.process.pid) as steady, \
            Load("slow", daemon.address, SLOW) as slow, \
            Stopwatch(daemon.process.pid) as stopwatch:
        watch = Watch(steady)
        until(lambda: daemon.connections() > SLOW, "the slow ones are in")
        # Each has been turned out twice, and has come again.
        watch.over(lambda: slow.tell()["ended"] >= 2 * SLOW)
        watch.check("slow senders")
        with Load("flood", daemon.address, FLOOD) as flood:
            until(lambda: daemon.connections() == most, "no connection is left")
            watch.over(lambda: flood.tell()["connected"] > most)
            until(lambda: daemon.connections() == most, "it is full still")
            watch.check("flood")
            flood.stop()
            stopwatch.start()
        came = new_connection(daemon, stopwatch)
        print(f"the first new connection is answered {1000 * came:.1f} ms after the flood")
        assert came < 1
        for _ in range(50):
            stopwatch.start()
            assert new_connection(daemon, stopwatch) < 1
        watch.over(lambda: daemon.connections() < most)
        watch.check("after the flood")
