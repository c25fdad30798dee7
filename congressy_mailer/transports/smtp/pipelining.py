"""Which servers take the next mail's envelope in one group with the content before it, as RFC 2920 §3.1 allows.

Some that offer ``PIPELINING`` do not: against SMTP smuggling, Haraka 3.3.4 and later answers each command behind a
final dot with 503, and chasquid 1.11 throws away what stands there. They are remembered for this process, and for a
while only: a server is updated or replaced more often than a worker is restarted.
"""

from __future__ import annotations

import logging
import re
import time

from ...replies import SESSION_CODES, Reply

logger = logging.getLogger("congressy_mailer.transports")

#: Seconds for which a server is remembered. One mail in this time finds out whether it is still so.
MEMORY = 3600.0

#: Seconds that a server gets for its first word to an envelope behind a content, until it has answered one on the same
#: connection. Where that is too short, the envelope is begun again, and nothing is lost but the time.
PATIENCE = 10.0

# What servers say to commands that they think came too early.
_TOO_EARLY = re.compile(r"pipelin|synchroni[sz]|sequence", re.IGNORECASE)

#: By host and port, until when its mails are sent one after the other, by :func:`time.monotonic`.
_envelopes_only: dict[tuple[str, int], float] = {}


def spans_mails(host: str, port: int) -> bool:
    """Whether an envelope may go along with the content of the mail before it, as far as is known."""
    return time.monotonic() >= _envelopes_only.get((host, port), 0.0)


def restrict_to_envelopes(host: str, port: int, reason: Reply) -> None:
    """From now on no envelope goes along with a content to this server.

    Args:
        host: as the backend has it.
        port: likewise.
        reason: what became of an envelope that went along and was taken by itself.
    """
    now = time.monotonic()
    known = _envelopes_only.get((host, port), 0.0) > now
    _envelopes_only[host, port] = now + MEMORY
    if not known:
        logger.info(
            "The mail server %s:%s takes no envelope behind the content of another mail (%s). For an hour each mail to "
            "it costs two round trips.",
            host, port, reason,
        )  # fmt: skip


def forget_restrictions() -> None:
    """Find out about every server again."""
    _envelopes_only.clear()


def refuses_order(reply: Reply | None) -> bool:
    """Whether a refusal of a command may be for where the command stood, and not for what it asked."""
    return (
        reply is not None
        and reply.code is not None
        and reply.code >= 400
        and (reply.code in SESSION_CODES or _TOO_EARLY.search(reply.text) is not None)
    )
