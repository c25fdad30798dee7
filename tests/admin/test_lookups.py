"""The query strings of the admin's lists answer no question about what the viewer may not see, on any of our pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.db.models import JSONField, Model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from congressy_mailer import send_bulk, send_mail, suppressions
from congressy_mailer.models import Attachment, Batch, Dashboard, Event, Message, Pause, RecipientStatus, WebhookBatch
from congressy_mailer.outbox.retention import DROPPED

pytestmark = pytest.mark.django_db

#: The dashboard is one page, and no list.
OURS = [
    model_admin
    for model, model_admin in admin.site._registry.items()
    if model._meta.app_label == "congressy_mailer" and model is not Dashboard
]
#: All that a list may be asked for beside pages, order and search.
ALLOWED = {
    Message: {"status", "since", "batch", "about"},
    Batch: {"since"},
    Pause: {"scope__exact", "scope__isnull"},
    WebhookBatch: {"problem", "since"},
    suppressions.active().model: {"scope", "source", "since"},
}  # fmt: skip
LOOKUPS = (
    "", "exact", "iexact", "contains", "startswith", "istartswith", "endswith", "regex", "iregex", "in", "gt", "gte",
    "lt", "lte", "range", "isnull", "isempty", "length", "year", "month", "day", "date", "body", "body__startswith",
    "0__startswith", "has_key", "pk__in",
)  # fmt: skip
#: In everything that a mail says beside its envelope.
WORD = "zq7711kx"
CONTENT: dict[str, Any] = {
    "subject": f"About {WORD}",
    "message": f"Text {WORD}",
    "html_message": f"<p>{WORD}</p>",
    "headers": {"X-Code": WORD},
    "attachments": [(f"{WORD}.txt", b"1")],
    "reply_to": f"{WORD}@example.com",
    "campaign": WORD,
    "tags": [WORD],
    "metadata": {"code": WORD},
    "sparkpost": {"options": {"ip_pool": WORD}},
}


@pytest.fixture(autouse=True)
def nothing_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("congressy_mailer.mail.publish_on_commit", lambda ids: None)


@pytest.fixture
def viewer(client: Client) -> Client:
    """Somebody who may see everything of ours, and change nothing."""
    user = User.objects.create_user("viewer", is_staff=True)
    views = Permission.objects.filter(content_type__app_label="congressy_mailer", codename__startswith="view_")
    user.user_permissions.set(views)
    client.force_login(user)
    return client


def list_of(model: type[Model]) -> str:
    return reverse(f"admin:congressy_mailer_{model._meta.model_name}_changelist")


def paths(model: type[Model], depth: int = 3) -> Iterator[str]:
    """Every field that a look-up can reach from a model, through relations in either direction."""
    yield "pk"
    for field in model._meta.get_fields():
        yield field.name
        yield getattr(field, "attname", field.name)
        related = field.related_model
        if depth > 1 and isinstance(related, type) and issubclass(related, Model):
            yield from (f"{field.name}__{path}" for path in paths(related, depth - 1))


def parameters(model: type[Model]) -> list[str]:
    return sorted({f"{path}__{lookup}".rstrip("_") for path in paths(model) for lookup in LOOKUPS})


def test_each_of_our_models_is_looked_at() -> None:
    assert {model_admin.model for model_admin in OURS} == set(ALLOWED)
    assert "attachments__filename__startswith" in parameters(Message)
    assert "batch__context__body__startswith" in parameters(Message)
    assert "messages__text__startswith" in parameters(Batch)


@pytest.mark.parametrize("model_admin", OURS, ids=lambda one: type(one).__name__)
def test_nothing_is_looked_up_but_what_the_filters_offer(model_admin: admin.ModelAdmin[Any], rf: Any) -> None:
    model = model_admin.model
    request = rf.get("/")
    allowed = ALLOWED[model]
    answered = {name for name in parameters(model) if model_admin.lookup_allowed(name, "a", request)}
    offered = {name for name in answered if not name.endswith("__isnull")}
    assert offered <= allowed | {"batch"}
    assert answered - allowed <= {"created_at__isnull"}
    # And the filters do work.
    assert all(model_admin.lookup_allowed(name, "a", request) for name in allowed)


@pytest.mark.parametrize("model", ALLOWED, ids=lambda one: one.__name__)
def test_a_refused_look_up_is_a_bad_request_that_repeats_nothing(viewer: Client, model: type[Model]) -> None:
    for name in ("pk__startswith", "text__startswith", "reason__contains", "body__isnull", "context__a", "nonsense"):
        answer = viewer.get(list_of(model), {name: WORD})
        assert answer.status_code == 400, name
        assert WORD not in answer.content.decode()


@pytest.mark.parametrize("model", ALLOWED, ids=lambda one: one.__name__)
def test_the_filters_that_a_list_shows_are_answered(viewer: Client, model: type[Model]) -> None:
    send_mail("Boleto", "x", to="ana@example.com")
    send_bulk(["ana@example.com"], subject="x", message="x")
    suppressions.suppress("eva@example.com", scope="transactional")
    WebhookBatch.objects.create(key="a", received_at=timezone.now())
    page = viewer.get(list_of(model), {"_facets": "True"}).content.decode()
    links = {link.replace("&amp;", "&") for link in re.findall(r'href="(\?[^"]*)"', page)}
    assert any("__" in link or "since" in link for link in links)
    for link in links:
        assert viewer.get(list_of(model) + link).status_code == 200, link


def without_ids(page: str) -> str:
    """A page without what differs from one message to another by itself."""
    page = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}", "ID", page)
    return re.sub(r'value="[\w-]{64}"|\d\d:\d\d(?::\d\d)?', "", page)


def pages_of(viewer: Client, query: dict[str, str]) -> Iterator[str]:
    for model in (Message, Batch):
        answer = viewer.get(list_of(model), query)
        yield f"{answer.status_code} {without_ids(answer.content.decode())}"


def store(word: str) -> None:
    """One mail and one batch, both sensitive, that say a word wherever a mail can."""
    said = {name: eval(repr(value).replace(WORD, word)) for name, value in CONTENT.items()}  # noqa: S307
    send_mail(to="ana@example.com", sensitive=True, **said)
    send_mail(
        "x", to="ana@example.com", sensitive=True, template="confidential/code", context={"code": word},
        idempotency_key=f"code {word}",
    )  # fmt: skip
    batch = send_bulk(["ana@example.com"], sensitive=True, **said)
    Event.objects.create(message=batch.messages.get(), type="deferred", at=timezone.now())


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"q": WORD},
        {"q": f'"{WORD}"'},
        {"q": "x", "o": "1.2.3"},
        *({"o": f"{sign}{column}"} for column in range(8) for sign in ("", "-")),
        {"all": ""},
        {"p": "2"},
        {"_facets": "True"},
        {"_to_field": "text", "_popup": "1"},
        {"_to_field": "id", "_popup": "1"},
        {"e": "1"},
        {"subject": WORD},
        {"status": WORD},
        {"since": WORD},
        {"batch": WORD},
        {"delivery__in": WORD},
        {"created_at__year": WORD},
    ],
    ids=str,
)
def test_two_outboxes_that_differ_in_sensitive_content_alone_look_alike(viewer: Client, query: dict[str, str]) -> None:
    store(WORD)
    first = list(pages_of(viewer, query))
    for model in (Attachment, Event, RecipientStatus, Message, Batch):
        model.objects.all().delete()
    store("another")
    assert list(pages_of(viewer, query)) == first


def test_no_page_of_a_sensitive_mail_says_any_of_it(viewer: Client) -> None:
    store(WORD)
    for model in (Message, Batch):
        for row in model.objects.all():
            pages = ["content", "frame", "raw"] if model is Message else []
            for page in ("change", "history", "delete", *pages):
                answer = viewer.get(reverse(f"admin:congressy_mailer_{model._meta.model_name}_{page}", args=[row.pk]))
                assert WORD not in answer.content.decode(), page
                assert WORD not in str(answer.headers)
            assert WORD not in f"{row} {row!r}"


def test_what_is_hidden_of_sensitive_mail_is_shown_of_other_mail(viewer: Client) -> None:
    message = send_mail(to="ana@example.com", idempotency_key=f"key {WORD}", **CONTENT)
    change = reverse("admin:congressy_mailer_message_change", args=[message.pk])
    user, content = User.objects.get(), Permission.objects.get(codename="view_content")
    user.user_permissions.remove(content)
    assert f"About {WORD}" in viewer.get(change).content.decode()
    assert f"key {WORD}" not in viewer.get(change).content.decode()
    user.user_permissions.add(content)
    for shown in (f"{WORD}@example.com", f"key {WORD}", f"{WORD}.txt"):
        assert shown in viewer.get(change).content.decode()
    says = viewer.get(reverse("admin:congressy_mailer_message_content", args=[message.pk])).content.decode()
    for shown in (f"About {WORD}", f"{WORD}.txt"):
        assert shown in says


def test_columns_that_can_be_sorted_by_say_nothing_of_the_content() -> None:
    for model_admin in OURS:
        for column in model_admin.list_display:
            order = getattr(getattr(model_admin, str(column), None), "admin_order_field", None)
            assert order is None
            assert column not in {*DROPPED, "mime", "body"}


def test_the_history_of_a_suppression_repeats_neither_address_nor_reason(client: Client) -> None:
    client.force_login(User.objects.create_superuser("support"))
    reason = {"address": f"{WORD}@example.com", "scope": "transactional", "reason": WORD}
    assert client.post(f"{list_of(suppressions.active().model)}add/", reason).status_code == 302
    row = suppressions.active().get()
    history = client.get(reverse("admin:congressy_mailer_suppression_history", args=[quote(row.pk)]))
    page = history.content.decode()
    assert history.status_code == 200
    assert WORD not in page.replace(f"q={WORD}", "")
    assert "e-mails transacionais" in page


def test_every_column_of_a_mail_goes_with_its_content_or_is_known_to_stay() -> None:
    """A new column has to be put into one of the two: docs/how-to/retention.md says why."""
    staying = {
        "id", "created_at", "send_at", "expires_at", "priority", "from_email", "template", "language", "timezone",
        "transactional", "sensitive", "content_dropped_at", "using", "list_id", "about_model", "about_id", "about_name",
        "traceparent",
    }  # fmt: skip
    of_messages = {
        "batch", "state", "due_at", "token", "attempts", "handover_started_at", "crashes", "route", "detached",
        "blocked", "remaining", "reply", "reason", "queued_at", "sent_at", "finished_at", "delivery", "message_id",
        "to", "cc", "bcc", "idempotency_key", "open_batch", "deferred_batch", "first_attempt_at", "retention",
        "sweep_at", "unsent", "address", "pause",
    }  # fmt: skip
    of_batches = {
        "key", "stored_at", "cancelled_at", "skipped", "due_at", "generation", "begun_generation", "storing_until",
        "storing_token", "last_stored_at", "pause",
    }  # fmt: skip
    for model, own, dropped in ((Message, of_messages, {"mime", "attributes"}), (Batch, of_batches, {"problems"})):
        names = {field.name for field in model._meta.concrete_fields}
        assert names - staying - own - dropped == set(DROPPED)
    for name, empty in DROPPED.items():
        field = Message._meta.get_field(name)
        assert field.get_default() == empty or (isinstance(field, JSONField) and field.null), name
