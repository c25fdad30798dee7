"""Mail that is on its way while workers of another version take over: tasks in the broker, and open rows."""

from __future__ import annotations

import inspect
import json
from datetime import timedelta

import pytest
from django.core import mail
from django.test import override_settings
from django.utils import timezone

from congressy_mailer import outbox, send_bulk, send_mail, tasks
from congressy_mailer.models import Message, State

pytestmark = [pytest.mark.database, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("published")]

#: What may lie in a broker while a deploy goes on. A change here is one that workers of two versions must both read.
ARGUMENTS = {
    "deliver": ["ids"],
    "deliver_batch": ["key", "generation", "starts_others"],
    "sweep": ["published_at", "behind"],
    "process_webhooks": ["key", "due_at"],
    "purge": [],
    "sync_suppressions": [],
}


def test_tasks_that_lie_in_the_broker_have_the_arguments_that_workers_read() -> None:
    found = {name: list(inspect.signature(getattr(tasks, name).run).parameters) for name in ARGUMENTS}
    assert found == ARGUMENTS


@pytest.mark.email_settings
@override_settings(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend")
def test_what_is_open_in_any_state_when_a_worker_begins_is_sent() -> None:
    past = timezone.now() - timedelta(hours=1)
    batch = send_bulk(
        (f"{state}@example.com" for state in ("waits", "held", "again", "later")), subject="s", message="b"
    )
    single = {
        name: send_mail("s", "b", to=f"single-{name}@example.com") for name in ("waits", "held", "again", "later")
    }
    for name in ("held", "again", "later"):
        # As a worker, a refusal or a caller of the version before has left them.
        values = {
            "held": {"state": State.SENDING, "token": "of-a-version-before", "due_at": past},
            "again": {"state": State.DEFERRED, "due_at": past, "attempts": 1},
            "later": {"state": State.SCHEDULED, "due_at": past, "send_at": past},
        }[name]
        Message.objects.filter(to=[f"{name}@example.com"]).update(
            **values | ({"due_at": None} if name == "later" else {})
        )
        Message.objects.filter(pk=single[name].pk).update(**values)
    ids = [str(key) for key in outbox.sweep(timezone.now())]
    ids.append(str(single["waits"].pk))
    batch.refresh_from_db()
    for key in ids:
        tasks.deliver.apply(args=json.loads(json.dumps([[key]])))
    tasks.deliver_batch.apply(args=json.loads(json.dumps([str(batch.pk), batch.generation, False])))
    assert set(Message.objects.values_list("state", flat=True)) == {State.SENT}
    assert sorted(message.to[0] for message in mail.outbox) == sorted(
        f"{prefix}{name}@example.com" for prefix in ("", "single-") for name in ("waits", "held", "again", "later")
    )
