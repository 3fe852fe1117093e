"""The servers that are measured: breakerd and what a user would pick instead.

Each has `port`, `requests` {workload: arguments of load.lua}, `processes` {name: pid}, and `fill`, which
creates the circuits c1 to cN.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess

import paths
from gate import FarGate
from ports import free_port
from redis_server import Redis, RedisServer
from wait import until

TTL = 86400
SNAPSHOT = ('{"state":"closed","failureCount":0,"successCount":1,"lastFailureTime":0,'
            '"lastStateChange":%d}')
ROUTES = {
    "read": ["GET", "/v1/circuits/", ""],
    "write": ["POST", "/v1/circuits/", "/failure"],
    # A gateway with a policy of its own: a read before each request, a write after it.
    "mix": ["GET", "/v1/circuits/", "", "POST", "/v1/circuits/", "/success"],
    # A gateway with breakerd's policy.
    "acquire": ["POST", "/v1/circuits/", "/acquire"],
    "decide": ["POST", "/v1/circuits/", "/acquire",
               "POST", "/v1/circuits/", '/report {"outcome":"success"}'],
}


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def cpu_ns(pid):
    """Processor time of all threads so far, in nanoseconds."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
            total += int(f.read().split()[0])
    return total


def memory_kb(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


class Contender:
    """A server process on its own port."""

    name = ""
    redis = None

    def __init__(self, directory):
        self.directory = os.path.join(directory, self.name.replace(" ", "-"))
        os.makedirs(self.directory)
        self.port = free_port()
        self.requests = ROUTES
        self.process = None
        self.filled = 0

    def start(self):
        with open(os.path.join(self.directory, "log"), "wb") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        until(lambda: listens(self.port) or self.process.poll() is not None,
              f"{self.name} listens")
        if self.process.poll() is not None:
            with open(os.path.join(self.directory, "log"), encoding="utf-8") as log:
                raise RuntimeError(f"{self.name} does not start: {log.read()}")
        return self

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def command(self):
        raise NotImplementedError

    @property
    def processes(self):
        return {"server": self.process.pid}

    def fill(self, circuits):
        """Creates the circuits over HTTP, 100 requests at a time."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            for first in range(self.filled + 1, circuits + 1, 100):
                names = range(first, min(first + 100, circuits + 1))
                connection.sendall(b"".join(
                    b"POST /v1/circuits/c%d/success HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                    b"Content-Length: 0\r\n\r\n" % n for n in names))
                answers = b""
                while answers.count(b"}\n") < len(names):
                    piece = connection.recv(1 << 20)
                    if not piece:
                        raise RuntimeError(f"{self.name} hung up: {answers[-300:]}")
                    answers += piece
        self.filled = max(self.filled, circuits)


class Breakerd(Contender):
    name = "breakerd"
    store = "memory"

    def command(self):
        return [paths.BREAKERD, f"--listen=127.0.0.1:{self.port}", f"--store={self.store}",
                "--max-connections=15000", "--max-in-flight=20000", "--idle-timeout=600",
                "--log-level=error"]


class Minimal(Contender):
    name = "minimal handler"

    def __init__(self, directory):
        super().__init__(directory)
        self.requests = {"read": ROUTES["read"]}

    def command(self):
        return [paths.MINIMAL, str(self.port)]

    def fill(self, circuits):
        pass


class Nginx(Contender):
    """Each of the two nginx servers is a process of its own, so that their processor times are separate."""

    def command(self):
        with open(os.path.join(paths.HERE, "nginx.conf"), encoding="utf-8") as f:
            text = f.read()
        for name, value in {"MODULES": os.environ.get("NGINX_MODULES", "/usr/lib/nginx/modules"),
                            "DIRECTORY": self.directory, **self.ports()}.items():
            text = text.replace(f"@{name}@", str(value))
        path = os.path.join(self.directory, "nginx.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return [nginx_binary(), "-p", self.directory, "-c", path]

    def ports(self):
        raise NotImplementedError

    @property
    def processes(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children",
                  encoding="ascii") as f:
            return {"server": int(f.read().split()[0])}


class NginxReturn(Nginx):
    name = "nginx return"

    def __init__(self, directory):
        super().__init__(directory)
        self.requests = {"read": ROUTES["read"]}

    def ports(self):
        return {"RETURN_PORT": self.port, "DICT_PORT": free_port()}

    def fill(self, circuits):
        pass


class NginxDict(Nginx):
    name = "nginx dict"

    def ports(self):
        return {"RETURN_PORT": free_port(), "DICT_PORT": self.port}


class OnRedis(Contender):
    """A server with its own redis-server."""

    def start(self):
        self.redis = RedisServer(os.path.join(self.directory, "redis")).start()
        return super().start()

    def stop(self):
        super().stop()
        if self.redis:
            self.redis.kill()

    @property
    def processes(self):
        return {"server": self.process.pid, "redis": self.redis.process.pid}

    def fill(self, circuits):
        with self.redis.client() as redis:
            value = SNAPSHOT % redis.now_ms()
            for first in range(self.filled + 1, circuits + 1, 1000):
                names = range(first, min(first + 1000, circuits + 1))
                redis.sock.sendall(b"".join(
                    b"*5\r\n$3\r\nSET\r\n$%d\r\nstoma:cb:c%d\r\n$%d\r\n%s\r\n$2\r\nEX\r\n$%d\r\n%d\r\n"
                    % (10 + len(str(n)), n, len(value), value.encode(), len(str(TTL)), TTL)
                    for n in names))
                for _ in names:
                    redis.receive()
        self.filled = max(self.filled, circuits)


class BreakerdOnRedis(OnRedis, Breakerd):
    name = "breakerd redis"

    @property
    def store(self):
        return self.redis.url

    def start(self):
        super().start()
        until(lambda: b'"ready"' in http_get(self.port, "/readyz"), "breakerd has its Redis")
        return self


class BreakerdFar(BreakerdOnRedis):
    name = "breakerd redis far"
    gate = None

    @property
    def store(self):
        self.gate = self.gate or FarGate(self.redis.address, 0.001).open()
        return self.gate.url

    def stop(self):
        super().stop()
        if self.gate:
            self.gate.shut()


class Webdis(OnRedis):
    name = "webdis"

    def start(self):
        super().start()
        until(lambda: b'"PING"' in http_get(self.port, "/PING"), "webdis has its Redis")
        return self

    def command(self):
        with open(os.path.join(paths.HERE, "increment.lua"), encoding="utf-8") as f:
            sha = self.redis.call("SCRIPT", "LOAD", f.read()).decode()
        get = self.redis.call("SCRIPT", "LOAD", "return redis.call('GET', KEYS[1])").decode()

        def record(member):
            return ["GET", f"/EVALSHA/{sha}/1/stoma:cb:", f"/{TTL}000/{member}"]

        read = ["GET", "/GET/stoma:cb:", ""]
        self.requests = {"read": read, "write": record("failureCount"),
                         "mix": read + record("successCount"),
                         # One script for each request: less work than a decision.
                         "decide": ["GET", f"/EVALSHA/{get}/1/stoma:cb:", ""] +
                         record("successCount")}
        path = os.path.join(self.directory, "webdis.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"redis_host": "127.0.0.1", "redis_port": self.redis.port,
                       "http_host": "127.0.0.1", "http_port": self.port, "daemonize": False,
                       "threads": int(os.environ.get("WEBDIS_THREADS", "2")), "database": 0,
                       "http_max_request_size": 65536, "verbosity": 0,
                       "logfile": os.path.join(self.directory, "webdis.log")}, f)
        return [webdis_binary(), path]


def http_get(port, path):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                           .encode())
        answer = b""
        with contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


def nginx_binary():
    return os.environ.get("NGINX") or shutil.which("nginx", path=os.defpath + ":/usr/sbin")


def webdis_binary():
    return os.environ.get("WEBDIS") or shutil.which("webdis")


def present(contenders):
    """The servers that are installed; prints which are not."""
    def missing(contender):
        if issubclass(contender, Webdis):
            return not webdis_binary() and "webdis (or its path in WEBDIS)"
        if issubclass(contender, Nginx):
            modules = os.environ.get("NGINX_MODULES", "/usr/lib/nginx/modules")
            return not (nginx_binary() and os.path.exists(f"{modules}/ngx_http_lua_module.so")) \
                and "nginx with its Lua module (or their paths in NGINX and NGINX_MODULES)"
        return None

    for contender in contenders:
        if why := missing(contender):
            print(f"Not installed, so not measured: {why}")
    return [contender for contender in contenders if not missing(contender)]


@contextlib.contextmanager
def running(contenders, directory):
    """Starts all servers. An idle one takes no processor time."""
    with contextlib.ExitStack() as stack:
        started = []
        for contender in contenders:
            server = contender(directory)
            stack.callback(server.stop)
            started.append(server.start())
        yield started


__all__ = ["Breakerd", "BreakerdFar", "BreakerdOnRedis", "Minimal", "NginxDict", "NginxReturn", "Redis", "Webdis",
           "cpu_ns", "memory_kb", "present", "running"]
