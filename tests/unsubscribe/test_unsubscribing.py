"""How a recipient leaves: headers and links in mails, and the page that they lead to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core import signing
from django.template import Context, Template
from django.test import Client, override_settings
from django.urls import clear_url_caches
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from congressy_mailer import send_bulk, suppressions
from congressy_mailer.exceptions import ContentError, ContentNotReady
from congressy_mailer.models import Message, Suppression
from congressy_mailer.suppressions.entries import Entry
from congressy_mailer.suppressions.lookup import suppressed_among
from congressy_mailer.suppressions.rules import Scope, Source
from congressy_mailer.unsubscribe import preferences
from congressy_mailer.unsubscribe.links import BadLink, Link, make_token, parse_token
from tests.support.mails import composed_as_stored, queue_message

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published", "site")]

SITE = "https://www.congressy.com"
LISTS = {"novidades": "Novidades do evento", "parceiros": "Ofertas de parceiros"}
ANA = "ana@example.com"


@pytest.fixture
def site() -> Iterator[None]:
    with override_settings(CONGRESSY_MAILER={"SITE_URL": SITE, "LISTS": LISTS}):
        yield


def news(**options: Any) -> Message:
    return queue_message(**{"transactional": False, **options})


def header(message: Message, name: str) -> str | None:
    value = composed_as_stored(message).extra_headers.get(name)
    return None if value is None else str(value)


def path_in(message: Message) -> str:
    found = re.fullmatch(rf"<{SITE}(/mailer/unsubscribe/.+/)>", header(message, "List-Unsubscribe") or "")
    assert found is not None
    return found[1]


def gets(address: str = ANA, list_id: str = "", transactional: bool = False) -> bool:
    return not suppressed_among([address], transactional=transactional, list_id=list_id)


def test_mail_that_is_not_transactional_offers_to_leave_in_one_click() -> None:
    message = news()
    path_in(message)
    assert header(message, "List-Unsubscribe-Post") == "List-Unsubscribe=One-Click"


def test_the_headers_come_through_what_a_backend_asks_for() -> None:
    mail = composed_as_stored(news())
    text = mail.message().as_bytes().decode()
    unfolded = re.sub(r"\r?\n[ \t]+", " ", text)
    assert f"List-Unsubscribe: {mail.extra_headers['List-Unsubscribe']}" in unfolded.replace(":  ", ": ")


@pytest.mark.parametrize(
    "options",
    [
        {"transactional": True},
        {"cc": ["bia@example.com"]},
        {"to": [ANA, "bia@example.com"]},
        {"bcc": ["c@example.com"]},
    ],
)
def test_other_mail_does_not(options: dict[str, Any]) -> None:
    assert header(news(**options), "List-Unsubscribe") is None


def test_the_callers_own_header_stays() -> None:
    message = news(headers={"list-unsubscribe": "<mailto:sair@congressy.com>"})
    assert header(message, "list-unsubscribe") == "<mailto:sair@congressy.com>"
    assert header(message, "List-Unsubscribe") is None
    assert header(message, "List-Unsubscribe-Post") is None


@override_settings(CONGRESSY_MAILER={})
def test_without_a_site_there_is_no_link_and_the_mail_goes_all_the_same() -> None:
    assert header(news(), "List-Unsubscribe") is None


def test_without_our_urls_there_is_no_link_either() -> None:
    with override_settings(ROOT_URLCONF="django.contrib.auth.urls"):
        clear_url_caches()
        assert header(news(), "List-Unsubscribe") is None
    clear_url_caches()


def test_mail_waits_where_the_hosts_urls_cannot_be_loaded() -> None:
    with override_settings(ROOT_URLCONF="tests.no_such_module"):
        clear_url_caches()
        with pytest.raises(ContentNotReady, match="no_such_module"):
            composed_as_stored(news())
    clear_url_caches()


def test_each_mail_of_a_batch_has_a_link_of_its_own() -> None:
    batch = send_bulk([ANA, "bia@example.com"], subject="Oi", message="Oi", list_id="novidades")
    links = {parse_token(path_in(message).split("/")[-2]) for message in batch.messages.all()}
    assert {(link.address, link.list_id) for link in links} == {(ANA, "novidades"), ("bia@example.com", "novidades")}


def test_looking_at_the_page_changes_nothing(client: Client) -> None:
    path = path_in(news(list_id="novidades"))
    for method in (client.get, client.head, client.options):
        method(path)
    assert gets(list_id="novidades")
    assert not Suppression.objects.exists()


def test_a_mail_programs_post_takes_effect_at_once(client: Client) -> None:
    path = path_in(news(list_id="novidades"))
    response = client.post(path, "List-Unsubscribe=One-Click", content_type="application/x-www-form-urlencoded")
    assert response.status_code == 200
    assert not gets(list_id="novidades")
    assert gets(list_id="parceiros")
    assert gets()
    assert gets(transactional=True)
    assert Suppression.objects.get().source == Suppression.Source.UNSUBSCRIBE


def test_so_does_one_that_is_multipart(client: Client) -> None:
    client.post(path_in(news()), {"List-Unsubscribe": "One-Click"})
    assert not gets()
    assert not gets(list_id="novidades")
    assert gets(transactional=True)


def test_no_cookie_and_no_token_of_a_form_is_asked_for() -> None:
    client = Client(enforce_csrf_checks=True)
    assert client.post(path_in(news())).status_code == 200
    assert not gets()


def test_who_left_by_mistake_can_stay(client: Client) -> None:
    path = path_in(news(list_id="novidades"))
    client.post(path)
    assert not gets(list_id="novidades")
    client.post(path, {"choice": "stay"})
    assert gets(list_id="novidades")


@pytest.mark.database
def test_a_return_is_written_down_and_so_is_leaving_again(client: Client) -> None:
    message = news(list_id="novidades")
    path = path_in(message)

    def events() -> list[str]:
        return list(message.events.order_by("at", "id").values_list("type", flat=True))

    def delivery() -> str:
        message.refresh_from_db()
        return str(message.delivery)

    # Nothing to come back from.
    client.post(path, {"choice": "stay"})
    assert (events(), delivery()) == ([], "")
    for _ in range(2):
        client.post(path)
    assert (events(), delivery()) == (["unsubscribed"], "unsubscribed")
    for _ in range(2):
        client.post(path, {"choice": "stay"})
    assert (events(), delivery()) == (["unsubscribed", "resubscribed"], "")
    client.post(path)
    assert (events()[2:], delivery()) == (["unsubscribed"], "unsubscribed")
    client.post(path, {"choice": "save", "list": ["novidades"]})
    assert (events()[3:], delivery()) == (["resubscribed"], "")
    assert message.statuses.get().trouble is None


OTHERS = [
    source
    for source in Suppression.Source
    if source not in (Suppression.Source.UNSUBSCRIBE, Suppression.Source.SPARKPOST_UNSUBSCRIBE)
]


@pytest.mark.parametrize("source", OTHERS)
@pytest.mark.parametrize(("list_id", "scope"), [("", ""), ("novidades", ""), ("novidades", "novidades")])
@pytest.mark.parametrize("order", ["before", "after", "late"])
def test_staying_takes_back_unsubscribing_and_nothing_else(
    client: Client, source: str, list_id: str, scope: str, order: str
) -> None:
    message = news(list_id=list_id, language="en")
    path = path_in(message)
    other = Entry(
        at=timezone.now() - timedelta(minutes=1 if order == "before" else -1), source=Source(source), address=ANA,
        scope=Scope.LIST if scope else Scope.NON_TRANSACTIONAL, list_id=scope,
    )  # fmt: skip
    if order == "before":
        suppressions.add([other])
    client.post(path)
    if order == "after":
        suppressions.add([other])
    page = client.post(path, {"choice": "stay"}).content.decode()
    assert ("still do not write" in page) == (order != "late")
    suppressions.add([other])
    assert not gets(list_id=list_id)
    assert set(Suppression.objects.values_list("source", flat=True)) == {source}
    assert "You are unsubscribed" in client.get(path).content.decode()


def test_staying_takes_back_what_was_told_to_sparkpost_too(client: Client) -> None:
    path = path_in(news(list_id="novidades"))
    clicked = Entry(at=timezone.now(), source=Source.SPARKPOST_UNSUBSCRIBE, address=ANA, scope=Scope.NON_TRANSACTIONAL)
    suppressions.add([clicked])
    assert not gets(list_id="novidades")
    client.post(path, {"choice": "stay"})
    # Heard of once more.
    suppressions.add([clicked])
    assert gets(list_id="novidades")


def test_who_stays_before_the_unsubscription_is_heard_of_stays(client: Client) -> None:
    path = path_in(news(list_id="novidades"))
    before = timezone.now() - timedelta(minutes=1)
    client.post(path, {"choice": "stay"})
    suppressions.add([Entry(at=before, source=Source.UNSUBSCRIBE, address=ANA, scope=Scope.LIST, list_id="novidades")])
    assert gets(list_id="novidades")


def test_staying_where_another_reason_is_left_is_no_unsubscription_of_the_mail(client: Client) -> None:
    message = news()
    suppressions.add([Entry(at=timezone.now(), source=Source.COMPLAINT, address=ANA, scope=Scope.NON_TRANSACTIONAL)])
    client.post(path_in(message), {"choice": "stay"})
    assert not message.events.filter(type="unsubscribed").exists()


def test_all_news_can_be_left_from_the_page_of_a_list(client: Client) -> None:
    path = path_in(news(list_id="novidades"))
    client.post(path, {"choice": "all"})
    assert not gets(list_id="parceiros")
    assert not gets()
    client.post(path, {"choice": "stay"})
    assert gets(list_id="parceiros")


def test_lists_can_be_chosen_one_by_one(client: Client) -> None:
    path = path_in(news(list_id="novidades"))
    client.post(path, {"choice": "save", "list": ["parceiros"]})
    assert (gets(list_id="novidades"), gets(list_id="parceiros")) == (False, True)
    client.post(path, {"choice": "save", "list": ["novidades"]})
    assert (gets(list_id="novidades"), gets(list_id="parceiros")) == (True, False)
    client.post(path, {"choice": "save"})
    assert not gets()
    client.post(path, {"choice": "save", "list": ["novidades", "parceiros", "unknown"]})
    assert gets()
    assert (gets(list_id="novidades"), gets(list_id="parceiros")) == (True, True)


def test_the_page_speaks_the_mails_language(client: Client) -> None:
    portuguese = client.get(path_in(news(list_id="novidades", language="pt-br"))).content.decode()
    assert "Não quer mais receber “Novidades do evento”?" in portuguese
    assert '<html lang="pt-br">' in portuguese
    english = client.get(path_in(news(language="en"))).content.decode()
    assert "Stop receiving our news?" in english


def test_the_page_of_a_mail_that_is_long_gone_speaks_the_browsers(client: Client) -> None:
    message = news(language="pt-br")
    path = path_in(message)
    message.delete()
    assert "Stop receiving" in client.get(path, headers={"accept-language": "en"}).content.decode()
    client.post(path)
    assert not gets()


def test_the_page_is_kept_by_nobody(client: Client) -> None:
    response = client.get(path_in(news()))
    assert "no-store" in response["Cache-Control"]
    assert response["Referrer-Policy"] == "no-referrer"
    assert response["X-Robots-Tag"] == "noindex"


def test_an_address_is_shown_and_never_run(client: Client) -> None:
    token = make_token(Link(uuid4(), "<script>alert(1)</script>@example.com", ""))
    assert b"<script>" not in client.get(f"/mailer/unsubscribe/{token}/").content


def test_who_left_already_is_told_so(client: Client) -> None:
    path = path_in(news(language="en"))
    client.post(path)
    assert "You are unsubscribed" in client.get(path).content.decode()


def test_a_link_outlives_a_change_of_the_key(client: Client) -> None:
    path = path_in(news())
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["only for tests"]):
        assert client.post(path).status_code == 200
    assert not gets()
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[]):
        assert client.post(path).status_code == 404


def test_nothing_else_that_the_host_signs_is_a_link(client: Client) -> None:
    value = [uuid4().hex, ANA, ""]
    for forged in (
        signing.dumps(value),
        signing.Signer(sep=".").sign_object(value),
        signing.Signer(salt="congressy_mailer.unsubscribe", key="other", sep=".").sign_object(value),
    ):
        assert client.post(f"/mailer/unsubscribe/{forged}/").status_code == 404
    assert not Suppression.objects.exists()


# The fixtures are the same for all examples: none of them stores anything.
@settings(suppress_health_check=[], deadline=None)
@given(position=st.integers(0, 10_000), replacement=st.characters(codec="ascii", categories=["L", "N"]) | st.just(""))
def test_no_change_of_a_link_is_a_link(position: int, replacement: str) -> None:
    token = make_token(Link(uuid4(), ANA, ""))
    position %= len(token)
    forged = token[:position] + replacement + token[position + 1 :]
    if forged != token:
        with pytest.raises(BadLink):
            parse_token(forged)


@given(st.text())
def test_no_text_is_a_link(text: str) -> None:
    with pytest.raises(BadLink):
        parse_token(text)


@given(
    method=st.sampled_from(["post", "get", "put", "delete", "patch", "head", "options"]),
    body=st.binary(max_size=200),
    kind=st.sampled_from(["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "a/b;"]),
    token=st.text(min_size=1, max_size=80) | st.just("signed"),
    choice=st.sampled_from(["", "stay", "save", "all", "none", "\0"]),
)
def test_whatever_comes_there_is_an_answer_and_nobody_elses_mail_changes(
    method: str, body: bytes, kind: str, token: str, choice: str
) -> None:
    client = Client(raise_request_exception=True)
    if token == "signed":
        token = make_token(Link(uuid4(), "bia@example.com", "novidades"))
    address = f"/mailer/unsubscribe/{token.replace('/', '').replace('?', '').replace('#', '') or 'x'}/"
    response = client.generic(method.upper(), address, body or f"choice={choice}".encode(), content_type=kind)
    assert response.status_code in (200, 301, 400, 404, 405)
    assert gets()


TEMPLATE = "{% load congressy_mailer %}{% unsubscribe_url %}"


def test_templates_can_name_the_link() -> None:
    message = news(
        subject="Oi", message="", template="mailer/unsubscribe", context={"nome": "Ana"}, list_id="novidades"
    )
    mail = composed_as_stored(message)
    link = (header(message, "List-Unsubscribe") or "")[1:-1]
    assert link.startswith(SITE)
    assert link in mail.body
    assert f'href="{link}"' in str(mail.alternatives[0][0])


def test_transactional_mail_may_name_it_too() -> None:
    message = news(message="", template="mailer/unsubscribe", transactional=True)
    assert f"{SITE}/mailer/unsubscribe/" in str(composed_as_stored(message).body)


def test_a_link_for_several_recipients_would_be_anothers() -> None:
    message = news(message="", template="mailer/unsubscribe", to=[ANA, "bia@example.com"])
    with pytest.raises(ContentError, match="this mail has several"):
        composed_as_stored(message)


@override_settings(CONGRESSY_MAILER={})
def test_a_template_that_needs_the_link_waits_for_the_site() -> None:
    with pytest.raises(ContentNotReady, match="SITE_URL"):
        composed_as_stored(news(message="", template="mailer/unsubscribe"))


def test_a_preview_shows_no_link() -> None:
    assert Template(TEMPLATE).render(Context()) == "#"


def test_a_preference_is_compared_without_case() -> None:
    preferences.unsubscribe("Ana@Example.com", "", "")
    assert not gets()


def test_leaving_by_our_link_is_told_of_the_mail_once() -> None:
    message = news()
    client = Client()
    client.get(path_in(message))
    assert not message.events.filter(type="unsubscribed").exists()
    for _ in range(3):
        assert client.post(path_in(message), {"List-Unsubscribe": "One-Click"}).status_code == 200
    message.refresh_from_db()
    assert message.delivery == "unsubscribed"
    assert message.events.filter(type="unsubscribed", recipient=ANA).count() == 1
    assert message.statuses.get().unsubscribed_at is not None
    path = path_in(message)
    message.delete()
    assert client.post(path).status_code == 200
