"""Tests of a host project, as Django's own test runner runs them: see tests/testing/test_hosts_tests.py."""

from __future__ import annotations

from django.conf import settings
from django.core import mail
from django.test import TestCase, override_settings

from congressy_mailer import send_mail
from congressy_mailer.testing import deliver_all


class Sending(TestCase):
    def send(self) -> None:
        send_mail("Welcome", "Hello.", to="customer@example.com", using="europe")
        (message,) = deliver_all()
        assert message.state == "sent", message.reason

    def test_an_alias_of_transports(self) -> None:
        self.send()
        assert [one.to for one in mail.outbox] == [["customer@example.com"]]

    def test_an_alias_beside_another_setting(self) -> None:
        with override_settings(CONGRESSY_MAILER={**settings.CONGRESSY_MAILER, "RATE_LIMIT": "100/s"}):
            self.send()
        assert len(mail.outbox) == 1

    def test_an_alias_of_failover(self) -> None:
        with override_settings(CONGRESSY_MAILER={**settings.CONGRESSY_MAILER, "FAILOVER": ["europe"]}):
            send_mail("Welcome", "Hello.", to="customer@example.com")
            deliver_all()
        assert len(mail.outbox) == 1

    def test_an_alias_that_the_test_itself_has_defined(self) -> None:
        transports = {"europe": {"BACKEND": "django.core.mail.backends.dummy.EmailBackend"}}
        with override_settings(CONGRESSY_MAILER={"TRANSPORTS": transports}):
            self.send()
        assert mail.outbox == []
