"""What support, operators and readers do with the pages, step by step."""

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

from .driving import ADMIN, Browser, wait_until
from .pages import every_page_looks_right_and_axe_finds_nothing_serious

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
        page.goto(f"{ADMIN}/message/")
        page.fill("#searchbar", text)
        page.press("#searchbar", "Enter")
        page.wait_for_url("**?q=*")
        assert page.locator("#result_list tbody tr").count() == 1, text
        assert "Achada" in page.inner_text("#result_list")


def a_failed_mail_is_tried_again_and_arrives(browser: Browser) -> None:
    address = "bia.failed@participantes.example"
    _failed(subject="Boleto", message="Pague até sexta", to=address)
    page = browser.page
    page.goto(f"{ADMIN}/message/")
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
    page.goto(f"{ADMIN}/message/{message.pk}/change/")
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
    page.goto(f"{ADMIN}/message/{message.pk}/change/")
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
    page.goto(f"{ADMIN}/batch/{batch.pk}/change/")
    assert page.locator("progress").get_attribute("max") == "5"
    page.click("button:has-text('Cancelar')")
    page.wait_for_selector(".messagelist .success")
    assert page.locator("progress").get_attribute("value") == "5"


def a_hostile_mail_stays_in_its_frame(browser: Browser) -> None:
    message = _later(subject="<script>alert(1)</script>", message=_HOSTILE, html_message=_HOSTILE)
    page = browser.page
    page.goto(f"{ADMIN}/message/{message.pk}/change/")
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


def a_held_mail_is_released_and_arrives(browser: Browser) -> None:
    address = "rui.held@participantes.example"
    message = _later(subject="Boleto", message="Pague", to=address)
    Message.objects.filter(pk=message.pk).update(
        state=State.HELD, send_at=None, due_at=None, finished_at=timezone.now(), reason="Asked for by an interceptor"
    )
    page = browser.page
    page.goto(f"{ADMIN}/message/?status=held")
    page.locator("#result_list a", has_text=address).first.click()
    assert "Está retida" in page.inner_text(".mailer-timeline")
    page.click("button:has-text('Liberar')")
    page.wait_for_selector(".messagelist .success")
    wait_until(lambda: _received(browser.services, address), "the mail at the server")


def a_paused_queue_holds_mail_back_until_it_is_resumed(browser: Browser) -> None:
    address = "eva.paused@participantes.example"
    page = browser.page
    page.goto(f"{ADMIN}/pause/add/")
    page.select_option("#id_scope", "queue")
    page.fill("#id_name", "mailer")
    page.fill("#id_reason", "O provedor pediu")
    page.click("input[name=_save]")
    page.wait_for_selector(".messagelist .success")
    page.goto(f"{ADMIN}/dashboard/")
    assert "O provedor pediu" in page.inner_text("#mailer-pauses ~ ul")
    message = send_mail("Boleto", "Pague", to=address)
    wait_until(lambda: Message.objects.filter(pk=message.pk, pause__isnull=False), "held back by a worker")
    assert _received(browser.services, address) == 0
    page.goto(f"{ADMIN}/message/{message.pk}/change/")
    assert "na fila" in page.inner_text(".mailer-headline")
    page.goto(f"{ADMIN}/pause/")
    assert "O provedor pediu" in page.inner_text("#result_list")
    page.check("#result_list input.action-select")
    page.select_option("select[name=action]", "delete_selected")
    page.click("button[name=index]")
    page.wait_for_selector(".messagelist .success")
    wait_until(lambda: _received(browser.services, address), "the mail at the server")
    assert _received(browser.services, address) == 1


def the_dashboard_tells_how_mail_flows(browser: Browser) -> None:
    address = "lia.flows@participantes.example"
    send_mail("Boleto", "Pague", to=address)
    wait_until(lambda: _received(browser.services, address), "the mail at the server")
    page = browser.page

    def counted() -> bool:
        page.goto(f"{ADMIN}/dashboard/")
        chart = page.locator("svg[role=img]").first.get_attribute("aria-label") or ""
        return "aceita" in chart and "aceita 0" not in chart

    wait_until(counted, "counted")
    workers = page.locator("section[aria-labelledby=mailer-workers]").inner_text()
    assert "Ativo" in workers
    assert "mailer.bulk" in workers
    assert "sai por 127.0.0.1" in page.locator("section[aria-labelledby=mailer-backends]").inner_text()
    table = page.locator("details").first
    table.locator("summary").click()
    assert table.locator("tbody tr").count() >= 1
    page.click("text=Último dia")

    page.wait_for_url("**span=day")
    assert page.locator("svg[role=img]").count() == 2


