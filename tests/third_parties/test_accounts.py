"""Sign-up, confirmation and forgotten passwords: mail of Django, django-allauth and djoser, and what its links do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client

from congressy_mailer.models import Message
from congressy_mailer.testing.local_sparkpost.mailbox import ReceivedMail

Arrived = Callable[..., list[ReceivedMail]]


def text_of(mail: ReceivedMail) -> str:
    part = mail.message.get_body(("plain", "html"))
    assert part is not None
    return str(part.get_content())


def link_in(mail: ReceivedMail) -> str:
    found = re.search(r"https?://\S+", text_of(mail))
    assert found, text_of(mail)
    return urlsplit(found[0]).path


def assert_only_for(mail: ReceivedMail, address: str) -> None:
    assert (mail.sender, mail.recipients) == ("site@example.com", (address,))
    # What its link opens was stored for as long as it waited.
    assert Message.objects.filter(sensitive=False).count() == 0
    assert [bytes(row.mime or b"") for row in Message.objects.all()] == [b""] * Message.objects.count()


@pytest.fixture
def ana(arrived: Arrived) -> User:
    return User.objects.create_user("ana", "ana@example.com", "an old secret")


def test_the_password_reset_of_django(arrived: Arrived, ana: User, client: Client) -> None:
    client.post("/auth/password_reset/", {"email": ana.email})
    (mail,) = arrived()
    assert_only_for(mail, ana.email)
    form = client.get(link_in(mail), follow=True)
    client.post(form.redirect_chain[-1][0], {"new_password1": "a-new-secret-1", "new_password2": "a-new-secret-1"})
    assert client.login(username="ana", password="a-new-secret-1")


def test_a_confirmation_of_allauth(arrived: Arrived, client: Client) -> None:
    from allauth.account.models import EmailAddress

    signed_up = {"email": "bia@example.com", "password1": "a-secret-of-bia", "password2": "a-secret-of-bia"}
    assert client.post("/accounts/signup/", signed_up).status_code == 302
    (mail,) = arrived()
    assert_only_for(mail, "bia@example.com")
    client.post(link_in(mail))
    assert EmailAddress.objects.get(email="bia@example.com").verified


def test_a_password_reset_of_allauth(arrived: Arrived, ana: User, client: Client) -> None:
    client.post("/accounts/password/reset/", {"email": ana.email})
    (mail,) = arrived()
    assert_only_for(mail, ana.email)
    form = client.get(link_in(mail), follow=True)
    client.post(form.redirect_chain[-1][0], {"password1": "a-new-secret-2", "password2": "a-new-secret-2"})
    assert client.login(username="ana", password="a-new-secret-2")


def test_allauth_writes_to_somebody_unknown(arrived: Arrived, client: Client) -> None:
    client.post("/accounts/password/reset/", {"email": "nobody@example.com"})
    (mail,) = arrived()
    assert_only_for(mail, "nobody@example.com")


def test_an_activation_of_djoser(arrived: Arrived, client: Client) -> None:
    made = client.post("/api/users/", {"username": "caio", "email": "caio@example.com", "password": "a-secret-of-caio"})
    assert made.status_code == 201, made.content
    (mail,) = arrived()
    assert_only_for(mail, "caio@example.com")
    assert client.post("/api/users/activation/", uid_and_token(mail)).status_code == 204
    assert User.objects.get(username="caio").is_active


def test_a_password_reset_of_djoser(arrived: Arrived, ana: User, client: Client) -> None:
    assert client.post("/api/users/reset_password/", {"email": ana.email}).status_code == 204
    (mail,) = arrived()
    assert_only_for(mail, ana.email)
    confirmed = {**uid_and_token(mail), "new_password": "a-new-secret-3"}
    assert client.post("/api/users/reset_password_confirm/", confirmed).status_code == 204
    assert client.login(username="ana", password="a-new-secret-3")


def uid_and_token(mail: ReceivedMail) -> dict[str, Any]:
    uid, token = link_in(mail).rsplit("/", 2)[-2:]
    return {"uid": uid, "token": token}


def test_a_sign_up_that_is_rolled_back_writes_to_nobody(arrived: Arrived, client: Client) -> None:
    from django.db import transaction

    signed_up = {"email": "bia@example.com", "password1": "a-secret-of-bia", "password2": "a-secret-of-bia"}
    with transaction.atomic():
        client.post("/accounts/signup/", signed_up)
        assert Message.objects.count() == 1
        transaction.set_rollback(True)
    client.post("/accounts/password/reset/", {"email": "ana@example.com"})
    (mail,) = arrived()
    assert mail.recipients == ("ana@example.com",)
