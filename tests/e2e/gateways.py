"""Debian's gateway programs, run in the foreground with the files in docs/gateways."""

import os
import shutil
import subprocess
import threading

from breakerd import ROOT
from ports import free_port
from wait import until
from wire import Client, connect


def text_of(*names):
    with open(os.path.join(ROOT, "docs", "gateways", *names), encoding="utf-8") as file:
        return file.read()


def changed(text, changes):
    """Replaces each old text by the new one. Each must occur exactly once, so that apart from these
    changes the documented file is tested as it is."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in it"
        text = text.replace(old, new)
    return text


def program(name):
    """The path of a program. Also looks into sbin, which is not on every user's PATH."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/local/sbin:/usr/sbin")
    assert found, f"no {name} on this machine: scripts/install-packages test"
    return found


class Server:
    """A gateway program. `port`: where it listens; `reports`: where the daemon reads reports, by kind of
    socket; `changes`: further changes of its configuration."""

    def __init__(self, name, directory, upstream_port, daemon, reports, timeout, changes=None):
        self.changes = changes or {}
        self.daemon = daemon
        self.reports = reports
        self.directory = os.path.join(directory, f"{name}-{free_port()}")
        os.mkdir(self.directory)
        os.chmod(self.directory, 0o755)
        self.port = free_port()
        command = getattr(self, name)(upstream_port, daemon.address[1], timeout)
        self.log = os.path.join(self.directory, "log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)
        until(lambda: self.process.poll() is not None or self.listens(), f"{name} listens")
        assert self.process.poll() is None, self.output()

    def write(self, name, text):
        with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
            file.write(text)
        return os.path.join(self.directory, name)

    def nginx(self, upstream_port, breakerd_port, timeout):
        self.write("gateway.conf", changed(text_of("nginx", "gateway.conf"), {
            "127.0.0.1:9000 ": f"127.0.0.1:{upstream_port} ",
            "listen 8080": f"listen 127.0.0.1:{self.port}",
            "server 127.0.0.1:8747": f"server 127.0.0.1:{breakerd_port}",
            "server=unix:/run/breakerd/report.sock,": f"server={self.reports['unix']},",
            "proxy_connect_timeout 100ms": f"proxy_connect_timeout {timeout}ms",
            "proxy_read_timeout 300ms": f"proxy_read_timeout {timeout}ms",
        }))
        temporary = "\n".join(f"{kind}_temp_path {self.directory}/{kind};"
                              for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        conf = self.write("nginx.conf", f"""
            {user}
            daemon off;
            worker_processes 2;
            pid {self.directory}/pid;
            error_log {self.directory}/log;
            events {{ worker_connections 512; }}
            http {{ {temporary} include {self.directory}/gateway.conf; }}
            """)
        return [program("nginx"), "-e", f"{self.directory}/log", "-c", conf]

    def haproxy(self, upstream_port, breakerd_port, timeout):
        lua = self.write("breakerd.lua", changed(text_of("haproxy", "breakerd.lua"), {
            '"abns@breakerd"': f'"abns@breakerd-{self.port}"',
        }))
        conf = self.write("haproxy.cfg", changed(text_of("haproxy", "haproxy.cfg"), {
            "/etc/haproxy/breakerd.lua": f"{lua}\n    nbthread 2",
            "bind :8080": f"bind 127.0.0.1:{self.port}",
            "log /run/breakerd/report.sock": f"log {self.reports['unix'][len('unix:'):]}",
            "orders1 127.0.0.1:9000": f"orders1 127.0.0.1:{upstream_port}",
            "breakerd 127.0.0.1:8747": f"breakerd 127.0.0.1:{breakerd_port}",
            "bind abns@breakerd": f"bind abns@breakerd-{self.port}",
            "timeout connect 100ms": f"timeout connect {timeout}ms",
            "timeout server 300ms": f"timeout server {timeout}ms",
            **self.changes,
        }))
        return [program("haproxy"), "-db", "-f", conf]

    def caddy(self, upstream_port, breakerd_port, timeout):
        conf = self.write("Caddyfile", changed(text_of("caddy", "Caddyfile"), {
            "\n:8080 {": f"\nhttp://:{self.port} {{\n\tbind 127.0.0.1",
            "udp/127.0.0.1:8514": f"udp/{self.reports['udp']}",
            "forward_auth 127.0.0.1:8747": f"forward_auth 127.0.0.1:{breakerd_port}",
            "reverse_proxy 127.0.0.1:9000 {": f"reverse_proxy 127.0.0.1:{upstream_port} {{",
            "@unasked 127.0.0.1:9000": f"@unasked 127.0.0.1:{upstream_port}",
            "dial_timeout 100ms": f"dial_timeout {timeout}ms",
            "response_header_timeout 300ms": f"response_header_timeout {timeout}ms",
        }))
        return ["env", f"HOME={self.directory}", f"XDG_DATA_HOME={self.directory}",
                program("caddy"), "run", "--adapter", "caddyfile", "--config", conf]

    def listens(self):
        try:
            connect(("127.0.0.1", self.port)).close()
            return True
        except OSError:
            return False

    def get(self, route="/", headers=None):
        client = Client(("127.0.0.1", self.port), "gateway.example")
        try:
            return client.get(route, headers=headers or {})
        finally:
            client.close()

    def many(self, n):
        """Starts n requests at once. Returns their threads, and the list that gets the answers."""
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(self.get())) for _ in range(n)]
        for thread in threads:
            thread.start()
        return threads, answers

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
