"""The admin's lists: what finds a mail, how many queries that takes, and what a filter shows."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from congressy_mailer import Recipient, send_bulk, send_mail
from congressy_mailer.admin.lists import first_id
from congressy_mailer.models import Batch, Message, RecipientStatus, SearchKey, State, new_id
from congressy_mailer.outbox import purge
from congressy_mailer.outbox.search import find, fold

pytestmark = [pytest.mark.django_db, pytest.mark.database]

LIST = "/admin/congressy_mailer/message/"
BATCHES = "/admin/congressy_mailer/batch/"


@pytest.fixture(autouse=True)
def nothing_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("congressy_mailer.mail.publish_on_commit", lambda ids: None)


def found(client: Client, text: str) -> set[uuid.UUID]:
    answer = client.get(LIST, {"q": text})
    assert answer.status_code == 200
    return {message.pk for message in answer.context["cl"].result_list}


def test_a_mail_is_found_by_each_of_its_recipients(support: Client) -> None:
    mail = send_mail("x", "x", to="Ana@Example.com", cc="eva@example.org", bcc=["bob@example.net", "leo@example.net"])
    send_mail("x", "x", to="other@example.com")
    for text in ("ana@example.com", " ANA@example.com ", "eva@example.org", "bob@example.net", "leo@example.net"):
        assert found(support, text) == {mail.pk}, text
    # By the beginning.
    for text in ("ana@ex", "eva@", "bob"):
        assert found(support, text) == {mail.pk}, text
    assert found(support, "nobody@example.com") == set()


def test_a_mail_is_found_by_the_name_of_a_recipient(support: Client) -> None:
    mail = send_mail("x", "x", to="José da Silva <jose@example.com>", cc='"Núñez, Ana" <ana@example.com>')
    for text in ("José", "jose", "JOSÉ DA", "silva", "da silva", "Nunez", "ana"):
        assert found(support, text) == {mail.pk}, text
    assert found(support, "ilva") == set()


def test_a_mail_is_found_by_its_id_and_by_its_message_id(support: Client) -> None:
    mail = send_mail("x", "x", to="ana@example.com")
    other = send_mail("x", "x", to="ana@example.com", headers={"Message-ID": "<Own.1@example.com>"})
    for text in (str(mail.pk), mail.pk.hex.upper(), mail.message_id, mail.message_id.strip("<>")):
        assert found(support, text) == {mail.pk}, text
    for text in ("<Own.1@example.com>", "Own.1@example.com"):
        assert found(support, text) == {other.pk}, text
    assert found(support, str(new_id())) == set()


def test_a_mail_is_found_by_what_it_is_about(support: Client) -> None:
    about = User.objects.create_user("Inscrição 4711")
    mail = send_mail("x", "x", to="ana@example.com", about=about)
    for text in ("4711", "inscricao", "Inscrição 4711"):
        assert found(support, text) == {mail.pk}, text


def test_mails_of_a_batch_are_found(support: Client) -> None:
    batch = send_bulk(
        ["ana@example.com", "Zoë <zoe@example.com>", Recipient(to="a@example.com", cc="eva@example.com")],
        subject="Programa", message="x",
    )  # fmt: skip
    by_address = {message.to[0]: message.pk for message in batch.messages.all()}
    assert found(support, "ana@example.com") == {by_address["ana@example.com"]}
    assert found(support, "zoe") == {by_address["Zoë <zoe@example.com>"]}
    assert found(support, "eva@example.com") == {by_address["a@example.com"]}
    assert found(support, "progr") == set(by_address.values())


def test_a_subject_is_found_unless_the_mail_is_sensitive(support: Client) -> None:
    mail = send_mail("Boleto de maio", "x", to="ana@example.com")
    send_mail("Boleto secreto", "x", to="ana@example.com", sensitive=True)
    assert found(support, "boleto") == {mail.pk}


def test_most_mails_need_no_further_row_to_be_found() -> None:
    with CaptureQueriesContext(connection) as queries:
        send_mail("x", "x", to="ana@example.com")
    inserts = [query["sql"] for query in queries if query["sql"].startswith("INSERT")]
    assert len(inserts) == 1
    assert not SearchKey.objects.exists()


def test_search_goes_when_the_message_does() -> None:
    mail = send_mail("x", "x", to=["ana@example.com", "José <jose@example.com>"])
    assert SearchKey.objects.filter(message=mail).count() == 2
    mail.delete()
    assert not SearchKey.objects.exists()


def test_a_purge_takes_what_a_message_was_found_by() -> None:
    mail = send_mail("x", "x", to=["ana@example.com", "José <jose@example.com>"])
    long_ago = timezone.now() - timedelta(days=900)
    Message.objects.filter(pk=mail.pk).update(
        state=State.SENT, due_at=None, finished_at=long_ago, content_dropped_at=long_ago
    )
    purge()
    assert not Message.objects.exists()
    assert not SearchKey.objects.exists()


@pytest.mark.parametrize(
    ("name", "folded"),
    [("José  da\tSilva", "jose da silva"), ("STRASSE", "strasse"), ("Straße", "strasse"), ("Łódź", "łodz"), ("", "")],
)
def test_names_are_compared_without_case_and_accents(name: str, folded: str) -> None:
    assert fold(name) == folded


def test_the_newest_of_many_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("congressy_mailer.outbox.search.MOST_FOUND", 3)
    mails = [send_mail("x", "x", to="ana@example.com") for _ in range(5)]
    assert find("ana@example.com") == [mail.pk for mail in reversed(mails)][:3]


def test_the_list_is_newest_first_and_takes_few_queries(support: Client) -> None:
    for number in range(8):
        send_mail(f"Mail {number}", "x", to=f"Ana {number} <ana{number}@example.com>", cc="eva@example.com")
    send_bulk([f"b{number}@example.com" for number in range(60)], subject="Programa", message="x")
    for query, most in (
        ({}, 6),
        ({"q": "eva@example.com"}, 16),
        ({"q": "nothing at all"}, 18),
        ({"status": "sent"}, 6),
    ):
        with CaptureQueriesContext(connection) as queries:
            answer = support.get(LIST, query)
        assert len(queries) <= most, "\n".join(one["sql"] for one in queries)
        shown = [message.pk for message in answer.context["cl"].result_list]
        assert shown == sorted(shown, reverse=True)
    assert len(support.get(LIST).context["cl"].result_list) == 50


def test_the_subjects_of_templates_are_shown_and_take_few_queries(
    support: Client, django_assert_max_num_queries: Any
) -> None:
    about = User.objects.create(username="4711")
    context = {"nome": "Ana & Zé", "cidade": "Recife"}
    own = [
        send_mail(to=f"ana{number}@example.com", template="mail/reminder", context=context, about=about)
        for number in range(5)
    ]
    send_bulk(
        [Recipient(to=f"b{number}@example.com", context={"nome": "Eva"}) for number in range(5)],
        template="mail/reminder", context={**context, "evento": about},
    )  # fmt: skip
    hidden = send_mail(to="leo@example.com", template="mail/reminder", context=context, sensitive=True)
    with django_assert_max_num_queries(9):
        page = support.get(LIST).content.decode()
    assert page.count("Semana: até amanhã, Ana &amp; Zé") == 5
    assert page.count("4711: até amanhã, Eva") == 5
    assert "mail/reminder" not in page
    assert "(confidencial)" in page
    assert "até amanhã, Ana" in support.get(f"{LIST}{own[0].pk}/change/").content.decode()
    assert "até amanhã" not in support.get(f"{LIST}{hidden.pk}/change/").content.decode()


def test_a_template_that_is_gone_is_shown_by_its_name(support: Client) -> None:
    first, second = (send_mail(to="a@example.com", template="mail/reminder", context={"nome": "Ana"}) for _ in range(2))
    Message.objects.filter(pk=first.pk).update(template="gone/away")
    Message.objects.filter(pk=second.pk).update(template="mail/hello", context={"broken": {"$": "?"}})
    page = support.get(LIST).content.decode()
    assert "gone/away" in page
    assert "mail/hello" in page


@pytest.fixture
def many_batches(tmp_path: Path, settings: Any) -> list[Batch]:
    """Batches of two templates, one of which greets each recipient, about objects of the host's."""
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path, *settings.TEMPLATES[0]["DIRS"]]}]
    (tmp_path / "programme.txt").write_text("x")
    (tmp_path / "programme_subject.txt").write_text("Programa: {{ evento.username }}{% if vip %} VIP{% endif %}")
    batches = []
    for number in range(50):
        user = User.objects.create(username=f"Congresso {number} & Cia.")
        template = "programme" if number % 2 else "mail/reminder"
        to = Recipient(to=f"ana{number}@example.com", context={"nome": "Ana", "vip": True})
        batches.append(send_bulk([to], template=template, context={"evento": user}, about=user, language="pt-br"))
    return batches


