"""What each page looks like: seen in two languages, light and dark, wide and narrow, and read by axe-core."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path

from django.utils import timezone
from django.utils.text import slugify
from PIL import Image
from playwright.sync_api import Page

from congressy_mailer import Recipient, pause, resume, send_bulk, send_mail, suppressions
from congressy_mailer.models import CountSample, Message, State, TransportStatus, WebhookBatch
from congressy_mailer.unsubscribe.links import Link, make_token
from demo.events.mails import send_confirmation, send_news
from demo.events.models import Event, Registration

from .driving import ADMIN, Browser, wait_until

_PEOPLE = ("José da Silva", "Zoë Núñez", "Maria Aparecida dos Santos", "Lívia Sampaio Corrêa", "Ana Paula Ribeiro")
#: Recipients of whom no mail can be made.
_WRONG = (
    "nobody@", "josé@participantes.example", "zoe@participantes.example, ana@participantes.example", 17,
    Recipient(to="ana@participantes.example", attachments=["/nowhere/boleto.pdf"]),
    Recipient(to="lia@participantes.example", metadata={"order": "x" * 2000}),
)  # fmt: skip
_LISTS = ("batches", "messages", "suppressions", "pauses", "webhooks")
#: Bytes of a picture in the documentation.
MOST_BYTES = 100_000


def pages(browser: Browser) -> dict[str, str]:
    """Make something of each kind, and return the address of each page by its name."""
    event = Event.objects.get()
    for person in _PEOPLE:
        email = f"{slugify(person.split()[0])}@participantes.example"
        Registration.objects.get_or_create(event=event, person=person, defaults={"email": email, "paid": True})
    registration = Registration.objects.order_by("pk")[0]
    send_confirmation(registration, f"{browser.services.address}/")
    wait_until(lambda: Message.objects.filter(about_id=str(registration.pk), delivery="delivered"), "delivered")
    news = send_news(event, f"{browser.services.address}/")
    wait_until(lambda: news.progress().done, "the batch")
    suppressions.suppress("maria.souza@participantes.example", reason="asked by phone")
    suppressed = suppressions.active().filter(address="maria.souza@participantes.example").first()
    assert suppressed is not None
    left_out = send_mail("Boleto", "Pague", to="maria.souza@participantes.example")
    failed = _failed(registration)
    batch = send_bulk(
        ["a@participantes.example", "nobody@"], subject="Programa", message="x", on_invalid="skip", about=event
    )
    delivered = Message.objects.get(about_id=str(registration.pk), idempotency_key__startswith="confirmation")
    set_aside = _set_aside()
    secret = send_mail("Seu código", "9", to="ana@participantes.example", sensitive=True, send_at=_tomorrow())
    wrong = send_bulk(_WRONG, template="registration/confirmation", on_invalid="skip", send_at=_tomorrow())
    paused = pause(campaign="natal", reason="The provider has asked for it", by="admin")
    _counts()
    reader = news.messages.order_by("id")[0]
    link = Link(reader.pk, reader.to[0], "novidades")
    return {
        "dashboard": f"{ADMIN}/dashboard/?span=hour",
        "index": f"{ADMIN}/",
        "messages": f"{ADMIN}/message/",
        "message-failed": f"{ADMIN}/message/{failed.pk}/change/",
        "message-delivered": f"{ADMIN}/message/{delivered.pk}/change/",
        "message-suppressed": f"{ADMIN}/message/{left_out.pk}/change/",
        "content": f"{ADMIN}/message/{failed.pk}/content/",
        "batches": f"{ADMIN}/batch/",
        "batch": f"{ADMIN}/batch/{batch.pk}/change/",
        "batch-left-out": f"{ADMIN}/batch/{wrong.pk}/change/",
        "message-sensitive": f"{ADMIN}/message/{secret.pk}/change/",
        "message-history": f"{ADMIN}/message/{failed.pk}/history/",
        "suppressions": f"{ADMIN}/suppression/",
        "suppression": f"{ADMIN}/suppression/{suppressed.pk}/change/",
        "suppression-add": f"{ADMIN}/suppression/add/",
        "suppression-import": f"{ADMIN}/suppression/import/",
        "pauses": f"{ADMIN}/pause/",
        "pause": f"{ADMIN}/pause/{paused.pk}/change/",
        "pause-resume": f"{ADMIN}/pause/{paused.pk}/delete/",
        "pause-add": f"{ADMIN}/pause/add/",
        "webhooks": f"{ADMIN}/webhookbatch/",
        "webhook": f"{ADMIN}/webhookbatch/{set_aside.pk}/change/",
        "registration": f"/admin/events/registration/{registration.pk}/change/",
        "unsubscribe": f"/mailer/unsubscribe/{make_token(link)}/",
        "unsubscribe-unknown": "/mailer/unsubscribe/x/",
    }


def _failed(registration: Registration) -> Message:
    message = send_mail(
        "Boleto da inscrição no 12º Congresso Brasileiro de Energia Solar", "Pague até sexta.",
        to="Zoë Núñez <zoe@example.com>", html_message="<h1>Pague</h1><p>até sexta</p>", about=registration,
        attachments=[("boleto.pdf", b"%PDF", "application/pdf")], send_at=_tomorrow(),
    )  # fmt: skip
    reply = "550 5.1.1 No such user here"
    Message.objects.filter(pk=message.pk).update(
        state=State.FAILED, send_at=None, due_at=None, finished_at=timezone.now(), attempts=1, reason=reply,
        reply=reply,
    )  # fmt: skip
    return message


def _tomorrow() -> datetime:
    return timezone.now() + timedelta(days=1)


def _set_aside() -> WebhookBatch:
    """Events that could not be recorded."""
    return WebhookBatch.objects.create(
        key="3f6c0d52-17f1-4ac1-9c2f-1c3f2f9d7b60", received_at=timezone.now(), attempts=1, events=120, processed=120,
        problem="Event 92356927693813856 cannot be recorded: DataError in django.db.backends.utils, line 105.",
    )  # fmt: skip


def _counts() -> None:
    """An hour in which much was sent, and an outage."""
    now = timezone.now().replace(second=0, microsecond=0)
    for number in range(1, 55):
        counts = {
            "accepted": 180 + 60 * (number % 7) + (400 if 20 < number < 30 else 0), "delivered": 150,
            "deferred:throttled": 40 if 20 < number < 26 else 0, "deferred:mailbox": number % 5, "failed": number % 3,
            "bounced": number % 2, "bucket:2": 100, "bucket:4": 40, "bucket:6": 8,
        }  # fmt: skip
        CountSample.objects.create(
            minute=now - timedelta(minutes=number),
            counts=[["", "mailer", 5, name, count] for name, count in counts.items() if count],
        )
    TransportStatus.objects.create(
        using="", sender_domain="eventos.example", unavailable_since=now - timedelta(minutes=12),
        next_try_at=timezone.now() + timedelta(minutes=2), reason="550 5.7.1 Unconfigured Sending Domain",
    )  # fmt: skip


def _clean_up() -> None:
    resume(campaign="natal", by="admin")
    TransportStatus.objects.filter(sender_domain="eventos.example").delete()
    WebhookBatch.objects.exclude(problem="").delete()


def every_page_looks_right_and_axe_finds_nothing_serious(browser: Browser) -> None:
    problems: list[str] = []
    found = pages(browser)
    try:
        for locale, scheme, width in product(("pt-BR", "en"), ("light", "dark"), (1280, 360)):
            with browser.other(locale, scheme, width) as page:
                for name, address in found.items():
                    _open(page, address)
                    where = f"{name}-{locale}-{scheme}-{width}"
                    browser.picture(where, page)
                    # Findings do not depend on the language.
                    if locale == "en" and name != "registration":
                        problems += [f"{where}: {finding}" for finding in browser.serious_findings(page)]
                    if name == "messages" and width == 360:
                        problems += _unreadable(page, where)
                    if name != "registration":
                        wide = page.evaluate("document.documentElement.scrollWidth")
                        if wide > width + 1:
                            problems.append(f"{where}: {wide} px wide")
                        if name in _LISTS:
                            problems += _cut_off(page, where)
    finally:
        _clean_up()
    assert not problems, "\n".join(problems)


def _open(page: Page, address: str) -> None:
    """A page with all that its frames hold."""
    page.goto(address)
    for frame in page.frames[1:]:
        frame.wait_for_load_state()


def _unreadable(page: Page, where: str) -> list[str]:
    """Recipient, subject and state are on a narrow screen without scrolling."""
    boxes = page.evaluate(
        """["recipient_list", "title", "status"].map(
            name => document.querySelector(`#result_list tbody .field-${name}`).getBoundingClientRect().right)"""
    )
    return [f"{where}: a column ends at {right:.0f} px" for right in boxes if right > 360]


def _cut_off(page: Page, where: str) -> list[str]:
    """A list that is wider than its box hides its last columns."""
    inner, outer = page.evaluate(
        "(box => [box.scrollWidth, box.clientWidth])(document.querySelector('#changelist .results'))"
    )
    return [f"{where}: a list of {inner} px in {outer} px"] if inner > outer + 1 else []


def take_screenshots(browser: Browser, folder: Path) -> None:
    """Make the pictures of the documentation: small, and with nothing of a real person's."""
    chosen = ("dashboard", "messages", "message-delivered", "message-suppressed", "batch", "unsubscribe")
    found = pages(browser)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name in chosen:
            width = 480 if name == "unsubscribe" else 1000
            with browser.other("en", "light", width) as page:
                _open(page, found[name])
                # Django's list of apps says nothing of the page.
                page.add_style_tag(
                    content="#nav-sidebar, .toggle-nav-sidebar { display: none !important } "
                    ".main > .content { max-width: 100% !important; width: 100% }"
                )
                path = folder / f"{name}.png"
                height = page.evaluate("document.querySelector('#content, main').getBoundingClientRect().bottom + 30")
                page.screenshot(path=str(path), full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})
                _shrink(path)
                print(json.dumps({"picture": str(path), "bytes": path.stat().st_size}), flush=True)
    finally:
        _clean_up()


def _shrink(path: Path) -> None:
    """Few colours are enough for a page, and take a third of the room."""
    for colours in (128, 64, 32):
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return
    raise AssertionError(f"{path} has {path.stat().st_size} bytes: show less of the page.")
