"""Errors of ``smtplib`` as replies, and in words for people."""

from __future__ import annotations

import smtplib

from ...replies import Reply, error_text, printable_text


def reply_of(code: int, text: bytes | str) -> Reply:
    """A server's reply as ``smtplib`` returns it or keeps it in an exception."""
    return Reply(code, printable_text(text))


def error_reply(error: Exception) -> Reply:
    """An exception in place of a reply that was not read."""
    return Reply(None, error_text(error))


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
