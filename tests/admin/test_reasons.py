"""Reasons that are stored in English, as a person reads them, and what of them is left as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone, translation

from congressy_mailer import send_mail, suppressions
from congressy_mailer.admin.reasons import shown_reason, shown_suppression
from congressy_mailer.models import Message, WebhookBatch
from congressy_mailer.outbox.expiry import expire
from congressy_mailer.testing import deliver_all, fail_next
from tests.support.error_texts import MARK, Place, Sources

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published")]


@pytest.fixture(autouse=True)
def portuguese() -> Iterator[None]:
    with translation.override("pt-br"):
        yield


def reason_of(message: Any) -> str:
    return str(Message.objects.values_list("reason", flat=True).get(pk=message.pk))


def test_a_suppressed_recipient_is_told_with_the_source_and_its_words() -> None:
    suppressions.suppress("ana@example.com", reason="asked by phone: import")
    message = send_mail("x", "y", to="ana@example.com")
    assert shown_reason(reason_of(message)) == (
        "Na lista de supressão: ana@example.com: manual: asked by phone: import"
    )
    assert shown_suppression(message.events.get().detail) == "manual: asked by phone: import"
    assert shown_suppression("unsubscribe: By the link.") == "descadastro: Pelo link."
    assert shown_suppression("a word of somebody's") == "a word of somebody's"


def test_what_has_expired_says_so() -> None:
    message = send_mail("x", "y", to="ana@example.com", expires_at=timezone.now() + timedelta(hours=1))
    Message.objects.update(expires_at=timezone.now())
    expire([message.pk])
    assert shown_reason(reason_of(message)) == "Não foi enviada antes da validade (expires_at)."


def test_what_was_given_up_says_after_how_long(settings: Any) -> None:
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER,
        "RETRY_FOR": timedelta(seconds=1),
        "RETRY_BACKOFF": timedelta(seconds=9),
    }
    message = send_mail("x", "y", to="ana@example.com")
    fail_next("452 4.2.2 mailbox full")
    deliver_all()
    assert reason_of(message).startswith("Given up after 0:00:01: ana@example.com: 452")
    assert shown_reason(reason_of(message)).startswith("Desistência após 0:00:01: ana@example.com: 452 4.2.2")
    assert shown_reason("Given up after 3 days, 0:00:00: 452 busy") == "Desistência após 3 dias: 452 busy"


def test_the_next_try_and_a_doubt_are_told() -> None:
    assert shown_reason("The file is away. Next try at 2026-11-28 10:00:00 UTC.") == (
        "The file is away. Próxima tentativa em 2026-11-28 10:00:00 UTC."
    )
    assert shown_reason("450 busy (in doubt: the server may have taken it)") == (
        "450 busy (em dúvida: o servidor pode ter aceitado)"
    )
    assert shown_reason("It broke its worker 3 times: SIGKILL") == "Derrubou o worker 3 vezes: SIGKILL"
    assert shown_reason("4 soft bounces within 30 days") == "4 devoluções temporárias em 30 dias"


@pytest.mark.parametrize(
    "words",
    [
        "", "550 5.1.1 No such user", "import", "450 busy" + " (in doubt: the server may have taken it)" * 9000,
        "450 busy" + ". Next try at 2026-11-28 10:00:00 UTC." * 9000,
    ],
)  # fmt: skip
def test_what_a_server_says_stays_as_it_is(words: str) -> None:
    assert shown_reason(words)[:30] == words[:30]


def test_a_worker_that_died_of_a_mail_is_told() -> None:
    assert shown_reason("Its worker died 3 times while holding it: it may be the cause.") == (
        "O worker caiu 3 vezes enquanto a tratava: ela pode ser a causa."
    )


def test_each_reason_for_setting_a_batch_of_events_aside_is_told() -> None:
    sources = Sources()
    sources.reached([Place("tracking.processing", "process")])
    stored = sources.given(Place("tracking.processing", "_set_aside"), "problem")
    stored |= sources.given(Place("tracking.processing", "_Problems.add"), "problem")
    assert len(stored) == 4
    for problem in (one.replace(MARK, "7") for one in stored):
        assert shown_reason(problem) != problem
        assert shown_reason(f"{problem} The same holds for 3 other events.") == (
            f"{shown_reason(problem)} O mesmo vale para outros 3 eventos."
        )
    assert shown_reason("Event 666 cannot be recorded: ValueError in x.y, line 3.") == (
        "O evento 666 não pode ser registrado: ValueError in x.y, line 3."
    )


@pytest.mark.django_db
def test_the_pages_of_a_batch_of_events_say_why_it_is_set_aside(support: Client) -> None:
    batch = WebhookBatch.objects.create(
        key="k", received_at=timezone.now(), problem="It was begun 3 times without progress."
    )
    for page in ("", f"{batch.pk}/change/"):
        shown = support.get(f"/admin/congressy_mailer/webhookbatch/{page}").content.decode()
        assert "Foi iniciado 3 vezes sem avançar." in shown
