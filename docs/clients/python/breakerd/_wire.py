"""Shared by both clients, without I/O: the base URL, HTTP/1.1 as bytes, the meaning of answers, the pause."""

import json
import logging
import re
import threading
import time
from dataclasses import dataclass
from urllib.parse import quote, unquote

MAX_ANSWER = 65536  # bytes; breakerd's are a few hundred
LOG_INTERVAL = 10.0  # seconds between two messages
_TEXT = r"(?:[A-Za-z0-9_.~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_URL = re.compile(r"http://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?((?:/" + _TEXT + "*)*)")
_UNIX = re.compile(r"http\+unix://(%2[Ff]" + _TEXT + "+)((?:/" + _TEXT + "*)*)")


class NoAnswer(Exception):
    """breakerd did not answer, or not as breakerd does. pause: requests pass for a while without asking it."""

    def __init__(self, message, pause=True):
        super().__init__(message)
        self.pause = pause


class CircuitOpen(Exception):
    """breakerd refused the request: do not send it to the upstream. decision has retry_after_ms."""

    def __init__(self, key, decision):
        super().__init__(f"circuit {key!r} is {decision.reason}: ask again in {decision.retry_after_ms} ms")
        self.key = key
        self.decision = decision


@dataclass(frozen=True)
class Decision:
    allowed: bool = True
    permit: str = ""  # for the report
    state: str = ""  # closed, open, half-open; empty if breakerd did not answer
    reason: str = "unreachable"  # closed, probe, open, probing, forced-open, forced-closed, observed
    retry_after_ms: int = 0
    unreachable: bool = True  # breakerd did not decide, so the request may pass


class Call:
    """A request under way. Set status (of the upstream's answer; 0: none came) or outcome ("success", "failure",
    "ignored"); otherwise an exception is a failure and no exception a success."""

    def __init__(self, key, decision):
        self.key, self.decision = key, decision
        self.status = self.outcome = None
        self._began = time.monotonic()

    def _report(self, error):
        """The arguments for report(); None if there is nothing to report."""
        if self.decision.unreachable:
            return None
        outcome = self.outcome
        if outcome is None and self.status is None:
            # KeyboardInterrupt, CancelledError and similar say nothing about the upstream.
            outcome = "success" if error is None else "failure" if issubclass(error, Exception) else "ignored"
        return {"permit": self.decision.permit, "outcome": outcome, "status": None if outcome else self.status,
                "duration_ms": (time.monotonic() - self._began) * 1000}


class Base:
    """Checks the settings, writes requests, and keeps the pause after trouble."""

    def __init__(self, base_url="http://127.0.0.1:8747", token=None, timeout_ms=300, retry_after_trouble_ms=1000,
                 log=None):
        """base_url: http://HOST[:PORT][/PATH], unix:/PATH or http+unix://%2FPATH. timeout_ms is for a whole
        exchange. For retry_after_trouble_ms after breakerd did not answer, requests pass without asking it.
        log: called with a text, at most every 10 s; default: the warning of the logging.Logger "breakerd".
        ValueError if a setting is invalid."""
        url, unix = _URL.fullmatch(base_url), _UNIX.fullmatch(base_url)
        self.path = None  # of a unix socket
        if url and 1 <= int(url[2] or 80) <= 65535:
            self.address = (url[1].strip("[]"), int(url[2] or 80))
            host, prefix = base_url[len("http://"):].partition("/")[0], url[3]
        else:
            self.path = unquote(unix[1]) if unix else base_url[5:] if base_url.startswith("unix:/") else ""
            host, prefix = "localhost", unix[2] if unix else ""
            if not 2 <= len(self.path.encode()) <= 107 or re.search(r"[\x00-\x1f\x7f]", self.path):
                raise ValueError("base_url must be http://HOST[:PORT][/PATH], unix:/PATH or http+unix://%2FPATH "
                                 "(https is not spoken: breakerd has no TLS)")
        if token and not re.fullmatch(r"[\x21-\x7e]+", token):
            raise ValueError("token must be printable ASCII without spaces")
        if not timeout_ms > 0 or not retry_after_trouble_ms >= 0:
            raise ValueError("timeout_ms must be above 0, retry_after_trouble_ms not below 0")
        self._prefix = prefix.rstrip("/") + "/v1/circuits/"
        self._head = f"Host: {host}\r\n" + (f"Authorization: Bearer {token}\r\n" if token else "")
        self.timeout, self._pause = timeout_ms / 1000, retry_after_trouble_ms / 1000
        self._log = log or logging.getLogger("breakerd").warning
        self._lock = threading.Lock()
        self._retry_at = 0.0  # the end of the pause after trouble; 0: no trouble
        self._log_at = 0.0

    def may_ask(self):
        """False in the pause after trouble. After the pause one request may ask, and the others pass until it has
        its answer."""
        if not self._retry_at:
            return True
        with self._lock:
            now = time.monotonic()
            if self._retry_at and now < self._retry_at:
                return False
            if self._retry_at:
                self._retry_at = now + max(self._pause, self.timeout)
            return True

    def answered(self):
        if self._retry_at:
            with self._lock:
                self._retry_at = 0.0

    def trouble(self, error):
        now = time.monotonic()
        with self._lock:
            self._retry_at = now + self._pause if getattr(error, "pause", True) else 0.0
            tell = now >= self._log_at
            if tell:
                self._log_at = now + LOG_INTERVAL
        if tell:
            try:
                self._log("breakerd: %s: requests pass" % (str(error) or type(error).__name__))
            except Exception:  # pylint: disable=broad-except
                pass  # an error in the hook must not break a request

    def request(self, key, verb, body=""):
        """The bytes of a request."""
        body = body.encode("utf-8")
        # Half a surrogate pair becomes what is not UTF-8, and breakerd refuses the key.
        target = self._prefix + quote(key, safe="", errors="surrogatepass") + verb
        return f"POST {target} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n".encode("ascii") + body


