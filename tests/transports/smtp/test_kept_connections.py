"""Who keeps a connection to a mail server, for how long, and over which it is opened."""

from __future__ import annotations

import os
import smtplib
import ssl
import threading
import time
import warnings
from types import SimpleNamespace
from typing import Any

import django
import pytest
from celery.signals import worker_process_shutdown
from django.core.mail.backends import smtp as django_smtp
from django.test import override_settings
from django.utils.functional import cached_property

from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.testing.local_sparkpost.replies import SILENCE, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.transports.django_backend import DjangoTransport
from congressy_mailer.transports.host_backends import open_backend
from congressy_mailer.transports.selection import transport_for
from congressy_mailer.transports.smtp import session
from congressy_mailer.transports.smtp.transport import SmtpTransport, sends_as_django_does
from tests.conftest import wait_for
from tests.support.smtp_replies import all_accepted, at
from tests.support.transports import composed, hand_over, sparkpost_at


def test_a_connection_is_kept_between_tasks(server: LocalSparkPost) -> None:
    for _ in range(3):
        assert all_accepted(hand_over(composed()))
    assert server.connections == 1


def test_an_idle_connection_is_not_trusted(server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_over(composed())
    a_minute_later = SimpleNamespace(monotonic=lambda: time.monotonic() + 60)
    monkeypatch.setattr(session, "time", a_minute_later)
    assert all_accepted(hand_over(composed()))
    assert server.connections == 2


def test_a_server_that_has_closed_meanwhile(server: LocalSparkPost) -> None:
    hand_over(composed())
    server.stop()
    server.start()
    assert all_accepted(hand_over(composed(), composed()))
    assert server.connections == 2


def test_other_backends_send_for_themselves(server: LocalSparkPost) -> None:
    class Opens(django_smtp.EmailBackend):
        def open(self) -> bool | None:
            return super().open()

    class Sends(django_smtp.EmailBackend):
        def _send(self, email_message: Any) -> bool:
            return False

    class Connects(django_smtp.EmailBackend):
        @property
        def connection_class(self) -> Any:
            return smtplib.LMTP

    backend = open_backend("sparkpost")
    for kind, expected in ((django_smtp.EmailBackend, True), (Opens, True), (Sends, False), (Connects, False)):
        backend.__class__ = kind
        assert sends_as_django_does(backend) is expected
    memory = {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}
    with (
        override_settings(CONGRESSY_MAILER={"TRANSPORTS": {"memory": memory}}),
        transport_for("memory") as transport,
    ):
        assert isinstance(transport, DjangoTransport)


def test_a_backend_that_keeps_its_failure_to_itself(server: LocalSparkPost) -> None:
    backend = open_backend("sparkpost")
    assert isinstance(backend, django_smtp.EmailBackend)
    backend.fail_silently = True
    server.stop()
    with pytest.raises(TransportUnavailable, match="has not said why"):
        list(SmtpTransport(backend).deliver([composed()]))


def test_other_settings_are_another_connection(server: LocalSparkPost) -> None:
    hand_over(composed())
    with LocalSparkPost(certificate=server.certificate) as other:
        with sparkpost_at(other):
            assert all_accepted(hand_over(composed()))
        assert len(other.mailbox) == 1
        assert all_accepted(hand_over(composed()))
    assert len(server.mailbox) == 2


def test_closed_when_its_thread_ends(server: LocalSparkPost) -> None:
    stages: list[Stage] = []
    server.script = lambda exchange: stages.append(exchange.stage)
    thread = threading.Thread(target=hand_over, args=[composed()])
    thread.start()
    thread.join()
    assert len(server.mailbox) == 1
    wait_for(lambda: server.open_connections == 0, 5)
    assert stages[-1] is Stage.QUIT


def test_closed_when_its_worker_process_ends(server: LocalSparkPost) -> None:
    stages: list[Stage] = []
    server.script = lambda exchange: stages.append(exchange.stage)
    hand_over(composed())
    worker_process_shutdown.send(None)
    assert stages[-1] is Stage.QUIT
    assert all_accepted(hand_over(composed()))


def test_a_silent_server_does_not_hold_up_the_end(server: LocalSparkPost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_CLOSE_TIMEOUT", 0.1)
    server.script = at(Stage.QUIT, SILENCE)
    hand_over(composed())
    begun = time.monotonic()
    worker_process_shutdown.send(None)
    assert time.monotonic() - begun < 30


def test_a_fork_takes_no_connection_with_it(server: LocalSparkPost) -> None:
    stages: list[tuple[int, Stage]] = []
    server.script = lambda exchange: stages.append((exchange.connection, exchange.stage))
    hand_over(composed())
    with warnings.catch_warnings():
        # Of a process with threads; the child has none of them, and needs none.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            fine = all_accepted(hand_over(composed("child@example.com")))
            worker_process_shutdown.send(None)
            os._exit(0 if fine else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert all_accepted(hand_over(composed("parent@example.com")))
    assert [(one.connection, one.recipients[0]) for one in server.mailbox][1:] == [
        (2, "child@example.com"),
        (1, "parent@example.com"),
    ]
    assert (1, Stage.QUIT) not in stages


class ClientCertificateBackend(django_smtp.EmailBackend):
    """As docs/how-to/backends.md has it."""

    @cached_property
    def ssl_context(self) -> Any:  # type: ignore[override]
        context = ssl.create_default_context()
        context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
        return context


def test_a_client_certificate_with_a_context_that_trusts_authorities(server: LocalSparkPost) -> None:
    django_s_own: Any = open_backend("sparkpost")
    django_s_own.ssl_certfile = str(server.certificate.chain)
    with pytest.raises(TransportUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        list(SmtpTransport(django_s_own).deliver([composed()]))
    backend = ClientCertificateBackend(
        host="localhost", port=server.port, username=server.user, password=server.password, use_tls=True, timeout=20,
        ssl_certfile=str(server.certificate.chain), **({"alias": "x"} if django.VERSION >= (6, 1) else {}),
    )  # fmt: skip
    assert sends_as_django_does(backend)
    transport = SmtpTransport(backend)
    assert all_accepted(list(transport.deliver([composed(), composed()])))
    transport.close()
