"""What support sees of a mail, and does with it: who may, what is written down, and what the mail cannot do to them."""

from __future__ import annotations

import email
import re
from datetime import timedelta
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext, override_settings
from django.urls import reverse
from django.utils import timezone

from congressy_mailer import Recipient, send_bulk, send_mail, suppressions
from congressy_mailer.admin.handling import ACTIONS
from congressy_mailer.admin.timeline import timeline
from congressy_mailer.backends import EmailBackend
from congressy_mailer.exceptions import InvalidAddress, InvalidTransition, NoRecipient
from congressy_mailer.mail import resend_to
from congressy_mailer.models import Event, Message, RecipientStatus, State
from congressy_mailer.testing import deliver_all

pytestmark = [pytest.mark.django_db, pytest.mark.database]

PIXEL = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def nothing_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("congressy_mailer.mail.publish_on_commit", lambda ids: None)


def login(client: Client, *permissions: str) -> User:
    user = User.objects.create_user(f"staff{User.objects.count()}", is_staff=True)
    found = Permission.objects.filter(content_type__app_label="congressy_mailer", codename__in=permissions)
    assert len(found) == len(permissions)
    user.user_permissions.set(found)
    client.force_login(user)
    return user


def address(message: Message, page: str = "change", *args: object) -> str:
    return reverse(f"admin:congressy_mailer_message_{page}", args=[message.pk, *args])


def shown(client: Client, message: Message, page: str = "change") -> str:
    answer = client.get(address(message, page))
    assert answer.status_code == 200
    return answer.content.decode()


def frames(client: Client, message: Message, query: str = "") -> list[Any]:
    page = client.get(address(message, "content") + query).content.decode()
    sources = re.findall(r'<iframe [^>]*sandbox="" [^>]*src="([^"]*)"', page)
    assert len(sources) == page.count("<iframe")
    return [client.get(source.replace("&amp;", "&")) for source in sources]


# What happened


def test_a_message_tells_its_story(support: Client) -> None:
    message = send_mail("Boleto", "x", to=["Ana <ana@example.com>", "eva@example.com"], cc="bob@example.com")
    now = timezone.now()
    Message.objects.filter(pk=message.pk).update(
        state=State.SENT, sent_at=now, finished_at=now, due_at=None, reply="250 OK <id>", attempts=2
    )
    for type_, recipient, detail in (
        ("deferred", "ana@example.com", "451 4.7.1 Greylisted"), ("delivered", "ana@example.com", ""),
        ("opened", "ana@example.com", ""), ("bounced", "eva@example.com", "550 5.1.1 No such user"),
        ("unsubscribed", "bob@example.com", ""),
    ):  # fmt: skip
        Event.objects.create(message=message, type=type_, at=now, recipient=recipient, detail=detail)
    for recipient, fields in (
        ("ana@example.com", {"arrival": "delivered", "arrival_at": now, "opened_at": now}),
        ("eva@example.com", {"arrival": "bounced", "arrival_at": now, "detail": "550 5.1.1 No such user"}),
    ):
        RecipientStatus.objects.create(message=message, recipient=recipient, **fields)
    page = shown(support, message)
    for text in (
        "Foi entregue ao sistema", "O servidor de e-mail aceitou.", "250 OK &lt;id&gt;", "451 4.7.1 Greylisted",
        "O servidor de e-mail adiou", "Foi aberta", "Voltou", "550 5.1.1 No such user", "se descadastrou",
        "Ana &lt;ana@example.com&gt;", "eva@example.com", "bob@example.com", "Cc",
    ):  # fmt: skip
        assert text in page, text
    # One by one.
    assert re.search(r"eva@example.com</strong>\s*<span class=\"mailer-status mailer-bounced\">", page)
    assert re.search(r"ana@example.com&gt;</strong>\s*<span class=\"mailer-status mailer-opened\">", page)


