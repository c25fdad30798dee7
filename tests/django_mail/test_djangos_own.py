"""Each class of Django's tests of mail: over the queue, or with the reason why there is nothing of ours in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import TestCase as UnitTest
from unittest import mock

import django
import pytest
from django.core.mail.backends import locmem, smtp
from django.test import TestCase, override_settings
from django.utils import translation

from congressy_mailer.transports import pool

from .backend import BEHIND, EmailBackend

QUEUE = f"{EmailBackend.__module__}.EmailBackend"
LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
SMTP = "django.core.mail.backends.smtp.EmailBackend"

HAS_MAILERS = django.VERSION >= (6, 1)
_MODULES = {
    (5, 2): ["tests", "test_sendtestemail"],
    (6, 0): ["tests", "test_deprecated", "test_sendtestemail"],
    (6, 1): ["tests", "test_backends", "test_deprecated", "test_handler", "test_sendtestemail"],
}
modules = [import_module(f"mail.{name}") for name in _MODULES[django.VERSION[:2]]]

# Why a test is left out

SENT_USING = "asserts the alias that the caller has named; here it is the one that delivers"
OPENED = "what it is about is the connection to a server, which is the worker's"
ATTRIBUTE = "asserts an attribute of Django's SMTP backend, which stands behind the queue with its own options"
DEFAULT_IS_LOCMEM = "asserts that the default backend is locmem"
SMTPLIB = "reads what smtplib sends; the worker speaks to the socket itself: test_drop_in_arriving compares the bytes"

#: By class of Django's: its tests that are left out.
LEFT_OUT: dict[str, dict[str, str]] = {
    "LocmemBackendTests": {"test_adds_sent_using_attribute": "makes locmem itself, which sets the attribute"},
    "MailTests": {"test_backend_arg": DEFAULT_IS_LOCMEM, "test_get_connection": DEFAULT_IS_LOCMEM,
        "test_all_params_can_be_set_before_send": "gives a user name, and a row keeps no user or password",
    },
    "EmailMessageTests": dict.fromkeys(["test_send", "test_send_using"], SENT_USING),
    "EmailMessageTestsWithMailers": dict.fromkeys(["test_send", "test_send_using"], SENT_USING),
    "MailAdminsAndManagersTests": dict.fromkeys(["test_sends_using_default_mailer"], SENT_USING),
    "MailAdminsAndManagersTestsWithMailers": dict.fromkeys(
        ["test_sends_using_default_mailer", "test_using_arg"], SENT_USING
    ),
    "SendTestEmailManagementCommand": dict.fromkeys(
        [
            "test_using_default", "test_using_option", "test_using_option_with_admins",
            "test_using_option_with_managers",
        ],
        SENT_USING,
    ),
    "SendMailTests": dict.fromkeys(["test_sends_using_default_mailer"], SENT_USING),
    "SendMailTestsWithMailers": dict.fromkeys(["test_sends_using_default_mailer", "test_using_arg"], SENT_USING),
    "SendMassMailTests": dict.fromkeys(["test_sends_using_default_mailer"], SENT_USING),
    "SendMassMailTestsWithMailers": dict.fromkeys(
        ["test_sends_using_default_mailer", "test_using_arg"], SENT_USING
    ),
    "SMTPBackendTests": {
        **dict.fromkeys(
            [
                "test_auth_attempted", "test_server_open", "test_reopen_connection", "test_connection_timeout_default",
                "test_reopen_replaces_partial_connection", "test_connection_timeout_custom",
                "test_email_tls_attempts_starttls", "test_email_ssl_attempts_ssl_connection",
                "test_email_ssl_cached_context", "test_send_messages_after_open_failed",
                "test_smtp_connection_uses_host_and_port", "test_smtp_connection_uses_timeout",
                "test_ssl_context_uses_ssl_certfile_and_keyfile", "test_ssl_tls_mutually_exclusive",
                "test_ssl_tls_settings_mutually_exclusive",
            ],
            OPENED,
        ),
        **dict.fromkeys(
            [
                "test_email_authentication_use_settings", "test_email_authentication_override_settings",
                "test_email_disabled_authentication", "test_email_tls_use_settings",
                "test_email_tls_override_settings", "test_email_tls_default_disabled", "test_email_ssl_use_settings",
                "test_email_ssl_override_settings", "test_email_ssl_default_disabled",
                "test_email_ssl_certfile_use_settings", "test_email_ssl_certfile_override_settings",
                "test_email_ssl_certfile_default_disabled", "test_email_ssl_keyfile_use_settings",
                "test_email_ssl_keyfile_override_settings", "test_email_ssl_keyfile_default_disabled",
                "test_email_timeout_use_settings", "test_email_timeout_override_settings",
                "test_email_host_use_settings", "test_email_host_override_settings", "test_host_option_required",
                "test_port_default_adapts_to_security", "test_ignores_settings_when_initialized_with_alias",
                "test_direct_construction_deprecated", "test_prep_address_without_force_ascii",
            ],
            ATTRIBUTE,
        ),
        "test_email_msg_uses_crlf": SMTPLIB,
        "test_serialized_message_uses_crlf_line_ending": SMTPLIB,
        "test_create_from_mailers": "gives the option host, which is one of SMTP alone",
    },
}  # fmt: skip

#: Classes of Django's that are not run.
NOT_RUN = {
    "MailTestsMixin": "has no tests",
    "BaseEmailBackendTests": "its tests are run by the classes that derive from it; Django 6.1: the base class itself",
    "SharedEmailBackendTests": "likewise",
    "SMTPHandler": "has no tests",
    "SMTPBackendTestsBase": "has no tests",
    "SMTPBackendStoppedServerTests": "the server is the worker's: a caller is told nothing of it",
    "FileBackendTests": "the files, sessions and paths of that backend; what it shares is run over locmem and SMTP",
    "FileBackendPathLibTests": "likewise",
    "ConsoleBackendTests": "the stream of that backend; what it shares is run over locmem and SMTP",
    "DummyBackendTests": "it drops its mail: what it shares is run over locmem and SMTP",
    "MailTimeZoneTests": "how a mail is written; no backend is in it",
    "PythonGlobalState": "what importing Django's package does",
    "LegacyAPINotUsedTests": "likewise",
    "DeprecatedInternalsTests": "functions of Django's that no backend calls",
    "DeprecationWarningTests": "likewise",
    "UndocumentedFeatureErrorTests": "attributes of EmailMessage that no backend reads",
    "DeprecatedCompatibilityTests": "names that Django's package has kept",
    "DeprecatedEmailSettingsTests": "warnings of Django's settings",
    "MailDeprecatedPositionalArgsTests": "arguments of Django's functions; no mail is sent",
    "GetConnectionTests": "which class Django makes for a path; no mail is sent",
    "MailersTests": "which class Django makes for an alias; no mail is sent",
    "MailersCompatibilityTests": "likewise",
}


def behind(backend: str, **options: Any) -> dict[str, Any]:
    """Settings of the queue before a backend."""
    transports = {BEHIND: {"BACKEND": backend, "OPTIONS": options}}
    return {"TRANSPORTS": transports, "BACKEND_OPTIONS": {"using": BEHIND}}


class OverTheQueue:
    """Before a class of Django's: the queue in the place of the backend that the class is about."""

    #: Of Django 6.1's shared tests, and of those before.
    backend_class = EmailBackend
    email_backend = QUEUE
    #: Modules of backends that Django's tests make by hand.
    of_django: Mapping[str, ModuleType] = {"locmem": locmem, "smtp": smtp}

    def setUp(self) -> None:
        mail_settings: dict[str, Any] = {"CONGRESSY_MAILER": self.behind()}
        if not self.has_mailers():
            mail_settings["EMAIL_BACKEND"] = QUEUE
        self.enterContext(override_settings(**mail_settings))  # type: ignore[attr-defined]
        for module in modules:
            for name in self.of_django:
                if hasattr(module, name):
                    ours = SimpleNamespace(EmailBackend=EmailBackend)
                    self.enterContext(mock.patch.object(module, name, ours))  # type: ignore[attr-defined]
        self.enterContext(translation.override("en"))  # type: ignore[attr-defined]
        super().setUp()  # type: ignore[misc]

    def behind(self) -> dict[str, Any]:
        return behind(LOCMEM)

    def has_mailers(self) -> bool:
        from django.conf import settings

        return hasattr(settings, "MAILERS")

    def create_backend(self, *, alias: str | None = "test_alias", **options: Any) -> EmailBackend:
        if alias is not None:
            options["alias"] = alias
        return EmailBackend(**options)

    def get_mailbox_content(self) -> list[Any]:
        """What has arrived; a text in base64 has CRLF (RFC 2045, section 6.8), where Django sends eight bits."""
        mails = super().get_mailbox_content()  # type: ignore[misc]
        for mail in mails:
            text = "" if mail.is_multipart() else mail.get_content()
            if "\r\n" in text:
                mail.set_content(text.replace("\r\n", "\n"))
        return mails

    def test_fail_silently_arg_accepted(self) -> None:
        """The queue goes on supporting it, as Django's SMTP backend does, whose class has this test."""
        for value in (True, False):
            assert self.create_backend(fail_silently=value).fail_silently is value


