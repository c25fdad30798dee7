"""What a new message writes: the columns that say something, by one statement."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.core.mail import EmailMessage
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from congressy_mailer import send_mail
from congressy_mailer.backends import EmailBackend
from congressy_mailer.models import Message, Priority, SearchKey, State, new_id
from congressy_mailer.outbox import insertion
from congressy_mailer.outbox.insertion import insert_messages, stored_fields

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database, pytest.mark.usefixtures("published")]


def values_by_kind(key: UUID) -> dict[str, Any]:
    """A value for every column that is another than its default."""
    now = timezone.now().replace(microsecond=123000)
    kinds: dict[str, Any] = {
        "UUIDField": new_id(), "DateTimeField": now, "BooleanField": True, "PositiveIntegerField": 3,
        "PositiveSmallIntegerField": 4, "JSONField": ["a\\b", {"é": "'\"%s %%"}, None, 1.5],
        "CharField": "It's 100 % \\ é", "TextField": "'; --\n%s \\' 😀", "KeyField": "a\\'%",
        "ByteOrderField": "a'%s@é", "ForeignKey": None, "BinaryField": None,
    }  # fmt: skip
    values = {field.attname: kinds[type(field).__name__] for field in stored_fields(Message)}
    # What the table's constraints allow together.
    return values | {
        "id": key, "state": State.SCHEDULED, "priority": Priority.HIGH, "template": "", "context": None,
        "transactional": False, "idempotency_key": f"it's {key.hex} %", "timezone": "America/Sao_Paulo",
        "language": "pt-br",
        "using": "other", "delivery": "delivered", "traceparent": "00-a'%",
    }  # fmt: skip


def stored_row(key: UUID) -> dict[str, Any]:
    (found,) = Message.objects.filter(pk=key).values()
    return {name: value for name, value in found.items() if name not in ("id", "idempotency_key", "created_at")}


@pytest.mark.parametrize("complete", [False, True])
def test_a_row_is_what_django_would_have_stored(complete: bool) -> None:
    keys = new_id(), new_id()
    now = timezone.now()
    theirs, ours = (
        Message(**values_by_kind(key)) if complete else Message(id=key, created_at=now, from_email="a@b.example", to=[])
        for key in keys
    )
    if complete:
        theirs.created_at = theirs.created_at = ours.created_at
        for name in ("send_at", "due_at"):
            setattr(theirs, name, getattr(ours, name))
        shared = {field.attname for field in stored_fields(Message)} - {"id", "idempotency_key"}
        for name in shared:
            setattr(theirs, name, getattr(ours, name))
    theirs.save(force_insert=True)
    insert_messages([ours])
    assert stored_row(keys[0]) == stored_row(keys[1])
    assert not ours._state.adding
    # What the database derives is read when it is asked for, and the instance can be saved as any other.
    assert ours.open_batch == Message.objects.get(pk=keys[1]).open_batch
    ours.reason = "x"
    ours.save()
    assert Message.objects.get(pk=keys[1]).reason == "x"


def test_what_many_rows_share_is_stored_in_each_of_them() -> None:
    """On MySQL it is a part of the statement, and hostile values must come through that as well."""
    theirs, *ours = (Message(**values_by_kind(new_id())) for _ in range(4))
    names = [field.attname for field in stored_fields(Message) if field.attname not in ("id", "idempotency_key")]
    for message in ours:
        for name in names:
            setattr(message, name, getattr(theirs, name))
    theirs.save(force_insert=True)
    insert_messages(ours)
    assert [stored_row(message.id) for message in ours] == [stored_row(theirs.id)] * 3
    same = [Message(id=new_id(), created_at=theirs.created_at, from_email="a%s@b.example", to=["a%"]) for _ in range(3)]
    insert_messages(same)
    assert [message.to for message in Message.objects.filter(from_email="a%s@b.example")] == [["a%"]] * 3
    # Rows that differ in nothing at all, of which the database has a word to say.
    with pytest.raises(IntegrityError):
        insert_messages([same[0], same[0]])


def test_no_statement_grows_by_what_many_rows_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server refuses one that is larger than its max_allowed_packet, and closes the connection."""
    monkeypatch.setattr(insertion, "_MAX_STATEMENT_BYTES", 20_000)
    now = timezone.now()
    rows = [Message(id=new_id(), created_at=now, from_email="a@b.example", html="%" * 9_000) for _ in range(9)]
    with CaptureQueriesContext(connection) as captured:
        insert_messages(rows)
    assert Message.objects.filter(html="%" * 9_000).count() == 9
    assert max(len(query["sql"]) for query in captured) < 40_000


