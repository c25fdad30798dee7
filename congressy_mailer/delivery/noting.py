"""Noting what a mail server has said, in the moment in which it is heard, in a :mod:`.outbox.journal_file`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID

from django.db import Error

from .. import outbox
from ..models import Message, clock
from ..replies import Outcome


class Notes:
    """What one task notes. Nothing here raises: mail that cannot be noted leaves all the same."""

    def __init__(self, token: str, journal: outbox.Journal | None = None) -> None:
        """
        Args:
            token: of the claim.
            journal: which no other task has; ``None``: nothing is noted.
        """
        self._journal = journal
        self._fails = False
        self._claim = outbox.claim_digest(token)
        # Asked for now and not for each mail: the answer may take a query.
        self._clock_difference = clock.difference().total_seconds() if journal is not None else 0.0

    def note(self, message: Message, outcome: Outcome) -> None:
        """Note for whom a server has taken a mail.

        Args:
            message: which is claimed.
            outcome: as it may be stored.
        """
        journal = self._journal
        if journal is None or self._fails or not outcome.accepted or message.id in journal:
            return
        taken_for_all = not (outcome.deferred or outcome.rejected)
        recipients = () if taken_for_all else map(outbox.recipient_digest, outcome.accepted)
        at = time.time() + self._clock_difference
        try:
            journal.note(outbox.Acceptance(message.id, self._claim, at, outcome.reply, frozenset(recipients)))
        except OSError as error:
            self._fails = True
            outbox.journal_failed(error)

    def forget(self, keys: Iterable[UUID]) -> None:
        """These are recorded."""
        if self._journal is None:
            return
        try:
            self._journal.forget(keys)
        except OSError as error:
            self._fails = True
            # What is recorded must not be taken for what is not, should the same claim get the rest of it again.
            self._journal.discard()
            outbox.journal_failed(error)


@contextmanager
def noting(token: str) -> Iterator[Notes]:
    """Notes for a claim, for the length of a ``with`` block.

    Args:
        token: of the claim.
    """
    journal = outbox.take_journal()
    if journal is None:
        yield Notes(token)
        return
    try:
        _record_leftovers(journal)
        yield Notes(token, journal)
    finally:
        outbox.put_back_journal(journal)


def _record_leftovers(journal: outbox.Journal) -> None:
    """Record what a task before could not, for the database was away until the end of its lease."""
    if journal.is_empty:
        return
    try:
        for acceptance in journal.unrecorded():
            outbox.record_noted(acceptance)
            journal.forget([acceptance.key])
    except Error:
        # It is away still.
        pass
    except OSError as error:
        journal.discard()
        outbox.journal_failed(error)
