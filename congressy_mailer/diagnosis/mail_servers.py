"""SMTP servers: connected to, with TLS and login, and left without a mail."""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.core.mail.backends.smtp import EmailBackend
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..exceptions import TransportUnavailable
from ..outbox import DEFAULT_BACKEND
from ..replies import error_text
from ..transports.destinations import destinations
from ..transports.host_backends import open_backend
from .findings import Finding, error, examination, good, skipped, warning

# SparkPost, "SMTP and REST API Injection Best Practices": at least a minute.
_LEAST_TIMEOUT = 60

_HERE = ("localhost", "127.0.0.1", "::1")


def _servers() -> Iterator[tuple[str, Any]]:
    """Each SMTP backend of the host by its alias, as a worker would make it."""
    for alias in destinations():
        with suppress(TransportUnavailable):
            backend: Any = open_backend("" if alias == DEFAULT_BACKEND else alias)
            if isinstance(backend, EmailBackend):
                yield alias, backend


@examination("smtp-timeout", gettext_lazy("SMTP: time limit"))
def examine_timeout() -> Iterator[Finding]:
    """Checks ``EMAIL_TIMEOUT``, or ``timeout`` in the options of a mail backend.

    A server may take a while before it replies that it has accepted a mail. A client that hangs up before does not know
    whether the mail was accepted, and sends it again. If no timeout is set, the mailer uses 60 s.
    """
    for alias, backend in _servers():
        if backend.timeout < _LEAST_TIMEOUT:
            yield warning(
                _("%(alias)s: the server may be silent for %(seconds)d s only. Mail may be sent twice.")
                % {"alias": alias, "seconds": backend.timeout},
                _("Set EMAIL_TIMEOUT, or timeout in the options, to 60 or more, or leave it out."),
            )


@examination("smtp", gettext_lazy("SMTP: connection, TLS, login, pipelining"))
def examine_connection() -> Iterator[Finding]:
    """Opens a connection to each SMTP server as a worker does, with TLS and login, and closes it without a mail.

    A server without ``PIPELINING`` (RFC 2920) gets one command at a time, which takes several times as long over a long
    line.
    """
    servers = list(_servers())
    if not servers:
        yield skipped(_("No mail backend is an SMTP server."))
    for alias, backend in servers:
        yield from _examine(alias, backend)


def _examine(alias: str, backend: Any) -> Iterator[Finding]:
    where = f"{alias} ({backend.host}:{backend.port})"
    # A person waits for this one.
    backend.timeout = min(backend.timeout, 20)
    backend.fail_silently = False
    try:
        backend.open()
    except Exception as failure:
        yield _failure(where, failure)
        with suppress(Exception):
            # Of a connection that came about and was refused afterwards.
            backend.close()
        return
    connection: smtplib.SMTP = backend.connection
    try:
        encrypted = isinstance(connection.sock, ssl.SSLSocket)
        if not encrypted and backend.host not in _HERE:
            yield warning(
                _(
                    "%(where)s: the connection is not encrypted. Anyone on the network path can read the password and "
                    "the mail."
                )
                % {"where": where},
                _("Set EMAIL_USE_TLS = True (port 587) or EMAIL_USE_SSL = True (port 465)."),
            )
        if not connection.does_esmtp or not connection.has_extn("pipelining"):
            yield warning(
                _("%(where)s does not offer PIPELINING: each mail takes several round trips.") % {"where": where},
                _("Nothing is wrong, but a server near the workers, or SparkPost, sends faster."),
            )
        login = _("with login") if backend.username else _("without login")
        encryption = _("TLS") if encrypted else _("no TLS")
        yield good(f"{where}: {encryption}, {login}")
    finally:
        with suppress(Exception):
            backend.close()


def _failure(where: str, failure: Exception) -> Finding:
    """The report about a server that cannot be used: first the cause, then what to do."""
    values = {"where": where, "error": error_text(failure)}
    if isinstance(failure, smtplib.SMTPAuthenticationError):
        return error(
            _("%(where)s refuses the login: %(error)s") % values,
            _("Look at user and password. SparkPost's user is SMTP_Injection, its password an API key that may send."),
        )
    if isinstance(failure, ssl.SSLError):
        return error(
            _("%(where)s: no TLS connection: %(error)s") % values,
            _("A wrong certificate, or the wrong port: EMAIL_USE_TLS (STARTTLS) is for 587, EMAIL_USE_SSL for 465."),
        )
    if isinstance(failure, smtplib.SMTPNotSupportedError):
        return error(
            _("%(where)s does not offer what the settings ask for: %(error)s") % values,
            _("It has no STARTTLS or no login on this port. Use the port for sending, 587."),
        )
    if isinstance(failure, socket.gaierror):
        return error(_("%(where)s: there is no such host.") % values, _("Look at EMAIL_HOST, and at the DNS here."))
    return error(
        _("%(where)s cannot be reached: %(error)s") % values,
        _("Look at host and port. Many providers block port 25, and some block 587: SparkPost also listens on 2525."),
    )
