"""Each system check: silent where all is well, and precise where it is not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.test import override_settings

from congressy_mailer import celery_app

# Some of Django's own checks ask the database.
pytestmark = pytest.mark.django_db

SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.fixture(autouse=True)
def broker(celery_settings: Callable[..., None]) -> None:
    celery_settings(broker_url="redis://localhost:6379/0", broker_write_url="redis://localhost:6379/0")


def found(*, deploy: bool = False) -> dict[str, str]:
    """Our findings by id, with their text and hint."""
    return {
        str(check.id): f"{check.msg} {check.hint or ''}"
        for check in run_checks(include_deployment_checks=deploy)
        if str(check.id).startswith("congressy_mailer.")
    }


def test_nothing_is_found_where_all_is_well() -> None:
    assert found() == {}


@pytest.mark.parametrize(
    ("changed", "check", "text"),
    [
        ({"CONGRESSY_MAILER": {"LEESE": 1}}, "E001", "Did you mean 'LEASE'?"),
        ({"CONGRESSY_MAILER": {"CELERY_APP": "no.such:app"}}, "E002", "'no.such:app' cannot be imported"),
        ({"CONGRESSY_EMAIL_SENDER": "nobody"}, "E004", "CONGRESSY_EMAIL_SENDER is not"),
        ({"CONGRESSY_EMAIL_SENDER": None, "DEFAULT_FROM_EMAIL": "webmaster"}, "E004", "DEFAULT_FROM_EMAIL is not"),
        ({"CONGRESSY_REPLY_TO": ["a@b.com", "nobody"]}, "E005", "CONGRESSY_REPLY_TO is not"),
        ({"EMAIL_USE_SSL": True}, "E006", "EMAIL_USE_TLS and EMAIL_USE_SSL are both set"),
        ({"EMAIL_HOST": "smtp.sparkpostmail.com", "EMAIL_HOST_PASSWORD": ""}, "E007", "EMAIL_HOST_PASSWORD is empty"),
        ({"EMAIL_HOST": "smtp.eu.sparkpostmail.com", "EMAIL_HOST_USER": ""}, "E007", "SMTP_Injection"),
        ({"EMAIL_HOST": "smtp.sparkpostmail.com", "EMAIL_USE_TLS": False}, "E008", "EMAIL_USE_TLS is not set"),
        ({"EMAIL_TIMEOUT": 70}, "E012", "can take (0:16:21, with 70 s in EMAIL_TIMEOUT)"),
        ({"CONGRESSY_MAILER": {"LEASE": timedelta(minutes=14)}}, "E012", "LEASE (0:14:00) is not longer than an ex"),
        ({"CONGRESSY_MAILER": {"LEASE": timedelta(minutes=5)}}, "E012", "LEASE (0:05:00) is not longer than TIME_LI"),
        ({"CONGRESSY_MAILER": {"ATTACHMENT_STORAGE": "nowhere"}}, "E011", "names 'nowhere', which cannot be used"),
    ],
)
def test_faults_are_named(changed: dict[str, Any], check: str, text: str) -> None:
    with override_settings(EMAIL_BACKEND=SMTP, **changed):
        findings = found()
    assert set(findings) == {f"congressy_mailer.{check}"}
    assert text in findings[f"congressy_mailer.{check}"]


def test_a_host_that_only_looks_like_sparkposts_is_not_taken_for_it() -> None:
    with override_settings(EMAIL_BACKEND=SMTP, EMAIL_HOST="notsparkpostmail.com", EMAIL_USE_TLS=False):
        assert found() == {}


def test_no_broker_url(celery_settings: Callable[..., None]) -> None:
    celery_settings(broker_url=None, broker_write_url=None)
    assert "has no broker URL" in found()["congressy_mailer.E003"]


def test_no_celery_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_app, "_current_app", lambda: None)
    with override_settings(SETTINGS_MODULE="settings"):
        assert "No Celery app was found" in found()["congressy_mailer.E002"]


def test_the_app_beside_the_settings_is_found_where_nobody_imported_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_app, "_current_app", lambda: None)
    with override_settings(SETTINGS_MODULE="tests.project.settings"):
        assert celery_app.find_celery_app().main == "tests"


def test_humanize_is_missing_while_a_template_loads_it(tmp_path: Path) -> None:
    (tmp_path / "paid.html").write_text("{% load i18n humanize %}{{ total|intcomma }}")
    without = [app for app in settings.INSTALLED_APPS if app != "django.contrib.humanize"]
    templates = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]
    with override_settings(INSTALLED_APPS=without, TEMPLATES=templates):
        assert "paid.html loads humanize" in found()["congressy_mailer.E009"]
    with override_settings(INSTALLED_APPS=without):
        assert found() == {}


def test_eager_mode_outside_development(celery_settings: Callable[..., None]) -> None:
    celery_settings(task_always_eager=True)
    assert "CELERY_TASK_ALWAYS_EAGER" in found(deploy=True)["congressy_mailer.E010"]
    assert "congressy_mailer.E010" not in found()
    with override_settings(DEBUG=True):
        assert "congressy_mailer.E010" not in found(deploy=True)


def test_attachments_in_a_public_storage() -> None:
    public = {"default": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"base_url": "/media/"}}}
    with override_settings(STORAGES=public):
        assert "public URL" in found(deploy=True)["congressy_mailer.W001"]
    private = {"mail": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}
    with override_settings(STORAGES={**public, **private}, CONGRESSY_MAILER={"ATTACHMENT_STORAGE": "mail"}):
        assert "congressy_mailer.W001" not in found(deploy=True)


if django.VERSION >= (6, 1):

    def test_mailers_are_checked_by_their_own_names() -> None:
        options = {"host": "smtp.sparkpostmail.com", "username": "SMTP_Injection", "password": "key"}
        with override_settings(MAILERS={"default": {"BACKEND": SMTP, "OPTIONS": options}}):
            findings = found()
        assert "MAILERS['default']['OPTIONS']['use_tls'] is not set" in findings["congressy_mailer.E008"]
