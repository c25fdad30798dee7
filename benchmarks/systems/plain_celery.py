"""A Celery task of one's own that calls ``send()``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import shared_task

from ..mails import SENDER, Mail
from .base import System

_URGENT = "urgent"


@shared_task(ignore_result=True)
def deliver(subject: str, text: str, html: str, address: str) -> None:
    """What the guides to Celery and Django have people write."""
    from django.core.mail import EmailMultiAlternatives

    mail = EmailMultiAlternatives(subject, text, SENDER, [address])
    mail.attach_alternative(html, "text/html")
    mail.send()


class PlainCelery(System):
    name = "Celery and send()"
    configuration = "a task for each mail; urgent mail in a queue of its own, which the same worker serves"

    def settings(self, vendor: str, connections: int) -> Mapping[str, Any]:
        return {"CELERY_IMPORTS": [__name__]}

    def workers(self, vendor: str, processes: int) -> list[list[str]]:
        return [[*arguments, "-Q", f"celery,{_URGENT}"] for arguments in super().workers(vendor, processes)]

    def send(self, mail: Mail) -> None:
        deliver.delay(*mail.render(), mail.address)

    def send_urgent(self, mail: Mail) -> None:
        deliver.apply_async((*mail.render(), mail.address), queue=_URGENT)

    def clear(self) -> None:
        """It has no tables."""


system = PlainCelery()
