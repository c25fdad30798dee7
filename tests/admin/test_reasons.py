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
from congressy_mailer.models import Event, Message, State, TransportStatus, WebhookBatch
from congressy_mailer.outbox.expiry import expire
from congressy_mailer.replies import printable_text
from congressy_mailer.testing import deliver_all, fail_next

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
        "450 busy" + ". Next try at 2026-11-28 10:00:00 UTC." * 9000, "450 busy" + "Given up after 1: " * 9000,
        "Given up for " + "Given up after 1: " * 9000, "ana@example.com: 450 busy" + " (redirected to x)" * 9000,
    ],
)  # fmt: skip
def test_what_a_server_says_stays_as_it_is(words: str) -> None:
    assert shown_reason(words)[:30] == words[:30]


def test_what_was_said_of_each_recipient_is_told_one_by_one() -> None:
    assert shown_reason(
        "Given up after 2 days, 0:00:00: ana@example.com: The connection was lost: OSError: cable; eva@example.com: "
        "450 4.2.2 mailbox full; see: help; bob@example.com: Nothing was said. (in doubt: the server may have taken it)"
    ) == (
        "Desistência após 2 dias: ana@example.com: A conexão foi perdida: OSError: cable; eva@example.com: "
        "450 4.2.2 mailbox full; see: help; bob@example.com: Nada foi dito. (em dúvida: o servidor pode ter aceitado)"
    )
    # A mailbox on the worker's host.
    assert shown_reason("root: The server closed the connection.") == "root: O servidor fechou a conexão."
    assert shown_reason("root: 550 The server closed the connection.") == "root: 550 The server closed the connection."


def test_what_stands_within_a_reason_is_told_as_well() -> None:
    for stored, shown in (
        (
            "Its template or the code behind it left a transaction of the database open. Next try at 2026-11-28 "
            "10:00:00 UTC.",
            "O template dela, ou o código por trás dele, deixou aberta uma transação do banco de dados. Próxima "
            "tentativa em 2026-11-28 10:00:00 UTC.",
        ),
        (
            "It broke its worker 3 times: SoftTimeLimitExceeded while it was composed",
            "Derrubou o worker 3 vezes: SoftTimeLimitExceeded enquanto era composta",
        ),
        (
            "The mail server cannot be reached: OSError: the backend has opened no connection, and has not said why",
            "Não é possível acessar o servidor de e-mail: OSError: o backend não abriu conexão nenhuma e não disse por "
            "quê",
        ),
        (
            "KeyError in shop.views, line 3 (what else was said is not kept, because the message is sensitive)",
            "KeyError em shop.views, linha 3 (o resto do que foi dito não é guardado, porque a mensagem é "
            "confidencial)",
        ),
        (
            "ana@example.com: 550 5.1.1 (what else was said is not kept, because the message is sensitive)",
            "ana@example.com: 550 5.1.1 (o resto do que foi dito não é guardado, porque a mensagem é confidencial)",
        ),
        ("mail/hello.html, line 7: KeyError: 'x'", "mail/hello.html, linha 7: KeyError: 'x'"),
        ("250 accepted by the mail backend: 7", "250 aceita pelo backend de e-mail: 7"),
    ):
        assert shown_reason(stored) == shown


def test_a_reason_that_was_too_long_is_told_without_its_end() -> None:
    names = ", ".join(f"mail/{number}.txt" for number in range(200))
    stored = printable_text(f"There is no template 'mail/hello' here. Looked for: {names}; in: /srv. A worker that")
    shown = shown_reason(stored)
    assert shown.startswith("Não existe aqui o template 'mail/hello'. ")
    assert "…" in shown
    names = "x" * 2000
    assert shown_reason(printable_text(f"The tenant's schema '{names}' no longer exists.")).startswith("O esquema 'xxx")


def test_what_a_person_wrote_stays_as_it_is() -> None:
    for words in ("Ask Ana, line 3: she knows", "x: y", "Not sent: too late", "The moon is no longer here."):
        assert shown_reason(words) == words


def test_a_worker_that_died_of_a_mail_is_told() -> None:
    assert shown_reason("Its worker died 3 times while holding it: it may be the cause.") == (
        "O worker caiu 3 vezes enquanto a tratava: ela pode ser a causa."
    )


def test_the_reason_for_setting_a_batch_of_events_aside_is_told() -> None:
    for problem in ("It was begun 7 times without progress.", "Event 7 cannot be recorded: DataError."):
        assert shown_reason(f"{problem} The same holds for 3 other events.") == (
            f"{shown_reason(problem)} O mesmo vale para outros 3 eventos."
        )
    assert shown_reason("Event 666 cannot be recorded: ValueError in x.y, line 3.") == (
        "O evento 666 não pode ser registrado: ValueError em x.y, linha 3."
    )


def test_the_page_of_a_message_tells_reasons_and_leaves_the_words_of_others(support: Client) -> None:
    message = send_mail("x", "y", to="ana@example.com")
    reason = "Its worker died while handing it over; whether the mail server took it is not known."
    now = timezone.now()
    Message.objects.update(state=State.HELD, due_at=None, finished_at=now, reason=reason, reply="Nothing was said.")
    for type_, key in (("crashed", None), ("bounced", "7")):
        Event.objects.create(message=message, type=type_, at=now, recipient="ana@example.com", detail=reason, key=key)
    page = support.get(f"/admin/congressy_mailer/message/{message.pk}/change/").content.decode()
    # As its state and as an event; what SparkPost tells of the bounce are its own words.
    assert page.count("O worker caiu enquanto a entregava; não se sabe se o servidor de e-mail a aceitou.") == 2
    assert page.count(reason) == 1


def test_an_address_that_support_has_suppressed_and_sparkpost_refused_says_so(support: Client) -> None:
    message = send_mail("x", "y", to="ana@example.com")
    support.post(f"/admin/congressy_mailer/message/{message.pk}/act/", {"action": "suppress"})
    entry = suppressions.active().get()
    assert entry.reason == "By hand, in the admin"
    suppressions.active().update(refusal="SparkPost's HTTP API answered 400 at https://api.sparkpost.com: no such list")
    page = support.get(f"/admin/congressy_mailer/suppression/{entry.pk}/change/").content.decode()
    assert "À mão, no admin" in page
    assert "A API HTTP da SparkPost respondeu 400 em https://api.sparkpost.com: no such list" in page


def test_the_dashboard_says_why_a_mail_backend_is_unavailable(support: Client) -> None:
    now = timezone.now()
    reason = "The mail server refuses this account: 535 5.7.8 The server said nothing in time."
    TransportStatus.objects.create(unavailable_since=now, next_try_at=now, reason=reason)
    page = support.get("/admin/congressy_mailer/dashboard/").content.decode()
    assert "O servidor de e-mail recusa esta conta: 535 5.7.8 The server said nothing in time." in page


@pytest.mark.django_db
def test_the_pages_of_a_batch_of_events_say_why_it_is_set_aside(support: Client) -> None:
    batch = WebhookBatch.objects.create(
        key="k", received_at=timezone.now(), problem="It was begun 3 times without progress."
    )
    for page in ("", f"{batch.pk}/change/"):
        shown = support.get(f"/admin/congressy_mailer/webhookbatch/{page}").content.decode()
        assert "Foi iniciado 3 vezes sem avançar." in shown