def test_what_sparkpost_tells_comes_after_the_sending_although_its_clock_counts_seconds() -> None:
    message = send_mail("x", "x", to="ana@example.com")
    now = timezone.now().replace(microsecond=800_000)
    Message.objects.filter(pk=message.pk).update(created_at=now, sent_at=now, state=State.SENT, due_at=None)
    message.refresh_from_db()
    whole = now.replace(microsecond=0)
    Event.objects.create(message=message, type="delivered", at=whole, key="2")
    Event.objects.create(message=message, type="injected", at=whole - timedelta(seconds=1), key="1")
    steps = timeline(message)
    titles, times = [step.title for step in steps], [step.at for step in steps if step.at is not None]
    assert titles[2] == "A SparkPost aceitou."
    assert titles[0] == "Foi entregue ao sistema para envio."
    assert titles[1] == "O servidor de e-mail aceitou."
    assert len(titles) == len(times) == 4
    assert times == sorted(times)


@pytest.mark.parametrize("state", [*State])
def test_each_state_has_its_words(support: Client, state: State) -> None:
    message = send_mail("x", "x", to="ana@example.com")
    final = state in ("sent", "failed", "cancelled", "expired", "suppressed", "held")
    now = timezone.now()
    Message.objects.filter(pk=message.pk).update(
        state=state, due_at=None if final else now + timedelta(hours=1), finished_at=now if final else None,
        sent_at=now if state == State.SENT else None, reason="because <of> it",
    )  # fmt: skip
    page = shown(support, message)
    assert str(state.label) in page
    if state != State.SENT:
        assert "because &lt;of&gt; it" in page


def test_the_page_leads_to_what_the_mail_is_about_and_to_its_batch(support: Client) -> None:
    order = Group.objects.create(name="Pedido 4711")
    batch = send_bulk([Recipient(to="ana@example.com", about=order)], subject="x", message="x")
    page = shown(support, batch.messages.get())
    assert reverse("admin:auth_group_change", args=[order.pk]) in page
    assert reverse("admin:congressy_mailer_batch_change", args=[batch.pk]) in page
    login(support, "view_message")
    page = shown(support, batch.messages.get())
    assert "Pedido 4711" in page
    assert reverse("admin:auth_group_change", args=[order.pk]) not in page
    assert reverse("admin:congressy_mailer_batch_change", args=[batch.pk]) not in page


def test_the_page_takes_few_queries(support: Client) -> None:
    message = send_mail("x", "x", to=[f"ana{number}@example.com" for number in range(80)])
    for number in range(80):
        Event.objects.create(message=message, type="deferred", at=timezone.now(), recipient=f"ana{number}@example.com")
    with CaptureQueriesContext(connection) as queries:
        support.get(address(message))
    assert len(queries) <= 16


# What it says


def test_a_mail_is_shown_as_its_readers_see_it(support: Client) -> None:
    message = send_mail(
        "Boleto", "Pague até <sexta>", to="ana@example.com", html_message='<p>Pague <img src="cid:logo"></p>',
        attachments=[("boleto.pdf", b"%PDF-1", "application/pdf")], headers={"X-Order": "4711"},
    )  # fmt: skip
    page = shown(support, message, "content")
    for text in ("X-Order", "4711", "boleto.pdf", "Isto é o que seria enviado agora", "ana@example.com"):
        assert text in page
    # Only within the frames.
    assert "Pague" not in page
    html, text = frames(support, message)
    assert "<p>Pague" in html.content.decode()
    assert "Pague até &lt;sexta&gt;" in text.content.decode()
    raw = support.get(address(message, "raw"))
    assert email.message_from_bytes(raw.content)["Subject"] == "Boleto"
    assert raw["Content-Disposition"].startswith("attachment")
    file = support.get(address(message, "file", 0))
    assert (file.content, file["Content-Type"]) == (b"%PDF-1", "application/octet-stream")
    assert support.get(address(message, "file", 7)).status_code == 404


def test_images_that_go_with_a_mail_are_shown_in_it(support: Client) -> None:
    from congressy_mailer import Attachment

    logo = Attachment("logo.png", PIXEL, "image/png", content_id="logo")
    message = send_mail("x", "x", to="a@example.com", html_message='<img src="cid:logo"><img src="cid:none">',
                        attachments=[logo])  # fmt: skip
    html = frames(support, message)[0].content.decode()
    assert "data:image/png;base64,iVBORw0K" in html
    assert "cid:none" in html


def test_a_mail_from_a_template_is_rendered_again_and_says_so(support: Client) -> None:
    message = send_mail(to="ana@example.com", template="mail/hello", context={"name": "Ana", "link": "https://x"},
                        subject="Pago")  # fmt: skip
    assert "Isto é o que seria enviado agora" in shown(support, message, "content")
    Message.objects.filter(pk=message.pk).update(state=State.SENT, sent_at=timezone.now(), due_at=None)
    assert "Isto foi refeito agora" in shown(support, message, "content")


