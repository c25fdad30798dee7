"""django-helpdesk tells those concerned by a ticket: the one who asked, and those in copy, with the file of a reply."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from congressy_mailer.testing.local_sparkpost.mailbox import ReceivedMail

Arrived = Callable[..., list[ReceivedMail]]
# More than a row takes: it waits in the storage of attachments.
PDF = b"%PDF-1\x00\xff" * 20_000


@pytest.fixture
def tickets(arrived: Arrived) -> Iterator[Any]:
    from helpdesk.models import EmailTemplate, Queue

    for event in ("newticket_submitter", "newticket_cc", "updated_submitter", "assigned_cc"):
        EmailTemplate.objects.create(
            template_name=event, subject=event, heading="Ticket", plain_text="{{ comment }}", html="{{ comment }}",
            locale="en",
        )  # fmt: skip
    queue = Queue.objects.create(
        title="Help", slug="help", allow_public_submission=True, email_address="help@example.com", locale="en",
        new_ticket_cc="bia@example.com,caio@example.com", updated_ticket_cc="eva@example.com",
    )  # fmt: skip
    yield queue
    # Its permission goes with it: such rows outlive a test.
    queue.delete()


def test_a_ticket_and_the_reply_to_it_reach_those_concerned(arrived: Arrived, tickets: Any, client: Client) -> None:
    from helpdesk.models import Ticket

    asked = client.post(
        "/helpdesk/tickets/submit/",
        {
            "queue": tickets.pk,
            "title": "Não abre",
            "body": "Ajuda",
            "priority": 3,
            "submitter_email": "ana@example.com",
        },
    )
    assert asked.status_code == 302, asked.content
    ticket = Ticket.objects.get()
    rui = User.objects.create_superuser("rui", "rui@example.com", "x")
    client.force_login(rui)
    reply = {
        "comment": "Eis o arquivo", "new_status": 1, "public": "1", "owner": rui.pk, "priority": 3,
        "title": "Não abre", "queue": tickets.pk, "attachment": SimpleUploadedFile("guia.pdf", PDF, "application/pdf"),
    }  # fmt: skip
    answered = client.post(f"/helpdesk/tickets/{ticket.pk}/update/", reply)
    assert answered.status_code == 302, answered.content

    mails = arrived(5)
    assert {mail.sender for mail in mails} == {"help@example.com"}
    assert sorted((str(mail.message["Subject"]).split()[-1], *mail.recipients) for mail in mails) == [
        ("assigned_cc", "eva@example.com"),
        ("newticket_cc", "bia@example.com", "caio@example.com"),
        ("newticket_cc", "eva@example.com"),
        ("newticket_submitter", "ana@example.com"),
        ("updated_submitter", "ana@example.com"),
    ]
    to_ana = next(mail.message for mail in mails if "updated_submitter" in mail.message["Subject"])
    body = to_ana.get_body(("plain",))
    assert body is not None
    assert "Eis o arquivo" in body.get_content()
    (file,) = to_ana.iter_attachments()
    assert (file.get_content_type(), file.get_filename()) == ("application/pdf", "guia.pdf")
    assert file.get_content() == PDF
