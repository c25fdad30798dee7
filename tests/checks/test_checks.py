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
from django.core.files.storage import Storage
from django.core.mail.backends.console import EmailBackend as ConsoleBackend
from django.core.mail.backends.smtp import EmailBackend
from django.db.models import Model
from django.test import override_settings
from django.utils import translation

from congressy_mailer.broker import celery_app
from congressy_mailer.checks import check_outbox_database, journal
from congressy_mailer.outbox import journal_folder
from tests.project.celery import app

# EMAIL_* are checked on every Django, also where they are deprecated.
pytestmark = [pytest.mark.filterwarnings("ignore:The EMAIL_"), pytest.mark.usefixtures("english")]

SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.fixture(autouse=True)
def broker(celery_settings: Callable[..., None]) -> None:
    celery_settings(broker_url="redis://localhost:6379/0", broker_write_url="redis://localhost:6379/0")


class RelayBackend(EmailBackend):
    """A host's own kind of SMTP backend."""


#: One of two Celery apps in the process.
another = Celery("another", set_as_current=False)


def transports(backend: str = SMTP, **options: object) -> dict[str, Any]:
    return {"CONGRESSY_MAILER": {"TRANSPORTS": {"eu": {"BACKEND": backend, "OPTIONS": options}}}}


RELAY = f"{__name__}.RelayBackend"
EU = "CONGRESSY_MAILER['TRANSPORTS']['eu']"
SPARKPOST = {"host": "smtp.eu.sparkpostmail.com", "username": "SMTP_Injection", "password": "key", "use_tls": True}

GOOD_KEY = "3f2504e04f8911d39a0c0305e82c3301aabbccdd"


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
        ({"EMAIL_TIMEOUT": "60"}, "E014", "EMAIL_TIMEOUT must be a number of seconds above zero, not str"),
        ({"EMAIL_TIMEOUT": 0}, "E014", "EMAIL_TIMEOUT must be a number of seconds above zero, not 0"),
        (transports(**SPARKPOST, timeout="60"), "E014", f"{EU}['OPTIONS']['timeout'] must be a number"),
        ({"CONGRESSY_REPLY_TO": 5}, "E005", "CONGRESSY_REPLY_TO must be an address or a list of addresses, not int"),
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


FILES = "django.core.files.storage.FileSystemStorage"


@pytest.mark.parametrize(
    ("options", "configured"),
    [
        ({"base_url": "/media/"}, {}),
        ({}, {"MEDIA_URL": "/media/"}),
        ({"location": Path(settings.MEDIA_ROOT) / "mail"}, {"MEDIA_URL": "https://cdn.congressy.com/"}),
        ({"location": "/srv/static/mail"}, {"STATIC_ROOT": "/srv/static", "STATIC_URL": "/static/"}),
    ],
)
def test_attachments_in_a_public_folder(options: dict[str, Any], configured: dict[str, Any]) -> None:
    public = {"default": {"BACKEND": FILES, "OPTIONS": options}}
    with override_settings(STORAGES=public, **configured):
        assert "can be read by anyone" in found(deploy=True)["congressy_mailer.W001"]
        assert "congressy_mailer.W001" not in found()
    mail = {"CONGRESSY_MAILER": {"ATTACHMENT_STORAGE": "mail"}}
    with override_settings(STORAGES={"default": {"BACKEND": FILES}, "mail": public["default"]}, **configured, **mail):
        assert "'mail'" in found(deploy=True)["congressy_mailer.W001"]


class Bucket(Storage):
    """As those of django-storages say what is public."""

    def __init__(self, **options: Any) -> None:
        vars(self).update(options)


