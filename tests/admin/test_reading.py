"""The outbox in the admin: everything to be seen, nothing to be changed, nothing confidential shown."""

from __future__ import annotations

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from congressy_mailer import send_bulk, send_mail
from congressy_mailer.admin.lists import short_time
from congressy_mailer.models import Message

pytestmark = pytest.mark.django_db

LIST = "/admin/congressy_mailer/message/"
BATCHES = "/admin/congressy_mailer/batch/"


def page(message: Message) -> str:
    return reverse("admin:congressy_mailer_message_change", args=[message.pk])


def test_list_and_page_show_the_message(support: Client) -> None:
    message = send_mail("Boleto", "Pague até sexta", to="ana@example.com", attachments=[("boleto.pdf", b"%PDF")])
    listed = support.get(LIST, {"q": "ana@example.com"}).content.decode()
    assert "ana@example.com" in listed
    assert "Boleto" in listed
    shown = support.get(page(message)).content.decode()
    for text in ("boleto.pdf", message.message_id.strip("<>")):
        assert text in shown


def test_search_finds_only_what_it_should(support: Client) -> None:
    send_mail("Boleto", "x", to="ana@example.com")
    assert "Boleto" not in support.get(LIST, {"q": "eva@example.com"}).content.decode()


def test_a_sensitive_message_is_shown_without_its_content(support: Client) -> None:
    message = send_mail("Sua senha", "código 991122", to="ana@example.com", sensitive=True)
    for address in (LIST, page(message)):
        shown = support.get(address).content.decode()
        assert "Sua senha" not in shown
        assert "991122" not in shown


def test_a_message_of_a_batch_is_shown_with_what_the_batch_says(support: Client) -> None:
    batch = send_bulk(["ana@example.com", "eva@example.com"], subject="Programa", message="Sexta às nove")
    assert "Programa" in support.get(LIST).content.decode()
    shown = support.get(page(batch.messages.all()[0])).content.decode()
    assert "Programa" in shown
    assert f"/batch/{batch.pk}/" in shown


def test_batches_are_shown_with_how_far_they_are(support: Client) -> None:
    batch = send_bulk(["ana@", "ana@example.com"], subject="Programa", message="x", on_invalid="skip", key="maio")
    listed = support.get(BATCHES, {"q": "maio"}).content.decode()
    assert "Programa" in listed
    shown = support.get(reverse("admin:congressy_mailer_batch_change", args=[batch.pk])).content.decode()
    assert re.search(r">1 <span [^>]*>na fila<", shown)
    assert "Não é um endereço de e-mail" in shown
    secret = send_bulk(["ana@example.com"], subject="Sua senha", message="991122", sensitive=True)
    assert f"<dt>Quando</dt><dd>{short_time(batch.created_at)}</dd>" in shown
    for address in (BATCHES, reverse("admin:congressy_mailer_batch_change", args=[secret.pk])):
        assert "Sua senha" not in support.get(address).content.decode()


def test_nothing_can_be_changed(support: Client) -> None:
    message = send_mail("Boleto", "x", to="ana@example.com")
    assert support.post(page(message), {"state": "sent"}).status_code == 403
    assert support.post(f"{page(message)}../delete/", {"post": "yes"}).status_code in (403, 404)
    assert support.get(f"{LIST}add/").status_code == 403
    message.refresh_from_db()
    assert message.state == "queued"


def test_strangers_see_nothing(client: Client) -> None:
    message = send_mail("Boleto", "x", to="ana@example.com")
    assert client.get(page(message)).status_code == 302
    client.force_login(User.objects.create_user("visitor", is_staff=True))
    assert client.get(LIST).status_code == 403


def test_a_batch_shows_its_progress_and_leads_to_its_messages(support: Client) -> None:
    batch = send_bulk([f"ana{number}@example.com" for number in range(4)], subject="Programa", message="x")
    Message.objects.filter(pk=batch.messages.all()[0].pk).update(state="sent", due_at=None)
    shown = support.get(reverse("admin:congressy_mailer_batch_change", args=[batch.pk])).content.decode()
    assert '<progress class="mailer-progress" value="1" max="4"' in shown
    assert "1 de 4 mensagens" in shown
    link = re.findall(r'href="([^"]*status=queued[^"]*)"', shown)[0].replace("&amp;", "&")
    assert len(support.get(link).context["cl"].result_list) == 3


def test_a_batch_is_cancelled_by_whoever_may(support: Client) -> None:
    batch = send_bulk(["ana@example.com", "eva@example.com"], subject="x", message="x")
    cancel = reverse("admin:congressy_mailer_batch_cancel", args=[batch.pk])
    change = reverse("admin:congressy_mailer_batch_change", args=[batch.pk])
    assert support.get(cancel).status_code == 403
    staff = User.objects.create_user("staff", is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename="view_batch"))
    support.force_login(staff)
    assert cancel not in support.get(change).content.decode()
    assert support.post(cancel).status_code == 403
    staff.user_permissions.add(Permission.objects.get(codename="cancel_batch"))
    assert cancel in support.get(change).content.decode()
    answer = support.post(cancel, follow=True).content.decode()
    assert "2 mensagens foram canceladas." in answer
    assert cancel not in answer
    assert not Message.objects.exclude(state="cancelled").exists()
    assert LogEntry.objects.get().object_id == str(batch.pk)
