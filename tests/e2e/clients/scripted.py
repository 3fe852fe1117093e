"""A server in breakerd's place. It answers each request with the next answer of a script, repeats the last
one, and records the requests. An answer is a dict:

json or body   the body; `repeat`: how many times
status         default 200
headers        further headers
then           "close": ends the connection after the answer, without announcing it in the head
raw            sends these bytes in place of an answer, then ends the connection
cut            sends only so many bytes of the body, then ends the connection
chunked        sends the body in chunks
drip           seconds between two bytes
hang           gives no answer and leaves the connection open
numbered       the permit is p and the request's number: p1, p2, ...
"""

import json
import os
import select
import socket
import threading
from urllib.parse import quote, unquote_to_bytes


class Request:
    def __init__(self, method, target, headers, body, connection):
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.connection = connection

    def line(self):
        """Method and target, the target normalized (RFC 3986): only what must be escaped is."""
        target = "/".join(quote(unquote_to_bytes(segment), safe="") for segment in self.target.split("/"))
        return f"{self.method} {target}"


class Scripted:
    def __init__(self, directory):
        self.answers, self.requests = [], []
        self.connections = self.closed = 0
        self.lock, self.ending = threading.Lock(), threading.Event()
        self.path = os.path.join(str(directory), "scripted.sock")
        self.sockets = [socket.create_server(("127.0.0.1", 0), backlog=256),
                        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)]
        self.sockets[1].bind(self.path)
        self.sockets[1].listen(256)
        self.port = self.sockets[0].getsockname()[1]
        self.threads = [threading.Thread(target=self._accept, args=(s,), daemon=True) for s in self.sockets]
        for thread in self.threads:
            thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def script(self, *answers):
        with self.lock:
            self.answers = list(answers)

    def stop(self):
        self.ending.set()
        for thread in self.threads:
            thread.join()
        for s in self.sockets:
            s.close()

    def _accept(self, listener):
        while not self.ending.is_set():
            if not select.select([listener], [], [], 0.05)[0]:
                continue
            connection, _ = listener.accept()
            with self.lock:
                self.connections += 1
                number = self.connections
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection, number):
        try:
            if connection.family == socket.AF_INET:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection.makefile("rb") as stream:
                while self._exchange(connection, stream, number):
                    pass
        except OSError:
            pass  # clients end connections as they like
        finally:
            connection.close()
            with self.lock:
                self.closed += 1

    def _exchange(self, connection, stream, number):
        head = []
        while True:
            line = stream.readline()
            if not line:
                return False
            if line == b"\r\n":
                break
            head.append(line.decode("utf-8").rstrip("\r\n"))
        method, target, _ = head[0].split(" ")
        headers = {name.strip().lower(): value.strip() for name, value in (h.split(":", 1) for h in head[1:])}
        body = stream.read(int(headers.get("content-length", 0))).decode("utf-8")
        with self.lock:
            self.requests.append(Request(method, target, headers, body, number))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer.get("numbered"):
                answer = {**answer, "json": {**answer["json"], "permit": f"p{len(self.requests)}"}}
        return self._answer(connection, answer)

    def _answer(self, connection, answer):
        if answer.get("hang"):
            while not self.ending.is_set():
                if select.select([connection], [], [], 0.05)[0]:
                    return False  # the client has given up
            return False
        if "raw" in answer:
            connection.sendall(answer["raw"].encode("utf-8"))
            return False
        body = (json.dumps(answer["json"]) if "json" in answer else answer.get("body", "")).encode("utf-8")
        body *= answer.get("repeat", 1)
        head = f"HTTP/1.1 {answer.get('status', 200)} Scripted\r\n"
        for name, value in {"Content-Type": "application/json", **answer.get("headers", {})}.items():
            head += f"{name}: {value}\r\n"
        if answer.get("chunked"):
            head += "Transfer-Encoding: chunked\r\n"
            half = len(body) // 2
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[:half], body[half:])) + b"0\r\n\r\n"
        else:
            head += f"Content-Length: {len(body)}\r\n"
        if "cut" in answer:
            body = body[:answer["cut"]]
        everything = head.encode("ascii") + b"\r\n" + body
        if "drip" in answer:
            for n in range(len(everything)):
                if self.ending.wait(answer["drip"]):
                    return False
                connection.sendall(everything[n:n + 1])
        else:
            connection.sendall(everything)
        return "cut" not in answer and answer.get("then") != "close"
