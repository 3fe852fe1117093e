"""A master, its replica, and redis-sentinels that watch them."""

import os
import shutil
import subprocess

from ports import free_port
from redis_server import Redis, RedisServer
from wait import until

NAME = "circuits"


class Sentinel:
    """One redis-sentinel. It rewrites its configuration file."""

    def __init__(self, directory, master_port, quorum, down_after_ms):
        self.directory = directory
        self.port = free_port()
        self.process = None
        self.log = os.path.join(directory, "sentinel.log")
        os.makedirs(directory, exist_ok=True)
        self.config = os.path.join(directory, "sentinel.conf")
        with open(self.config, "w", encoding="ascii") as file:
            file.write(f"port {self.port}\nbind 127.0.0.1\ndir {directory}\ndaemonize no\n"
                       f"sentinel monitor {NAME} 127.0.0.1 {master_port} {quorum}\n"
                       f"sentinel down-after-milliseconds {NAME} {down_after_ms}\n"
                       f"sentinel failover-timeout {NAME} 4000\n")

    def start(self):
        program = shutil.which("redis-sentinel")
        command = [program] if program else [shutil.which("redis-server")]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*command, self.config, *([] if program else ["--sentinel"])],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._listens, "a sentinel listens")
        return self

    def _listens(self):
        try:
            Redis(("127.0.0.1", self.port)).close()
            return True
        except OSError:
            return False

    def call(self, *args):
        with Redis(("127.0.0.1", self.port)) as redis:
            return redis.call(*args)

    def master_port(self):
        return int(self.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])

    def facts(self):
        pairs = self.call("SENTINEL", "MASTER", NAME)
        return dict(zip(pairs[::2], pairs[1::2]))

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None


class Watched:
    def __init__(self, directory, sentinels=3, quorum=2, down_after_ms=1000):
        fast = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
        self.master = RedisServer(os.path.join(directory, "m"), *fast).start()
        self.replica = RedisServer(os.path.join(directory, "r"), *fast, "--replicaof", "127.0.0.1",
                                   self.master.port).start()
        until(lambda: self.replica.call("ROLE")[3] == b"connected", "the replica is connected")
        self.sentinels = [
            Sentinel(os.path.join(directory, f"s{n}"), self.master.port, quorum, down_after_ms).start()
            for n in range(sentinels)]
        for sentinel in self.sentinels:
            until(lambda s=sentinel: int(s.facts()[b"num-other-sentinels"]) == sentinels - 1 and
                  int(s.facts()[b"num-slaves"]) == 1, "the sentinels know of each other", 20)

    @property
    def url(self):
        return "redis-sentinel://" + ",".join(f"127.0.0.1:{s.port}" for s in self.sentinels) + "/" + NAME

    def server(self, port):
        return next(s for s in (self.master, self.replica) if s.port == port)

    def end(self):
        for one in (*self.sentinels, self.master, self.replica):
            one.kill()
