"""Errors of ``smtplib`` as replies, and in words for people."""

from __future__ import annotations

import re
import smtplib

from ...replies import Reply, asks_to_slow_down, error_text, printable_text


def reply_of(code: int, text: bytes | str) -> Reply:
    """A server's reply as ``smtplib`` returns it or keeps it in an exception."""
    return Reply(code, printable_text(text))


def error_reply(error: Exception) -> Reply:
    """An exception in place of a reply that was not read."""
    return Reply(None, error_text(error))


# What a server says of the number of connections, and not of how fast they come.
_CONNECTIONS = re.compile(r"connection|session", re.IGNORECASE)


def too_many_connections(error: Exception) -> Reply | None:
    """What the server has said while a connection was opened, where that is that there are too many; else ``None``."""
    if not isinstance(error, smtplib.SMTPResponseException) or isinstance(error, smtplib.SMTPAuthenticationError):
        return None
    reply = reply_of(error.smtp_code, error.smtp_error)
    return reply if asks_to_slow_down(reply) and _CONNECTIONS.search(reply.text) else None


def describe_open_error(error: Exception) -> str:
    """Why a connection could not be opened, and what to check."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return (
            f"The mail server refuses the login: {reply_of(error.smtp_code, error.smtp_error)}. "
            "Check EMAIL_HOST_USER and EMAIL_HOST_PASSWORD (for SparkPost: SMTP_Injection and an API key "
            'with "Send via SMTP").'
        )
    if isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= 0:
        return f"The mail server cannot be used: {reply_of(error.smtp_code, error.smtp_error)}"
    return f"The mail server cannot be reached: {error_reply(error)}"
