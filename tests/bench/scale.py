"""make scale: many daemons on one Redis. Measures the commands and the processor time of Redis a second for
several numbers of daemons and circuits and rates of requests, and how long a trip takes to reach all daemons.
Prints a table for docs/scale.md. wrk makes the load, with a thread for each daemon."""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BREAKERD = os.environ.get("BREAKERD", "build/breakerd")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(condition, what):
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"not within 30 s: {what}")
        time.sleep(0.01)


class Redis:
    def __init__(self, directory):
        self.port = free_port()
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--dir", directory], stdout=subprocess.DEVNULL)
        until(self.answers, "redis-server answers")

    def answers(self):
        try:
            return self.info("server") != ""
        except OSError:
            return False

    def info(self, section):
        with socket.create_connection(("127.0.0.1", self.port)) as s, s.makefile("rwb") as f:
            f.write(f"INFO {section}\r\n".encode())
            f.flush()
            return f.read(int(f.readline()[1:])).decode()

    def processor_seconds(self):
        """User and system time of all threads."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def commands(self):
        """The number of commands, those of scripts included, without INFO itself."""
        return sum(int(line.split("calls=")[1].split(",")[0])
                   for line in self.info("commandstats").splitlines()
                   if line.startswith("cmdstat_") and not line.startswith("cmdstat_info:"))

    def listeners(self):
        with socket.create_connection(("127.0.0.1", self.port)) as s, s.makefile("rwb") as f:
            f.write(b"PUBSUB NUMSUB stoma:cb:events\r\n")
            f.flush()
            return int([f.readline() for _ in range(4)][3][1:])


class Daemon:
    def __init__(self, redis, settings):
        self.port = free_port()
        self.process = subprocess.Popen(
            [BREAKERD, f"--listen=127.0.0.1:{self.port}",
             f"--store=redis://127.0.0.1:{redis.port}", *settings], stderr=subprocess.DEVNULL)

    def ready(self):
        try:
            return Client(self).get("/readyz").get("status") == "ready"
        except OSError:
            return False


class Client:
    """A client that is cheaper than http.client: one write a request, mostly one read an answer."""

    def __init__(self, daemon):
        self.s = socket.create_connection(("127.0.0.1", daemon.port))
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.host = f"127.0.0.1:{daemon.port}"

    def ask(self, method, path, body=b""):
        self.s.sendall(f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\n"
                       f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        data = self.s.recv(65536)
        while b"\r\n\r\n" not in data or not data.rstrip().endswith(b"}"):
            data += self.s.recv(65536)
        return json.loads(data.split(b"\r\n\r\n", 1)[1])

    def get(self, path):
        return self.ask("GET", path)

    def acquire(self, key):
        return self.ask("POST", f"/v1/circuits/{key}/acquire")

    def success(self, key):
        return self.ask("POST", f"/v1/circuits/{key}/report", b'{"outcome":"success"}')


LOAD = """
local ports, circuits, reports, delay_ms = {%s}, %d, %s, %s
local threads = 0
function setup(thread)
	threads = threads + 1
	thread.addr = wrk.lookup("127.0.0.1", tostring(ports[(threads - 1) %% #ports + 1]))[1]
	thread:set("number", threads)
end
local asked, turn = {}, 0
function init()
	for i = 1, circuits do
		local path = "/v1/circuits/c" .. i
		asked[#asked + 1] = wrk.format("POST", path .. "/acquire")
		if reports then
			asked[#asked + 1] = wrk.format("POST", path .. "/report", nil, '{"outcome":"success"}')
		end
	end
	turn = number * 7
end
function request()
	turn = turn + 1
	return asked[turn %% #asked + 1]
end
if delay_ms then
	delay = function() return delay_ms end
end
"""


def measure(redis, daemons, circuits, rate, reports, seconds):
    """Requests, and commands and processor seconds of Redis, each per second. rate 0: as fast as possible."""
    connections = len(daemons) if rate or len(daemons) > 1 else 32
    delay = f"{1000 * connections / rate:.0f}" if rate else "nil"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(LOAD % (",".join(str(d.port) for d in daemons), circuits,
                             "true" if reports else "false", delay))
        script.flush()
        with subprocess.Popen(
                ["wrk", f"-t{len(daemons)}", f"-c{connections}", f"-d{seconds + 3:.0f}s", "-s",
                 script.name, f"http://127.0.0.1:{daemons[0].port}"],
                stdout=subprocess.PIPE, text=True) as wrk:
            time.sleep(2)
            commands, processor, begun = redis.commands(), redis.processor_seconds(), time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - begun
            commands = (redis.commands() - commands) / took
            processor = (redis.processor_seconds() - processor) / took
            said = wrk.communicate()[0]
    if "Non-2xx" in said:
        sys.exit(said)
    return float(re.search(r"Requests/sec: *([\d.]+)", said)[1]), commands, processor


def trips(daemons, rounds):
    """Milliseconds from the answer to the report that opens the circuit until all daemons refuse: (median, longest)."""
    clients = [Client(d) for d in daemons]
    times = []
    for n in range(rounds):
        key = f"trip{n}"
        for client in clients:
            client.acquire(key)
        for _ in range(5):
            clients[0].ask("POST", f"/v1/circuits/{key}/report", b'{"outcome":"failure"}')
        begun = time.monotonic()
        waiting = clients
        while waiting:
            waiting = [c for c in waiting if c.acquire(key)["allowed"]]
        times.append((time.monotonic() - begun) * 1000)
    return statistics.median(times), max(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemons", default="1,10,50")
    parser.add_argument("--circuits", default="1,100")
    parser.add_argument("--rates", default="100,1000,0", help="0: as many as go")
    parser.add_argument("--seconds", type=float, default=4)
    args = parser.parse_args()
    print("| daemons | circuits | requests | a second | commands/s | a daemon and circuit | Redis, of a core |"
          " a trip reaches all, median / longest |\n| --: | --: | --- | --: | --: | --: | --: | --: |")
    for count in map(int, args.daemons.split(",")):
        with tempfile.TemporaryDirectory() as directory:
            redis = Redis(directory)
            daemons = [Daemon(redis, []) for _ in range(count)]
            try:
                for daemon in daemons:
                    until(daemon.ready, "a daemon is ready")
                until(lambda r=redis, n=count: r.listeners() >= n, "all daemons listen")
                reach = trips(daemons, 20)
                for circuits in map(int, args.circuits.split(",")):
                    for rate in map(int, args.rates.split(",")):
                        for reports in (False, True):
                            got, commands, cpu = measure(redis, daemons, circuits, rate, reports,
                                                         args.seconds)
                            print(f"| {count} | {circuits} | {'with reports' if reports else 'acquires'} | "
                                  f"{got:.0f} | {commands:.0f} | {commands / count / circuits:.1f} | "
                                  f"{cpu * 100:.1f}% | {reach[0]:.1f} / {reach[1]:.1f} ms |", flush=True)
            finally:
                for daemon in daemons:
                    daemon.process.terminate()
                for daemon in daemons:
                    daemon.process.wait()
                redis.process.kill()
                redis.process.wait()


main()
