"""What systemd does for a service: receives its notifications and hands sockets to it."""

import fcntl
import os
import socket
import subprocess

import breakerd
from breakerd import BINARY, Breakerd, environment, flags
from wait import until


def built_with_systemd():
    return "with systemd" in breakerd.run("--version").stdout


class Notifications:
    """NOTIFY_SOCKET: the datagrams that a service sends, each as a dict."""

    def __init__(self, directory):
        self.path = os.path.join(str(directory), "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.sock.setblocking(False)
        self.seen = []

    def close(self):
        self.sock.close()

    def read(self):
        """Reads the waiting datagrams, and returns all notifications since the beginning."""
        while True:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                return self.seen
            lines = data.decode("utf-8").splitlines()
            self.seen.append(dict(line.split("=", 1) for line in lines))

    def wait(self, what, since=0, **fields):
        """Waits for a notification with these fields, and returns the first one from index `since` on.
        A value may be None (any) or a predicate."""
        def fits(message):
            return all(name in message and (value is None or value == message[name]
                                            or callable(value) and value(message[name]))
                       for name, value in fields.items())
        return until(lambda: next((m for m in self.read()[since:] if fits(m)), None),
                     f"{what}: {self.seen}")

    def status(self):
        return next((m["STATUS"] for m in reversed(self.read()) if "STATUS" in m), None)

    def count(self, **fields):
        return sum(1 for m in self.read() if fields.items() <= m.items())


class Handed(Breakerd):
    """A daemon that inherits listening `sockets` (LISTEN_FDS) in place of `listen`."""

    def __init__(self, directory, sockets, args=(), env=None, **settings):
        super().__init__(directory, args, env, **settings)
        self.sockets = sockets
        name = sockets[0].getsockname()
        self.address = name if isinstance(name, str) else name[:2]

    def start(self):
        settings = dict(self.settings)
        # High descriptors, so that none is overwritten when they are moved to 3, 4, ...
        sources = [fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 100) for s in self.sockets]
        moves = " ".join(f"{3 + i}<&{fd} {fd}<&-" for i, fd in enumerate(sources))
        script = f'exec {moves}; export LISTEN_PID=$$ LISTEN_FDS={len(sources)}; exec "$@"'
        try:
            with open(self.stderr_path, "wb") as log:
                self.process = subprocess.Popen(
                    ["bash", "-c", script, "bash", BINARY, *self.args, *flags(settings)],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                    env=environment(self.env), pass_fds=sources)
        finally:
            for fd in sources:
                os.close(fd)
        return self

    def wait_started(self):
        until(lambda: " started " in self.stderr() or self.process.poll() is not None,
              "breakerd has started")
        assert self.lives(), self.stderr()
        return self


def listening(*names):
    """Listening sockets, one for each name: a path, or None for a free port on 127.0.0.1."""
    out = []
    for name in names:
        if name is None:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.bind(("127.0.0.1", 0))
        else:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind(str(name))
        sock.listen(1024)
        out.append(sock)
    return out