def report_body(permit, outcome, status, duration_ms):
    if (outcome is None) == (status is None):
        raise ValueError("one of outcome and status")
    body = {"permit": permit} if permit else {}
    body.update({"outcome": outcome} if outcome is not None else {"status": status})
    if duration_ms is not None:
        body["durationMs"] = round(max(duration_ms, 0), 3)
    return json.dumps(body)


class Response:
    """An HTTP/1.1 response, read as its bytes come."""

    def __init__(self):
        self._data = b""

    def feed(self, data):
        """True when the response is complete. Raises NoAnswer if it is not a response of breakerd."""
        if not data:
            raise NoAnswer("the connection ended amid an answer" if self._data else "the connection ended without an answer")
        self._data += data
        if len(self._data) > MAX_ANSWER:
            raise NoAnswer("the answer is too long")
        if not b"HTTP/1.".startswith(self._data[:7]):
            raise NoAnswer("this is no HTTP")
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return False
        try:
            line, *fields = head.decode("latin-1").split("\r\n")
            self.status = int(line.split(" ")[1])
            headers = {name.lower(): value.strip().lower() for name, _, value in (f.partition(":") for f in fields)}
            self.keep = line.startswith("HTTP/1.1") and headers.get("connection") != "close"
            if headers.get("transfer-encoding") == "chunked":
                self.body = _unchunk(rest)
                return self.body is not None
            length = int(headers["content-length"])
        except (LookupError, ValueError) as error:
            raise NoAnswer("this is no HTTP") from error
        self.body = rest[:length]
        self.keep = self.keep and len(rest) == length
        return len(rest) >= length

    def decoded(self):
        """Returns the object of an answer with status 200. Raises NoAnswer for other statuses."""
        try:
            answer = json.loads(self.body)
        except ValueError:
            answer = None
        answer = answer if isinstance(answer, dict) else {}
        if self.status != 200:
            # A 504 took the whole store_timeout, and the next would too: pause. Other errors come at once or concern
            # one circuit.
            raise NoAnswer(f"{self.status} {str(answer.get('detail', ''))[:500]}".strip(), pause=self.status == 504)
        return answer

    def decision(self):
        answer = self.decoded()
        if not isinstance(answer.get("allowed"), bool):
            raise NoAnswer("this was answered by something that is not breakerd")

        def text(name):
            return answer[name] if isinstance(answer.get(name), str) else ""
        after = answer.get("retryAfterMs")
        return Decision(answer["allowed"], text("permit"), text("state"), text("reason"),
                        int(after) if isinstance(after, (int, float)) else 0, False)

    def counted(self):
        counted = self.decoded().get("counted")
        if not isinstance(counted, bool):
            raise NoAnswer("this was answered by something that is not breakerd")
        return counted


def _unchunk(data):
    """The body; None if it is not complete yet."""
    body = b""
    while True:
        size, end, data = data.partition(b"\r\n")
        if not end:
            return None
        length = int(size.split(b";")[0], 16)
        if length < 0:
            raise ValueError
        if length == 0:
            return body if data.startswith(b"\r\n") else None
        if len(data) < length + 2:
            return None
        body, data = body + data[:length], data[length + 2:]