def test_what_cannot_be_rendered_is_told(support: Client) -> None:
    message = send_mail("x", "x", to="ana@example.com")
    Message.objects.filter(pk=message.pk).update(template="gone", text="", subject="x", context={})
    page = shown(support, message, "content")
    assert "gone" in page
    assert "<iframe" not in page
    assert support.get(address(message, "raw")).status_code == 404
    Message.objects.filter(pk=message.pk).update(content_dropped_at=timezone.now())
    assert "O conteúdo foi apagado" in shown(support, message, "content")


HOSTILE = """
<html><head><meta http-equiv="refresh" content="0;url=https://evil.example/"><base href="https://evil.example/">
<link rel="stylesheet" href="https://evil.example/a.css"><style>body{background:url(https://evil.example/css)}</style>
</head><body onload="alert(1)"><script>top.location='https://evil.example'</script>
<form action="https://evil.example/" method="post"><input name="password"><button>x</button></form>
<iframe src="https://evil.example/frame"></iframe><img src="https://evil.example/pixel" onerror="alert(1)">
<object data="https://evil.example/o"></object></iframe></section><a href="javascript:alert(1)">x</a></body></html>
"""


def test_a_hostile_mail_stays_in_a_frame_that_runs_and_fetches_nothing(support: Client) -> None:
    message = send_mail("</title><script>alert(1)</script>", HOSTILE, to="a@example.com", html_message=HOSTILE,
                        headers={"X-Evil": "<script>alert(2)</script>"})  # fmt: skip
    for page in ("change", "content"):
        text = shown(support, message, page)
        assert "<script>alert" not in text
        assert "evil.example" not in text
    html, text_frame = frames(support, message)
    for frame in (html, text_frame):
        policy = frame["Content-Security-Policy"].split("; ")
        for rule in (
            "default-src 'none'", "img-src data:", "font-src data:", "form-action 'none'", "base-uri 'none'",
            "frame-ancestors 'self'", "sandbox",
        ):  # fmt: skip
            assert rule in policy
        assert not any(rule.startswith(("script-src", "connect-src", "frame-src")) for rule in policy)
        assert frame["X-Frame-Options"] == "SAMEORIGIN"
        assert frame["X-Content-Type-Options"] == "nosniff"
        assert frame["Referrer-Policy"] == "no-referrer"
        assert "no-store" in frame["Cache-Control"]
    assert "<script>" not in text_frame.content.decode()
    # The page has its frame navigate nowhere else.
    assert "content=\"frame-src 'self'\"" in shown(support, message, "content")
    for page, *args in (("raw",), ("file", 0)):
        answer = support.get(address(message, page, *args))
        if answer.status_code == 200:
            assert "attachment" in answer["Content-Disposition"]
            assert "sandbox" in answer["Content-Security-Policy"]


def test_remote_images_are_loaded_when_somebody_asks_for_them(support: Client) -> None:
    message = send_mail("x", "x", to="a@example.com", html_message='<img src="https://example.com/a.png">')
    assert "img-src data: https: http:" not in frames(support, message)[0]["Content-Security-Policy"]
    policy = frames(support, message, "?images=yes")[0]["Content-Security-Policy"]
    assert "img-src data: https: http:;" in policy
    assert "default-src 'none'" in policy
    assert "sandbox" in policy


@pytest.mark.parametrize(
    ("html", "asks"),
    [
        ('<img src="https://example.com/a.png">', True),
        ("<img alt=x SRC=//example.com/a.png>", True),
        ("<p style='background: url( \"http://example.com/a.png\")'>x</p>", True),
        ('<source srcset="https://example.com/a.png 2x">', True),
        ('<img srcset="cid:logo 1x, https://example.com/a.png 2x">', True),
        ('<td style="background: url(&quot;https://example.com/a.png&quot;)">x</td>', True),
        ('<svg><image xlink:href="https://example.com/a.png"/></svg>', True),
        ('<a href="https://example.com/">x</a>', False),
        ('<img src="cid:logo">', False),
        # Neither takes long.
        ("<img src=" + " " * 100_000 + ">", False),
        ("<img srcset=" * 10_000, False),
    ],
)
def test_remote_images_are_offered_where_there_are_some(support: Client, html: str, asks: bool) -> None:
    message = send_mail("x", "x", to="a@example.com", html_message=html)
    assert ("?images=yes" in shown(support, message, "content")) == asks