@pytest.mark.parametrize(
    "storage",
    [
        # As startproject leaves it: nothing is served.
        {"BACKEND": FILES},
        {"BACKEND": FILES, "OPTIONS": {"location": "/srv/mail"}},
        {"BACKEND": "django.core.files.storage.InMemoryStorage"},
        {"BACKEND": f"{__name__}.Bucket", "OPTIONS": {"querystring_auth": True, "default_acl": None}},
    ],
)
def test_attachments_in_a_private_storage(storage: dict[str, Any]) -> None:
    with override_settings(STORAGES={"default": storage}):
        assert "congressy_mailer.W001" not in found(deploy=True)
    elsewhere = {"default": {"BACKEND": FILES}, "mail": {"BACKEND": FILES, "OPTIONS": {"location": "/srv/mail"}}}
    with override_settings(STORAGES=elsewhere, MEDIA_URL="/media/", CONGRESSY_MAILER={"ATTACHMENT_STORAGE": "mail"}):
        assert "congressy_mailer.W001" not in found(deploy=True)


@pytest.mark.parametrize("options", [{"querystring_auth": False}, {"default_acl": "public-read"}])
def test_attachments_in_a_public_bucket(options: dict[str, Any]) -> None:
    with override_settings(STORAGES={"default": {"BACKEND": f"{__name__}.Bucket", "OPTIONS": options}}):
        assert "congressy_mailer.W001" in found(deploy=True)


class PrintingBackend(ConsoleBackend):
    """A host's own, which derives from one of development."""


@pytest.mark.parametrize(
    ("backend", "fate"),
    [
        ("django.core.mail.backends.console.EmailBackend", "only printed"),
        ("django.core.mail.backends.filebased.EmailBackend", "only written to files"),
        ("django.core.mail.backends.locmem.EmailBackend", "only kept in memory"),
        ("django.core.mail.backends.dummy.EmailBackend", "thrown away"),
        (f"{__name__}.PrintingBackend", "only printed"),
    ],
)
def test_a_backend_of_development_in_production(backend: str, fate: str) -> None:
    with emails(EMAIL_BACKEND=backend):
        assert f"EMAIL_BACKEND is {backend}: mail is {fate}" in found(deploy=True)["congressy_mailer.E020"]
        assert "congressy_mailer.E020" not in found()
    with emails(**transports(backend)):
        assert f"{EU}['BACKEND'] is {backend}: mail is {fate}" in found(deploy=True)["congressy_mailer.E020"]
    if django.VERSION >= (6, 1):
        with override_settings(MAILERS={"default": {"BACKEND": backend}}):
            assert f"MAILERS['default']['BACKEND'] is {backend}" in found(deploy=True)["congressy_mailer.E020"]


SAMPLES = [
    "", " ", "<SparkPost API key>", "<chave de API da SparkPost>", "changeme", "change-me!", "CHANGE_ME", "changeme123",
    "your-api-key", "YOUR_API_KEY", "yourapikey", "sua-chave-aqui", "xxx", "XXXX-XXXX", "…", "********", "secret",
    "password1", "a-long-password-that-nobody-guesses", "TODO", "${SPARKPOST_KEY}", "$SPARKPOST_KEY", "{{ api_key }}",
    "%(key)s", "None", "'changeme'", "[your key]", "123456", "replace-with-the-real-key",
]  # fmt: skip
SECRETS = [
    "3f2504e04f8911d39a0c0305e82c3301aabbccdd", "correct horse battery staple", "Tr0ub4dor&3", "hunter2", "!@#$%^&*()",
    "p<x>y", "Kx8-2fQa-99Lm", "<8&f>]]>", "keyXq7", "s3cr3tZ9!", "a1b2c3d4", "thesecretofbremen",
]  # fmt: skip


