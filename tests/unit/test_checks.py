"""Each system check: silent where all is well, and precise where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import django
import pytest
from celery import Celery, _state
from django.conf import settings
from django.core.checks import run_checks
from django.core.mail.backends.smtp import EmailBackend
from django.test import override_settings
from django.utils import translation

from congressy_mailer.broker import celery_app
from tests.project.celery import app

# EMAIL_* are checked on every Django, also where they are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The EMAIL_")

SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.fixture(autouse=True)
def broker(celery_settings: Callable[..., None]) -> None:
    celery_settings(broker_url="redis://localhost:6379/0", broker_write_url="redis://localhost:6379/0")


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    """The tests' own project speaks Portuguese."""
    with translation.override("en"):
        yield


class RelayBackend(EmailBackend):
    """A host's own kind of SMTP backend."""


#: One of two Celery apps in the process.
another = Celery("another", set_as_current=False)


def transports(backend: str = SMTP, **options: object) -> dict[str, Any]:
    return {"CONGRESSY_MAILER": {"TRANSPORTS": {"eu": {"BACKEND": backend, "OPTIONS": options}}}}


RELAY = f"{__name__}.RelayBackend"
EU = "CONGRESSY_MAILER['TRANSPORTS']['eu']"
SPARKPOST = {"host": "smtp.eu.sparkpostmail.com", "username": "SMTP_Injection", "password": "key", "use_tls": True}


@contextmanager
def emails(**changed: Any) -> Iterator[None]:
    """A host whose mail server is that of ``EMAIL_*``, also in a run with ``MAILERS``."""
    right = {
        "EMAIL_BACKEND": SMTP,
        "EMAIL_HOST": "localhost",
        "EMAIL_HOST_USER": "SMTP_Injection",
        "EMAIL_HOST_PASSWORD": "key",
        "EMAIL_USE_TLS": True,
    }
    with override_settings(**{**right, **changed}):
        if hasattr(settings, "MAILERS"):
            del settings.MAILERS
        yield


def found(*, deploy: bool = False) -> dict[str, str]:
    """Our findings by id, with their text and hint."""
    return {
        str(check.id): f"{check.msg} {check.hint or ''}"
        for check in run_checks(tags=["congressy_mailer"], include_deployment_checks=deploy)
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
        ({"EMAIL_BACKEND": RELAY, "EMAIL_USE_SSL": True}, "E006", "EMAIL_USE_TLS and EMAIL_USE_SSL are both set"),
        (transports(**SPARKPOST, use_ssl=True), "E006", f"{EU}['OPTIONS']['use_tls'] and {EU}['OPTIONS']['use_ssl']"),
        (transports(**{**SPARKPOST, "password": ""}), "E007", f"{EU}['OPTIONS']['password'] is empty"),
        (transports(**{**SPARKPOST, "use_tls": False}), "E008", f"{EU}['OPTIONS']['use_tls'] is not set"),
        (transports(RELAY, **{**SPARKPOST, "use_tls": False}), "E008", f"Set {EU}['OPTIONS']['use_tls'] to True"),
        (transports(**SPARKPOST, timeout=70), "E012", f"with 70 s in {EU}['OPTIONS']['timeout']"),
        (transports("no.such.Backend"), "E014", f"{EU}['BACKEND'] is 'no.such.Backend', which cannot be imported: No"),
        ({"EMAIL_BACKEND": "no.such.Backend"}, "E014", "EMAIL_BACKEND is 'no.such.Backend', which cannot be imported"),
        (
            {"CONGRESSY_MAILER": {"TRANSPORTS": {"eu": {"BACKEND": SMTP, "OPTIONS": None}}}},
            "E014",
            f"{EU}['OPTIONS'] must be a dict, not None",
        ),
        ({"EMAIL_TIMEOUT": "60"}, "E014", "EMAIL_TIMEOUT must be a number of seconds above zero, not '60'"),
        ({"EMAIL_TIMEOUT": 0}, "E014", "EMAIL_TIMEOUT must be a number of seconds above zero, not 0"),
        (transports(**SPARKPOST, timeout="60"), "E014", f"{EU}['OPTIONS']['timeout'] must be a number"),
        ({"CONGRESSY_REPLY_TO": 5}, "E005", "CONGRESSY_REPLY_TO must be an address or a list of addresses, not 5"),
        ({"CONGRESSY_REPLY_TO": [5]}, "E005", "CONGRESSY_REPLY_TO"),
        ({"USE_TZ": False}, "E013", "Set USE_TZ = True."),
        ({"EMAIL_TIMEOUT": 70}, "E012", "can take (0:16:21, with 70 s in EMAIL_TIMEOUT)"),
        ({"CONGRESSY_MAILER": {"LEASE": timedelta(minutes=14)}}, "E012", "LEASE (0:14:00) is not longer than an ex"),
        ({"CONGRESSY_MAILER": {"LEASE": timedelta(minutes=5)}}, "E012", "LEASE (0:05:00) is not longer than TIME_LI"),
        ({"CONGRESSY_MAILER": {"ATTACHMENT_STORAGE": "nowhere"}}, "E011", "names 'nowhere', which cannot be used"),
    ],
)
def test_faults_are_named(changed: dict[str, Any], check: str, text: str) -> None:
    with emails(**changed):
        findings = found()
    assert set(findings) == {f"congressy_mailer.{check}"}
    assert text in findings[f"congressy_mailer.{check}"]


def test_a_host_that_only_looks_like_sparkposts_is_not_taken_for_it() -> None:
    with emails(EMAIL_HOST="notsparkpostmail.com", EMAIL_USE_TLS=False):
        assert found() == {}


