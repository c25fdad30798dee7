"""This project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..mails import SENDER, SHARED, TEMPLATE, Mail
from .base import OverHttp, empty


class Congressy(OverHttp):
    name = "congressy_mailer"
    apps = ("congressy_mailer",)
    configuration = "as it comes; many mails by `send_bulk()`, which is given once what is the same for all"

    def settings(self, vendor: str, connections: int) -> Mapping[str, Any]:
        found: dict[str, Any] = {"CONGRESSY_EMAIL_SENDER": SENDER}
        if connections == 1:
            # By itself a process has as many as pay, over a long way.
            found["CONGRESSY_MAILER"] = {"MAX_CONNECTIONS": 1}
        return found

    def settings_over_http(self, host: str, key: str) -> Mapping[str, Any]:
        return {
            "EMAIL_BACKEND": "congressy_mailer.sparkpost.backend.EmailBackend",
            "CONGRESSY_MAILER": {"SPARKPOST_API_KEY": key, "SPARKPOST_API_HOST": host},
        }

    def send(self, mail: Mail) -> None:
        from congressy_mailer import send_mail

        send_mail(to=mail.address, template=TEMPLATE, context=mail.context)

    def send_many(self, mails: Iterable[Mail]) -> None:
        from congressy_mailer import send_bulk

        send_bulk(template=TEMPLATE, context=SHARED, recipients=((mail.address, mail.own_context) for mail in mails))

    def clear(self) -> None:
        from congressy_mailer.models import Batch, Event, Message, SearchKey

        empty(SearchKey, Event, Message, Batch)


system = Congressy()
