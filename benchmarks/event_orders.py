"""What the caller's process does about SparkPost's events: orders of :mod:`.orders`, after Django is set up."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.test import RequestFactory, override_settings
from django.utils import timezone

from congressy_mailer.models import Event, Message, RecipientStatus, State, Suppression, WebhookBatch
from congressy_mailer.tracking import inbox, processing
from congressy_mailer.tracking.webhook import receive
from tests.support import sparkpost_events as made

_SECRET = "a-secret"
_LARGEST_BATCH = 350
_SEED = 20

_events: list[dict[str, Any]] = []
_shuffled_events: list[dict[str, Any]] = []
_end_states: list[Any] = []


def make_history(events: int) -> dict[str, int]:
    """Store mails that were sent, and think of so many events of theirs."""
    draw = random.Random(_SEED)  # noqa: S311
    number = 0
    while len(_events) < events:
        messages = []
        for _ in range(1000):
            number += 1
            address = f"registrant{number}@example.com"
            messages.append(
                Message(
                    to=[address], state=State.SENT, created_at=timezone.now(), message_id=f"<{number}@example.com>",
                    from_email="mail@congressy.net", subject="Inscrição", text="Oi",
                )
            )  # fmt: skip
        Message.objects.bulk_create(messages)
        _events.extend(made.history(messages, draw))
    del _events[events:]
    _shuffled_events.extend(made.shuffled(_events, draw))
    return {"events": len(_events), "messages": number, "repeats": len(_shuffled_events) - len(_events)}


def process_in_order() -> float:
    """Process them in order; returns how many in a second."""
    speed = _process(_events)
    _end_states.append(made.end_state())
    _delete_events()
    return speed


def process_shuffled() -> float:
    """The same with the repeated ones, in any order."""
    speed = _process(_shuffled_events)
    _end_states.append(made.end_state())
    return speed


def same_end_state() -> bool:
    """Whether both have led to the same."""
    return bool(_end_states[0]["statuses"]) and _end_states[0] == _end_states[1]


def answer_webhook(events: int, posts: int) -> list[float]:
    """Post batches of so many events to the view; returns the seconds of each answer."""
    seconds = []
    with override_settings(CONGRESSY_MAILER={"WEBHOOK_SECRETS": [f"bearer {_SECRET}"]}):
        for number in range(posts):
            body = made.batch_body(*(_events * (1 + events // len(_events)))[number : number + events])
            request = RequestFactory().post(
                "/", body, content_type="application/json", HTTP_AUTHORIZATION=f"Bearer {_SECRET}"
            )
            began = time.perf_counter()
            response = receive(request)
            seconds.append(time.perf_counter() - began)
            if response.status_code != 200:
                raise RuntimeError(f"The webhook has answered {response.status_code}.")
    return seconds


def delete_events() -> None:
    """Drop all of it."""
    _delete_events()
    Message.objects.all()._raw_delete("default")


def _process(events: Sequence[dict[str, Any]]) -> float:
    draw = random.Random(_SEED)  # noqa: S311
    tickets = []
    start = 0
    while start < len(events):
        batch = events[start : start + draw.randint(1, _LARGEST_BATCH)]
        start += len(batch)
        ticket = inbox.store("", made.batch_body(*batch), len(batch))
        if ticket is not None:
            tickets.append(ticket)
    began = time.perf_counter()
    for ticket in tickets:
        processing.process(ticket)
    return len(events) / (time.perf_counter() - began)


def _delete_events() -> None:
    for model in (RecipientStatus, Event, Suppression, WebhookBatch):
        model.objects.all()._raw_delete("default")
    Message.objects.update(delivery="")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
