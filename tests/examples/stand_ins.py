"""What the pages take for granted, with the types that it has in a reader's project."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import django.urls
from django.contrib.auth.models import User
from django.db.models import BooleanField, EmailField, Manager, Model, QuerySet
from django.forms import Form

from congressy_mailer.models import Batch, Message


class _Event(Model):
    """A model of the reader's own."""

    participants: QuerySet[User]

    class Meta:
        app_label = "examples"


class _Ticket(Model):
    code: str
    email: str
    language: str
    pdf_path: Path

    class Meta:
        app_label = "examples"


class Registration(Model):
    """A model of the reader's own, which a page names."""

    objects: ClassVar[Manager[Registration]]

    email = EmailField()
    email_is_wrong = BooleanField()

    class Meta:
        app_label = "examples"


# What startproject writes into settings.py and urls.py.
BASE_DIR: Path
DATABASES: dict[str, dict[str, Any]]
INSTALLED_APPS: list[str]
TEMPLATES: list[dict[str, Any]]
urlpatterns: list[django.urls.URLPattern | django.urls.URLResolver]
path = django.urls.path

addresses: list[str]
batch: Batch
customer: User
event: _Event
form: Form
invitation: str
logo: bytes
message: Message
participant: User
registration: User
ticket: _Ticket
user: User
voucher: bytes
