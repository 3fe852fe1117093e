"""The program through which test_clients.py drives the Python client: driver.py sync|async. The other drivers here do the same.

Each line of standard input is a command; its words are separated by tabs, and `-` is an empty word. The answer is a line:

new URL TOKEN TIMEOUT_MS RETRY_MS   made, or refused: MESSAGE
acquire KEY                         allowed|refused PERMIT STATE REASON RETRY_AFTER_MS answered|unreachable
report KEY PERMIT OUTCOME MS        counted, or not counted; OUTCOME is a word or a status
run KEY WHAT                        passed, failed, cancelled, or refused REASON RETRY_AFTER_MS; WHAT is ok, fail, ignored, cancel
                                    (as the language cancels) or a status
half KEY                            as acquire, of a key that ends in half a surrogate pair
impatient KEY                       given up: the caller waited only 50 ms for acquire
fork KEY                            the answers of acquire in this process and in its child
many N KEY THREADS                  N times `run KEY ok` on THREADS threads: N passed, and in brackets how many took 250 ms or more
busy KEY                            busy, after an acquire; then blocks until a line comes, and answers acquire again (Node)
log                                 N TEXT: the number of messages that the hook got, and the last one
"""

import asyncio
import os
import sys
import threading
import time

import breakerd
import breakerd.aio

messages = []


class Failed(Exception):
    pass


def body(call, what):
    if what == "fail":
        raise Failed
    if what == "cancel":
        raise cancellation
    if what == "ignored":
        call.outcome = what
    elif what != "ok":
        call.status = int(what)


def shown(decision):
    words = ["allowed" if decision.allowed else "refused", decision.permit or "-", decision.state or "-", decision.reason or "-",
             str(decision.retry_after_ms), "unreachable" if decision.unreachable else "answered"]
    return " ".join(words)


def reported(permit, outcome, duration):
    judged = {"status": int(outcome)} if outcome.isdigit() else {"outcome": outcome}
    return {"permit": "" if permit == "-" else permit, "duration_ms": None if duration == "-" else float(duration), **judged}


def settings(url, token, timeout_ms, retry_ms):
    values = {"base_url": url, "token": token, "timeout_ms": timeout_ms, "retry_after_trouble_ms": retry_ms}
    kw = {name: value for name, value in values.items() if value != "-"}
    for name in ("timeout_ms", "retry_after_trouble_ms"):
        if name in kw:
            kw[name] = int(kw[name])
    return {**kw, "log": messages.append}


class Sync:
    def __init__(self, **kw):
        self.client = breakerd.Client(**kw)

    def acquire(self, key):
        return shown(self.client.acquire(key))

    def half(self, key):
        return self.acquire(key + "\ud800")

    def report(self, key, *how):
        return "counted" if self.client.report(key, **reported(*how)) else "not counted"

    def run(self, key, what):
        try:
            if what == "ok":
                self.client.guard(key)(lambda: None)()
            else:
                with self.client.call(key) as call:
                    body(call, what)
            return "passed"
        except Failed:
            return "failed"
        except cancellation:
            return "cancelled"
        except breakerd.CircuitOpen as refused:
            return f"refused {refused.decision.reason} {refused.decision.retry_after_ms}"

    def fork(self, key):
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(theirs, self.acquire(key).encode())
            os._exit(0)
        mine = self.acquire(key)
        os.waitpid(child, 0)
        os.close(theirs)
        with open(ours, encoding="ascii") as answer:
            return f"{mine}, {answer.read()}"

    def many(self, n, key, threads):
        took = []
        passed = []

        def some():
            for _ in range(int(n) // int(threads)):
                began = time.monotonic()
                passed.append(self.run(key, "ok"))
                took.append(time.monotonic() - began)
        running = [threading.Thread(target=some) for _ in range(int(threads))]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return many_line(passed, took)


def many_line(passed, took):
    return f"{passed.count('passed')} passed ({sum(t >= 0.25 for t in took)} waited)"


class Async:
    def __init__(self, **kw):
        self.client = breakerd.aio.Client(**kw)
        self.loop = asyncio.new_event_loop()

    def acquire(self, key):
        return shown(self.loop.run_until_complete(self.client.acquire(key)))

    def half(self, key):
        return self.acquire(key + "\ud800")

    def report(self, key, *how):
        return "counted" if self.loop.run_until_complete(self.client.report(key, **reported(*how))) else "not counted"

    def impatient(self, key):
        try:
            return shown(self.loop.run_until_complete(asyncio.wait_for(self.client.acquire(key), 0.05)))
        except asyncio.TimeoutError:
            return "given up"

    def end(self):
        self.loop.run_until_complete(self.client.close())
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    async def _run(self, key, what):
        try:
            if what == "ok":
                await self.client.guard(key)(asyncio.sleep)(0)
            else:
                async with self.client.call(key) as call:
                    body(call, what)
            return "passed"
        except Failed:
            return "failed"
        except cancellation:
            return "cancelled"
        except breakerd.CircuitOpen as refused:
            return f"refused {refused.decision.reason} {refused.decision.retry_after_ms}"

    def run(self, key, what):
        return self.loop.run_until_complete(self._run(key, what))

    def many(self, n, key, tasks):
        took, passed = [], []

        async def some():
            for _ in range(int(n) // int(tasks)):
                began = time.monotonic()
                passed.append(await self._run(key, "ok"))
                took.append(time.monotonic() - began)

        async def everything():
            await asyncio.gather(*[some() for _ in range(int(tasks))])
        self.loop.run_until_complete(everything())
        return many_line(passed, took)


cancellation = KeyboardInterrupt if sys.argv[1] == "sync" else asyncio.CancelledError
kind, driver = {"sync": Sync, "async": Async}[sys.argv[1]], None
for line in sys.stdin:
    command, *words = line.rstrip("\n").split("\t")
    if command == "new":
        messages.clear()
        if isinstance(driver, Async):
            driver.end()
        driver = None
        try:
            driver = kind(**settings(*words))
            print("made", flush=True)
        except ValueError as error:
            print(f"refused: {error}", flush=True)
    elif command == "log":
        print(len(messages), messages[-1].replace("\n", " ") if messages else "", flush=True)
    else:
        print(getattr(driver, command)(*words), flush=True)
if isinstance(driver, Async):
    driver.end()
