"""Checks of what mail is made of: templates, and the storage that its attachments wait in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.files.storage import InvalidStorageError, storages
from django.template import engines
from django.utils.translation import gettext as _

from ..conf import settings_if_valid
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
                _("CONGRESSY_MAILER['ATTACHMENT_STORAGE'] names %(alias)r, which cannot be used: %(error)s")
                % {"alias": alias, "error": error},
                id="congressy_mailer.E011",
            )
        ]
    return []


@register("congressy_mailer", deploy=True)
def check_public_attachments(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W001`` (``check --deploy``): attachments wait in a storage that may be public."""
    conf = settings_if_valid()
    if conf is None or check_attachment_storage(None):
        return []
    alias = conf.ATTACHMENT_STORAGE
    if not getattr(storages[alias], "base_url", None) or alias != "default":
        return []
    return [
        Warning(
            _("Attachments wait for the worker in the default storage, which has a public URL."),
            hint=_(
                'Add a storage without one to STORAGES, such as {"mail": {"BACKEND": '
                '"django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": "/srv/mail"}}}, and name it in '
                'CONGRESSY_MAILER["ATTACHMENT_STORAGE"].'
            ),
            id="congressy_mailer.W001",
        )
    ]
