"""Storages that do not do what they are asked, and what is in one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from django.core.files.storage import FileSystemStorage, InMemoryStorage


class Stubborn(FileSystemStorage):
    """A storage that does not delete everything, and cannot list what it has."""

    refusing: ClassVar[Callable[[str], bool]] = staticmethod(lambda name: False)
    asked: ClassVar[list[str]] = []

    def delete(self, name: str) -> None:
        if not name.endswith("/owner"):
            type(self).asked.append(name)
            if type(self).refusing(name):
                raise PermissionError(13, "Permission denied")
        super().delete(name)

    def listdir(self, path: str) -> Any:
        raise AssertionError("Nothing may depend on a listing.")


class Forgetful(InMemoryStorage):
    """A storage that says when there is nothing to delete."""

    def delete(self, name: str) -> None:
        raise FileNotFoundError(2, "No such file")


class Overwriting(FileSystemStorage):
    """A storage that writes over what is there, as the S3 one of django-storages does by default."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_overwrite=True)


class Deadly(FileSystemStorage):
    """A storage whose host process is killed as soon as a file is there."""

    def save(self, *arguments: Any, **options: Any) -> Any:
        super().save(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)


def store_in(backend: type[Any], settings: Any, monkeypatch: pytest.MonkeyPatch, **options: str) -> None:
    """Have attachments wait in such a storage."""
    # The models are loaded with their storage, which may be one of these.
    from congressy_mailer.models import Attachment, attachment_storage

    path = f"{backend.__module__}.{backend.__qualname__}"
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": path, "OPTIONS": options}}
    # The model has asked for its storage when it was loaded.
    monkeypatch.setattr(Attachment._meta.get_field("file"), "storage", attachment_storage())


def use_stubborn_storage(settings: Any, monkeypatch: pytest.MonkeyPatch, location: str) -> type[Stubborn]:
    """The same with one that deletes everything until the test says otherwise."""
    store_in(Stubborn, settings, monkeypatch, location=location, base_url="/media/")
    Stubborn.refusing = staticmethod(lambda name: False)
    Stubborn.asked.clear()
    return Stubborn


def stored_paths() -> list[str]:
    """Attachment files on the disk below the storage's location, in all installations' folders."""
    from congressy_mailer.models import ATTACHMENT_FOLDER, attachment_storage

    storage: Any = attachment_storage()
    root = storage.path(ATTACHMENT_FOLDER)
    found = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    return sorted(os.path.relpath(path, storage.location) for path in found if not path.endswith("/owner"))