def test_bytes_that_many_rows_share_need_not_be_text() -> None:
    now, signed = timezone.now(), "Olá ' % \\ \0".encode("latin-1")
    rows = [Message(id=new_id(), created_at=now, from_email="a@b.example", mime=signed) for _ in range(3)]
    insert_messages(rows)
    assert [bytes(stored.mime or b"") for stored in Message.objects.all()] == [signed] * 3


def test_a_driver_that_writes_no_values_out_stores_many_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As mysqlclient before 2.2."""

    def attribute(wrapper: Any, name: str) -> Any:
        if name == "mogrify":
            raise AttributeError(name)
        return getattr(wrapper.cursor, name)

    if connection.vendor == "mysql":
        monkeypatch.setattr("django.db.backends.mysql.base.CursorWrapper.__getattr__", attribute)
    rows = [Message(id=new_id(), created_at=timezone.now(), from_email="a@b.example") for _ in range(3)]
    insert_messages(rows)
    assert Message.objects.filter(from_email="a@b.example").count() == 3


def test_many_rows_need_few_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insertion, "_MAX_STATEMENT_ROWS", 3)
    mails = [
        EmailMessage(f"{n} %s 'x' \\", "Olá", "a@b.example", [f"{n}@example.com"] if n else ["Zé <z@example.com>"])
        for n in range(7)
    ]
    assert EmailBackend().send_messages(mails) == 7
    stored = Message.objects.order_by("id")
    assert [message.address for message in stored] == ["z@example.com", *(f"{n}@example.com" for n in range(1, 7))]
    assert SearchKey.objects.filter(message=stored[0]).get().key == "ze"


def kinds(captured: CaptureQueriesContext) -> list[str]:
    return [kind for query in captured for kind in ("SELECT", "INSERT", "UPDATE") if f"{kind} " in query["sql"]]


def test_a_call_asks_for_suppressions_and_stores_its_mail_by_a_statement_each() -> None:
    with CaptureQueriesContext(connection) as captured:
        send_mail("x", "x", to="ana@example.com")
    assert kinds(captured) == ["SELECT", "INSERT"] and len(captured) == 2
    with CaptureQueriesContext(connection) as captured:
        send_mail("x", "x", to="Ana Souza <ana@example.com>")
    assert kinds(captured) == ["SELECT", "INSERT", "INSERT"]


def test_a_row_that_is_there_already_is_an_integrity_error_of_djangos() -> None:
    message = send_mail("x", "x", to="ana@example.com")
    with pytest.raises(IntegrityError), transaction.atomic():
        insert_messages([Message(id=message.pk, created_at=timezone.now(), from_email="a@b.example")])
    with transaction.atomic():
        with pytest.raises(IntegrityError):
            insert_messages([Message(id=message.pk, created_at=timezone.now(), from_email="a@b.example")])
        # As with save(): nothing can be done any more in this transaction.
        assert transaction.get_connection().needs_rollback
    assert Message.objects.count() == 1


def test_a_column_without_a_default_must_be_given() -> None:
    with pytest.raises(TypeError, match=r"Message\.id has no default"):
        insertion.insert_rows(Message, ["created_at"], [(timezone.now() - timedelta(1),)])
