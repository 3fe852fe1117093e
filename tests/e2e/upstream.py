"""An upstream for gateways. It answers with `status`. If `cut` is set, it sends these bytes and closes the connection;
"reset" resets the connection instead."""

import http.server
import socket
import struct
import threading

from wait import until


class Upstream:
    def __init__(self):
        self.status = 200
        self.cut = None
        self.hits = 0
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()
        self.server = None
        self.port = 0
        self.start()

    def start(self):
        """Listens; after stop(), on the same port again."""
        upstream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                with upstream.lock:
                    upstream.hits += 1
                upstream.gate.wait(30)
                if upstream.cut is not None:
                    self.close_connection = True
                    if upstream.cut == "reset":
                        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        self.connection.close()
                        return
                    self.wfile.write(upstream.cut)
                    return
                body = b"from the upstream\n"
                self.send_response(upstream.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    while size := int(self.rfile.readline() or "0", 16):
                        self.rfile.read(size + 2)
                    self.rfile.readline()
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.do_GET()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128
            connections = []

            def process_request(self, request, client_address):
                self.connections.append(request)
                super().process_request(request, client_address)

            def handle_error(self, *_):
                pass  # gateways end connections as they like

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        """Ends all connections, and refuses new ones."""
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
        for connection in self.server.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended already

    def hold(self):
        """Holds back answers until release()."""
        self.gate.clear()

    def release(self):
        self.gate.set()

    def wait_hits(self, n):
        until(lambda: self.hits >= n, f"{n} requests reach the upstream")
