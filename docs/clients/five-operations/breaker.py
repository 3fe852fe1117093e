"""A circuit breaker whose state many gateways share through breakerd. Python 3.8, standard library.

    breaker = Breaker("http://127.0.0.1:8747", "orders", threshold=5, open_seconds=30)

    permit = breaker.enter()
    if permit == OPEN:
        return 503                       # do not bother the upstream
    ok = ask_the_upstream()
    breaker.leave(permit, ok)            # also when it raised: in a finally

Threads may share a Breaker. When breakerd does not answer, every request is let through.
"""

import http.client
import json
import logging
import select
import threading
import time
from urllib.parse import quote, urlsplit

CLOSED, HALF_OPEN, OPEN, UNKNOWN = "closed", "half-open", "open", "unknown"
log = logging.getLogger(__name__)


class Breaker:
    def __init__(self, url, key, threshold=5, open_seconds=30.0, timeout=0.3, token=None):
        self.host, self.port = urlsplit(url).hostname, urlsplit(url).port
        self.path = "/v1/circuits/" + quote(key, safe="")
        self.threshold, self.open_ms, self.timeout = threshold, open_seconds * 1000, timeout
        self.headers = {"Authorization": "Bearer " + token} if token else {}
        self.local = threading.local()  # one kept connection a thread
        self.answering = True

    def enter(self):
        """CLOSED: go. HALF_OPEN: go, as the probe. UNKNOWN: go, breakerd did not answer. OPEN: do not go."""
        circuit = self._ask("GET")
        if not circuit:
            return UNKNOWN
        if circuit["state"] == CLOSED:
            return CLOSED
        if time.time() * 1000 - circuit["lastStateChange"] < self.open_ms:
            return OPEN
        if circuit["state"] == HALF_OPEN:  # the probe was never reported
            self._transition(HALF_OPEN, OPEN)
            return OPEN
        won = self._transition(OPEN, HALF_OPEN)  # succeeds for one of all gateways
        return UNKNOWN if won is None else HALF_OPEN if won else OPEN

    def leave(self, permit, ok):
        """Records the outcome of a request; `permit` is what enter() returned for it."""
        if permit not in (CLOSED, HALF_OPEN):
            return
        circuit = self._ask("POST", "/success" if ok else "/failure")
        if permit == HALF_OPEN:
            self._transition(HALF_OPEN, CLOSED if ok else OPEN)
        elif not ok and circuit and circuit["failureCount"] >= self.threshold:
            self._transition(CLOSED, OPEN)

    def _transition(self, before, to):
        """The circuit; False if it was no longer in the state before; None without an answer."""
        return self._ask("POST", "/transition", json.dumps({"from": before, "to": to}))

    def _ask(self, method, verb="", body=None):
        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
            self.local.connection = connection
        try:
            if connection.sock and self._hung_up(connection.sock):
                connection.close()  # opened anew by request()
            connection.request(method, self.path + verb, body, self.headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status not in (200, 409):
                raise OSError("%d %s" % (response.status, answer.get("detail")))
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            connection.close()
            if self.answering:  # once, not for each request
                log.warning("breakerd: %s: requests are let through", error or type(error))
            self.answering = False
            return None
        self.answering = True
        return answer if response.status == 200 else False

    @staticmethod
    def _hung_up(sock):
        """True if breakerd has closed the kept connection: a request on it would be lost."""
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
