"""Django's mail over the queue, in each way of configuring it."""

from __future__ import annotations

from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

import django
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail.backends.base import BaseEmailBackend

QUEUE = "congressy_mailer.backends.EmailBackend"
SMTP = "django.core.mail.backends.smtp.EmailBackend"
WORLDS = ["EMAIL_BACKEND", "MAILERS"] if django.VERSION >= (6, 1) else ["EMAIL_BACKEND"]


def put_in_force(settings: Any, world: str, target: str, options: dict[str, Any], **queue: Any) -> None:
    """Have Django send over the queue, and the queue over a backend of another kind than the suite's."""
    behind = {"BACKEND": target, "OPTIONS": options}
    if world == "MAILERS":
        # Beside it Django knows no EMAIL_*.
        for name in [name for name in dir(settings) if name.startswith("EMAIL_")]:
            delattr(settings, name)
        settings.MAILERS = {"default": {"BACKEND": QUEUE, "OPTIONS": {"using": "behind", **queue}}, "behind": behind}
        return
    settings.EMAIL_BACKEND = QUEUE
    settings.CONGRESSY_MAILER = {
        **settings.CONGRESSY_MAILER, "TRANSPORTS": {"behind": behind},
        "BACKEND_OPTIONS": {"using": "behind", **queue},
    }  # fmt: skip


class Collecting(BaseEmailBackend):
    """A backend of another kind than SMTP: it looks into mails, as those of providers do."""

    mails: list[Any] = []

    def send_messages(self, email_messages: Any) -> int:
        self.mails.extend(email_messages)
        return len(email_messages)


def open_default() -> Any:
    """Django's default backend."""
    return mail.mailers.default if django.VERSION >= (6, 1) else mail.get_connection()


def rich_mail(**options: Any) -> EmailMultiAlternatives:
    """A mail with all that Django's have."""
    rich = EmailMultiAlternatives(
        "Inscrição", "Olá, Ana.", "Evento <evento@example.com>", ["Ana <ana@example.com>"], cc=["eva@example.com"],
        bcc=["rui@example.com"], reply_to=["resposta@example.com"], headers={"X-Order": "7"}, **options,
    )  # fmt: skip
    rich.attach_alternative("<p>Olá, <b>Ana</b>.</p>", "text/html")
    rich.attach("nota.txt", "ção", "text/plain")
    rich.attach("boleto.pdf", b"%PDF-1", "application/pdf")
    return rich


class Signed(EmailMessage):
    """Signs what it says: nobody may write it anew."""

    charset = "utf-8"

    def message(self) -> Any:
        signed = MIMEMultipart("signed", protocol="application/pgp-signature", micalg="pgp-sha256")
        text = MIMEText("Olá\nFrom here on…\n", "plain")
        text.set_payload("Olá ção\nFrom here on\n".encode(self.charset))
        text.replace_header("Content-Transfer-Encoding", "8bit")
        signed.attach(text)
        signed.attach(MIMEText("-----BEGIN PGP SIGNATURE-----\n", "plain"))
        signed["Subject"], signed["From"], signed["To"] = "Signed", self.from_email, self.to[0]
        return signed


class Failing:
    """A database that takes no messages."""

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("INSERT"):
            raise django.db.OperationalError("server has gone away")
        return execute(sql, params, many, context)