def test_batches_are_listed_by_the_subjects_of_their_templates(
    support: Client, many_batches: list[Batch], django_assert_max_num_queries: Any
) -> None:
    # What one recipient alone reads is not shown to people who may see batches and no messages.
    with django_assert_max_num_queries(8):
        page = support.get(BATCHES).content.decode()
    for number in range(50):
        name = f"Congresso {number} &amp; Cia."
        assert (f"Programa: {name}<" if number % 2 else f"{name}: até amanhã, …<") in page
    assert "mail/reminder" not in page
    assert (
        "Programa: Congresso 49 &amp; Cia.<" in support.get(f"{BATCHES}{many_batches[-1].pk}/change/").content.decode()
    )


def batches_found(client: Client, text: str) -> set[uuid.UUID]:
    return {batch.pk for batch in client.get(BATCHES, {"q": text}).context["cl"].result_list}


def test_a_batch_is_found_by_its_subject_its_key_and_its_template(support: Client) -> None:
    one = send_bulk(["ana@example.com"], subject="Programa do Congresso", message="x", key="mailing-7")
    other = send_bulk(["ana@example.com"], template="mail/reminder", context={"evento": "Jornada"})
    send_bulk(["ana@example.com"], subject="Programa secreto", message="x", sensitive=True)
    for text in ("programa do congresso", "Congresso Programa", "rama", "mailing-7", "congresso mailing"):
        assert batches_found(support, text) == {one.pk}, text
    assert batches_found(support, "reminder") == {other.pk}
    assert batches_found(support, "programa") == {one.pk}
    # Nothing of a sensitive mail is found out by searching for it.
    for text in ("secreto", "jornal"):
        assert batches_found(support, text) == set(), text


