"""A real browser, the hostile site that it visits, and a resolver for DNS rebinding."""

import http.server
import json
import os
import queue
import selectors
import shutil
import signal
import socket
import socketserver
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

CHROMIUM = shutil.which("chromium")
PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "attacks.html")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-breakpad", "--disable-extensions", "--disable-popup-blocking",
         "--disable-renderer-backgrounding", "--disable-background-timer-throttling")


@contextmanager
def visiting(url, *flags):
    """Runs Chromium on the page, with a new profile that is removed afterwards."""
    assert CHROMIUM, "no chromium on this machine: scripts/install-packages test"
    with tempfile.TemporaryDirectory(prefix="brk-", ignore_cleanup_errors=True) as home, \
            open(os.path.join(home, "log"), "wb") as log:
        with subprocess.Popen([CHROMIUM, *FLAGS, *flags, f"--user-data-dir={home}/profile", url],
                              stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                              env={**os.environ, "HOME": home, "TMPDIR": home},
                              start_new_session=True) as process:
            try:
                yield process
            finally:
                os.killpg(process.pid, signal.SIGKILL)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass  # the browser ends connections as it likes


class _Handler(http.server.BaseHTTPRequestHandler):
    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def _served(handler, address):
    with _Server(address, handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


class Site:
    """The hostile site. `reports` gets what the page sends to /report. The page waits for done() after
    each report."""

    def __init__(self):
        self.reports = queue.Queue()
        self._done = queue.Queue()

    def done(self):
        self._done.put(None)

    def served(self, host="127.0.0.1", port=0):
        """A context manager that gives the port."""
        site = self

        class Handler(_Handler):
            def do_GET(self):
                url = urlsplit(self.path)
                if url.path == "/redirect":
                    self.answer(307, Location=parse_qs(url.query)["to"][0],
                                Access_Control_Allow_Origin="*")
                elif url.path == "/":
                    with open(PAGE, "rb") as page:
                        self.answer(200, page.read(), Content_Type="text/html")
                else:
                    self.answer(404)

            def do_POST(self):
                body = self.body()
                if self.path == "/report":
                    site.reports.put(json.loads(body))
                    site._done.get()
                    self.answer(200)
                else:
                    self.do_GET()

        return _served(Handler, (host, port))


class Permissive:
    """A server that gives pages of every origin full access (CORS), and records the requests."""

    SECRET = b'{"state":"whatever is secret"}'

    def __init__(self):
        self.requests = []

    def served(self):
        target = self

        class Handler(_Handler):
            def any(self):
                self.body()
                method = self.command
                target.requests.append((method, urlsplit(self.path).path, 200))
                self.answer(200, target.SECRET, Content_Type="application/json",
                            Access_Control_Allow_Origin=self.headers.get("Origin", "*"),
                            Access_Control_Allow_Credentials="true",
                            Access_Control_Allow_Methods="GET, POST, DELETE",
                            Access_Control_Max_Age="0",
                            Access_Control_Allow_Headers="Authorization, Content-Type, X-Header")

            do_GET = do_POST = do_DELETE = do_OPTIONS = any

        return _served(Handler, ("127.0.0.1", 0))

    def take(self):
        """(method, path, status) of the requests since the last call."""
        out, self.requests = self.requests, []
        return out


class Resolver:
    """A SOCKS proxy (RFC 1928), which resolves names for the browser; move() changes an address."""

    def __init__(self):
        self.addresses = {}  # (name, port): address; 127.0.0.1 for all others
        self.open = []  # ((name, port), socket)

    def move(self, name, port, address):
        """Gives a name another address, and ends its connections, as the hostile site would."""
        self.addresses[name, port] = address
        for to, sock in self.open:
            try:
                if to == (name, port):
                    sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended already

    @contextmanager
    def served(self):
        resolver = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                self.rfile.read(self.rfile.read(2)[1])  # authentication methods: none is required
                self.wfile.write(b"\5\0")
                assert self.rfile.read(4) == b"\5\1\0\3", "not a connection to a name"
                name = self.rfile.read(self.rfile.read(1)[0]).decode("ascii")
                port = int.from_bytes(self.rfile.read(2), "big")
                address = resolver.addresses.get((name, port), "127.0.0.1")
                with socket.create_connection((address, port)) as other:
                    resolver.open.append(((name, port), self.connection))
                    self.wfile.write(b"\5\0\0\1" + bytes(6))
                    relay(self.connection, other)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_):
                pass

        with Server(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            try:
                yield server.server_address[1]
            finally:
                server.shutdown()


def relay(one, other):
    """Copies data both ways until one side closes."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                data = key.fileobj.recv(65536)
                if not data:
                    return
                key.data.sendall(data)
