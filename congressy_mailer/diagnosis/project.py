"""The host's project: its settings, database, attachment storage and templates."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from uuid import uuid4

from django.core import checks
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import Error, connections
from django.db.migrations.executor import MigrationExecutor
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import outbox
from ..content import templates
from ..metrics.workers import is_alive, known_workers
from ..models import ATTACHMENT_FOLDER, Batch, Message, attachment_storage
from ..replies import error_text
from .findings import Finding, error, examination, skipped, warning

# Of the newest messages.
_LOOKED_AT = 5_000


@examination("settings", gettext_lazy("Settings"))
def examine_settings() -> Iterator[Finding]:
    """Runs the mailer's system checks, those for deployment too (``manage.py check --deploy --tag congressy_mailer``).

    Each finding begins with the id of its check: :doc:`checks`.
    """
    for message in checks.run_checks(tags=["congressy_mailer"], include_deployment_checks=True):
        if message.is_silenced():
            continue
        found = error if message.level >= checks.ERROR else warning
        yield found(f"{message.id}: {message.msg}", message.hint or "")


@examination("database", gettext_lazy("Database and migrations"))
def examine_database() -> Iterator[Finding]:
    """Connects to the database of the outbox, and compares its migrations with those of the code.

    After an update, run ``manage.py migrate`` before starting workers of the new version.
    """
    alias = outbox.database()
    try:
        executor = MigrationExecutor(connections[alias])
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes("congressy_mailer"))
    except Error as failure:
        yield error(
            _("The database %(alias)s cannot be queried: %(error)s") % {"alias": alias, "error": error_text(failure)},
            _("Look at DATABASES, and whether the server runs."),
        )
        return
    if plan:
        names = ", ".join(migration.name for migration, _backwards in plan)
        yield error(
            _("Migrations of congressy_mailer are missing in the database %(alias)s: %(names)s.")
            % {"alias": alias, "names": names},
            _("Run: python manage.py migrate congressy_mailer"),
        )


@examination("attachment-storage", gettext_lazy("Storage of attachments"))
def examine_storage() -> Iterator[Finding]:
    """Writes a file to ``ATTACHMENT_STORAGE``, reads it and deletes it. If that is a folder of this host, it also looks
    for workers on other hosts.

    Web processes write attachments, and workers read them. All of them must share a folder, for example on a network
    file system; object storage such as S3 is always shared.
    """
    storage = attachment_storage()
    name = ""
    try:
        name = storage.save(f"{ATTACHMENT_FOLDER}/doctor-{uuid4().hex}.txt", ContentFile(b"doctor"))
        with storage.open(name) as file:
            same = file.read() == b"doctor"
        storage.delete(name)
    except Exception as failure:
        yield error(
            _("A file cannot be written, read and deleted again: %(error)s") % {"error": error_text(failure)},
            _("Look at ATTACHMENT_STORAGE and STORAGES, and at the permissions of the folder or bucket."),
        )
        return
    if not same:
        yield error(_("A file that was written is read as something else."), _("Look at the storage's options."))
    here = socket.gethostname()
    others = sorted(
        {worker.name.partition("@")[2] for worker in known_workers() if is_alive(worker)} - {here, "localhost"}
    )
    if isinstance(storage, FileSystemStorage) and others:
        yield warning(
            _("Attachments are in a folder of this host, %(folder)s, and workers run on others: %(hosts)s.")
            % {"folder": storage.location, "hosts": ", ".join(others)},
            _("Make sure that it is the same folder there, or use a storage that all hosts share, such as S3."),
        )


@examination("templates", gettext_lazy("Templates and their languages"))
def examine_templates() -> Iterator[Finding]:
    """Looks for the templates of the newest mails, in the languages of these mails.

    Mail with a missing template is not sent. If a template exists in other languages, but not in the mail's, the
    recipient gets the general one.
    """
    # Nothing is left out by the database: looking for what is rare among the newest, it would read all rows.
    messages = Message.objects.using(outbox.database()).order_by("-id")
    batches = Batch.objects.using(outbox.database()).order_by("-id")
    used: dict[str, set[tuple[str, bool]]] = {}
    for mails in (messages, batches):
        newest = mails.values_list("template", "language", "subject", "content_dropped_at")[:_LOOKED_AT]
        for name, language, subject, dropped_at in newest:
            if name and dropped_at is None:
                used.setdefault(name, set()).add((language, bool(subject)))
    if not used:
        yield skipped(_("No mail was made from a template."))
    for name, ways in sorted(used.items()):
        yield from _template_findings(name, ways)


def _template_findings(name: str, ways: set[tuple[str, bool]]) -> Iterator[Finding]:
    for language, subject_given in sorted(ways):
        try:
            templates.check(name, subject_given=subject_given, language=language)
        except Exception as failure:
            yield error(str(failure), _("Put the template there, and restart the workers."))
            return
    languages = {language for language, _subject in ways if language}
    there = {language for language in languages if templates.has_variant(name, language)}
    if there and there != languages:
        yield warning(
            _("The template %(name)s exists in %(there)s but not in %(missing)s, in which mail is sent.")
            % {"name": name, "there": ", ".join(sorted(there)), "missing": ", ".join(sorted(languages - there))},
            _("Add the files of the missing language."),
        )
