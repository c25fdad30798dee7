"""The host's Celery app."""

import os
from pathlib import Path

from celery import Celery
from celery.signals import task_prerun

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

app = Celery("tests")
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.task(name="tests.touch")
def touch(path: str) -> None:
    """A task of the host's, which leaves a file."""
    Path(path).touch()


if os.environ.get("MAILER_TEST_ATOMIC_TASKS"):

    @task_prerun.connect(weak=False)
    def begin_transaction(**kwargs: object) -> None:
        """What a host does that has each of its tasks run in a transaction."""
        from django.db import transaction

        transaction.atomic().__enter__()
