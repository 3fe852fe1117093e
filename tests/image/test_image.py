"""The image of `make image`: its content, and how it runs."""

import hashlib
import json
import os
import re
import subprocess
import tarfile
import time

import yaml

from redis_server import RedisServer
from volume import Volume
from wait import until

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOKEN_A, TOKEN_B, TOKEN_C = "a" * 20, "b" * 20, "c" * 20


def member(image, name):
    with tarfile.open(os.path.join(image, "image.oci.tar")) as tar:
        return tar.extractfile(name).read()


def blob(image, digest):
    data = member(image, "blobs/" + digest.replace(":", "/"))
    assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
    return data


def digest_of(image):
    return json.loads(member(image, "index.json"))["manifests"][0]["digest"]


def test_it_is_under_ten_megabytes(image, bundle):
    assert os.path.getsize(os.path.join(image, "image.oci.tar")) < 10 * 10**6
    files = [os.path.join(path, name) for path, _, names in os.walk(f"{bundle}/rootfs")
             for name in names]
    assert sum(os.lstat(name).st_size for name in files) < 10 * 10**6, "unpacked"
    assert all(os.lstat(name).st_uid == 0 and not os.lstat(name).st_mode & 0o6022 for name in files)


def test_what_its_configuration_says(image):
    manifest = json.loads(blob(image, digest_of(image)))
    config = json.loads(blob(image, manifest["config"]["digest"]))
    for layer, diff in zip(manifest["layers"], config["rootfs"]["diff_ids"]):
        assert len(blob(image, layer["digest"])) == layer["size"] and diff.startswith("sha256:")
    assert config["config"]["User"] == "65534:65534"
    assert config["config"]["Entrypoint"] == ["/breakerd"]
    assert config["config"]["Healthcheck"]["Test"] == ["CMD", "/breakerd", "--check-ready"]
    labels = config["config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "breakerd"
    assert labels["org.opencontainers.image.version"] in subprocess.run(
        [os.environ["BREAKERD"], "--version"], check=True, capture_output=True, text=True).stdout


def test_its_name_is_the_one_that_docs_run(image):
    name = json.loads(member(image, "index.json"))["manifests"][0]["annotations"]["io.containerd.image.name"]
    assert json.loads(member(image, "manifest.json"))[0]["RepoTags"] == [name]
    with open(f"{TOP}/docs/kubernetes.md", encoding="utf-8") as file:
        command = re.search(r"^docker run (?:.*\\\n)*.*", file.read(), re.M)[0]
    assert command.split()[-1] == name


def test_another_build_has_the_same_digest(image, directory):
    """A build from a copy of the sources, in another directory and with other file times."""
    copy = os.path.join(directory, "other", "place")
    os.makedirs(copy)
    for name in ("Makefile", "LICENSE", "daemon", "proto", "scripts"):
        subprocess.run(["cp", "-r", os.path.join(TOP, name), copy], check=True)
    when = json.loads(blob(image, json.loads(blob(image, digest_of(image)))["config"]["digest"]))["created"]
    epoch = subprocess.run(["date", "-u", "-d", when, "+%s"], check=True, capture_output=True, text=True)
    subprocess.run(["make", "-C", copy, "image"], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "SOURCE_DATE_EPOCH": epoch.stdout.strip()})
    assert digest_of(os.path.join(copy, "build")) == digest_of(image)


def test_the_bill_of_materials_names_what_is_in_it(image, bundle):
    with open(os.path.join(image, "image.spdx.json"), encoding="utf-8") as file:
        bill = json.load(file)
    assert bill["spdxVersion"] == "SPDX-2.3" and digest_of(image) in bill["comment"]
    links = {one["relatedSpdxElement"].removeprefix("SPDXRef-"): one["relationshipType"]
             for one in bill["relationships"]}
    assert links == {"breakerd": "DESCRIBES", "libc6": "DYNAMIC_LINK", **{
        name: "STATIC_LINK" for name in ("libevent-dev", "libhiredis-dev", "libinih-dev", "libjansson-dev",
                                         "libmicrohttpd-dev")}}
    assert links.keys() == {package["name"] for package in bill["packages"]}
    for package in bill["packages"]:
        assert package["versionInfo"] and package["externalRefs"][0]["referenceLocator"].startswith("pkg:")
        licence = "breakerd" if package["name"] == "breakerd" else package["name"]
        assert os.path.exists(f"{bundle}/rootfs/usr/share/doc/{licence}/copyright"), package["name"]
    libraries = {name for _, _, names in os.walk(f"{bundle}/rootfs") for name in names if ".so" in name}
    assert len(libraries) == 2 and "libc.so.6" in libraries, "the C library and its loader, no other"


