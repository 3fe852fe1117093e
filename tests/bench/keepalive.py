"""Requests over one keep-alive connection, one after the other."""

import socket

SNAPSHOT = "/v1/circuits/orders"
GET_STATE = ("GET", SNAPSHOT)
RECORD_FAILURE = ("POST", SNAPSHOT + "/failure")


def send_requests(port, operation, count):
    method, path = operation
    request = (f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
               + ("Content-Length: 0\r\n" if method == "POST" else "") + "\r\n").encode()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for _ in range(count):
            connection.sendall(request)
            read_answer(connection)


def read_answer(connection):
    answer = b""
    length = None
    while length is None or len(answer) < length:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError("the server closed the connection")
        answer += piece
        head, blank, _ = answer.partition(b"\r\n\r\n")
        if length is None and blank:
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = len(head) + 4 + int(line.split(b":")[1])
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ValueError(answer.decode())
