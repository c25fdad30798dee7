"""What may be shown of a sensitive message: its id, the kind and place of an error; never its content.

Passwords and keys are kept out of logs by :mod:`.credentials`.

The words of an exception may repeat the value that it was raised for, and those of a mail server a link that it does
not like. So neither is kept or logged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from traceback import walk_tb

from billiard.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError

from .credentials import loggable
from .exceptions import DATABASE_AWAY, MailerError, TransportUnavailable
from .models import Message
from .replies import Outcome, Reply, printable_text

# As specific as Celery's retrying and Django's callers ask for, the more specific before the more general.
_DATABASE_ERRORS = (*DATABASE_AWAY, DatabaseError)

_REDACTED = "what else was said is not kept, because the message is sensitive"
# RFC 3463: class, subject and detail.
_ENHANCED_CODE = re.compile(r"\d\.\d{1,3}\.\d{1,3}\b")


@contextmanager
def hiding_content(sensitive: bool, instead: str) -> Iterator[None]:
    """Have an error say what is wrong with the content of a sensitive mail without repeating the content."""
    try:
        yield
    except MailerError as error:
        if not sensitive:
            raise
        raise type(error)(f"{instead} More is not said, because the mail is sensitive.") from None


def redact_error(message: Message, error: BaseException) -> str:
    """An error that came up while a message was composed, as it may be stored and logged."""
    return f"{error_summary(error)} ({_REDACTED})" if message.sensitive else printable_text(str(error))


def error_summary(error: BaseException) -> str:
    """An exception without its words: the type of what it goes back to, and where that was raised."""
    # A chain of causes may be a ring.
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    location = ""
    for frame, line in walk_tb(error.__traceback__):
        location = f" in {frame.f_globals.get('__name__')}, line {line}"
    return f"{type(error).__name__}{location}"


def redact_outcome(message: Message, outcome: Outcome) -> Outcome:
    """What became of a mail, as it may be stored: where the message is sensitive, refusals by their codes only."""
    if not message.sensitive:
        return outcome
    last = outcome.reply
    return replace(
        outcome,
        deferred=_redact_replies(outcome.deferred),
        rejected=_redact_replies(outcome.rejected),
        # Where the mail was taken this is the server's own id of it.
        reply=last if last.code is not None and 200 <= last.code < 300 else _redact_reply(last),
    )


def redact_unavailable(messages: Iterable[Message], error: TransportUnavailable) -> TransportUnavailable:
    """Why a server cannot be used, as it may be stored and logged where it was found out with one of these messages."""
    if error.reply is None or not any(message.sensitive for message in messages):
        return error
    redacted = TransportUnavailable(str(error).replace(str(error.reply), str(_redact_reply(error.reply))))
    redacted.reply = _redact_reply(error.reply)
    return redacted


def leaving_error(error: BaseException, *, sensitive: bool) -> BaseException:
    """What may leave a task in place of an error: Celery logs it, sends it in its events and stores it as a result.

    Reports of errors show the errors that led to it, too. So it leaves without them and without their frames where one
    of them may repeat what a sensitive mail says, or a password.

    Args:
        error: the exception.
        sensitive: whether the task has had to do with a sensitive message.

    Returns:
        The same error where it may leave as it is; else one of the same type, as far as Celery goes by types.
    """
    if not sensitive and loggable(error) is not None:
        return error
    if isinstance(error, TransportUnavailable):
        # Its own words are redacted already.
        error.__cause__ = error.__context__ = None
        return error
    if isinstance(error, SystemExit):
        return SystemExit(error.code if error.code is None or isinstance(error.code, int) else 1)
    if not isinstance(error, Exception):
        return KeyboardInterrupt()
    if isinstance(error, SoftTimeLimitExceeded):
        return SoftTimeLimitExceeded()
    kinds = (*_DATABASE_ERRORS, MemoryError)
    kind = next((kind for kind in kinds if isinstance(error, kind)), RuntimeError)
    return kind(f"{error_summary(error)} ({_REDACTED if sensitive else 'its words repeat a password'})")


def _redact_replies(replies: Mapping[str, Reply]) -> dict[str, Reply]:
    return {recipient: _redact_reply(reply) for recipient, reply in replies.items()}


def _redact_reply(reply: Reply) -> Reply:
    if reply.code is None:
        # An exception stands in place of the reply, its type first.
        kind = reply.text.partition(":")[0]
        return Reply(None, f"{kind} ({_REDACTED})" if kind.isidentifier() else f"no reply ({_REDACTED})")
    enhanced = _ENHANCED_CODE.match(reply.text)
    return Reply(reply.code, f"{enhanced.group()} ({_REDACTED})" if enhanced else f"({_REDACTED})")
