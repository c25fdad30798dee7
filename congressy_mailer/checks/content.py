"""Checks of what mail is made of: templates, and the storage that its attachments wait in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.files.storage import FileSystemStorage, InvalidStorageError, storages
from django.template import engines
from django.utils.translation import gettext as _

from ..conf import quote_name, settings_if_valid
from .settings import Apps

_LOADS_HUMANIZE = re.compile(r"\{%\s*load\s[^%]*\bhumanize\b")


@register("congressy_mailer", Tags.templates)
def check_humanize(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E009``: a template loads ``humanize``, and ``django.contrib.humanize`` is not installed."""
    if apps.is_installed("django.contrib.humanize"):
        return []
    for path in _template_files():
        if _LOADS_HUMANIZE.search(path.read_text(errors="ignore")):
            return [
                Error(
                    _(
                        "The template %(path)s loads humanize, but django.contrib.humanize is not installed: mail made "
                        "with it would fail in the worker."
                    )
                    % {"path": path},
                    hint=_('Add "django.contrib.humanize" to INSTALLED_APPS.'),
                    id="congressy_mailer.E009",
                )
            ]
    return []


def _template_files() -> Iterator[Path]:
    for engine in engines.all():
        for folder in getattr(engine, "template_dirs", ()):
            for path in Path(folder).rglob("*"):
                if path.suffix in {".html", ".txt"} and path.is_file():
                    yield path


@register("congressy_mailer")
def check_attachment_storage(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.E011``: the storage for attachments does not exist."""
    conf = settings_if_valid()
    if conf is None:
        return []
    alias = conf.ATTACHMENT_STORAGE
    try:
        storages[alias]
    except InvalidStorageError as error:
        return [
            Error(
                _("CONGRESSY_MAILER['ATTACHMENT_STORAGE'] names %(alias)s, which cannot be used: %(error)s")
                % {"alias": quote_name(alias), "error": _storage_problem(alias, error)},
                id="congressy_mailer.E011",
            )
        ]
    return []


def _storage_problem(alias: str, error: Exception) -> str:
    """Why a storage cannot be made; without words that repeat an alias which is not to be shown."""
    return str(error) if quote_name(alias) == repr(alias) else _("there is no such storage in STORAGES")


@register("congressy_mailer", deploy=True)
def check_public_attachments(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W001`` (``check --deploy``): attachments wait in a storage that the public can read.

    Public are a folder in ``MEDIA_ROOT`` or ``STATIC_ROOT`` whose URL is set, a folder with a ``base_url`` of its own,
    and a bucket of ``django-storages`` with public files.
    """
    conf = settings_if_valid()
    if conf is None or check_attachment_storage(None):
        return []
    alias = conf.ATTACHMENT_STORAGE
    if not _is_public(storages[alias]):
        return []
    return [
        Warning(
            _(
                "Mail attachments wait for the worker in the storage %(alias)s, whose files can be read by anyone with "
                "their URL."
            )
            % {"alias": quote_name(alias)},
            hint=_(
                'Add a storage without a URL to STORAGES, such as {"mail": {"BACKEND": '
                '"django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": "/srv/mail"}}}, and name it in '
                'CONGRESSY_MAILER["ATTACHMENT_STORAGE"]. A project that attaches no files may silence this warning.'
            ),
            id="congressy_mailer.W001",
        )
    ]


def _is_public(storage: Any) -> bool:
    if isinstance(storage, FileSystemStorage):
        if getattr(storage, "_base_url", None):
            return True
        folder = Path(storage.location)
        # Without a URL nothing is served from there.
        served = [(settings.MEDIA_URL, settings.MEDIA_ROOT or "."), (settings.STATIC_URL, settings.STATIC_ROOT)]
        return any(
            url not in ("", "/", None) and root and folder.is_relative_to(Path(root).absolute()) for url, root in served
        )
    # As those of S3 and Google Cloud have them in django-storages.
    return getattr(storage, "querystring_auth", None) is False or "public" in str(getattr(storage, "default_acl", ""))
