"""A setting in a wrong shape is named, with its type: a password that stands in a wrong place is in no message."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from typing import Any

import django
import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from congressy_mailer import MailerError
from congressy_mailer.broker.celery_app import find_celery_app
from congressy_mailer.conf import MailerSettings, mailer_settings
from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.transports.host_backends import open_backend

pytestmark = pytest.mark.email_settings

SECRET = "8d1f0c7a" + "hunter2" * 4
URL = f"smtp://user:{SECRET}@smtp.example.com:587"
SMTP = "django.core.mail.backends.smtp.EmailBackend"


class Other:
    """Something that shows what it holds."""

    def __repr__(self) -> str:
        return f"<Other {SECRET}>"


def wrong(secret: str = SECRET) -> list[Any]:
    """A secret in many shapes: most are wrong for any setting."""
    backend = {"BACKEND": SMTP, "OPTIONS": {"password": secret}}
    return [
        secret, f" {secret}", f"{secret}\n", secret.encode(), bytearray(secret.encode()), [secret], (secret,), {secret},
        {secret: secret}, {"password": secret}, {"default": secret}, {"eu": [secret]}, {"eu": {"PASSWORD": secret}},
        {"eu": {"BACKEND": secret}}, {"eu": {"BACKEND": SMTP, secret: secret}}, {"eu": {"BACKEND": [secret]}},
        {"eu": {"BACKEND": SMTP, "OPTIONS": secret}}, {"eu": {"BACKEND": SMTP, "OPTIONS": [secret]}},
        {"eu": {"BACKEND": SMTP, "OPTIONS": {"timeout": secret}}}, {"eu": {"BACKEND": f"{secret}.Backend"}},
        {"eu": {"BACKEND": SMTP, 1: secret, "a": secret}}, {URL: backend}, {1: backend}, [backend], [[backend]],
        {"hard": secret}, {"soft": secret}, {"soft": [secret]}, {secret: "all"}, URL, [URL], Other(), [Other()],
        {"eu": Other()}, f"a/{secret}", f"mail@{secret}:x", f"https://user:{secret}@[", f"https://a/?{secret}",
        lambda: secret, f"bearer  {secret}", [f"basic {secret}"], [f"token {secret} x", secret],
    ]  # fmt: skip


def messages(caught: list[Any]) -> Iterator[str]:
    """Everything that is said of the settings in force, by checks and by errors, with what led to them."""
    for one in run_checks(tags=["congressy_mailer"], include_deployment_checks=True):
        yield f"{one} {one.msg} {one.hint}"
    for call in (mailer_settings, find_celery_app, lambda: open_backend("eu"), lambda: open_backend("")):
        try:
            call()
        except (ImproperlyConfigured, MailerError, TransportUnavailable) as error:
            yield "".join(traceback.format_exception(error))
    yield from (str(warning.message) for warning in caught)


def said(**settings: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught, override_settings(**settings):
        warnings.simplefilter("always")
        return list(messages(caught))


@pytest.mark.parametrize("setting", [field.name for field in fields(MailerSettings)])
def test_no_value_of_our_settings_is_repeated(setting: str) -> None:
    refused = 0
    for value in wrong():
        for message in said(CONGRESSY_MAILER={setting: value}):
            assert SECRET not in message, (setting, value)
            refused += f"['{setting}']" in message
    # Of each setting most shapes are wrong, and named.
    assert refused > 20


def test_the_setting_as_a_whole_and_its_keys_are_not_repeated() -> None:
    for value in [*wrong(), {SECRET.upper(): 1}, {f"LEASE {SECRET}": timedelta(1)}]:
        assert not [one for one in said(CONGRESSY_MAILER=value) if SECRET.lower() in one.lower()], value


@pytest.mark.parametrize(
    "setting",
    [
        "CONGRESSY_EMAIL_SENDER", "CONGRESSY_REPLY_TO", "DEFAULT_FROM_EMAIL", "EMAIL_TIMEOUT", "EMAIL_BACKEND",
        "EMAIL_HOST",
    ],
)  # fmt: skip
def test_no_value_of_djangos_settings_is_repeated(setting: str) -> None:
    rest = {"CONGRESSY_EMAIL_SENDER": None} if setting == "DEFAULT_FROM_EMAIL" else {}
    for value in wrong():
        for message in said(**{setting: value}, **rest):
            assert SECRET not in message, (setting, value)


def test_no_value_of_mailers_is_repeated() -> None:
    # Before Django 6.1 the setting means nothing.
    for value in wrong() if django.VERSION >= (6, 1) else ():
        if isinstance(value, dict):
            for message in said(MAILERS=value):
                assert SECRET not in message, value


def test_what_is_no_secret_is_still_told() -> None:
    assert "not 60." in said(CONGRESSY_MAILER={"LEASE": 60})[0]
    assert "'no.such.Backend'" in said(CONGRESSY_MAILER={"TRANSPORTS": {"eu": {"BACKEND": "no.such.Backend"}}})[0]
    assert "'mail@'" in "".join(said(CONGRESSY_EMAIL_SENDER="mail@"))
    assert "'apy'" in "".join(said(CONGRESSY_MAILER={"FAILOVER": ["apy"]}))
