"""Replaces functions of libraries in a daemon or a redis-server that a test starts."""

import os
import subprocess


def preload(directory, source):
    """The environment of a process in which the functions in `source` (C) replace those of the libraries."""
    library = f"{directory}/preload.so"
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", library, "-x", "c", "-"], check=True,
                   input=source.encode())
    return {"LD_PRELOAD": library,
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}
