"""A private redis-server for a test, and a small client for it."""

import os
import signal
import subprocess

from ports import free_port
from wait import until
from wire import connect


class RedisError(Exception):
    pass


class Redis:
    """RESP2 over a socket. Replies are bytes, ints, lists, None; errors are raised."""

    def __init__(self, address):
        self.sock = connect(address)
        self.file = self.sock.makefile("rb")

    def close(self):
        self.file.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, *args):
        out = [b"*%d\r\n" % len(args)]
        for arg in args:
            arg = arg if isinstance(arg, bytes) else str(arg).encode("utf-8")
            out.append(b"$%d\r\n%s\r\n" % (len(arg), arg))
        self.sock.sendall(b"".join(out))

    def receive(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise RedisError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self.file.read(size + 2)[:-2]
        if kind == b"*":
            return None if int(rest) < 0 else [self.receive() for _ in range(int(rest))]
        raise AssertionError(line)

    def call(self, *args):
        self.send(*args)
        return self.receive()

    def now_ms(self):
        seconds, micros = self.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def keys(self):
        return sorted(self.call("KEYS", "*"))


def process_state(pid):
    """'R', 'S', 'T' ... of proc(5)."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0]


class RedisServer:
    """redis-server on a free port and a unix socket of its own. It saves nothing on disk unless
    `options` say so."""

    def __init__(self, directory, *options, env=None):
        self.directory = str(directory)
        os.makedirs(self.directory, exist_ok=True)
        self.options = [str(o) for o in options]
        self.env = env
        self.process = None
        self.port = None
        self.path = os.path.join(self.directory, "redis.sock")
        self.log = os.path.join(self.directory, "redis.log")

    def start(self):
        for _ in range(5):
            if self.port is None:
                self.port = free_port()
            if self._try():
                return self
            self.port = None
        with open(self.log, encoding="utf-8", errors="replace") as log:
            raise AssertionError("redis-server does not start:\n" + log.read()[-2000:])

    def _try(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1",
                 "--unixsocket", self.path, "--dir", self.directory, "--save", "",
                 "--daemonize", "no", *self.options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=dict(os.environ, **(self.env or {})))
        return until(lambda: self._listens() or self.process.poll() is not None,
                     "redis-server listens") and self.process.poll() is None

    def _listens(self):
        try:
            with Redis(self.address) as redis:
                redis.send("PING")
                redis.file.readline()  # an error will do: the server may want a password
            return True
        except OSError:
            return False

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    @property
    def unix_url(self):
        return f"redis+unix://{self.path}"

    def client(self):
        return Redis(self.address)

    def call(self, *args):
        with self.client() as redis:
            return redis.call(*args)

    def kill(self):
        """SIGKILL. start() starts it again."""
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)
        until(lambda: process_state(self.process.pid) == "T", "redis-server is frozen")

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)
