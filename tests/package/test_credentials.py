"""Passwords in all the forms in which a server or a library may repeat them, left out of texts."""

from __future__ import annotations

import base64
import html
import json
import quopri
import smtplib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from congressy_mailer import credentials
from congressy_mailer.credentials import loggable, remember, remember_those_of, without_credentials
from congressy_mailer.replies import Reply, error_text, printable_text
from congressy_mailer.transports.smtp.errors import describe_open_error
from tests.support.fuzzing import examples

PASSWORDS = ("SG.abc-def_123", "Pä s+s/w%r\"d'&<1>x9", "9f8e7d6c5b4a39281706f5e4d3c2b1a0ffeeddcc", "aB3$xy")
USER = "SMTP_Injection"


@pytest.fixture(autouse=True)
def nothing_else_is_remembered() -> Iterator[None]:
    credentials.forget()
    yield
    credentials.forget()


def forms(password: str) -> Iterator[str]:
    octets = password.encode()
    yield from (password, password.upper(), password.lower(), password.swapcase())
    yield from (repr(password), ascii(password), repr(octets), str(b"\0user\0" + octets), json.dumps({"a": password}))
    yield from (html.escape(password), quote(password), quote(password, safe=""), quote_plus(password))
    yield from (octets.hex(), octets.hex().upper(), "".join(f"%{octet:02x}" for octet in octets))
    yield from (octets.decode("latin-1"), octets.decode("ascii", "replace"))
    yield quopri.encodestring(octets, quotetabs=True).decode()
    yield f"{password[:4]}\r\n{password[4:]}"
    logins = (
        password, f"\0{USER}\0{password}", f"{USER}\0{USER}\0{password}", f"{USER}:{password}",
        f"user={USER}\1auth=Bearer {password}\1\1",
    )  # fmt: skip
    for login in logins:
        encoded = base64.b64encode(login.encode())
        yield from (encoded.decode(), encoded.decode().rstrip("="), repr(encoded), quote(encoded.decode(), safe=""))
        yield base64.urlsafe_b64encode(login.encode()).decode()
        yield f"{encoded[:9].decode()}\r\n {encoded[9:].decode()}"


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_is_left_out_in_every_form(password: str) -> None:
    remember(password)
    for form in forms(password):
        shown = without_credentials(f"535 5.7.8 refused <{form}> bye")
        assert shown.startswith("535 5.7.8 refused <"), form
        assert shown.endswith("> bye"), form
        assert "********" in shown
        assert password.lower() not in shown.lower(), form
        # Nothing is left but what stood around it.
        assert len(shown) < len(form) + 30


@settings(max_examples=examples(15), deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40), st.text(max_size=30))
def test_no_login_in_base64_lets_a_password_through(password: str, user: str) -> None:
    remember(password)
    encoded = base64.b64encode(f"\0{user}\0{password}".encode(errors="replace")).decode()
    shown = without_credentials(f"x {encoded} y")
    assert shown == "x ******** y"
    assert without_credentials(f"({password})").count(password) == 0


@settings(max_examples=examples(40), deadline=None)
@given(st.text(max_size=300), st.lists(st.text(max_size=12), max_size=4))
def test_it_never_raises(text: str, secrets: list[str]) -> None:
    remember(*secrets, None, 7)
    assert isinstance(without_credentials(text), str)


def test_other_texts_stay_as_they_are() -> None:
    remember("key", "abc", "", "postgres", "a1b2", *PASSWORDS)
    for text in (
        "250 2.0.0 OK 0F/2C-24132-9A1B2C3D", "an API key with abc", "50 % off = 3 + \\ &amp; %41", "xa1b2x a1b2c",
        "the postgresql server",
    ):  # fmt: skip
        assert without_credentials(text) == text
    # Short ones and words are known where they stand alone.
    assert without_credentials("a1b2, postgres.") == "********, ********."


@pytest.mark.email_settings
def test_the_secrets_of_the_settings_are_known() -> None:
    given: dict[str, Any] = {
        "EMAIL_HOST_PASSWORD": "first-password-1",
        "CONGRESSY_MAILER": {
            "TRANSPORTS": {"eu": {"BACKEND": "x", "OPTIONS": {"password": "second-password-2", "host": "host-name-2"}}},
            "SPARKPOST_API_KEY": "third-key-3",
            "WEBHOOK_SECRETS": ["basic user-name-4:fourth-password-4", "bearer fifth-token-5", "token sixth-token-6"],
        },
        "CELERY_BROKER_URL": "redis://:seventh/pass@word-7@redis.example.com:6379/0",
        "SOME_URLS": {"a": ["amqp://user-name-8:eighth-password-8@a;amqp://user-name-9:ninth-password-9@b"]},
        "ANYMAIL": {"MAILGUN_API_KEY": "tenth-api-key-10"},
    }
    known = (
        "first-password-1", "second-password-2", "third-key-3", "fourth-password-4", "fifth-token-5", "sixth-token-6",
        "seventh/pass@word-7", "word-7", "eighth-password-8", "ninth-password-9", "tenth-api-key-10",
    )  # fmt: skip
    with override_settings(**given):
        for secret in known:
            assert without_credentials(f"<{secret}>") == "<********>", secret
        for text in ("host-name-2", "user-name-4", "user-name-8"):
            assert without_credentials(text) == text
    assert without_credentials("third-key-3") == "third-key-3"


def test_a_backend_is_asked_for_its_secrets_once_it_is_made() -> None:
    class Backend:
        def __init__(self) -> None:
            self.access_token, self.host, self.password = "token-of-an-hour", "mail.example.com", None

    remember_those_of(Backend())
    assert without_credentials("token-of-an-hour at mail.example.com") == "******** at mail.example.com"
    for number in range(1000):
        remember(f"token-of-hour-{number:06}")
    assert without_credentials("token-of-hour-000999") == "********"
    # As many as there may be passwords at a time.
    assert without_credentials("token-of-hour-000900") == "********"
    assert without_credentials("token-of-hour-000899") == "token-of-hour-000899"


def test_replies_and_errors_do_not_repeat_them() -> None:
    password = PASSWORDS[0]
    remember(password)
    login = base64.b64encode(f"\0{USER}\0{password}".encode()).decode()
    long = "x" * 990 + password
    for words in (password, login, long):
        assert password[:9] not in Reply(535, words).text
        assert password[:9] not in printable_text(words.encode())
        assert words[-9:] not in error_text(ValueError(words))
        assert words[-9:] not in describe_open_error(smtplib.SMTPAuthenticationError(535, words.encode()))
        assert words[-9:] not in describe_open_error(smtplib.SMTPConnectError(421, words))


def test_an_error_is_logged_with_its_traceback_unless_that_repeats_one() -> None:
    remember(PASSWORDS[0])
    for led_to_by, logged in (("nothing", True), (PASSWORDS[0], False)):
        error = RuntimeError("that was it")
        error.__cause__ = ValueError(led_to_by)
        assert (loggable(error) is error) is logged
