"""Fixtures: the image of `make image`, unpacked once by umoci as a bundle for runc."""

import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "e2e"))
# pylint: disable=wrong-import-position
from container import Container, unpack  # noqa: E402


def pytest_sessionstart(session):
    del session
    for name in ("runc", "umoci"):
        if shutil.which(name) is None:
            pytest.exit(f"no {name}: scripts/install-packages image", 2)
    if os.geteuid() != 0:
        pytest.exit("these tests need root", 2)


@pytest.fixture(scope="session")
def image():
    """The directory with image.oci.tar and image.spdx.json."""
    return os.path.abspath(os.environ["IMAGE"])


@pytest.fixture(scope="session")
def bundle(image):
    with tempfile.TemporaryDirectory(prefix="brk-", dir="/tmp") as path:
        yield unpack(image, path)


@pytest.fixture
def directory():
    with tempfile.TemporaryDirectory(prefix="brk-", dir="/tmp") as path:
        os.chmod(path, 0o755)
        yield path


@pytest.fixture
def run(bundle, directory):
    """run(mounts={inside: outside}, network=False, **settings) starts a container."""
    containers = []

    def start(**kw):
        container = Container(bundle, os.path.join(directory, f"c{len(containers)}"), **kw)
        containers.append(container)
        return container.start()

    yield start
    for container in containers:
        container.kill()