def test_a_mail_within_the_mail_is_a_file_of_it(support: Client) -> None:
    inner = EmailMultiAlternatives("Recusado", "", "ana@example.com", ["rui@example.com"])
    inner.attach_alternative("<p>De Ana</p>", "text/html")
    outer = EmailMessage("x", "Veja o anexo.", "a@example.com", ["ana@example.com"])
    outer.attach("recusado.eml", inner.message(), "message/rfc822")
    EmailBackend(sensitive=False).send_messages([outer])
    message = Message.objects.get()
    page = shown(support, message, "content")
    assert "As HTML" not in page
    assert "Em HTML" not in page
    assert "Veja o anexo." in frames(support, message)[0].content.decode()
    # Mail programs open it as that mail.
    file = email.message_from_bytes(support.get(address(message, "file", 0)).content)
    assert (file["Subject"], file.get_content_type()) == ("Recusado", "multipart/alternative")


def test_a_mail_whose_text_is_of_another_kind_is_shown(support: Client) -> None:
    one = EmailMessage("x", "# Olá", "a@example.com", ["ana@example.com"])
    one.content_subtype = "markdown"
    EmailBackend(sensitive=False).send_messages([one])
    assert "# Olá" in frames(support, Message.objects.get())[0].content.decode()


def test_texts_that_follow_another_are_shown_as_mail_programs_do(support: Client) -> None:
    """An old recipe for HTML with images: a part of its own, beside the text."""
    related = MIMEMultipart("related")
    related.attach(MIMEText('<p>Olá</p><img src="cid:logo">', "html", "utf-8"))
    image = MIMEImage(b"\x89PNG", "png")
    image.add_header("Content-ID", "<logo>")
    related.attach(image)
    one = EmailMessage("x", "Olá, Ana.", "a@example.com", ["ana@example.com"])
    one.attachments.append(related)
    EmailBackend(sensitive=False).send_messages([one])
    html, text = (frame.content.decode() for frame in frames(support, Message.objects.get()))
    assert '<p>Olá</p><img src="data:image/png;base64,' in html
    assert "Olá, Ana." in text


def test_content_is_shown_to_whoever_may_see_it_and_each_look_is_written_down(client: Client) -> None:
    message = send_mail("Boleto", "Pague", to="ana@example.com", html_message="<p>Pague</p>")
    login(client, "view_message")
    assert "Ver o conteúdo" not in shown(client, message)
    for page in ("content", "frame", "raw"):
        assert client.get(address(message, page)).status_code == 403
    assert client.get(address(message, "file", 0)).status_code == 403
    assert not LogEntry.objects.exists()
    user = login(client, "view_message", "view_content")
    assert "Ver o conteúdo" in shown(client, message)
    # Not without the page that writes it down, nor with another person's.
    assert client.get(address(message, "frame")).status_code == 403
    page = client.get(address(message, "content")).content.decode()
    assert [(entry.user, entry.change_message) for entry in LogEntry.objects.all()] == [(user, "Viu o conteúdo.")]
    source = re.findall(r'src="([^"]*part=html[^"]*)"', page)[0].replace("&amp;", "&")
    assert client.get(source).status_code == 200
    client.get(address(message, "raw"))
    assert LogEntry.objects.count() == 2
    assert "Viu o conteúdo." in client.get(address(message, "history")).content.decode()
    login(client, "view_message", "view_content")
    assert client.get(source).status_code == 403
    # Without view_message nothing is seen at all.
    login(client, "view_content")
    assert client.get(address(message, "content")).status_code == 403
    client.logout()
    assert client.get(address(message, "content")).status_code == 302


def test_the_history_of_a_message_names_its_state_as_the_reader_does(support: Client) -> None:
    message = send_mail("x", "x", to="ana@example.com")
    act(support, message, "cancel")
    assert LogEntry.objects.get().object_repr == f"{message.pk} (cancelada)"
    assert f"{message.pk} (cancelada)" in shown(support, message, "history")
    with override_settings(LANGUAGE_CODE="en"):
        assert f"{message.pk} (cancelled)" in shown(support, message, "history")
    # Logs and tracebacks have the same words wherever they are written.
    assert repr(message) == f"<Message: {message.pk} (cancelled)>"


