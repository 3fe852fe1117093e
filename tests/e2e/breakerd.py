"""The real daemon, started for a test."""

import os
import signal
import subprocess
import time

from ports import free_port
from wait import until
from wire import Client, Closed, Methods, Wire, connect

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.path.abspath(os.environ.get("BREAKERD", os.path.join(ROOT, "build", "breakerd")))

SANITIZERS = ("AddressSanitizer", "LeakSanitizer", "runtime error:", "UndefinedBehaviorSanitizer")


def environment(extra=None):
    """This process's environment without the variables that configure the daemon."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(("BREAKERD", "LISTEN_", "NOTIFY_SOCKET", "JOURNAL_STREAM"))}
    env.update(extra or {})
    return env


def flags(settings):
    """{'store_timeout': 100, 'listen': ['a', 'b']} -> ['--store-timeout=100', ...]"""
    out = []
    for name, value in settings.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            out.append(f"--{name.replace('_', '-')}={one}")
    return out


def run(*args, env=None, timeout=20, under=()):
    """Runs the binary to its end: for --help, --check-config and starts that are refused.
    `under`: a command, as a list of words, that runs the binary."""
    done = subprocess.run([*under, BINARY, *map(str, args)], stdin=subprocess.DEVNULL,
                          capture_output=True, env=environment(env), timeout=timeout, check=False)
    done.stdout = done.stdout.decode("utf-8")
    done.stderr = done.stderr.decode("utf-8")
    assert not any(s in done.stderr for s in SANITIZERS), done.stderr
    return done


class Breakerd(Methods):
    """A running daemon. `settings` become flags; without `listen` it gets a free port."""

    def __init__(self, directory, args=(), env=None, under=(), **settings):
        self.under = under  # a command that runs the binary
        self.args = [str(a) for a in args]
        self.env = env
        self.settings = settings
        self.process = None
        self.ended = False
        self.address = None
        self._client = None
        directory = str(directory)
        n = sum(1 for name in os.listdir(directory) if name.startswith("breakerd-"))
        self.stderr_path = os.path.join(directory, f"breakerd-{n}.stderr")

    def start(self, stderr=None):
        """`stderr`: a descriptor in place of the file that stderr() reads."""
        for _ in range(5):
            settings = dict(self.settings)
            if "listen" not in settings and not any("listen" in a for a in self.args):
                self.address = ("127.0.0.1", free_port())
                settings["listen"] = "%s:%d" % self.address
            elif "listen" in settings:
                self.address = parse_listen(settings["listen"])
            if self._try(settings, stderr):
                return self
            if "listen" in self.settings or "in use" not in self.stderr():
                break
        raise AssertionError(f"breakerd does not start ({self.process.returncode}):\n"
                             + self.stderr())

    def _try(self, settings, stderr):
        with open(self.stderr_path, "wb") as log:
            self.process = subprocess.Popen(
                [*self.under, BINARY, *self.args, *flags(settings)], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=log if stderr is None else stderr,
                env=environment(self.env))
        return until(lambda: self.process.poll() is not None or self._listens(),
                     "breakerd listens") and self.process.poll() is None

    def _listens(self):
        try:
            connect(self.address).close()
            return True
        except OSError:
            return False

    def wait_ready(self):
        """For a daemon on Redis: its link is up."""
        until(lambda: self.readyz() == "ready", "breakerd is ready")
        return self

    def readyz(self):
        headers = {}
        return Client(self.address).get("/readyz", headers=headers).json()["status"]

    @property
    def host(self):
        return "localhost" if isinstance(self.address, str) else "%s:%d" % self.address

    def client(self):
        """A client on a connection of its own."""
        return Client(self.address, self.host)

    def wire(self):
        return Wire(self.address)

    # The usual case: one connection that is kept for the whole test.
    def request(self, *args, **kw):
        if self._client is None:
            self._client = self.client()
        return self._client.request(*args, **kw)

    def client_close(self):
        """The next request opens a new connection."""
        if self._client:
            self._client.close()

    def metrics(self):
        """{(name, frozenset of label pairs): value}"""
        answer = self.get("/metrics")
        assert answer.status == 200
        return parse_metrics(answer.body.decode("utf-8"))

    def metric(self, name, **labels):
        return self.metrics().get((name, frozenset(labels.items())), 0)

    def connections(self):
        """How many the daemon has, this one included, which may have been displaced and is then made anew."""
        while True:
            try:
                return self.metric("breakerd_http_connections")
            except (Closed, ConnectionResetError, BrokenPipeError):
                self.client_close()

    def stderr(self):
        with open(self.stderr_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def lives(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def hangup(self):
        self.signal(signal.SIGHUP)

    def wait(self, timeout=20):
        return self.process.wait(timeout)

    def stop(self):
        """Stops the daemon. The stop must be clean: status 0, within 5 s, nothing from a sanitizer."""
        if self._client:
            self._client.close()
        if self.process is None or self.ended:
            return
        self.ended = True
        try:
            assert self.lives(), f"breakerd died ({self.process.returncode}):\n" + self.stderr()
            began = time.monotonic()
            self.signal(signal.SIGTERM)
            status = self.wait()
            took = time.monotonic() - began
        finally:
            self.kill()
        assert status == 0, f"exit status {status}:\n" + self.stderr()
        assert took < 6, f"the stop took {took:.1f} s"
        self.check_stderr()

    def expect_exit(self, status, timeout=20):
        """For a daemon that ends by itself or that the test has ended."""
        self.ended = True
        try:
            assert self.wait(timeout) == status, self.stderr()
        finally:
            self.kill()
        self.check_stderr()

    def check_stderr(self):
        text = self.stderr()
        assert not any(s in text for s in SANITIZERS), text

    def kill(self):
        if self._client:
            self._client.close()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def parse_listen(listen):
    """The address to connect to for the (first) value of `listen`."""
    first = listen if isinstance(listen, str) else listen[0]
    if first.startswith("unix:"):
        return first[len("unix:"):]
    host, port = first.rsplit(":", 1)
    return (host.strip("[]"), int(port))


def parse_metrics(text):
    """Parses the text exposition format (names, labels and values), strictly."""
    out = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        series, value = line.rsplit(" ", 1)
        name, brace, labels = series.partition("{")
        pairs = []
        if brace:
            assert labels.endswith("}"), line
            for pair in split_labels(labels[:-1]):
                label, quoted = pair.split("=", 1)
                assert quoted[0] == quoted[-1] == '"', line
                pairs.append((label, quoted[1:-1]))
        key = (name, frozenset(pairs))
        assert key not in out, f"twice: {line}"
        out[key] = float(value)
    return out


def split_labels(text):
    """Splits at the commas outside quotes."""
    parts, quoted, current = [], False, ""
    for c in text:
        if c == '"':
            quoted = not quoted
        if c == "," and not quoted:
            parts.append(current)
            current = ""
        else:
            current += c
    return [*parts, current] if current else parts
