"""Store what a project has that uses all of this release, and keep its rows: ``python -m tests.releases``."""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from datetime import timedelta
from decimal import Decimal
from typing import Any

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
os.environ["MAILER_TEST_DIRECTORY"] = tempfile.mkdtemp(prefix="releases-")
os.environ.pop("DATABASE_URL", None)
django.setup()

from django.apps import apps  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.db.migrations.loader import MigrationLoader  # noqa: E402
from django.utils import timezone  # noqa: E402

import congressy_mailer  # noqa: E402
from congressy_mailer import Recipient, send_bulk, send_mail, suppressions  # noqa: E402
from congressy_mailer.broker import sending  # noqa: E402
from congressy_mailer.models import Message, State  # noqa: E402
from tests.releases import rows  # noqa: E402


def main() -> int:
    """Write the file of the version at hand."""
    call_command("migrate", verbosity=0)
    setattr(sending, "send", lambda *arguments, **options: True)  # noqa: B010
    waiting = _mails()
    for model in rows.own_models(apps):
        if not model._base_manager.exists():
            model._base_manager.create(**_any_values(model))
    [migration] = [name for app, name in MigrationLoader(connection).graph.leaf_nodes() if app == rows.APP]
    file = rows.FOLDER / f"{congressy_mailer.__version__}.json"
    file.parent.mkdir(exist_ok=True)
    rows.write(file, migration, waiting, apps)
    print(file)
    return 0


def _mails() -> list[str]:
    """Store mails of each kind and in each state, and return who is still to get one."""
    now = timezone.now()
    ana = User.objects.create(username="ana", email="ana@example.com")
    context = {"name": "Ana", "day": now, "price": Decimal("9.90"), "text": congressy_mailer.Priority.HIGH.label}
    send_mail("Text", "Hello.", to="text@example.com", html_message="<p>Hello.</p>", headers={"X-Order": "7"})
    send_mail("Alternative", "Hello.", to="alternative@example.com", alternatives=[("<p>A</p>", "text/x-amp-html")])
    send_mail("Context", to="template@example.com", template="mail/hello", context=context, language="pt-br")
    send_mail("Sensitive", "Code 1234.", to="sensitive@example.com", sensitive=True)
    send_mail(
        "About", "Hello.", to="about@example.com", about=ana, idempotency_key="once", campaign="spring", tags=["a"]
    )
    send_mail("Again", "Hello.", to="again@example.com")
    send_mail("Claimed", "Hello.", to="claimed@example.com")
    past = now - timedelta(minutes=5)
    Message.objects.filter(subject="Again").update(state=State.DEFERRED, due_at=past, attempts=1, reason="450 Later.")
    Message.objects.filter(subject="Claimed").update(state=State.SENDING, token="gone", due_at=past)
    for state in (State.SENT, State.FAILED, State.HELD, State.SUPPRESSED):
        files = [("a.txt", "x", "text/plain")]
        message = send_mail(state.label, "Hello.", to=f"{state.value}@example.com", attachments=files)
        Message.objects.filter(pk=message.pk).update(state=state, due_at=None, finished_at=now)
    send_bulk(
        ["bulk-1@example.com", ("bulk-2@example.com", context), Recipient(to="bulk-3@example.com", language="en")],
        template="mail/hello", subject="Bulk", context={"name": "all"}, key="newsletter",
    )  # fmt: skip
    suppressions.suppress("gone@example.com")
    congressy_mailer.pause(campaign="autumn", reason="A person decides.")
    names = ("text", "alternative", "template", "sensitive", "about", "again", "claimed", "bulk-1", "bulk-2", "bulk-3")
    return [f"{name}@example.com" for name in names]


def _any_values(model: type[models.Model]) -> dict[str, Any]:
    """A value for each column that must have one."""
    values: dict[str, Any] = {}
    for field in model._meta.local_fields:
        if field.has_default() or field.null or isinstance(field, models.AutoField) or getattr(field, "generated", 0):
            continue
        if isinstance(field, models.ForeignKey):
            values[field.attname] = field.related_model._base_manager.values_list("pk", flat=True).first()
        elif isinstance(field, models.DateTimeField):
            values[field.name] = timezone.now()
        elif isinstance(field, models.UUIDField):
            values[field.name] = uuid.uuid4()
        elif isinstance(field, models.JSONField):
            values[field.name] = {}
        elif isinstance(field, models.BinaryField):
            values[field.name] = b"1"
        elif isinstance(field, models.IntegerField | models.FloatField):
            values[field.name] = 1
        elif isinstance(field, models.CharField | models.TextField | models.FileField):
            values[field.name] = field.choices[0][0] if field.choices else "a"
        else:
            raise TypeError(f"No value for {field}: add one here.")
    return values


if __name__ == "__main__":
    sys.exit(main())