def test_a_batch_is_found_by_the_subject_of_its_template_as_the_list_shows_it(
    support: Client, many_batches: list[Batch], django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(16):
        assert batches_found(support, "PROGRAMA congresso 49 cia") == {many_batches[49].pk}
    assert batches_found(support, "ate amanha congresso 48") == {many_batches[48].pk}
    # What one recipient alone reads.
    assert batches_found(support, "vip") == set()
    hidden = send_bulk(["eva@example.com"], template="mail/reminder", context={"evento": "Oculto"}, sensitive=True)
    assert batches_found(support, "oculto") == set()
    assert batches_found(support, str(hidden.template)) >= {hidden.pk}


def test_only_the_newest_batches_have_their_templates_rendered_for_a_search(
    support: Client, many_batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("congressy_mailer.admin.content._NEWEST", 10)
    assert batches_found(support, "Congresso") == {batch.pk for batch in many_batches[-10:]}
    monkeypatch.setattr("congressy_mailer.admin.content._MOST_SECONDS", -1)
    assert batches_found(support, "Congresso") == set()


def test_a_batch_without_a_subject_to_be_shown_is_listed_by_its_template(support: Client) -> None:
    context = {"evento": "Congresso"}
    hidden, gone, broken, dropped, _ = (
        send_bulk(["ana@example.com"], template="mail/reminder", context=context, sensitive=not number)
        for number in range(5)
    )
    Batch.objects.filter(pk=gone.pk).update(template="gone/away")
    Batch.objects.filter(pk=broken.pk).update(context={"broken": {"$": "?"}})
    Batch.objects.filter(pk=dropped.pk).update(context=None, content_dropped_at=timezone.now())
    page = support.get(BATCHES).content.decode()
    assert page.count("Congresso: até amanhã, …") == 1
    assert page.count("gone/away") == 1
    assert page.count("mail/reminder") == 2
    assert page.count("(confidencial)") == 1
    assert "Congresso" not in support.get(f"{BATCHES}{hidden.pk}/change/").content.decode()


def test_subjects_that_take_too_long_are_left_out(
    support: Client, many_batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("congressy_mailer.admin.content._MOST_SECONDS", -1)
    page = support.get(BATCHES).content.decode()
    assert page.count("mail/reminder") == 25
    assert "até amanhã" not in page
    assert "até amanhã" not in support.get(LIST).content.decode()


def test_no_list_counts_all_rows(support: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("congressy_mailer.admin.lists.MOST_COUNTED", 5)
    for _ in range(8):
        send_mail("x", "x", to="ana@example.com")
    with CaptureQueriesContext(connection) as queries:
        assert support.get(LIST).context["cl"].result_count == 5
    counts = [query["sql"] for query in queries if "COUNT(" in query["sql"].upper()]
    assert counts
    assert all("LIMIT 5" in query for query in counts)


def test_the_filter_by_state_shows_what_is_in_it(support: Client) -> None:
    mails = {state: send_mail("x", "x", to="ana@example.com") for state in State}
    for state, mail in mails.items():
        due = None if state in ("sent", "failed", "cancelled", "expired", "suppressed", "held") else timezone.now()
        Message.objects.filter(pk=mail.pk).update(state=state, due_at=due)
    for state, mail in mails.items():
        shown = support.get(LIST, {"status": state.value}).context["cl"].result_list
        assert [message.pk for message in shown] == [mail.pk], state


def test_what_went_wrong_after_sending_is_shown_by_filter(support: Client) -> None:
    mail = send_mail("x", "x", to="ana@example.com")
    send_mail("x", "x", to="eva@example.com")
    status = RecipientStatus.objects.create(message=mail, recipient="ana@example.com", arrival="delivered")
    assert not support.get(LIST, {"status": "bounced"}).context["cl"].result_list
    for change in ({"arrival": "bounced"}, {"arrival": "rejected"}, {"unsubscribed_at": timezone.now()},
                   {"complained_at": timezone.now()}):  # fmt: skip
        RecipientStatus.objects.filter(pk=status.pk).update(**change)
        status.refresh_from_db()
        assert status.trouble == status.delivery
        shown = support.get(LIST, {"status": status.delivery}).context["cl"].result_list
        assert [message.pk for message in shown] == [mail.pk]


def test_the_filters_by_time_and_batch_are_ranges_of_keys(support: Client) -> None:
    old_id = first_id(timezone.now() - timedelta(days=3))
    Message.objects.create(id=old_id, created_at=timezone.now() - timedelta(days=3), from_email="a@example.com")
    mail = send_mail("x", "x", to="ana@example.com")
    batch = send_bulk(["b@example.com"], subject="x", message="x")
    send_bulk(["c@example.com"], subject="x", message="x")
    in_batch = batch.messages.get().pk
    assert {one.pk for one in support.get(LIST, {"since": "7"}).context["cl"].result_list} >= {old_id, mail.pk}
    assert old_id not in {one.pk for one in support.get(LIST, {"since": "1"}).context["cl"].result_list}
    assert [one.pk for one in support.get(LIST, {"batch": str(batch.pk)}).context["cl"].result_list] == [in_batch]
    for nonsense in ("x", str(new_id())):
        assert not support.get(LIST, {"batch": nonsense}).context["cl"].result_list
