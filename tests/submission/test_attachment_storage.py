"""A storage of attachments that is away, slow or odd: an error of ours at the call, and no mail set aside for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core import mail as django_mail
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.storage import InMemoryStorage

from congressy_mailer import Recipient, send_bulk, send_mail
from congressy_mailer.exceptions import AttachmentNotStored, MailerError
from congressy_mailer.models import Attachment, Batch, Message, State
from congressy_mailer.submission import storing_once
from tests.support.mails import deliver

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.email_settings,
    pytest.mark.usefixtures("published"),
]

FILE = ("ingresso de José.pdf", b"%PDF")


class ClientError(Exception):
    """As botocore's: no OSError, and with arguments of its own."""

    def __init__(self, response: dict[str, Any], operation: str) -> None:
        super().__init__(f"An error occurred ({response['Error']['Code']}) when calling {operation}")


HOSTILE = [
    OSError(28, "No space left on device"), PermissionError(13, "denied"), ConnectionResetError(), TimeoutError(),
    ClientError({"Error": {"Code": "SlowDown"}}, "PutObject"), SuspiciousFileOperation("outside"), KeyError("bucket"),
    ValueError("{%s}"), UnicodeEncodeError("ascii", "é", 0, 1, "not in range"), RecursionError(), Exception(),
]  # fmt: skip


class Storage(InMemoryStorage):
    """A storage that does what a test says before each of its calls."""

    before: Callable[[str], None] = staticmethod(lambda call: None)

    def _save(self, name: str, content: Any) -> str:
        type(self).before("save")
        return super()._save(name, content)

    def _open(self, name: str, mode: str = "rb") -> Any:
        type(self).before("open")
        return super()._open(name, mode)

    def delete(self, name: str) -> None:
        type(self).before("delete")
        super().delete(name)


@pytest.fixture(autouse=True)
def storage(settings: Any, monkeypatch: pytest.MonkeyPatch) -> type[Storage]:
    # The field has been given its storage when the model was made.
    one = Storage()
    monkeypatch.setattr(Attachment._meta.get_field("file"), "storage", one)
    monkeypatch.setattr("congressy_mailer.submission.attachments.attachment_storage", lambda: one)
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    monkeypatch.setattr(Storage, "before", staticmethod(lambda call: None))
    return Storage


@pytest.fixture
def fail(storage: type[Storage], monkeypatch: pytest.MonkeyPatch) -> Callable[[str, BaseException], None]:
    """Have one of the storage's calls raise."""

    def fail(call: str, error: BaseException) -> None:
        def before(now: str) -> None:
            if now == call:
                # Longer than a chunk of mails is composed.
                time.sleep(0.06 if isinstance(error, SoftTimeLimitExceeded) else 0)
                raise error

        monkeypatch.setattr(storage, "before", staticmethod(before))

    return fail


@pytest.mark.parametrize("error", HOSTILE, ids=lambda error: type(error).__name__)
def test_whatever_a_storage_raises_is_one_error_of_ours(fail: Callable[..., None], error: Exception) -> None:
    fail("save", error)
    with pytest.raises(AttachmentNotStored, match="'default'") as raised:
        send_mail("x", "y", to="ana@example.com", attachments=[FILE])
    assert isinstance(raised.value, MailerError) and isinstance(raised.value, OSError)
    assert raised.value.__cause__ is error
    assert "José" not in str(raised.value)
    to_one = Recipient(to="ana@example.com", attachments=[FILE])
    for recipients, files in ((["ana@example.com"], [FILE]), ([to_one], [])):
        # A recipient is not left out for it: the storage is at fault.
        for way in ("raise", "skip"):
            with pytest.raises(AttachmentNotStored):
                send_bulk(recipients, subject="x", message="y", attachments=files, on_invalid=way)
    assert not Message.objects.exists()
    assert not Attachment.objects.exists()
    assert not Batch.objects.exclude(skipped=0).exists()


@pytest.mark.database
@pytest.mark.parametrize("error", HOSTILE[:5], ids=lambda error: type(error).__name__)
def test_who_comes_second_with_a_key_gets_the_first_mail_although_its_files_stay(
    fail: Callable[..., None], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    first = send_mail("x", "y", to="ana@example.com", idempotency_key="order-1", attachments=[FILE])
    find, calls = storing_once._find, []

    def too_early(*arguments: Any) -> Message | None:
        calls.append(arguments)
        return None if len(calls) == 1 else find(*arguments)

    monkeypatch.setattr(storing_once, "_find", too_early)
    fail("delete", error)
    assert send_mail("x", "y", to="ana@example.com", idempotency_key="order-1", attachments=[FILE]) == first
    assert Attachment.objects.count() == 1


def test_a_storage_that_hangs_sets_no_mail_aside(fail: Callable[..., None]) -> None:
    slow = send_mail("slow", "y", to="ana@example.com", attachments=[FILE])
    other = send_mail("other", "y", to="ana@example.com")
    for _ in range(4):
        Message.objects.filter(state=State.DEFERRED).update(due_at=slow.created_at)
        # As Celery does at the end of TIME_LIMIT, once.
        fail("open", SoftTimeLimitExceeded())
        result = deliver([slow.pk, other.pk])
        # What hangs a second time would end the process.
        assert result.unfinished == [other.pk]
    slow.refresh_from_db()
    assert (slow.state, slow.crashes, slow.attempts) == (State.DEFERRED, 0, 4)
    assert "TIME_LIMIT" in slow.reason
    fail("never", OSError())
    Message.objects.filter(pk=slow.pk).update(due_at=slow.created_at)
    deliver([slow.pk, other.pk])
    assert sorted(one.subject for one in django_mail.outbox) == ["other", "slow"]