@pytest.mark.parametrize("secret", SAMPLES)
def test_a_sample_in_the_place_of_a_secret(secret: str) -> None:
    with emails(EMAIL_HOST_PASSWORD=secret):
        assert found(deploy=True)["congressy_mailer.E021"].startswith("EMAIL_HOST_PASSWORD is ")
        assert "congressy_mailer.E021" not in found()
    with emails(EMAIL_HOST_PASSWORD=GOOD_KEY, **transports(username="congressy", password=secret)):
        assert f"{EU}['OPTIONS']['password'] is " in found(deploy=True)["congressy_mailer.E021"]
    http = transports("congressy_mailer.sparkpost.backend.EmailBackend", api_key=secret)
    with emails(EMAIL_HOST_PASSWORD=GOOD_KEY, **http):
        assert f"{EU}['OPTIONS']['api_key'] is " in found(deploy=True)["congressy_mailer.E021"]
    if secret.strip() and secret.isascii():
        conf = {"SPARKPOST_API_KEY": secret, "WEBHOOK_SECRETS": [f"basic sparkpost:{secret}"]}
        with emails(EMAIL_HOST_PASSWORD=GOOD_KEY, CONGRESSY_MAILER=conf):
            texts = [check.msg for check in run_checks(tags=["congressy_mailer"], include_deployment_checks=True)]
            assert sum(text.endswith("is a placeholder, not a secret.") for text in texts) == 2
            # Nothing repeats what may be half a secret.
            assert not any(secret in text for text in texts if len(secret) > 6)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_no_sample(secret: str) -> None:
    conf = {"SPARKPOST_API_KEY": secret, "WEBHOOK_SECRETS": [f"basic sparkpost:{secret}", f"token x{secret[::-1]}"]}
    with emails(EMAIL_HOST_PASSWORD=secret, CONGRESSY_MAILER=conf):
        if " " not in secret:
            assert "congressy_mailer.E001" not in found()
        assert "congressy_mailer.E021" not in found(deploy=True)


def test_a_relay_without_a_login_needs_no_password() -> None:
    with emails(EMAIL_HOST_USER="", EMAIL_HOST_PASSWORD=""):
        assert "congressy_mailer.E021" not in found(deploy=True)


@pytest.mark.parametrize(
    ("sender", "domain"),
    [
        ("webmaster@localhost", "localhost"),
        ("Congressy <root@localhost.localdomain>", "localhost.localdomain"),
        ("mail@example.com", "example.com"),
        ("mail@mail.Example.ORG", "mail.example.org"),
        ("mail@congressy.test", "congressy.test"),
    ],
)
def test_a_sender_that_is_nowhere(sender: str, domain: str) -> None:
    with override_settings(CONGRESSY_EMAIL_SENDER=sender):
        assert f"CONGRESSY_EMAIL_SENDER is an address at {domain}" in found(deploy=True)["congressy_mailer.E022"]
        assert "congressy_mailer.E022" not in found()
    with override_settings(CONGRESSY_EMAIL_SENDER=None, DEFAULT_FROM_EMAIL=sender):
        assert f"DEFAULT_FROM_EMAIL is an address at {domain}" in found(deploy=True)["congressy_mailer.E022"]
    with override_settings(CONGRESSY_REPLY_TO=["mail@congressy.com", sender]):
        assert f"CONGRESSY_REPLY_TO is an address at {domain}" in found(deploy=True)["congressy_mailer.E022"]


@pytest.mark.parametrize("sender", ["mail@congressy.net", "mail@myexample.com", "mail@contest.io", "mail@test.com.br"])
def test_a_sender_with_a_domain_of_its_own(sender: str) -> None:
    with override_settings(CONGRESSY_EMAIL_SENDER=sender, CONGRESSY_REPLY_TO=sender):
        assert "congressy_mailer.E022" not in found(deploy=True)


def test_a_good_project_is_ready_for_production() -> None:
    conf = {
        "SPARKPOST_API_KEY": GOOD_KEY,
        "WEBHOOK_SECRETS": [f"basic sparkpost:{GOOD_KEY[::-1]}"],
        "SITE_URL": "https://www.congressy.com",
    }
    with emails(EMAIL_HOST="smtp.sparkpostmail.com", EMAIL_HOST_PASSWORD=GOOD_KEY, CONGRESSY_MAILER=conf):
        assert found(deploy=True) == {}


def test_lists_that_nobody_can_leave() -> None:
    with override_settings(CONGRESSY_MAILER={"LISTS": {"news": "News"}}):
        assert "because SITE_URL is not set" in found()["congressy_mailer.W003"]
    with override_settings(CONGRESSY_MAILER={"LISTS": {"news": "News"}, "SITE_URL": "https://example.com"}):
        assert not found()