class OverSmtp(OverTheQueue):
    """The queue before a real mail server."""

    def behind(self) -> dict[str, Any]:
        controller = self.smtp_controller  # type: ignore[attr-defined]
        login = {"username": "", "password": "", "use_tls": False}
        return behind(SMTP, host=controller.hostname, port=controller.port, **login)

    def tearDown(self) -> None:
        pool.close_connections()
        super().tearDown()  # type: ignore[misc]


#: Where a class of Django's names its mailers, the queue stands before each of them.
MAILERS = {
    alias: {"BACKEND": QUEUE, "OPTIONS": {"using": BEHIND}} for alias in ("default", "custom", "notifications")
} | {BEHIND: {"BACKEND": LOCMEM}}


def classes() -> Iterator[tuple[str, type]]:
    for module in modules:
        for name, one in vars(module).items():
            if isinstance(one, type) and one.__module__ == module.__name__:
                yield name, one


def over_the_queue(name: str, of_django: type) -> type:
    before = OverSmtp if name == "SMTPBackendTests" else OverTheQueue
    left_out = {one: None for one in LEFT_OUT.get(name, {}) if hasattr(of_django, one)}
    if not name.endswith("BackendTests") or not HAS_MAILERS:
        left_out["test_fail_silently_arg_accepted"] = None
    made = type(f"{name}OverTheQueue", (before, of_django, TestCase), {"__module__": __name__, **left_out})
    names_mailers = "MAILERS" in (getattr(of_django, "_overridden_settings", None) or {})
    return override_settings(MAILERS=MAILERS)(made) if names_mailers else made


globals().update({f"{name}OverTheQueue": over_the_queue(name, one) for name, one in classes() if name not in NOT_RUN})


def test_each_test_that_is_left_out_is_one_of_djangos() -> None:
    there = dict(classes())
    known = {name: dir(there[name]) for name in LEFT_OUT if name in there}
    if HAS_MAILERS:
        assert [name for name in LEFT_OUT if name != "MailTests" and name not in known] == []
    assert [name for name in NOT_RUN if name in there and not isinstance(there[name], type)] == []
    run = {name for name in globals() if name.endswith("OverTheQueue") and name != "OverTheQueue"}
    assert run == {f"{name}OverTheQueue" for name in there if name not in NOT_RUN}
    assert all(issubclass(globals()[name], UnitTest) for name in run)
    assert len(run) >= {(5, 2): 4, (6, 0): 4, (6, 1): 11}[django.VERSION[:2]]


pytestmark = pytest.mark.email_settings
