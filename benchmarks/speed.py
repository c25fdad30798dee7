"""How fast this machine is, at what the measurements do most: Python at work, and Python being started."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from statistics import median

# Seconds on the machine whose slowness is 1: two cores that nobody else uses.
_WORK_SECONDS = 0.025
_START_SECONDS = 0.65

_RUNS = 3
_IMPORTS = "import django.core.mail, django.db.models, celery.app.base, kombu.transport.redis"


def slowness() -> float:
    """How many times slower than that machine this one is at the moment; it takes some seconds to find out."""
    work = median(_seconds_of_work() for _ in range(_RUNS)) / _WORK_SECONDS
    start = median(_seconds_of_start() for _ in range(_RUNS)) / _START_SECONDS
    return (work + start) / 2


def _seconds_of_work() -> float:
    began = time.perf_counter()
    for number in range(600):
        text = json.dumps({f"key{place}": f"value {place * number}" for place in range(50)})
        read = json.loads(text)
        hashlib.sha256("".join(sorted(map(str, read.values()))).encode()).hexdigest()
    return time.perf_counter() - began


def _seconds_of_start() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", _IMPORTS], check=True, capture_output=True)
    return time.perf_counter() - began