def test_links_that_lead_nowhere() -> None:
    with override_settings(CONGRESSY_MAILER={"SITE_URL": "https://example.com"}):
        with override_settings(ROOT_URLCONF="django.contrib.auth.urls"):
            assert "the URLs do not include congressy_mailer.urls" in found()["congressy_mailer.W002"]
        assert not found()


def test_links_that_are_not_secure() -> None:
    with override_settings(CONGRESSY_MAILER={"SITE_URL": "http://example.com"}):
        assert "does not begin with https" in found(deploy=True)["congressy_mailer.W004"]
        assert not found()
    with override_settings(CONGRESSY_MAILER={"SITE_URL": "https://example.com"}):
        assert "congressy_mailer.W004" not in found(deploy=True)


class ToAnotherDatabase:
    """A router that puts the outbox beside."""

    def db_for_write(self, model: type[Model], **hints: Any) -> str | None:
        return "mail" if model._meta.app_label == "congressy_mailer" else None


def test_an_outbox_in_another_database_is_told() -> None:
    with override_settings(DATABASE_ROUTERS=[f"{__name__}.ToAnotherDatabase"]):
        (warning,) = check_outbox_database(None)
        assert warning.id == "congressy_mailer.W008"
        assert "'mail'" in warning.msg
    assert check_outbox_database(None) == []


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


QUEUE = "congressy_mailer.backends.EmailBackend"


def queue_settings(**options: object) -> dict[str, Any]:
    """A queue in the place of EMAIL_BACKEND, and backends that it may name."""
    backends = {
        "smtp": {"BACKEND": SMTP, "OPTIONS": SPARKPOST},
        "again": {"BACKEND": QUEUE, "OPTIONS": {"using": "smtp"}},
    }
    return {"EMAIL_BACKEND": QUEUE, "CONGRESSY_MAILER": {"TRANSPORTS": backends, "BACKEND_OPTIONS": options}}


def test_a_queue_with_a_backend_behind_it_is_well() -> None:
    with emails(EMAIL_BACKEND=QUEUE):
        assert found() == {}
    with emails(**queue_settings(using="smtp")):
        assert found() == {}


@pytest.mark.parametrize(
    ("target", "problem"), [("other", "there is no 'other'"), ("again", "'again' queues mail as well")]
)
def test_a_queue_that_no_mail_would_leave_is_an_error(target: str, problem: str) -> None:
    with emails(**queue_settings(using=target)):
        errors = found()
    assert list(errors) == ["congressy_mailer.E023"]
    assert errors["congressy_mailer.E023"].startswith("EMAIL_BACKEND queues mail")
    assert problem in errors["congressy_mailer.E023"]


def test_a_queue_of_transports_names_what_is_behind_it() -> None:
    with override_settings(**transports(QUEUE)):
        assert (
            f"{EU} queues mail and needs another backend to send it, but its options have no"
            in found()["congressy_mailer.E023"]
        )


def test_a_queue_is_no_failover() -> None:
    configured = queue_settings(using="smtp")
    configured["CONGRESSY_MAILER"]["FAILOVER"] = ["again"]
    with emails(**configured):
        assert "names 'again', which queues mail" in found()["congressy_mailer.E023"]


def test_the_server_behind_a_queue_is_checked_as_ever() -> None:
    with emails(EMAIL_BACKEND=QUEUE, EMAIL_HOST="smtp.sparkpostmail.com", EMAIL_HOST_PASSWORD="", EMAIL_USE_TLS=False):
        assert set(found()) == {"congressy_mailer.E007", "congressy_mailer.E008"}


