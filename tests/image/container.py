"""Runs the image in runc: with a read-only root, as nobody, and with nothing of the host but mounts."""

import json
import os
import shutil
import subprocess
import tarfile
import time
import uuid

from wait import until
from wire import Client, Methods


def unpack(image, path):
    """Unpacks image.oci.tar into a bundle (config.json and rootfs). Returns the bundle's path."""
    layout, bundle = os.path.join(path, "oci"), os.path.join(path, "bundle")
    with tarfile.open(os.path.join(image, "image.oci.tar")) as tar:
        tar.extractall(layout)
    with open(os.path.join(layout, "index.json"), encoding="utf-8") as file:
        tag = json.load(file)["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:{tag}", bundle], check=True,
                   capture_output=True)
    return bundle


class Container(Methods):
    """settings become BREAKERD_ variables, which --check-ready in the container sees too. The daemon
    listens in /run/breakerd, which has the permissions of an emptyDir with fsGroup in a pod."""

    def __init__(self, bundle, path, mounts=None, network=False, **settings):
        self.bundle = bundle
        self.path = path
        self.network = network
        self.id = "brk-" + uuid.uuid4().hex[:12]
        self.run_dir = os.path.join(path, "run")
        self.mounts = {"/run/breakerd": self.run_dir, **(mounts or {})}
        self.settings = {"listen": "unix:/run/breakerd/http.sock", **settings}
        self.socket = os.path.join(self.run_dir, "http.sock")
        self.process = None

    def _config(self):
        with open(os.path.join(self.bundle, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        config["root"] = {"path": os.path.join(self.bundle, "rootfs"), "readonly": True}
        process = config["process"]
        process["terminal"] = False
        process["noNewPrivileges"] = True
        process["capabilities"] = {}
        process["env"] += [f"BREAKERD_{name.upper()}={value}" for name, value in self.settings.items()]
        if self.network:
            spaces = config["linux"]["namespaces"]
            config["linux"]["namespaces"] = [one for one in spaces if one["type"] != "network"]
        for inside, outside in self.mounts.items():
            options = ["bind", "nosuid", "nodev", "rw" if inside == "/run/breakerd" else "ro"]
            config["mounts"] = [m for m in config["mounts"] if m["destination"] != inside]
            config["mounts"].append({"destination": inside, "source": outside, "type": "bind",
                                     "options": options})
        return config

    def start(self):
        os.makedirs(self.run_dir)
        os.chown(self.run_dir, 0, 65534)
        os.chmod(self.run_dir, 0o2770)
        with open(os.path.join(self.path, "config.json"), "w", encoding="utf-8") as file:
            json.dump(self._config(), file)
        with open(os.path.join(self.path, "log"), "wb") as log:
            self.process = subprocess.Popen(self._runc("run", "--bundle", self.path, self.id),
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: self.process.poll() is not None or os.path.exists(self.socket),
              "it listens", 20)
        assert self.process.poll() is None, self.log()
        return self

    def _runc(self, *args):
        return ["runc", "--root", os.path.join(self.path, "runc"), *args]

    def log(self):
        with open(os.path.join(self.path, "log"), encoding="utf-8") as file:
            return file.read()

    def request(self, *args, **kw):
        return Client(self.socket, "localhost").request(*args, **kw)

    def check_ready(self):
        """Runs --check-ready as a probe does. Returns the exit status and the output."""
        done = subprocess.run(self._runc("exec", self.id, "/breakerd", "--check-ready"), check=False,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout + done.stderr

    def pid(self):
        state = subprocess.run(self._runc("state", self.id), check=True, capture_output=True)
        return json.loads(state.stdout)["pid"]

    def stop(self):
        """Sends SIGTERM. Returns the seconds until the end, and the exit status."""
        pid = self.pid()
        began = time.monotonic()
        subprocess.run(self._runc("kill", self.id, "TERM"), check=True)
        until(lambda: not os.path.exists(f"/proc/{pid}"), "its process is gone", 20)
        took = time.monotonic() - began
        return took, self.process.wait(20)

    def kill(self):
        subprocess.run(self._runc("delete", "--force", self.id), check=False, capture_output=True)
        if self.process:
            self.process.wait(20)
        shutil.rmtree(self.path, ignore_errors=True)
