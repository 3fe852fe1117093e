"""Proxies between a daemon and its Redis that can be shut, are slow or lose data; and a server that takes
Redis's place."""

import queue
import re
import socket
import threading
import time

from ports import free_port


class Gate:
    """Forwards connections to `upstream` while open. Nobody listens while it is shut. Other clients still
    reach the server itself."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.port = free_port()
        self._listener = None
        self._sockets = set()
        self._lock = threading.Lock()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def open(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(16)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return self

    def _accept(self, listener):
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.upstream)
            except OSError:
                near.close()
                continue
            for s in (near, far):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._listener is not listener:
                    near.close()
                    far.close()
                    return
                self._sockets |= {near, far}
            for one, other, up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(one, other, up), daemon=True).start()

    def _passes(self, data, far, up):
        """True: forward `data`; False: drop it; None: end the connection. `far`: the server's socket;
        `up`: the data goes to the server."""
        return True

    def _pump(self, one, other, up):
        far = other if up else one
        try:
            while data := one.recv(65536):
                passes = self._passes(data, far, up)
                if passes is None:
                    break
                if passes:
                    other.sendall(data)
        except OSError:
            pass
        for s in (one, other):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        with self._lock:
            self._sockets.discard(one)
        one.close()

    def shut(self):
        with self._lock:
            listener, self._listener = self._listener, None
            sockets = list(self._sockets)
        if listener:
            # This wakes a thread that waits in accept().
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for s in sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class FarGate(Gate):
    """A gate to a Redis far away: a round trip takes `delay` seconds more, half of it each way. Any number
    of pieces may be on the way."""

    def __init__(self, upstream, delay):
        super().__init__(upstream)
        self.delay = delay / 2

    def _pump(self, one, other, up):
        pieces = queue.SimpleQueue()

        def deliver():
            while (piece := pieces.get()) is not None:
                due, data = piece
                time.sleep(max(0.0, due - time.monotonic()))
                try:
                    other.sendall(data)
                except OSError:
                    return

        thread = threading.Thread(target=deliver, daemon=True)
        thread.start()
        try:
            while data := one.recv(65536):
                pieces.put((time.monotonic() + self.delay, data))
        except OSError:
            pass
        pieces.put(None)
        thread.join()
        for s in (one, other):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class LossyGate(Gate):
    """A gate that loses steps to be folded. lose(how, times) acts on the next `times` pieces of data
    that hold such a step:

    before   drops the piece and ends the connection
    after    forwards the piece and ends the connection in place of the answer
    hold     forwards the piece, and nothing more from the server
    swallow  drops the piece, and forwards nothing more from the server
    late     forwards the piece at deliver(), then ends the connection

    `delay`: seconds that each piece from the server takes longer."""

    STEP = re.compile(rb"\r\nw \d")

    def __init__(self, upstream, delay=0.0):
        super().__init__(upstream)
        self.delay = delay
        self.lost = 0
        self._how, self._times = None, 0
        self._release, self._delivered = threading.Event(), threading.Event()
        self._mute = set()  # sockets of the server from which no more answers are forwarded

    def lose(self, how, times=1):
        self._how, self._times = how, times
        return self

    def deliver(self):
        """Forwards the piece that is held back."""
        self._release.set()
        assert self._delivered.wait(10)

    def _deliver(self, data, far):
        self._release.wait(60)
        try:
            far.sendall(data)
        except OSError:
            pass
        self._delivered.set()

    def _passes(self, data, far, up):
        if not up:
            time.sleep(self.delay)
            return True if far not in self._mute else None if self._how == "after" else False
        if self._times and self.STEP.search(data):
            self._times -= 1
            self.lost += 1
            if self._how == "before":
                return None
            if self._how == "late":
                self._deliver(data, far)
                return None
            self._mute.add(far)
            return self._how != "swallow"
        return True


class Impostor:
    """Listens in the place of a Redis. Runs behave(socket) for each connection, in a thread of its
    own, until behave returns or the socket fails."""

    def __init__(self, behave):
        self.behave = behave
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def _accept(self):
        while True:
            try:
                s, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._sockets.append(s)
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, s):
        try:
            self.behave(s)
        except OSError:
            pass

    def end(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for s in self._sockets:
            s.close()