@pytest.mark.parametrize("handler", [{"email_backend": QUEUE}, {"using": "again"}])
def test_error_mail_over_a_queue_is_a_warning(handler: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = {"mail_admins": {"class": "django.utils.log.AdminEmailHandler", **handler}, "console": {"class": "x"}}
    with emails(**queue_settings(using="smtp")):
        # Not by override_settings, which would configure the logging of the tests.
        monkeypatch.setattr(settings, "LOGGING", {"version": 1, "handlers": handlers})
        warnings = found()
    assert list(warnings) == ["congressy_mailer.W009"]
    assert "'mail_admins'" in warnings["congressy_mailer.W009"]


def test_the_app_of_tenants_is_a_warning() -> None:
    for shared, tenants in ((["x"], ["congressy_mailer"]), (["congressy_mailer"], ["congressy_mailer"])):
        with override_settings(SHARED_APPS=shared, TENANT_APPS=tenants):
            assert list(found()) == ["congressy_mailer.W010"]
    with override_settings(SHARED_APPS=["congressy_mailer"], TENANT_APPS=["x"]):
        assert found() == {}


@pytest.mark.parametrize("path", ["nowhere.look", "congressy_mailer.__version__"])
def test_an_interceptor_that_cannot_be_used_is_an_error(path: str) -> None:
    with override_settings(CONGRESSY_MAILER={"INTERCEPTORS": [path]}):
        assert f"names '{path}', which cannot be used" in found()["congressy_mailer.E024"]
    with override_settings(CONGRESSY_MAILER={"INTERCEPTORS": ["congressy_mailer.mail.cancel"]}):
        assert found() == {}


def spoil_with_a_file(path: Path) -> None:
    path.write_text("")


def spoil_by_opening_it(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (spoil_with_a_file, "is not a directory, or is a symbolic link"),
        (lambda path: path.symlink_to(path.parent), "is not a directory, or is a symbolic link"),
        (spoil_by_opening_it, "is open to other users: its mode must be 0700"),
    ],
)
def test_a_journal_that_others_could_write_is_a_warning(
    spoil: Callable[[Path], object], problem: str, tmp_path: Path
) -> None:
    with override_settings(CONGRESSY_MAILER={"JOURNAL_DIRECTORY": str(tmp_path)}):
        assert found() == {}
        path = Path(journal_folder.directory())
        spoil(path)
        told = f"A worker that runs as this user cannot keep a journal: {path} {problem}. "
        assert found()["congressy_mailer.W015"].startswith(told)
        with translation.override("pt-br"):
            assert problem not in found()["congressy_mailer.W015"]


def test_a_journal_that_can_be_made_is_right_and_one_that_cannot_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (tmp_path, tmp_path / "to" / "be" / "made", "auto", None):
        with override_settings(CONGRESSY_MAILER={"JOURNAL_DIRECTORY": value}):
            assert found() == {}
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with override_settings(CONGRESSY_MAILER={"JOURNAL_DIRECTORY": tmp_path / "file" / "below"}):
        assert "is not a directory, or is a symbolic link" in found()["congressy_mailer.W015"]
    with override_settings(CONGRESSY_MAILER={"JOURNAL_DIRECTORY": tmp_path}):
        # Nobody else is to be had for whoever is root.
        monkeypatch.setattr("os.access", lambda path, mode: False)
        assert f"{tmp_path} is not a directory that this user can write to" in found()["congressy_mailer.W015"]


def test_a_journal_on_a_file_system_of_a_network_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    folder = tmp_path / "of this host"
    folder.mkdir()
    place = str(folder).replace(" ", r"\040")
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/a {place} nfs4 rw 0 0\ntmpfs /tmpother tmpfs rw 0 0\n")
    assert journal.file_system(str(folder), mounts) == "nfs4"
    assert journal.file_system(str(tmp_path), mounts) == "ext4"
    assert journal.file_system(str(tmp_path), tmp_path / "missing") == ""
    monkeypatch.setattr(journal, "file_system", lambda path: "nfs4")
    with override_settings(CONGRESSY_MAILER={"JOURNAL_DIRECTORY": folder}):
        assert "is on a network file system, nfs4" in found()["congressy_mailer.W015"]


def test_a_redirect_is_a_warning_in_production() -> None:
    with override_settings(CONGRESSY_MAILER={"REDIRECT": {"to": ["dev@congressy.com"]}}):
        assert "congressy_mailer.W011" in found(deploy=True)
        assert found() == {}