def the_mails_of_a_batch_are_reached_from_the_list_of_batches(browser: Browser) -> None:
    people = [f"b{number}@participantes.example" for number in range(3)]
    batch = send_bulk(people, subject="Programa do sábado", message="x")
    wait_until(lambda: batch.progress().done, "the batch")
    page = browser.page
    page.goto(f"{ADMIN}/batch/")
    page.locator("#result_list a", has_text="Programa do sábado").click()
    page.wait_for_url("**/change/**")
    assert page.locator("progress").get_attribute("value") == "3"
    page.click("text=Todas as mensagens dele")
    page.wait_for_url("**?batch=*")
    assert page.locator("#result_list tbody tr").count() == 3
    page.locator("#result_list tbody th a").first.click()
    page.wait_for_url("**/message/*/change/**")
    page.click("text=O lote dela")
    page.wait_for_url(f"**/batch/{batch.pk}/change/")


def an_address_is_suppressed_by_hand_and_gets_nothing(browser: Browser) -> None:
    address = "rita.suppressed@participantes.example"
    page = browser.page
    page.goto(f"{ADMIN}/suppression/add/")
    page.fill("#id_address", address)
    page.fill("#id_reason", "pediu por telefone")
    page.click("input[name=_save]")
    page.wait_for_selector(".messagelist .success")
    message = send_mail("Boleto", "Pague", to=address)
    assert message.state == State.SUPPRESSED
    page.goto(f"{ADMIN}/message/{message.pk}/change/")
    assert "Na lista de supressão" in page.inner_text(".mailer-timeline")
    page.goto(f"{ADMIN}/suppression/?q={address}")
    page.click("#result_list tbody th a")
    page.click("button:has-text('Tirar o endereço da lista')")
    page.wait_for_selector(".messagelist .success")
    assert not suppressions.is_suppressed(address)


def a_reader_leaves_a_list_and_comes_back(browser: Browser) -> None:
    address = "caio.leaves@participantes.example"
    batch = send_bulk([address], subject="Novidades", message="x", list_id="novidades")
    wait_until(lambda: _received(browser.services, address), "the mail at the server")
    message = batch.messages.get()
    with browser.other("pt-BR", "light", 360) as page:
        page.goto(_link_to_leave(browser.services, address))
        # To look at it changes nothing.
        assert "Novidades do congresso" in page.inner_text("h1")
        assert not suppressions.is_suppressed(address, transactional=False, list_id="novidades")
        page.click("button.first")
        page.wait_for_selector("[role=status]")
        assert suppressions.is_suppressed(address, transactional=False, list_id="novidades")
        browser.page.goto(f"{ADMIN}/message/{message.pk}/change/")
        assert "Pelo link" in _reasons_of(browser, address)
        page.click("button[value=stay]")
        page.wait_for_selector("[role=status]")
        assert not suppressions.is_suppressed(address, transactional=False, list_id="novidades")
    browser.page.goto(f"{ADMIN}/message/{message.pk}/change/")
    assert "O destinatário voltou" in browser.page.inner_text(".mailer-timeline")
    assert "descadastrada" not in browser.page.inner_text(".mailer-headline")


def _reasons_of(browser: Browser, address: str) -> str:
    browser.page.goto(f"{ADMIN}/suppression/?q={address}")
    browser.page.click("#result_list tbody th a")
    return browser.page.inner_text("#content")


def _link_to_leave(services: Services, address: str) -> str:
    for path in services.mails.rglob("*"):
        if path.is_file():
            mail = message_from_bytes(path.read_bytes())
            if address in str(mail["To"] or ""):
                return str(mail["List-Unsubscribe"]).strip("<>")
    raise AssertionError(address)


SCENARIOS: list[Callable[[Browser], None]] = [
    three_clicks_from_the_order_to_the_answer,
    a_mail_is_found_by_address_name_and_id,
    a_failed_mail_is_tried_again_and_arrives,
    a_mail_is_sent_to_a_corrected_address,
    a_suppressed_mail_leads_to_its_entry_and_is_sent_after_all,
    a_batch_is_watched_and_cancelled,
    a_hostile_mail_stays_in_its_frame,
    a_held_mail_is_released_and_arrives,
    a_paused_queue_holds_mail_back_until_it_is_resumed,
    the_dashboard_tells_how_mail_flows,
    the_mails_of_a_batch_are_reached_from_the_list_of_batches,
    an_address_is_suppressed_by_hand_and_gets_nothing,
    a_reader_leaves_a_list_and_comes_back,
    every_page_looks_right_and_axe_finds_nothing_serious,
]
