"""HTTP/1.1 over a plain socket: the test controls each byte sent and sees each byte received."""

import json
import socket

DEADLINE = 10.0  # seconds


class Answer:
    """One response: status, reason, headers (list of pairs as sent), body."""

    def __init__(self, status, reason, headers, body):
        self.status = status
        self.reason = reason
        self.headers = headers
        self.body = body

    def __repr__(self):
        return f"<{self.status} {self.reason} {self.headers} {self.body[:300]!r}>"

    def header(self, name):
        """The header's value, or None. Fails if the header came twice."""
        values = [v for n, v in self.headers if n.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times: {self!r}"
        return values[0] if values else None

    @property
    def type(self):
        """The content type without parameters."""
        value = self.header("Content-Type")
        return value.split(";")[0].strip() if value else None

    def json(self):
        return json.loads(self.body.decode("utf-8"), object_pairs_hook=_no_duplicates)


def _no_duplicates(pairs):
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), f"a member came twice: {names}"
    return dict(pairs)


class Closed(Exception):
    """The peer closed the connection before a whole answer had come."""


def connect(address, timeout=DEADLINE):
    """address: (host, port), or the path of a unix socket."""
    if isinstance(address, tuple):
        s = socket.create_connection(address, timeout)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return s
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(timeout)
    try:
        s.connect(str(address))
    except OSError:
        s.close()
        raise
    return s


def request_bytes(method, path, headers=None, body=None, host="localhost"):
    """headers: a dict or a list of pairs. The value None leaves out a header that is sent by default."""
    if isinstance(path, str):
        path = path.encode("ascii")
    if isinstance(body, str):
        body = body.encode("utf-8")
    elif body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode("utf-8")
    pairs = list(headers.items() if isinstance(headers, dict) else headers or [])
    given = {name.lower() for name, _ in pairs}
    if "host" not in given:
        pairs.insert(0, ("Host", host))
    if body is not None and not given & {"content-length", "transfer-encoding"}:
        pairs.append(("Content-Length", str(len(body))))
    lines = [method.encode() + b" " + path + b" HTTP/1.1"]
    lines += [f"{n}: {v}".encode("utf-8") for n, v in pairs if v is not None]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


class Wire:
    """A connection. send() and receive() are independent, so requests can be pipelined."""

    def __init__(self, address, timeout=DEADLINE):
        self.sock = connect(address, timeout)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def _more(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError as error:
            raise Closed("reset") from error
        if not data:
            raise Closed(f"closed after {self.buffer[:200]!r}")
        self.buffer += data

    def _line(self):
        while b"\r\n" not in self.buffer:
            self._more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode("latin-1")

    def _bytes(self, n):
        while len(self.buffer) < n:
            self._more()
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def receive(self, method="GET"):
        """The next answer. `method` is that of its request: the answer to HEAD has no body. Fails if a
        header lets web pages of other origins read the answer (CORS)."""
        while True:
            version, status, reason = (self._line() + " ").split(" ", 2)
            assert version == "HTTP/1.1", version
            headers = []
            while line := self._line():
                name, value = line.split(":", 1)
                headers.append((name, value.strip()))
            answer = Answer(int(status), reason.strip(), headers, b"")
            assert not any(name.lower().startswith("access-control-") for name, _ in headers), answer
            if answer.status >= 200:
                break
        if method == "HEAD" or answer.status in (204, 304):
            return answer
        if (answer.header("Transfer-Encoding") or "").lower() == "chunked":
            while size := int(self._line().split(";")[0], 16):
                answer.body += self._bytes(size)
                assert self._line() == ""
            while self._line():
                pass
        elif (length := answer.header("Content-Length")) is not None:
            answer.body = self._bytes(int(length))
        else:
            raise AssertionError(f"neither a length nor chunks: {answer!r}")
        return answer

    def ended(self):
        """True if the peer closes the connection without sending anything more."""
        try:
            self._more()
        except Closed:
            return self.buffer == b""
        except TimeoutError:
            return False
        return False

    def ask(self, method, path, headers=None, body=None, host="localhost"):
        self.send(request_bytes(method, path, headers, body, host))
        return self.receive(method)


class Methods:
    """HTTP's methods, for a class with a method `request`."""

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def head(self, path, **kw):
        return self.request("HEAD", path, **kw)

    def post(self, path, body=None, **kw):
        return self.request("POST", path, body=b"" if body is None else body, **kw)

    def delete(self, path, **kw):
        return self.request("DELETE", path, **kw)


class Client(Methods):
    """Requests over one keep-alive connection, which is opened again when the daemon has closed it."""

    def __init__(self, address, host="localhost"):
        self.address = address
        self.host = host
        self.headers = {}  # sent with each request
        self.wire = None

    def close(self):
        if self.wire:
            self.wire.close()
        self.wire = None

    def request(self, method, path, headers=None, body=None):
        pairs = list(self.headers.items())
        pairs += headers.items() if isinstance(headers, dict) else headers or []
        if self.wire is None:
            self.wire = Wire(self.address)
        answer = self.wire.ask(method, path, pairs, body, self.host)
        if (answer.header("Connection") or "").lower() == "close":
            self.close()
        return answer
