"""Composing some mails before the first of them is sent, so that what was sent is not written down for each mail."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from celery.exceptions import SoftTimeLimitExceeded
from django.db import Error
from django.views.decorators.debug import sensitive_variables

from .. import outbox
from ..content.references import AT_LIMITS
from ..exceptions import ContentError, ContentNotReady, Withhold
from ..mime.outgoing import OutgoingMail
from ..models import Message
from ..redaction import redact_error
from ..replies import printable_text
from .claims import Claims, logger
from .composing import Composer, StorageHangs
from .host_code import contained
from .intercepting import intercepted
from .memory import expected_size

# Bytes and seconds that are composed ahead, at the most.
_BYTES_AHEAD = 1_000_000
_SECONDS_AHEAD = 0.05

# Mails that are composed before anything is known of how long that takes.
_FIRST_CHUNK = 4

# Mails that are composed for each connection at a time, at the least.
_TURNS = 4


class ComposingAhead:
    """Composes the messages of one task, some at a time."""

    def __init__(self, claims: Claims, most: int) -> None:
        """
        Args:
            claims: which hold the messages, and take those that cannot be composed.
            most: how many are composed at a time, at the most.
        """
        self._claims = claims
        self._most = most
        self._composer = Composer()
        #: How many messages are composed before the first of them is handed over.
        self._chunk = _FIRST_CHUNK
        #: Seconds that a message takes to be composed; 0: not known.
        self.seconds = 0.0

    def prepare(self, messages: Sequence[Message]) -> bool:
        """Read what the contexts of these messages refer to.

        Returns:
            Whether they can be composed. If not, time or memory has run out, and they are not held any more.
        """
        try:
            with contained():
                self._composer.prepare(messages)
        except SoftTimeLimitExceeded as error:
            self._claims.exhausted(messages, error, "while its context was read")
            return False
        except (SystemExit, KeyboardInterrupt) as error:
            # The process is being ended, perhaps because of one of these messages: each is tried again alone.
            for message in messages:
                self._claims.record_crash(message, f"{type(error).__name__} while its context was read")
                del self._claims.waiting[message.id]
            raise
        return True

    def next_chunk(
        self, waiting: deque[Message], may_be_sent: Callable[[Message], bool], limit: int, width: int = 1
    ) -> list[tuple[Message, OutgoingMail]]:
        """As many as are composed in little time, and as fit into little memory.

        However long the server takes for them: what it has said is written down while it is waited for.

        Args:
            waiting: messages that were prepared; those that are looked at are removed.
            may_be_sent: asked before a message is composed.
            limit: how many there is time to send.
            width: how many are begun at the same time: each is to have its turn.
        """
        composed: list[tuple[Message, OutgoingMail]] = []
        began = time.monotonic()
        size = 0
        most = max(min(max(self._chunk, width * _TURNS), limit), width)
        while waiting and len(composed) < most and size < _BYTES_AHEAD:
            if composed and size + expected_size(waiting[0]) > _BYTES_AHEAD:
                # A large mail is composed when it is asked for, and not ahead.
                break
            message = waiting.popleft()
            if may_be_sent(message) and (mail := self._compose(message)) is not None:
                composed.append((message, mail))
                size += len(mail.wire)
            if time.monotonic() - began > _SECONDS_AHEAD and len(composed) % width == 0:
                break
        took = time.monotonic() - began
        if composed:
            self.seconds = took / len(composed)
        self._adjust(took)
        return composed

    def _adjust(self, took: float) -> None:
        if took < _SECONDS_AHEAD / 2:
            self._chunk = min(self._chunk * 2, self._most)
        elif took > _SECONDS_AHEAD:
            self._chunk = max(self._chunk // 2, 1)

    @sensitive_variables()
    def _compose(self, message: Message) -> OutgoingMail | None:
        """The mail; ``None`` where it cannot be composed, and the message is looked after."""
        try:
            with contained():
                return intercepted(message, self._composer.compose(message))
        except Withhold as withheld:
            self._claims.withhold(message, printable_text(str(withheld)))
        # Recorded before it is logged: a handler or filter of the host's may raise.
        except ContentNotReady as error:
            reason = self._claims.postpone(message, redact_error(message, error))
            logger.warning("Message %s waits: %s", message.id, reason)
            if isinstance(error, StorageHangs):
                # The time limit comes once: what hangs after it would end the process.
                self._claims.end_slice()
        except ContentError as error:
            reason = redact_error(message, error)
            self._claims.fail(message, reason)
            logger.error("Message %s failed: %s", message.id, reason)
        except AT_LIMITS as error:
            self._claims.exhausted([message], error, "while it was composed")
        except (SystemExit, KeyboardInterrupt) as error:
            # The process is being ended, perhaps because of this message.
            self._claims.record_crash(message, f"{type(error).__name__} while it was composed")
            raise
        except BaseException as error:
            if isinstance(error, Error) and outbox.is_away():
                raise
            self._claims.fail_unexpectedly(message, error)
        return None
