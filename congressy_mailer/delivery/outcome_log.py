"""What each attempt came to: a line in the log where ``LOG_OUTCOMES`` asks for it, a span where its call had one."""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress

from ..conf import mailer_settings
from ..metrics import spans
from ..metrics.counting import dimensions
from ..models import Message, State
from ..replies import Outcome, Reply

logger = logging.getLogger("congressy_mailer.outcomes")

#: Outcome of an attempt after which the message, or a part of its recipients, is in the server's hands.
ACCEPTED = "accepted"

_ADDRESS = re.compile(r"[^\s<>()\[\],;:\"']+@[^\s<>()\[\],;:\"']+")


def log_outcome(message: Message, outcome: Outcome, began: float | None) -> None:
    """Log and trace what a server has said of a message.

    Args:
        message: as it was claimed.
        outcome: redacted where the message is sensitive.
        began: when it was handed over, by ``time.monotonic()``; ``None``: that is not known.
    """
    if not _is_wanted(message):
        return
    if outcome.deferred and not outcome.continues:
        # Deferred, or held, or given up.
        name, replies = str(message.state), [*outcome.deferred.values()]
    elif outcome.accepted:
        name, replies = ACCEPTED, [outcome.reply]
    else:
        name, replies = State.FAILED.value, [*outcome.rejected.values()]
    code = next((reply.code for reply in (*replies, outcome.reply) if reply.code is not None), None)
    _report(message, name, _words(replies or [outcome.reply]), began, code)


def log_reason(message: Message, reason: str) -> None:
    """Log and trace what became of a message without a server.

    Args:
        message: its new state is set.
        reason: redacted where the message is sensitive.
    """
    if _is_wanted(message):
        _report(message, str(message.state), reason, None, None)


def _is_wanted(message: Message) -> bool:
    return mailer_settings().LOG_OUTCOMES or spans.is_traced(message)


def _words(replies: list[Reply]) -> str:
    return "; ".join(dict.fromkeys(map(str, replies)))


def _report(message: Message, name: str, words: str, began: float | None, code: int | None) -> None:
    # Recorded already, or about to be: nothing that a handler of the host's raises may change that.
    with suppress(Exception):
        addresses = mailer_settings().LOG_ADDRESSES
        if not addresses:
            words = _ADDRESS.sub("<address>", words)
        backend, queue, _ = dimensions(message)
        fields: dict[str, object] = {
            "message_id": str(message.id),
            "batch_id": str(message.batch_id) if message.batch_id else None,
            "attempt": message.attempts + 1,
            "outcome": name,
            "code": code,
            "words": words,
            "duration_ms": round((time.monotonic() - began) * 1000) if began is not None else None,
            "backend": backend or "default",
            "queue": queue,
        }
        if addresses:
            fields["recipients"] = message.envelope
        if spans.is_traced(message):
            spans.record_attempt(message, fields, None if name == ACCEPTED else words)
        if not mailer_settings().LOG_OUTCOMES:
            return
        logger.info(
            "Message %s, attempt %d: %s%s: %s", message.id, fields["attempt"], name,
            f" in {fields['duration_ms']} ms" if began is not None else "", words, extra=fields,
        )  # fmt: skip
