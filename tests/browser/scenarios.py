"""What support does with the admin, step by step, and what each page looks like."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from email import message_from_bytes

from django.utils import timezone

from congressy_mailer import send_bulk, send_mail, suppressions
from congressy_mailer.models import Message, State
from demo.events.mails import send_confirmation
from demo.events.models import Event, Registration
from demo.services import Services

from .driving import Browser, wait_until

_ADMIN = "/admin/congressy_mailer"
_EVIL = "http://evil.invalid"
_HOSTILE = f"""<html><head><meta http-equiv="refresh" content="0;url={_EVIL}/refresh"><base href="{_EVIL}/">
<link rel="stylesheet" href="{_EVIL}/a.css"><style>body {{ background: url({_EVIL}/css) }}
@font-face {{ font-family: x; src: url({_EVIL}/font) }} p {{ font-family: x }}</style></head>
<body onload="parent.document.title='broken'"><script>top.location='{_EVIL}/script'</script>
<p>Hello</p><form id="f" action="{_EVIL}/form" method="post"><input name="a"><button id="send">Send</button></form>
<a id="go" href="{_EVIL}/link" target="_self">link</a><a id="top" href="{_EVIL}/top" target="_top">top</a>
<iframe src="{_EVIL}/frame"></iframe><img src="{_EVIL}/pixel.png" onerror="top.document.title='broken'">
<svg onload="top.document.title='broken'"><image href="{_EVIL}/svg"/></svg><object data="{_EVIL}/o"></object>
<video src="{_EVIL}/v" poster="{_EVIL}/poster" autoplay></video></body></html>"""


def _registration() -> Registration:
    found: Registration = Registration.objects.order_by("pk").first() or Registration.objects.create(
        event=Event.objects.get(), person="José da Silva", email="jose.silva@participantes.example", paid=True
    )
    return found


def _later(**fields: object) -> Message:
    """A mail that no worker takes."""
    options = {"to": "maria.souza@participantes.example", "send_at": timezone.now() + timedelta(days=1), **fields}
    return send_mail(**options)  # type: ignore[arg-type]


def _failed(**fields: object) -> Message:
    """A mail that was refused for good."""
    message = _later(**fields)
    Message.objects.filter(pk=message.pk).update(
        state=State.FAILED, send_at=None, due_at=None, finished_at=timezone.now(), attempts=1,
        reason="550 5.1.1 No such user here", reply="550 5.1.1 No such user here",
    )  # fmt: skip
    return message


def _received(services: Services, address: str) -> int:
    files = [path for path in services.mails.rglob("*") if path.is_file()]
    return sum(address in str(message_from_bytes(path.read_bytes())["To"] or "") for path in files)


def three_clicks_from_the_order_to_the_answer(browser: Browser) -> None:
    registration = _registration()
    send_confirmation(registration, f"{browser.services.address}/")
    wait_until(lambda: Message.objects.filter(about_id=str(registration.pk), delivery="delivered"), "delivered")
    page = browser.page
    page.goto(f"/admin/events/registration/?q={registration.email}")
    page.click("#result_list tbody th a")
    page.locator(".mailer-about a").first.click()
    page.wait_for_selector(".mailer-timeline")
    assert "Foi entregue" in page.inner_text(".mailer-timeline")
    assert registration.email in page.inner_text(".mailer-recipients")
    assert page.locator(".mailer-headline a", has_text=registration.person).count() == 1


def a_mail_is_found_by_address_name_and_id(browser: Browser) -> None:
    message = _later(subject="Achada", message="x", to="José Araújo <araujo@participantes.example>")
    page = browser.page
    for text in ("araujo@participantes.example", "jose araujo", str(message.pk), message.message_id):
        page.goto(f"{_ADMIN}/message/")
        page.fill("#searchbar", text)
        page.press("#searchbar", "Enter")
        page.wait_for_url("**?q=*")
        assert page.locator("#result_list tbody tr").count() == 1, text
        assert "Achada" in page.inner_text("#result_list")


def a_failed_mail_is_tried_again_and_arrives(browser: Browser) -> None:
    address = "bia.failed@participantes.example"
    _failed(subject="Boleto", message="Pague até sexta", to=address)
    page = browser.page
    page.goto(f"{_ADMIN}/message/")
    page.locator("#changelist-filter a", has_text="falhou").first.click()
    page.locator("#result_list a", has_text=address).first.click()
    assert "550 5.1.1" in page.inner_text(".mailer-timeline")
    page.click("button:has-text('Tentar de novo')")
    page.wait_for_selector(".messagelist .success")
    wait_until(lambda: _received(browser.services, address), "the mail at the server")
    assert _received(browser.services, address) == 1
    page.reload()
    wait_until(lambda: page.reload() and "O servidor de e-mail aceitou" in page.inner_text(".mailer-timeline"), "sent")
    page.click("text=Histórico")
    assert "Mandou tentar de novo" in page.inner_text("#content")


def a_mail_is_sent_to_a_corrected_address(browser: Browser) -> None:
    message = _failed(subject="Boleto", message="Pague", to="ana@exmaple.invalid")
    page = browser.page
    page.goto(f"{_ADMIN}/message/{message.pk}/change/")
    page.get_by_label("Enviar a outro endereço:").fill("ana.corrected@participantes.example")
    page.get_by_role("button", name="Enviar", exact=True).click()
    page.wait_for_selector(".messagelist .success")
    assert str(message.pk) not in page.url
    wait_until(lambda: _received(browser.services, "ana.corrected@"), "the mail at the server")


def a_suppressed_mail_leads_to_its_entry_and_is_sent_after_all(browser: Browser) -> None:
    address = "leo.suppressed@participantes.example"
    suppressions.suppress(address, reason="asked by phone")
    message = send_mail("Boleto", "Pague", to=address)
    page = browser.page
    page.goto(f"{_ADMIN}/message/{message.pk}/change/")
    page.click(".mailer-recipients a")
    page.click("#result_list tbody th a")
    page.wait_for_url("**/suppression/*/change/**")
    assert "asked by phone" in page.inner_text("#content")
    page.click("text=E-mails para este endereço")
    page.click("#result_list tbody th a")
    page.click("button:has-text('Tirar da lista e enviar')")
    page.wait_for_selector(".messagelist .success")
    wait_until(lambda: _received(browser.services, address), "the mail at the server")


def a_batch_is_watched_and_cancelled(browser: Browser) -> None:
    later = timezone.now() + timedelta(days=1)
    people = [f"p{number}@participantes.example" for number in range(5)]
    batch = send_bulk(people, subject="Programa", message="x", send_at=later)
    page = browser.page
    page.goto(f"{_ADMIN}/batch/{batch.pk}/change/")
    assert page.locator("progress").get_attribute("max") == "5"
    page.click("button:has-text('Cancelar')")
    page.wait_for_selector(".messagelist .success")
    assert page.locator("progress").get_attribute("value") == "5"


def a_hostile_mail_stays_in_its_frame(browser: Browser) -> None:
    message = _later(subject="<script>alert(1)</script>", message=_HOSTILE, html_message=_HOSTILE)
    page = browser.page
    page.goto(f"{_ADMIN}/message/{message.pk}/change/")
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))  # type: ignore[func-returns-value]
    page.click("text=Ver o conteúdo")
    frame = page.frame_locator("iframe >> nth=0")
    frame.locator("p", has_text="Hello").wait_for()
    page.frame_locator("iframe >> nth=1").locator("pre", has_text="Hello").wait_for()
    address = page.url
    for link in ("#send", "#top", "#go"):
        frame.locator(link).click(no_wait_after=True)
        # Time for what is not to happen.
        page.wait_for_timeout(700)
        assert page.url == address
    assert "broken" not in page.title()
    assert dialogs == []
    assert [one for one in browser.outside if "evil" in one] == []
    page.click("text=Carregar imagens remotas")
    page.frame_locator("iframe >> nth=0").locator("p", has_text="Hello").wait_for()
    wait_until(lambda: [one for one in browser.outside if "pixel" in one] or page.wait_for_timeout(50), "the image")
    assert not [one for one in browser.outside if "evil" in one and ("script" in one or "font" in one or ".css" in one)]


def every_page_looks_right_and_axe_finds_nothing_serious(browser: Browser) -> None:
    registration = _registration()
    suppressions.suppress("maria.souza@participantes.example", reason="asked by phone")
    suppressed = suppressions.active().order_by("id").first()
    failed = _failed(
        subject="Boleto da inscrição no 12º Congresso Brasileiro de Energia Solar", to="Zoë Núñez <zoe@example.com>",
        message="Pague até sexta.", html_message="<h1>Pague</h1><p>até sexta</p>", about=registration,
        attachments=[("boleto.pdf", b"%PDF", "application/pdf")],
    )  # fmt: skip
    batch = send_bulk(
        ["a@participantes.example", "nobody@"],
        subject="Programa",
        message="x",
        on_invalid="skip",
        about=Event.objects.get(),
    )
    assert suppressed is not None
    delivered = Message.objects.filter(delivery__in=["delivered", "opened", "clicked"]).first() or failed
    pages = {
        "messages": f"{_ADMIN}/message/",
        "message-failed": f"{_ADMIN}/message/{failed.pk}/change/",
        "message-delivered": f"{_ADMIN}/message/{delivered.pk}/change/",
        "content": f"{_ADMIN}/message/{failed.pk}/content/",
        "batches": f"{_ADMIN}/batch/",
        "batch": f"{_ADMIN}/batch/{batch.pk}/change/",
        "suppressions": f"{_ADMIN}/suppression/",
        "suppression": f"{_ADMIN}/suppression/{suppressed.pk}/change/",
        "suppression-add": f"{_ADMIN}/suppression/add/",
        "suppression-import": f"{_ADMIN}/suppression/import/",
        "webhooks": f"{_ADMIN}/webhookbatch/",
        "registration": f"/admin/events/registration/{registration.pk}/change/",
    }
    problems: list[str] = []
    for locale in ("pt-BR", "en"):
        for scheme in ("light", "dark"):
            for width in (1280, 360):
                with browser.other(locale, scheme, width) as page:
                    for name, address in pages.items():
                        page.goto(address)
                        where = f"{name}-{locale}-{scheme}-{width}"
                        browser.picture(where, page)
                        # Findings do not depend on the language.
                        if locale == "en" and name != "registration":
                            problems += [f"{where}: {found}" for found in browser.serious_findings(page)]
                        if name == "messages" and width == 360:
                            problems += _unreadable(page, where)
                        if name not in ("registration",):
                            wide = page.evaluate("document.documentElement.scrollWidth")
                            if wide > width + 1:
                                problems.append(f"{where}: {wide} px wide")
    assert not problems, "\n".join(problems)


def _unreadable(page: object, where: str) -> list[str]:
    """Recipient, subject and state are on a narrow screen without scrolling."""
    boxes = page.evaluate(  # type: ignore[attr-defined]
        """["recipient_list", "title", "status"].map(
            name => document.querySelector(`#result_list tbody .field-${name}`).getBoundingClientRect().right)"""
    )
    return [f"{where}: a column ends at {right:.0f} px" for right in boxes if right > 360]


SCENARIOS: list[Callable[[Browser], None]] = [
    three_clicks_from_the_order_to_the_answer,
    a_mail_is_found_by_address_name_and_id,
    a_failed_mail_is_tried_again_and_arrives,
    a_mail_is_sent_to_a_corrected_address,
    a_suppressed_mail_leads_to_its_entry_and_is_sent_after_all,
    a_batch_is_watched_and_cancelled,
    a_hostile_mail_stays_in_its_frame,
    every_page_looks_right_and_axe_finds_nothing_serious,
]
