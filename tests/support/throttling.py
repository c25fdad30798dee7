"""Processes that share limits, and what they ask."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from congressy_mailer.throttling import store_choice
from congressy_mailer.throttling.limiter import RateLimiter

CelerySettings = Callable[..., None]

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def workers(url: str, count: int, **configured: Any) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that wait for orders: see :mod:`tests.support.throttling_worker`."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "BROKER_URL": url}
    command = [sys.executable, "-m", "tests.support.throttling_worker"]
    started = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        for _ in range(count)
    ]
    try:
        assert ordered(started, CELERY_APP="tests.project:app", **configured) == ["ready"] * count
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def ordered(processes: list[subprocess.Popen[str]], **order: Any) -> list[Any]:
    """Give all the same order, and return what they answer."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order) + "\n")
    return [json.loads(process.stdout.readline()) for process in processes if process.stdout is not None]


def permits_at_once(rate_limiter: RateLimiter) -> int:
    """How many mails may be handed over without waiting; at most 500."""
    count = 0
    while count < 500 and not rate_limiter.acquire():
        count += 1
    return count


def key(kind: str, name: str = "default") -> str:
    """The key of one of the store's things, of this project."""
    return f"congressy_mailer:{store_choice.throttling_group()}:{kind}:{name}"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What an operator reads in the log."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
