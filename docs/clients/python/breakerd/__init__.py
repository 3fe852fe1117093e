"""Asks breakerd, the circuit-breaker sidecar, before a request to an upstream, and reports the outcome after it.

    from breakerd import CircuitOpen, Client

    client = Client()                              # http://127.0.0.1:8747; one for all threads

    try:
        with client.call("orders") as call:        # raises CircuitOpen if the request may not go
            response = ask_the_upstream()
            call.status = response.status          # breakerd's policy judges it
    except CircuitOpen as refused:
        answer_503(refused.decision.retry_after_ms)

    @client.guard("orders")                        # the same around a function
    def ask(): ...

With asyncio: breakerd.aio.Client. When breakerd does not answer, every request passes.
"""

import functools
import os
import select
import socket
import time
from contextlib import contextmanager

from ._wire import Base, Call, CircuitOpen, Decision, NoAnswer, Response, report_body

__all__ = ["Call", "CircuitOpen", "Client", "Decision"]
__version__ = "0.2.0"

MAX_IDLE = 64  # kept connections


class Client(Base):
    """Threads may share a client. Takes base_url, token, timeout_ms, retry_after_trouble_ms and log."""

    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self._idle, self._pid = [], os.getpid()

    def acquire(self, key):
        """Returns a Decision: whether a request may go to the upstream. Never raises because of breakerd."""
        response = self._ask(self.request(key, "/acquire"), Response.decision)
        return response or Decision()

    def report(self, key, permit="", outcome=None, status=None, duration_ms=None):
        """Reports the outcome of a request. True if breakerd counted it."""
        return bool(self._ask(self.request(key, "/report", report_body(permit, outcome, status, duration_ms)),
                              Response.counted))

    @contextmanager
    def call(self, key):
        """Runs a block between acquire and report. Raises CircuitOpen if the block may not run."""
        call = Call(key, self.acquire(key))
        if not call.decision.allowed:
            raise CircuitOpen(key, call.decision)
        error = None
        try:
            yield call
        except BaseException as raised:
            error = type(raised)
            raise
        finally:
            report = call._report(error)  # pylint: disable=protected-access
            if report:
                self.report(key, **report)

    def guard(self, key):
        """A decorator: each call of the function is guarded by the circuit `key`."""
        def decorate(function):
            @functools.wraps(function)
            def guarded(*args, **kw):
                with self.call(key):
                    return function(*args, **kw)
            return guarded
        return decorate

    def close(self):
        """Closes the kept connections."""
        while self._idle:
            self._idle.pop().close()

    def _ask(self, request, read):
        if not self.may_ask():
            return None
        try:
            answer = read(self._exchange(request, time.monotonic() + self.timeout))
        except (OSError, NoAnswer) as error:
            self.trouble(error)
            return None
        self.answered()
        return answer

    def _exchange(self, request, deadline):
        sock, response = self._connection(deadline), Response()
        try:
            sock.settimeout(_left(deadline))
            sock.sendall(request)
            while True:
                sock.settimeout(_left(deadline))
                if response.feed(sock.recv(MAX_READ)):
                    break
        except BaseException:
            sock.close()
            raise
        if response.keep and len(self._idle) < MAX_IDLE:
            self._idle.append(sock)
        else:
            sock.close()
        return response

    def _connection(self, deadline):
        if self._pid != os.getpid():
            # After a fork the connections belong to the parent: two processes on one would mix up answers.
            self._idle, self._pid = [], os.getpid()
        while True:
            try:
                sock = self._idle.pop()
            except IndexError:
                break
            if not readable(sock):
                return sock
            sock.close()
        if self.path is None:
            sock = socket.create_connection(self.address, _left(deadline))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_left(deadline))
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        return sock


MAX_READ = 16384


def _left(deadline):
    left = deadline - time.monotonic()
    if left <= 0:
        raise NoAnswer("no answer in time")
    return left


def readable(sock):
    """True if breakerd has closed a kept connection: a request on it would be lost."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
