"""Paths. Importing this makes the helpers of the end-to-end tests importable, too."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
BREAKERD = os.environ.get("BREAKERD", os.path.join(BUILD, "breakerd"))
MINIMAL = os.environ.get("MINIMAL", os.path.join(BUILD, "bench", "minimal"))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
