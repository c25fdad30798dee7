"""Mails about an object of the host's: kept with the mail, found from the object, shown on its page."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.template import engines
from django.test import Client, RequestFactory

from congressy_mailer import Recipient, mails_about, send_bulk, send_mail
from congressy_mailer.admin.about import MailsAboutMixin
from congressy_mailer.exceptions import InvalidOption
from congressy_mailer.models import Batch, Message, SearchKey
from congressy_mailer.models.about import about_object

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture(autouse=True)
def nothing_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("congressy_mailer.mail.publish_on_commit", lambda ids: None)


@pytest.fixture
def order() -> Group:
    """Any object of the host's."""
    return Group.objects.create(name="Pedido 4711")


def test_a_mail_keeps_what_it_is_about(order: Group) -> None:
    first = send_mail("x", "x", to="ana@example.com", about=order)
    second = send_mail("x", "x", to="ana@example.com", about=order)
    send_mail("x", "x", to="ana@example.com", about=Group.objects.create(name="another"))
    send_mail("x", "x", to="ana@example.com", about=User.objects.create(id=order.pk, username="same key"))
    assert list(mails_about(order)) == [second, first]
    first.refresh_from_db()
    assert (first.about_model, first.about_id, first.about_name) == ("auth.group", str(order.pk), "Pedido 4711")
    assert about_object(first) == order
    order.delete()
    assert about_object(first) is None
    assert about_object(Message(about_model="no.model", about_id="1")) is None
    assert about_object(Message(about_model="auth.group", about_id="x")) is None


def test_a_proxy_is_the_same_object() -> None:
    class Proxy(User):
        class Meta:
            proxy = True
            app_label = "auth"

    user = User.objects.create_user("ana")
    mail = send_mail("x", "x", to="ana@example.com", about=Proxy.objects.get())
    assert list(mails_about(user)) == [mail]


@pytest.mark.parametrize("about", ["order 1", 4711, Group, Group(name="not saved")])
def test_what_is_no_saved_instance_is_an_error(about: Any) -> None:
    with pytest.raises(InvalidOption, match="about"):
        send_mail("x", "x", to="ana@example.com", about=about)
    assert not Message.objects.exists()


def test_mails_of_a_batch_are_about_what_their_recipients_say(order: Group) -> None:
    congress = Group.objects.create(name="Congresso\t2026")
    congress.name += "\0"
    batch = send_bulk(
        [Recipient(to="ana@example.com", about=order), "eva@example.com"], subject="x", message="x", about=congress
    )
    assert [message.to for message in mails_about(order)] == [["ana@example.com"]]
    page = OrderAdmin(Group, admin.site)
    assert f"/batch/{batch.pk}/" in page.mails_about_it(congress)
    assert "ana@example.com" in page.mails_about_it(order)
    # A million rows need not repeat what the batch says.
    assert not mails_about(congress).exists()
    assert Batch.objects.get(about_model="auth.group", about_id=str(congress.pk)) == batch
    assert Batch.objects.get().about_name == "Congresso 2026"
    assert set(SearchKey.objects.values_list("key", flat=True)) == {"pedido 4711", "4711"}


def test_nothing_is_about_an_object_that_was_not_saved() -> None:
    with pytest.raises(InvalidOption):
        mails_about(Group(name="x"))


class OrderAdmin(MailsAboutMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    fieldsets = ((None, {"fields": ["name"]}),)


def test_the_page_of_an_object_shows_its_mails(order: Group, rf: RequestFactory) -> None:
    for number in range(25):
        send_mail(f"Boleto <{number}>", "x", to="ana@example.com", about=order)
    send_mail("Your code", "x", to="ana@example.com", about=order, sensitive=True)
    request = rf.get("/")
    request.user = User.objects.create_superuser("support")
    page = OrderAdmin(Group, admin.site)
    assert [title for title, _ in page.get_fieldsets(request, order)][1:] == ["E-mails"]
    assert len(page.get_fieldsets(request)) == 1
    shown = page.mails_about_it(order)
    assert "Boleto &lt;24&gt;" in shown
    assert "Your code" not in shown
    assert shown.count("<li>") == 20
    assert f"?about=auth.group%3A{order.pk}" in shown
    request.user = User.objects.create_user("clerk", is_staff=True)
    assert len(page.get_fieldsets(request, order)) == 1
    assert "mails_about_it" not in str(page.get_fieldsets(request, order))


def test_a_batch_about_an_object_is_shown_by_the_subject_of_its_template(order: Group) -> None:
    send_bulk(["ana@example.com"], template="mail/reminder", context={"evento": order}, about=order)
    assert ">Pedido 4711: até amanhã, …</a>" in OrderAdmin(Group, admin.site).mails_about_it(order)


def test_the_list_shows_the_mails_about_one_object(client: Client, order: Group) -> None:
    mail = send_mail("x", "x", to="ana@example.com", about=order)
    send_mail("x", "x", to="ana@example.com")
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_message"))
    client.force_login(user)
    answer = client.get("/admin/congressy_mailer/message/", {"about": f"auth.group:{order.pk}"})
    assert list(answer.context["cl"].result_list) == [mail]
    assert "Pedido 4711" in answer.content.decode()


def test_a_template_of_the_host_lists_them(order: Group) -> None:
    send_mail("x", "x", to="ana@example.com", about=order)
    source = (
        "{% load congressy_mailer %}{% mails_about order as mails %}"
        "{% for mail in mails %}{{ mail.get_state_display }}{% endfor %}"
    )
    assert engines["django"].from_string(source).render({"order": order}) == "na fila"