def test_nobody_sees_what_a_sensitive_mail_says(support: Client) -> None:
    message = send_mail("Sua senha", "991122", to="ana@example.com", sensitive=True)
    for page in ("content", "frame", "raw"):
        assert support.get(address(message, page)).status_code == 403
    assert "confidencial" in shown(support, message)


# What may be done


def act(client: Client, message: Message, action: str, **data: str) -> Any:
    answer = client.post(address(message, "act"), {"action": action, **data})
    message.refresh_from_db()
    return answer


def put_into(message: Message, state: State) -> None:
    final = state in ("sent", "failed", "cancelled", "expired", "suppressed", "held")
    now = timezone.now()
    Message.objects.filter(pk=message.pk).update(
        state=state, due_at=None if final else now, finished_at=now if final else None,
        sent_at=now if state == State.SENT else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("action", "permission", "state", "after"),
    [
        ("retry", "retry_message", State.FAILED, State.QUEUED),
        ("release", "release_message", State.HELD, State.QUEUED),
        ("cancel", "cancel_message", State.QUEUED, State.CANCELLED),
        ("resend", "resend_message", State.SENT, State.QUEUED),
    ],
)
def test_each_action_needs_its_permission_and_its_state(
    client: Client, action: str, permission: str, state: State, after: State
) -> None:
    message = send_mail("x", "x", to="ana@example.com")
    put_into(message, state)
    others = [one for one in ("retry", "release", "cancel", "resend") if f"{one}_message" != permission]
    login(client, "view_message", *(f"{one}_message" for one in others))
    assert f'value="{action}"' not in shown(client, message)
    assert act(client, message, action).status_code == 403
    assert message.state == state
    user = login(client, "view_message", permission)
    assert f'value="{action}"' in shown(client, message)
    assert act(client, message, action).status_code == 302
    assert message.state == after
    assert [(entry.user, entry.object_id) for entry in LogEntry.objects.all()] == [(user, str(message.pk))]
    # Nothing twice.
    act(client, message, action)
    assert message.state == after
    assert LogEntry.objects.count() == 1


def test_an_action_is_a_post_and_one_of_ours(support: Client) -> None:
    message = send_mail("x", "x", to="ana@example.com")
    assert support.get(address(message, "act"), {"action": "cancel"}).status_code == 403
    assert act(support, message, "delete").status_code == 403
    assert act(support, message, "").status_code == 403
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get())
    assert strict.post(address(message, "act"), {"action": "cancel"}).status_code == 403
    message.refresh_from_db()
    assert message.state == State.QUEUED


def test_a_suppressed_mail_leads_to_its_entry_and_is_sent_after_all(support: Client) -> None:
    suppressions.suppress("ana@example.com", reason="asked by phone")
    message = send_mail("x", "x", to="Ana <ana@example.com>")
    assert message.state == State.SUPPRESSED
    page = shown(support, message)
    entry = f"{reverse('admin:congressy_mailer_suppression_changelist')}?q=ana%40example.com"
    assert entry in page
    assert "ana@example.com" in support.get(entry).content.decode()
    assert 'value="unsuppress_and_send"' in page
    act(support, message, "unsuppress_and_send")
    assert message.state == State.QUEUED
    assert not suppressions.is_suppressed("ana@example.com")


def test_recipients_are_suppressed_and_taken_off_again(support: Client) -> None:
    message = send_mail("x", "x", to=["ana@example.com", "eva@example.com"])
    act(support, message, "suppress")
    assert suppressions.is_suppressed("eva@example.com")
    assert not suppressions.is_suppressed("eva@example.com", transactional=False)
    page = shown(support, message)
    assert 'value="suppress"' not in page
    assert 'value="unsuppress"' in page
    act(support, message, "unsuppress")
    assert not suppressions.is_suppressed("ana@example.com")
    # What is in the history is no address.
    assert not any("@" in entry.change_message for entry in LogEntry.objects.all())
    login(support, "view_message", "add_suppression")
    assert act(support, message, "unsuppress_and_send").status_code == 403


