"""make demo: two gateways, one in Python and one in Node, share one circuit through breakerd.

usage: demo.py BREAKERD [--record FILE]
--record puts the output into FILE, in place of the earlier output of `make demo` there.
"""

import http.client
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
THRESHOLD, OPEN_SECONDS = 5, 2
printed = []


def say(text=""):
    print(text, flush=True)
    printed.append(text)


class Upstream(http.server.ThreadingHTTPServer):
    """An upstream with a status that can be set, and whose answers can be held."""

    def __init__(self):
        self.status, self.hits, self.go = 200, 0, threading.Event()
        self.go.set()
        super().__init__(("127.0.0.1", 0), UpstreamHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class UpstreamHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.hits += 1
        self.server.go.wait(10)
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def ask(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("nothing happens")
        time.sleep(0.005)


class Demo:
    def __init__(self, breakerd):
        self.breakerd, self.processes, self.count = breakerd, [], 0

    def run(self, *command):
        self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                               stderr=subprocess.DEVNULL if command[0] == self.breakerd else None,
                                               text=True))
        return self.processes[-1]

    def start(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.run(self.breakerd, f"--listen=127.0.0.1:{self.port}", f"--consecutive-failures={THRESHOLD}",
                 f"--open-time={OPEN_SECONDS}s", "--open-growth=1")

        def answers():
            try:
                return ask(self.port, "/readyz")[0] == 200
            except OSError:
                return False
        wait_until(answers)
        self.upstream = Upstream()
        args = [f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.upstream.server_address[1]}"]
        commands = {"Python": [sys.executable, "-B", f"{HERE}/gateway.py"], "Node": ["node", f"{HERE}/gateway.mjs"]}
        self.gateways = {name: int(self.run(*command, *args).stdout.readline()) for name, command in commands.items()}

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(10)

    def circuit(self):
        return json.loads(ask(self.port, "/v1/circuits/orders")[1])

    def request(self, name):
        before = self.upstream.hits
        status, body = ask(self.gateways[name], "/")
        self.row(name, status, body, self.upstream.hits > before)

    def row(self, name, status, body, reached):
        self.count += 1
        circuit = self.circuit()
        answer = f"{status} circuit open" if body == b"the circuit is open\n" else f"{status} from upstream"
        say(f"{self.count:3}  {name:8}  {answer:17}  {'yes' if reached else 'no':8}  {circuit['state']:9}  "
            f"{circuit['failureCount']}")
        if sys.stdout.isatty():
            time.sleep(0.3)  # so that a person can follow

    def probe(self, prober, other):
        """The gateway `prober` has a request at the upstream while the gateway `other` sends one."""
        before = self.upstream.hits
        self.upstream.go.clear()
        answer = []
        thread = threading.Thread(target=lambda: answer.extend(ask(self.gateways[prober], "/")))
        thread.start()
        wait_until(lambda: self.upstream.hits > before)
        self.request(other)
        self.upstream.go.set()
        thread.join()
        self.row(prober, *answer, True)

    def rest(self):
        """Waits until the open time is over."""
        since = self.circuit()["lastStateChange"]
        wait_until(lambda: time.time() * 1000 > since + OPEN_SECONDS * 1000)

    def show(self):
        say(f"Two gateways share the circuit \"orders\" through breakerd: {THRESHOLD} failures open it, for {OPEN_SECONDS} s.")
        say()
        say("  #  gateway   answer             reached   circuit    failures")
        say("     All is well.")
        for name in ("Python", "Node"):
            self.request(name)
        say("     The upstream breaks. The failures of both count together.")
        self.upstream.status = 500
        for name in ("Python", "Node", "Python", "Node", "Python"):
            self.request(name)
        say("     The fifth opened the circuit: both stop at the same request.")
        for name in ("Node", "Python", "Node"):
            self.request(name)
        say(f"     {OPEN_SECONDS} s later one of them probes, and the other is refused meanwhile. It is still broken.")
        self.rest()
        self.probe("Node", "Python")
        self.request("Node")
        say(f"     The upstream is mended. {OPEN_SECONDS} s later the next probe closes the circuit, for both.")
        self.upstream.status = 200
        self.rest()
        self.probe("Python", "Node")
        for name in ("Node", "Python"):
            self.request(name)


def record(file):
    with open(file, encoding="utf-8") as old:
        text = old.read()
    block = "```console\n$ make demo\n" + "".join(line + "\n" for line in printed) + "```\n"
    text = re.sub(r"^```console\n\$ make demo\n.*?^```\n", lambda _: block, text, count=1, flags=re.DOTALL | re.MULTILINE)
    with open(file, "w", encoding="utf-8") as new:
        new.write(text)


def main():
    demo = Demo(os.path.abspath(sys.argv[1]))
    try:
        demo.start()
        demo.show()
    finally:
        demo.stop()
    if sys.argv[2:3] == ["--record"]:
        record(sys.argv[3])


main()
