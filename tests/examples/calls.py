"""Calls as readers write them beside the pages' own, each with the types that it takes and gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, assert_type

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _

from congressy_mailer import (
    Attachment,
    Priority,
    Recipient,
    asend_bulk,
    asend_mail,
    mails_about,
    send_bulk,
    send_mail,
)
from congressy_mailer.models import Batch, Message
from congressy_mailer.testing import OutboxMail, outbox


def lazy_text() -> None:
    assert_type(send_mail(_("Welcome"), _("Hello."), to="ana@example.com", html_message=_("<p>Hello.</p>")), Message)
    send_mail("x", "y", to="ana@example.com", alternatives=[(_("Hello."), "text/x-amp-html")])
    assert_type(send_bulk(["ana@example.com"], subject=_("News"), message=_("Hello.")), Batch)


def sequences_of_any_kind(addresses: tuple[str, ...]) -> None:
    send_mail(
        "x", "y", to=addresses, cc=list(addresses), tags=("a",), priority=Priority.NORMAL, headers={"X-Order": "7"},
        attachments=[("a.txt", "x", "text/plain"), "/srv/terms.pdf", Attachment("a.txt", b"x")],
    )  # fmt: skip


def recipients_of_any_kind(context: dict[str, object], ready: list[Recipient], users: QuerySet[User]) -> None:
    send_bulk(users.values_list("email", flat=True), template="news/october")
    send_bulk(((user.email, {"user": user}) for user in users), template="news/october", context=context)
    send_bulk([("ana@example.com", context)], template="news/october")
    send_bulk(ready, template="news/october")

    def generated() -> Iterator[Recipient]:
        yield Recipient(to=["ana@example.com"], context=context, attachments=["/srv/terms.pdf"])

    send_bulk(generated(), template="news/october", on_invalid="skip")


async def asynchronous(arguments: dict[str, Any]) -> None:
    assert_type(await asend_mail("x", "y", to="ana@example.com"), Message)
    assert_type(await asend_bulk(["ana@example.com"], template="news/october"), Batch)
    await asend_mail(**arguments)
    # What is wrong there is seen as it is in send_mail().
    await asend_mail("x", "y", too="ana@example.com")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def what_comes_back(batch: Batch, user: User) -> None:
    assert_type(batch.progress().done, bool)
    assert_type(mails_about(user), QuerySet[Message, Message])
    assert_type(outbox(), list[OutboxMail])
