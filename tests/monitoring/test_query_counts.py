"""How often the database is asked by what people and monitoring look at: as often for much as for little."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress as suppressing
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from congressy_mailer import Recipient, metrics, outbox, pause, send_bulk, send_mail
from congressy_mailer.health import check_health
from congressy_mailer.models import (
    Batch,
    CountSample,
    Event,
    Message,
    RecipientStatus,
    State,
    Suppression,
    TransportStatus,
    WebhookBatch,
)
from congressy_mailer.monitoring import measures, prometheus, queues
from congressy_mailer.replies import Reply
from congressy_mailer.suppressions import suppress

pytestmark = [pytest.mark.django_db, pytest.mark.database, pytest.mark.usefixtures("published")]

ADMIN = "/admin/congressy_mailer"
LIST = f"{ADMIN}/message/"
#: Asked every half minute, whatever is looked at.
CLOCKS = ("SELECT clock_timestamp()", "SELECT UTC_TIMESTAMP(6)")

#: Fewer than monitoring looks at otherwise: each is stored with mail in every state.
FIRST_BATCHES = 4


class Outbox:
    """Some mail in every state, and all that lies beside it; ever more of it."""

    def __init__(self) -> None:
        self.about = User.objects.create_user("Pedido 4711")
        self.message = send_mail("Boleto", "x", to="Ana Maria <ana@example.com>", about=self.about)
        self.batch = send_bulk(["ana@example.com", "eva@example.com"], subject="Programa", message="x", key="first")
        self.stored = 0

    def store(self, count: int) -> None:
        """So many more of each."""
        for number in range(self.stored, self.stored + count):
            self._store(number)
        self.stored += count

    def _store(self, number: int) -> None:
        now = timezone.now()
        batch = send_bulk(
            [f"ana{number}@example.com", Recipient(to="Ana <ana@example.com>", cc="eva@example.com"), "c@example.com"],
            subject="Programa", message="x", campaign=f"c{number}", key=f"key-{number}", about=self.about,
        )  # fmt: skip
        token = outbox.new_claim_token("test")
        held = outbox.claim_from_batch(batch, token, 1)
        outbox.record_accepted(token, [(message, Reply(250, "OK")) for message in held])
        # Nothing of them was sent lately.
        Batch.objects.filter(pk=batch.pk).update(created_at=now - timedelta(hours=1))
        Message.objects.filter(pk=held[0].pk).update(finished_at=now - timedelta(hours=1))
        for state in State:
            mail = send_mail(
                "Boleto", "x", to="Ana Maria <ana@example.com>", cc="eva@example.com", campaign=f"c{number}",
                about=self.about,
            )  # fmt: skip
            due_at = None if state in outbox.FINAL else now - timedelta(hours=1)
            finished_at = now if state in outbox.FINAL else None
            Message.objects.filter(pk=mail.pk).update(state=state, due_at=due_at, finished_at=finished_at)
        held_back = pause(campaign=f"paused{number}")
        Message.objects.filter(pk=mail.pk).update(state=State.QUEUED, pause=held_back, finished_at=None)
        for message in (self.message, held[0]):
            Event.objects.create(message=message, type="delivered", at=now, recipient="ana@example.com", detail="OK")
            address = f"ana{number}@example.com"
            RecipientStatus.objects.create(message=message, recipient=address, arrival="bounced", arrival_at=now)
        TransportStatus.objects.create(
            using="" if number % 2 else "other", sender_domain=f"{number}.example", unavailable_since=now,
            next_try_at=now,
        )  # fmt: skip
        outbox.record_task_failure(f"task{number}", ValueError())
        suppress(f"ana{number}@example.com")
        Suppression.objects.filter(address=f"ana{number}@example.com").update(source="bounce")
        suppress(f"ana{number}@example.com", reason="twice")
        WebhookBatch.objects.create(key=str(number), received_at=now, problem="x", body=b"x")
        CountSample.objects.create(minute=now - timedelta(minutes=number), counts=[["", "mailer", 5, "accepted", 1]])
        told = {"name": f"celery@{number}", "queues": ["mailer"], "pool": "prefork", "concurrency": 4, "version": "1"}
        metrics.record_worker({**told, "started_at": 0, "published_at": 1})

    def looks(self, client: Client) -> dict[str, Callable[[], Any]]:
        """What may be looked at, by its name."""
        queries = ("", "q=ana%40example.com", "q=ana", "q=maria", "q=eva%40example.com", "q=pedido+4711", "q=olet",
                   "q=nobody%40example.com", f"q={self.message.pk}", f"q={self.message.message_id.strip('<>')}",
                   "since=7", f"batch={self.batch.pk}", f"about=auth.user:{self.about.pk}", "status=bounced",
                   *(f"status={state}" for state in State))  # fmt: skip
        entry = Suppression.objects.order_by("id").first()
        in_batch = self.batch.messages.order_by("id").first()
        assert entry is not None
        assert in_batch is not None
        pages = [
            *(f"{LIST}?{query}" for query in queries),
            *(f"{LIST}{message.pk}/{page}/" for message in (self.message, in_batch) for page in ("change", "content")),
            *(f"{ADMIN}/batch/{rest}" for rest in ("", "?q=key-1", "?q=nothing", f"{self.batch.pk}/change/")),
            *(f"{ADMIN}/suppression/{rest}" for rest in ("", "?q=ana", "?q=ana0%40example.com", "?source=bounce",
                                                         f"{entry.pk}/change/")),
            f"{ADMIN}/webhookbatch/", f"{ADMIN}/pause/", f"{ADMIN}/dashboard/", f"{ADMIN}/dashboard/?span=week",
        ]  # fmt: skip
        commands = (
            ("status",), ("health",), ("show", str(self.message.pk)), ("show", "ana"), ("show", "eva@example.com"),
            ("show", "nobody@example.com"), ("doctor", "database", "templates", "worker-queues", "worker-versions",
                                             "clocks", "concurrency", "bulk-one-click", "bulk-complaints"),
        )  # fmt: skip
        return {
            **{page: (lambda page=page: _get(client, page)) for page in pages},
            **{f"mailer {' '.join(words)}": (lambda words=words: _mailer(*words)) for words in commands},
            "health": check_health,
            "metrics": prometheus.exposition,
        }


def _get(client: Client, page: str) -> None:
    answer = client.get(page)
    assert answer.status_code == 200, page


def _mailer(*words: str) -> None:
    # Health and doctor find something; show does not.
    with suppressing(CommandError):
        call_command("mailer", *words, stdout=StringIO())


def _counts(looks: dict[str, Callable[[], Any]]) -> dict[str, int]:
    counts = {}
    for name, look in looks.items():
        with CaptureQueriesContext(connection) as captured:
            look()
        counts[name] = sum(query["sql"] not in CLOCKS for query in captured)
    return counts


def test_the_number_of_queries_grows_with_nothing_that_is_stored(
    support: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the first batches, monitoring asks for each how much waits.
    for module in (queues, measures):
        monkeypatch.setattr(module, "BATCHES", FIRST_BATCHES)
    stored = Outbox()
    stored.store(FIRST_BATCHES + 1)
    looks = stored.looks(support)
    # Templates are loaded, and clocks compared.
    _counts(looks)
    few = _counts(looks)
    stored.store(2 * FIRST_BATCHES)
    many = _counts(looks)
    assert many == few
    assert max(few[name] for name in few if name.startswith(LIST)) <= 16, few
    assert max(few.values()) <= 90, few
