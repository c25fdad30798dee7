"""django-two-factor-auth sends a code by mail, here in the subject as well: a secret that no table keeps."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.models import User
from django.test import Client

from congressy_mailer.models import Message
from congressy_mailer.testing.local_sparkpost.mailbox import ReceivedMail


def test_a_code_logs_in_and_is_kept_nowhere(arrived: Callable[..., list[ReceivedMail]], client: Client) -> None:
    ana = User.objects.create_user("ana", "ana@example.com", "a secret")
    ana.emaildevice_set.create(name="default", email=ana.email, confirmed=True)  # type: ignore[attr-defined]
    step = "login_view-current_step"
    client.post("/account/login/", {"auth-username": "ana", "auth-password": "a secret", step: "auth"})
    (mail,) = arrived()
    code = str(mail.message["Subject"]).split()[0]
    assert code.isdigit()
    assert mail.recipients == ("ana@example.com",)
    body = mail.message.get_body(("plain",))
    assert body is not None
    assert code in body.get_content()
    (row,) = Message.objects.values()
    assert not [name for name, value in row.items() if code in str(value)]

    client.post("/account/login/", {"token-otp_token": code, step: "token"})
    assert client.session["_auth_user_id"] == str(ana.pk)