def test_a_mail_is_sent_to_a_corrected_address(support: Client) -> None:
    message = send_mail("Boleto", "Pague", to="ana@exmaple.com", attachments=[("a.pdf", b"%PDF", "application/pdf")],
                        headers={"X-Order": "7", "Message-ID": "<own@example.com>"})  # fmt: skip
    put_into(message, State.FAILED)
    assert (
        "is not a mail address"
        in support.post(
            address(message, "act"), {"action": "resend_to", "address": "ana@"}, follow=True
        ).content.decode()
    )
    answer = act(support, message, "resend_to", address="ana@example.com")
    copy = Message.objects.exclude(pk=message.pk).get()
    assert answer.url == address(copy)
    assert (copy.to, copy.state, copy.subject, copy.headers) == (
        ["ana@example.com"],
        "queued",
        "Boleto",
        {"X-Order": "7"},
    )
    assert copy.message_id != message.message_id
    assert copy.attachments.get().filename == "a.pdf"
    assert message.state == State.FAILED
    event = message.events.get()
    assert (event.type, event.recipient, event.detail) == ("retried", "ana@example.com", str(copy.pk))
    assert LogEntry.objects.count() == 2
    login(support, "view_message", "retry_message")
    assert act(support, message, "resend_to", address="ana@example.com").status_code == 403


def test_a_mail_of_a_batch_is_sent_to_a_corrected_address() -> None:
    batch = send_bulk(
        [Recipient(to="ana@exmaple.com", context={"name": "Ana"}, language="en")], template="mail/hello",
        context={"link": "https://x", "name": "?"}, subject="Pago", attachments=[("a.txt", b"1", "text/plain")],
    )  # fmt: skip
    message = batch.messages.get()
    with pytest.raises(InvalidAddress):
        resend_to(message, "ana@")
    with pytest.raises(NoRecipient):
        resend_to(message, [])
    copy = resend_to(message, "ana@example.com")
    copy.refresh_from_db()
    assert copy.batch is None
    assert (copy.template, copy.subject, copy.language, copy.transactional) == ("mail/hello", "Pago", "en", False)
    assert copy.context == {**(batch.context or {}), **(message.context or {})}
    assert copy.attachments.get().size == 1
    Message.objects.filter(pk=message.pk).update(content_dropped_at=timezone.now())
    message.refresh_from_db()
    with pytest.raises(InvalidTransition):
        resend_to(message, "ana@example.com")


def test_a_corrected_mail_arrives(mailoutbox: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    message = send_mail("Boleto", "Pague", to="ana@exmaple.com")
    deliver_all()
    resend_to(message, "ana@example.com")
    deliver_all()
    assert [mail.to for mail in mailoutbox] == [["ana@exmaple.com"], ["ana@example.com"]]


def test_many_are_handled_from_the_list(support: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    mails = [send_mail("x", "x", to=f"ana{number}@example.com") for number in range(4)]
    put_into(mails[0], State.SENT)
    chosen = {"_selected_action": [str(mail.pk) for mail in mails]}
    where = reverse("admin:congressy_mailer_message_changelist")
    answer = support.post(where, {"action": "cancel_selected", **chosen}, follow=True).content.decode()
    assert "Feito com 3 mensagens." in answer
    assert Message.objects.filter(state="cancelled").count() == 3
    assert LogEntry.objects.count() == 3
    support.post(where, {"action": "retry_selected", **chosen})
    assert Message.objects.filter(state="queued").count() == 3
    support.post(where, {"action": "suppress_selected", **chosen})
    assert suppressions.is_suppressed("ana3@example.com")
    monkeypatch.setattr("congressy_mailer.admin.handling.MOST_AT_ONCE", 2)
    answer = support.post(where, {"action": "cancel_selected", **chosen}, follow=True).content.decode()
    assert "No máximo 2 mensagens" in answer
    login(support, "view_message", "retry_message")
    page = support.get(where).content.decode()
    assert "retry_selected" in page
    assert "cancel_selected" not in page
    support.post(where, {"action": "cancel_selected", **chosen})
    assert Message.objects.filter(state="queued").count() == 3


def test_every_action_can_be_taken_from_a_list_or_from_the_page() -> None:
    assert set(ACTIONS) == {"retry", "release", "cancel", "resend", "suppress", "unsuppress", "unsuppress_and_send"}