def test_a_worker_that_takes_no_json(celery_settings: Callable[..., None]) -> None:
    celery_settings(accept_content=["pickle"])
    assert "lacks JSON" in found()["congressy_mailer.E016"]
    celery_settings(accept_content=["pickle", "application/json"])
    assert found() == {}


def test_findings_are_told_in_portuguese() -> None:
    with translation.override("pt-br"), emails(USE_TZ=False, EMAIL_USE_SSL=True):
        findings = found()
    assert findings["congressy_mailer.E006"].startswith("EMAIL_USE_TLS e EMAIL_USE_SSL estão ativados")
    assert findings["congressy_mailer.E013"].endswith("Defina USE_TZ = True.")


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


def test_the_app_beside_the_settings_comes_before_that_of_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Celery("library", set_as_current=False)
    monkeypatch.setattr(celery_app, "_current_app", lambda: library)
    with override_settings(SETTINGS_MODULE="tests.project.settings"):
        assert celery_app.find_celery_app() is app
        with override_settings(CONGRESSY_MAILER={"CELERY_APP": f"{__name__}.another"}):
            assert celery_app.find_celery_app() is another


def test_every_thread_finds_the_same_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vars(_state)["_tls"], "current_app", another)
    with override_settings(SETTINGS_MODULE="settings"), ThreadPoolExecutor(1) as threads:
        assert celery_app.find_celery_app() is threads.submit(celery_app.find_celery_app).result() is app


def test_a_module_beside_the_settings_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "hostproject").mkdir()
    (tmp_path / "hostproject" / "celery.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    with override_settings(SETTINGS_MODULE="hostproject.settings"):
        assert "No module named 'no_such_module'" in found()["congressy_mailer.E002"]


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


def test_lists_that_nobody_can_leave() -> None:
    with override_settings(CONGRESSY_MAILER={"LISTS": {"news": "News"}}):
        assert "nobody says where the site is" in found()["congressy_mailer.W003"]
    with override_settings(CONGRESSY_MAILER={"LISTS": {"news": "News"}, "SITE_URL": "https://example.com"}):
        assert not found()


def test_links_that_lead_nowhere() -> None:
    with override_settings(CONGRESSY_MAILER={"SITE_URL": "https://example.com"}):
        with override_settings(ROOT_URLCONF="django.contrib.auth.urls"):
            assert "pages that links lead to are missing" in found()["congressy_mailer.W002"]
        assert not found()


def test_links_that_are_not_secure() -> None:
    with override_settings(CONGRESSY_MAILER={"SITE_URL": "http://example.com"}):
        assert "does not begin with https" in found(deploy=True)["congressy_mailer.W004"]
        assert not found()
    with override_settings(CONGRESSY_MAILER={"SITE_URL": "https://example.com"}):
        assert "congressy_mailer.W004" not in found(deploy=True)


if django.VERSION < (6, 1):

    def test_what_a_transport_leaves_to_the_settings_is_named_as_they_are() -> None:
        with emails(EMAIL_USE_TLS=False, EMAIL_USE_SSL=True, **transports(**SPARKPOST)):
            assert f"{EU}['OPTIONS']['use_tls'] and EMAIL_USE_SSL are both set" in found()["congressy_mailer.E006"]

else:

    def test_mailers_are_checked_by_their_own_names() -> None:
        options = {"host": "smtp.sparkpostmail.com", "username": "SMTP_Injection", "password": "key"}
        with override_settings(MAILERS={"default": {"BACKEND": SMTP, "OPTIONS": options}}):
            findings = found()
        assert "MAILERS['default']['OPTIONS']['use_tls'] is not set" in findings["congressy_mailer.E008"]

    @pytest.mark.parametrize(
        ("mailers", "check", "text"),
        [
            ({}, "E015", 'MAILERS has no "default"'),
            ({"eu": {"BACKEND": SMTP, "OPTIONS": {"host": "localhost"}}}, "E015", 'Add "default" to MAILERS.'),
            ({"default": {"BACKEND": SMTP, "OPTIONS": None}}, "E014", "MAILERS['default']['OPTIONS'] must be a dict"),
            ({"default": {"BACKEND": "no.such.Backend"}}, "E014", "MAILERS['default']['BACKEND'] is 'no.such.Backend'"),
            ({"default": {"OPTIONS": {**SPARKPOST, "timeout": "60"}}}, "E014", "must be a number of seconds"),
            ({"default": {"BACKEND": RELAY, "OPTIONS": {**SPARKPOST, "use_ssl": True}}}, "E006", "are both set"),
        ],
    )
    def test_faults_of_mailers_are_named(mailers: dict[str, Any], check: str, text: str) -> None:
        with override_settings(MAILERS=mailers):
            findings = found()
        assert set(findings) == {f"congressy_mailer.{check}"}
        assert text in findings[f"congressy_mailer.{check}"]


HTTP = "congressy_mailer.sparkpost.backend.EmailBackend"


def test_failover_names_mail_backends_that_there_are() -> None:
    known = transports()["CONGRESSY_MAILER"]
    with emails(CONGRESSY_MAILER={**known, "FAILOVER": ["eu"]}):
        assert "congressy_mailer.E017" not in found()
    for alias in ("us", "default"):
        with emails(CONGRESSY_MAILER={**known, "FAILOVER": ["eu", alias]}):
            assert repr(alias) in found()["congressy_mailer.E017"]


def test_the_http_backend_needs_a_key() -> None:
    with emails(**transports(HTTP)):
        assert f"{EU}['BACKEND']" in found()["congressy_mailer.E018"]
    with emails(**transports(HTTP, api_key="key")):
        assert "congressy_mailer.E018" not in found()
    with emails(CONGRESSY_MAILER={**transports(HTTP)["CONGRESSY_MAILER"], "SPARKPOST_API_KEY": "key"}):
        assert "congressy_mailer.E018" not in found()
