"""django-celery-email: a mail backend that hands mails to a Celery task.

As django-celery-email-reboot, the branch that is looked after: the original does not run on Django 6.0 and newer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from ..mails import Mail
from .base import OverHttp


class CeleryEmail(OverHttp):
    name = "django-celery-email"
    apps = ("djcelery_email",)
    configuration = (
        "as django-celery-email-reboot, which runs on Django 6.1; `CELERY_EMAIL_CHUNK_SIZE = 100` in place of 10, so "
        "that one connection serves 100 mails; many mails by one `send_messages()` for 100 of them"
    )

    def settings(self, vendor: str, connections: int) -> Mapping[str, Any]:
        return {
            "EMAIL_BACKEND": "djcelery_email.backends.CeleryEmailBackend",
            "CELERY_EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "CELERY_EMAIL_CHUNK_SIZE": 100,
        }

    def settings_over_http(self, host: str, key: str) -> Mapping[str, Any]:
        return {
            "CELERY_EMAIL_BACKEND": "anymail.backends.sparkpost.EmailBackend",
            "ANYMAIL": {"SPARKPOST_API_KEY": key, "SPARKPOST_API_URL": f"https://{host}/api/v1"},
        }

    def send(self, mail: Mail) -> None:
        mail.django_message().send()

    def send_many(self, mails: Iterable[Mail]) -> None:
        from django.core.mail import get_connection

        connection = get_connection()
        remaining = iter(mails)
        while part := [mail.django_message() for mail in islice(remaining, 100)]:
            connection.send_messages(part)

    def clear(self) -> None:
        """It has no tables."""


system = CeleryEmail()