def test_it_runs_read_only_as_nobody_without_a_network(run):
    container = run()
    assert container.post("/v1/circuits/a/failure").json()["failureCount"] == 1
    assert container.get("/readyz").status == 200
    assert container.check_ready() == (0, "")
    pid = container.pid()
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65534"] * 4 and status["Gid"].split() == ["65534"] * 4
    assert status["CapEff"] == "0000000000000000" and status["NoNewPrivs"] == "1"
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
        root = [line.split() for line in file if line.split()[4] == "/"]
    assert root[-1][5].split(",")[0] == "ro"
    with open(f"/proc/{pid}/net/dev", encoding="ascii") as file:
        assert {line.split(":")[0].strip() for line in file if ":" in line} <= {"lo"}
    assert "started version=" in container.log()


def test_sigterm_ends_it_within_a_second(run):
    container = run()
    assert container.get("/healthz").status == 200
    took, status = container.stop()
    assert status == 0 and took < 1, f"{took:.3f} s"
    assert " stopped " in container.log()


def test_check_ready_says_no_while_redis_is_away(run):
    container = run(store="redis://127.0.0.1:1", on_store_failure="error")
    status, words = container.check_ready()
    assert status == 1 and words.count("\n") == 1, words
    assert container.get("/healthz").status == 200


def test_redis_by_name(run, directory):
    """As in a pod, only /etc/hosts and /etc/resolv.conf are mounted for the look-up of names."""
    hosts, resolv = f"{directory}/hosts", f"{directory}/resolv.conf"
    with open(hosts, "w", encoding="ascii") as file:
        file.write("127.0.0.1 localhost redis.example.internal\n")
    with open(resolv, "w", encoding="ascii") as file:
        file.write("nameserver 127.0.0.1\noptions ndots:5\n")
    server = RedisServer(f"{directory}/redis").start()
    try:
        url = server.url.replace("127.0.0.1", "redis.example.internal")
        container = run(network=True, store=url, on_store_failure="error",
                        mounts={"/etc/hosts": hosts, "/etc/resolv.conf": resolv})
        until(lambda: container.check_ready()[0] == 0, "Redis is reached")
        assert container.post("/v1/circuits/a/failure").json()["failureCount"] == 1
        assert b'"failureCount":1' in server.call("GET", "stoma:cb:a")
    finally:
        server.kill()


def test_settings_and_token_through_kubernetes_links(run, directory):
    def conf(level):
        return f"token_file = /etc/breakerd/token\nreload_on_change = yes\nlog_format = json\nmax_body = {level}\n"

    volume = Volume(f"{directory}/volume")
    volume.put(**{"breakerd.conf": conf(1000), "token": TOKEN_A})
    os.chmod(volume.path, 0o755)
    container = run(mounts={"/etc/breakerd": volume.path}, config="/etc/breakerd/breakerd.conf")

    def works(token):
        return container.get("/v1/circuits", headers={"Authorization": f"Bearer {token}"}).status == 200

    assert works(TOKEN_A) and not works(TOKEN_B)
    for token in (TOKEN_B, TOKEN_C):
        volume.put(**{"breakerd.conf": conf(2000), "token": token})
        began = time.monotonic()
        until(lambda t=token: works(t), "the token is the new one", 10)
        took = time.monotonic() - began
        assert took < 2, f"{took:.2f} s"
    assert container.check_ready() == (0, "")
    for line in container.log().splitlines():
        assert json.loads(line)["event"], line


def test_the_manifest_s_settings_start(run, directory):
    """The ConfigMap and the Secret of docs/kubernetes/breakerd.yaml, where it mounts them. Redis is away, and the
    pod is ready nevertheless, as docs/kubernetes.md says."""
    with open(f"{TOP}/docs/kubernetes/breakerd.yaml", encoding="utf-8") as file:
        objects = {one["kind"]: one for one in yaml.safe_load_all(file)}
    spec = objects["Deployment"]["spec"]["template"]["spec"]
    sidecar = spec["initContainers"][0]
    mounts = {one["mountPath"] for one in sidecar["volumeMounts"]}
    assert mounts == {"/run/breakerd", "/etc/breakerd"}
    for probe in ("startupProbe", "readinessProbe"):
        listen = re.search("^listen = (.*)$", objects["ConfigMap"]["data"]["breakerd.conf"], re.M)[1]
        assert sidecar[probe]["exec"]["command"] == ["/breakerd", f"--check-ready={listen}"]
    assert sidecar["securityContext"]["runAsUser"] == 65534
    volume = Volume(f"{directory}/volume")
    volume.put(**objects["ConfigMap"]["data"], **objects["Secret"]["stringData"])
    os.chmod(volume.path, 0o755)
    settings = {one["name"].removeprefix("BREAKERD_").lower(): one["value"] for one in sidecar["env"]}
    container = run(mounts={"/etc/breakerd": volume.path}, **settings)
    assert container.check_ready() == (0, "")
    assert container.get("/v1/circuits").status == 401
    token = objects["Secret"]["stringData"]["token"]
    answer = container.post("/v1/circuits/a/failure", headers={"Authorization": f"Bearer {token}"})
    assert answer.status == 200 and answer.header("Breakerd-Degraded") == "true"
    assert oct(os.stat(container.socket).st_mode & 0o777) == "0o660"
    assert os.stat(container.socket).st_gid == 65534
