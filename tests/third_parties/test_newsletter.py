"""django-newsletter writes to each subscriber, and logs an error of a mail instead of raising it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.sites.models import Site
from django.core.files.base import ContentFile
from django.test import Client

from congressy_mailer.testing.local_sparkpost.mailbox import ReceivedMail

Arrived = Callable[..., list[ReceivedMail]]
PDF = b"%PDF-1\x00\xff" * 100


@pytest.fixture
def news(arrived: Arrived) -> Any:
    from newsletter.models import Newsletter

    newsletter = Newsletter.objects.create(title="Notícias", slug="news", email="news@example.com", sender="Redação")
    newsletter.site.add(Site.objects.get())
    return newsletter


def test_who_subscribes_is_asked_to_confirm(arrived: Arrived, news: Any, client: Client) -> None:
    from newsletter.models import Subscription

    client.post("/newsletter/news/subscribe/", {"name_field": "Ana", "email_field": "ana@example.com"})
    (mail,) = arrived()
    assert (mail.sender, mail.recipients) == ("news@example.com", ("ana@example.com",))
    body = mail.message.get_body(("plain",))
    assert body is not None
    assert Subscription.objects.get().activation_code in body.get_content()


def test_an_issue_reaches_each_subscriber_with_its_file(arrived: Arrived, news: Any) -> None:
    from newsletter.models import Article, Attachment, Message, Submission, Subscription

    people = [("Bia", "bia@example.com"), ("Conceição", "cora@example.com"), ("", "eva@example.com")]
    for name, address in people:
        Subscription.objects.create(newsletter=news, name_field=name, email_field=address, subscribed=True)
    issue = Message.objects.create(title="Edição 1", slug="1", newsletter=news)
    Article.objects.create(title="Um", text="<p>Texto</p>", post=issue, sortorder=10)
    Attachment(message=issue).file.save("programa.pdf", ContentFile(PDF))
    submission = Submission.from_message(issue)
    submission.prepared = True
    submission.save()
    Submission.submit_queue()
    submission.refresh_from_db()
    assert submission.sent

    mails = {mail.recipients[0]: mail.message for mail in arrived(3)}
    assert {address: str(mail["To"]) for address, mail in mails.items()} == {
        "bia@example.com": "Bia <bia@example.com>",
        "cora@example.com": "Conceição <cora@example.com>",
        "eva@example.com": "eva@example.com",
    }
    for mail in mails.values():
        assert (mail["Subject"], mail["From"]) == ("Notícias - Edição 1", "Redação <news@example.com>")
        assert "/newsletter/news/unsubscribe/" in mail["List-Unsubscribe"]
        (file,) = mail.iter_attachments()
        assert (file.get_content_type(), file.get_content()) == ("application/pdf", PDF)
