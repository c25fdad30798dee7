"""How the database stores messages: what makes the log of a mail, and the indexes, no longer than they need be."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from congressy_mailer import outbox, send_bulk
from congressy_mailer.models import Message
from congressy_mailer.models.messages import FILL_FACTOR
from congressy_mailer.replies import Reply

pytestmark = [pytest.mark.database, pytest.mark.django_db, pytest.mark.usefixtures("published")]

TABLE = Message._meta.db_table


def test_a_key_is_there_once_and_none_as_often_as_one_likes() -> None:
    def store(key: str | None) -> None:
        with transaction.atomic():
            Message.objects.create(created_at=timezone.now(), from_email="a@example.com", idempotency_key=key)

    for key in (None, None, "k", "l"):
        store(key)
    with pytest.raises(IntegrityError):
        store("k")


def test_the_keys_of_work_are_null_in_what_was_sent() -> None:
    batch = send_bulk(["a@example.com"], subject="s", message="b")
    assert batch.messages.get().open_batch == batch.pk
    (message,) = outbox.claim_from_batch(batch, "t", 1)
    held = batch.messages.get()
    assert (held.open_batch, held.sweep_at) == (None, held.due_at)
    # Found by what all workers hold, not by the batch's index.
    assert not outbox.reschedule_batch(batch.pk, batch.generation)
    batch.refresh_from_db()
    assert batch.due_at is not None
    outbox.record_accepted("t", [(message, Reply(250, "OK"))])
    sent = batch.messages.get()
    assert (sent.open_batch, sent.deferred_batch, sent.sweep_at) == (None, None, None)
    assert not outbox.reschedule_batch(batch.pk, batch.generation)
    batch.refresh_from_db()
    assert batch.due_at is None


def test_postgresql_keeps_room_beside_each_row_and_no_entries_without_a_key() -> None:
    if connection.vendor != "postgresql":
        # The others have neither; that they have the table and its indexes is what all other tests stand on.
        assert TABLE in connection.introspection.table_names()
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE oid = %s::regclass", [TABLE])
        assert cursor.fetchone()[0] == [f"fillfactor={FILL_FACTOR}"]
        cursor.execute("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s", [TABLE])
        of_all_rows = {name for name, definition in cursor.fetchall() if " WHERE " not in definition}
    # People look for an address among all mail.
    assert of_all_rows == {f"{TABLE}_pkey", "mailer_message_address"}
