"""The caller: stores mails a dozen or two at a time, or dozens in a batch, whatever the database and the broker are
going through.

``python -m tests.chaos.feeder --messages 5000 --seed 1 --seconds 40 --journal FILE``. A transaction that fails is
tried again until it commits, since nobody knows whether one that was broken off has committed: every mail has an
``idempotency_key``, every batch a ``key``. Some transactions are rolled back on purpose, and some batches are left to
:mod:`.holding` in part, which stores the rest in a transaction that stays open.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import django
from django.db import DatabaseError, InterfaceError, connection, transaction

from tests.chaos.holding import Holder
from tests.chaos.journal import JournalWriter
from tests.chaos.mails import NEVER, Mail, make_mail

_BETWEEN_TRIES = 0.2


# Of recipients that are stored at once, so that a batch of some dozens has several.
_CHUNK = 10


class _RollBack(Exception):
    """Ends a transaction that must leave no trace."""


class _Interrupted(Exception):
    """Ends a call in the midst of its recipients."""


def feed(messages: int, seed: int, seconds: float, journal: JournalWriter) -> None:
    """Store so many mails, spread over so many seconds, and write down each commit."""
    holder = Holder(seed, journal, _store_whole_batch)
    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(holder.run)
        try:
            _feed(messages, seed, seconds, journal, holder)
        finally:
            holder.ended.set()
        holding.result()


def _feed(messages: int, seed: int, seconds: float, journal: JournalWriter, holder: Holder) -> None:
    rng = random.Random(f"feeder {seed}")
    began = time.monotonic()
    fed = 0
    while fed < messages:
        due = began + seconds * fed / messages
        time.sleep(max(0.0, due - time.monotonic()))
        # About half of the mails are in batches.
        store = _store_batch if rng.random() < 0.25 else _store_mails
        until = min(messages, fed + (rng.randint(20, 100) if store is _store_batch else rng.randint(5, 25)))
        mails = [make_mail(seed, number) for number in range(fed, until)]
        in_part = store is _store_batch and rng.random() < 0.2
        if in_part:
            _store_part(mails)
            holder.in_part.put(mails)
            fed = until
            continue
        while not store(mails, journal, with_savepoint=rng.random() < 0.3):
            time.sleep(_BETWEEN_TRIES)
        for mail in mails:
            journal.write("committed", time.time(), mail.key)
        if rng.random() < 0.3:
            _roll_back(f"{NEVER}{fed}")
        fed = until


def _store_mails(mails: Sequence[Mail], journal: JournalWriter, *, with_savepoint: bool) -> bool:
    from congressy_mailer import send_mail

    def store() -> None:
        for mail in mails:
            send_mail(**mail.arguments)

    return _commit(store, mails[0].key if with_savepoint else "", journal)


def _store_batch(mails: Sequence[Mail], journal: JournalWriter, *, with_savepoint: bool) -> bool:
    return _commit(lambda: _store_whole_batch(mails), mails[0].key if with_savepoint else "", journal)


def _store_part(mails: Sequence[Mail]) -> None:
    """What a caller leaves who is interrupted: some chunks of a batch, each of which is committed."""

    def interrupted() -> Iterator[Mail]:
        yield from mails[: len(mails) // 2]
        raise _Interrupted

    # A database that is away stores a smaller part, or none.
    with suppress(_Interrupted, DatabaseError, InterfaceError):
        _send_bulk(interrupted(), key=mails[0].key, on_invalid="skip")
    connection.close()


def _store_whole_batch(mails: Sequence[Mail]) -> bool:
    _send_bulk(mails, key=mails[0].key)
    return True


def _send_bulk(mails: Iterable[Mail], **options: Any) -> None:
    from congressy_mailer import Recipient, send_bulk

    send_bulk(
        (Recipient(**mail.for_batch()) for mail in mails),
        template="mail/hello",
        subject="Inscrição",
        context={"user": {"username": "todos"}},
        **options,
    )


def _commit(store: Callable[[], object], rolled_back_with: str, journal: JournalWriter) -> bool:
    from congressy_mailer import send_mail

    try:
        with transaction.atomic():
            # As SQLite's only writer from here on.
            began = time.time()
            store()
            if rolled_back_with:
                with suppress(_RollBack), transaction.atomic():
                    send_mail("never", "x", to=f"{NEVER}{rolled_back_with}@example.com")
                    raise _RollBack
    except (DatabaseError, InterfaceError) as error:
        print(f"{time.time():.3f} not stored, or not known: {error}", flush=True)
        connection.close()
        return False
    journal.write("wrote", began, f"{time.time():.6f}")
    return True


def _roll_back(name: str) -> None:
    from congressy_mailer import send_mail

    # A database that is away rolls it back as well.
    try:
        with suppress(_RollBack), transaction.atomic():
            for number in range(3):
                send_mail("never", "x", to=f"{name}-{number}@example.com")
            raise _RollBack
    except (DatabaseError, InterfaceError):
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    options = parser.parse_args()
    django.setup()
    from congressy_mailer.submission import batch_writer

    batch_writer._CHUNK = _CHUNK
    with JournalWriter(options.journal) as journal:
        feed(options.messages, options.seed, options.seconds, journal)


if __name__ == "__main__":
    main()
