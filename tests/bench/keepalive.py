"""Requests over one keep-alive connection, one after the other."""

import json
import socket

SNAPSHOT = "/v1/circuits/orders"
GET_STATE = ("GET", SNAPSHOT)
RECORD_FAILURE = ("POST", SNAPSHOT + "/failure")
ACQUIRE = ("POST", SNAPSHOT + "/acquire")
REPORT = ("POST", SNAPSHOT + "/report")
CHECK = ("GET", "/v1/check/orders")
# A permit for the minimal handler, which gives none: as long as that of a closed circuit.
NO_PERMIT = "c0018bcfe56800.0123456789"


def body_of(connection, port, operation):
    """A report has the permit of an acquire, written as JSON.stringify does; the others have no body."""
    if operation != REPORT:
        return ""
    connection.sendall(request_of(port, ACQUIRE, ""))
    permit = json.loads(read_answer(connection)).get("permit", NO_PERMIT)
    return json.dumps({"permit": permit, "outcome": "success"},
                      separators=(",", ":"))


def request_of(port, operation, body):
    method, path = operation
    return (f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            + (f"Content-Length: {len(body)}\r\n" if method == "POST" else "")
            + "\r\n" + body).encode()


def send_requests(port, operation, count):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        request = request_of(port, operation, body_of(connection, port, operation))
        for _ in range(count):
            connection.sendall(request)
            read_answer(connection)


def read_answer(connection):
    """Returns the body of the answer. ValueError unless the answer is 200."""
    answer = b""
    length = None
    while length is None or len(answer) < length:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("the server closed the connection")
        answer += piece
        head, blank, body = answer.partition(b"\r\n\r\n")
        if length is None and blank:
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = len(head) + 4 + int(line.split(b":")[1])
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ValueError(answer.decode())
    return body
