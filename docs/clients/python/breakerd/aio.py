"""The client for asyncio, with the same names as breakerd.Client.

    client = breakerd.aio.Client()

    async with client.call("orders") as call:
        response = await ask_the_upstream()
        call.status = response.status
"""

import asyncio
import functools
from contextlib import asynccontextmanager

from . import MAX_IDLE, MAX_READ, readable
from ._wire import Base, Call, CircuitOpen, Decision, NoAnswer, Response, report_body

__all__ = ["Call", "CircuitOpen", "Client", "Decision"]


class Client(Base):
    """Tasks of one event loop may share a client. Takes the arguments of breakerd.Client."""

    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self._idle = []

    async def acquire(self, key):
        """Returns a Decision: whether a request may go to the upstream. Never raises because of breakerd."""
        return await self._ask(self.request(key, "/acquire"), Response.decision) or Decision()

    async def report(self, key, permit="", outcome=None, status=None, duration_ms=None):
        """Reports the outcome of a request. True if breakerd counted it."""
        body = report_body(permit, outcome, status, duration_ms)
        return bool(await self._ask(self.request(key, "/report", body), Response.counted))

    @asynccontextmanager
    async def call(self, key):
        """Runs a block between acquire and report. Raises CircuitOpen if the block may not run."""
        call = Call(key, await self.acquire(key))
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
                await self.report(key, **report)

    def guard(self, key):
        """A decorator for coroutine functions."""
        def decorate(function):
            @functools.wraps(function)
            async def guarded(*args, **kw):
                async with self.call(key):
                    return await function(*args, **kw)
            return guarded
        return decorate

    async def close(self):
        """Closes the kept connections."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _ask(self, request, read):
        if not self.may_ask():
            return None
        try:
            answer = read(await asyncio.wait_for(self._exchange(request), self.timeout))
        except asyncio.TimeoutError:
            self.trouble(NoAnswer("no answer in time"))
            return None
        except (OSError, NoAnswer) as error:
            self.trouble(error)
            return None
        self.answered()
        return answer

    async def _exchange(self, request):
        reader, writer = await self._connection()
        response, kept = Response(), False
        try:
            writer.write(request)
            while not response.feed(await reader.read(MAX_READ)):
                pass
            kept = response.keep and len(self._idle) < MAX_IDLE
        finally:
            if kept:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return response

    async def _connection(self):
        while self._idle:
            reader, writer = self._idle.pop()
            # The event loop may not have polled since breakerd closed the connection: ask the socket.
            if not reader.at_eof() and not writer.is_closing() and not readable(writer.get_extra_info("socket").fileno()):
                return reader, writer
            writer.close()
        if self.path is not None:
            return await asyncio.open_unix_connection(self.path)
        return await asyncio.open_connection(*self.address)
