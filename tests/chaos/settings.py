"""Settings of the workers and of the feeder: those of the tests, with times that make every recovery short."""

from __future__ import annotations

import os
from datetime import timedelta

from tests.settings import *  # noqa: F403

if DATABASES["default"]["ENGINE"].endswith("sqlite3"):  # noqa: F405
    # As the documentation tells whoever runs workers on SQLite: writers, of which there is one at a time, do not wait
    # for the disk.
    DATABASES["default"]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"  # noqa: F405

# What a host runs in the same workers.
CELERY_IMPORTS = ["tests.chaos.host"]

CONGRESSY_MAILER = {
    "CELERY_APP": "tests.project:app",
    "ON_CRASH": os.environ.get("MAILER_CHAOS_ON_CRASH", "resend"),
    "LEASE": timedelta(seconds=8),
    "LOST_AFTER": timedelta(seconds=4),
    "SWEEP_INTERVAL": timedelta(seconds=1),
    "BREAKER_TIME": timedelta(seconds=1),
    "RETRY_BACKOFF": timedelta(seconds=1),
    "RETRY_BACKOFF_MAX": timedelta(seconds=5),
    "UNAVAILABLE_BACKOFF": timedelta(seconds=1),
    "UNAVAILABLE_BACKOFF_MAX": timedelta(seconds=5),
    "JOURNAL_DIRECTORY": SCRATCH / "journals",  # noqa: F405
    # Here no mail is the cause of its worker's death, however often it is there when that happens.
    "MAX_CRASHES": 1000,
}
if os.environ.get("MAILER_CHAOS_NEIGHBOUR"):
    CONGRESSY_MAILER |= {
        "ON_CRASH": "resend", "KEEP_CONTENT": timedelta(seconds=2), "KEEP_MESSAGES": timedelta(seconds=2)
    }  # fmt: skip
