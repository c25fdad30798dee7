"""Code of the host's, such as a template's, kept from changing what the outbox needs after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import outbox
from ..content.references import savepoint_in_transaction
from ..exceptions import ContentNotReady


@contextmanager
def contained() -> Iterator[None]:
    """Have the outbox's connection afterwards as it was, and no second process go on with the same mails.

    Results that are recorded within a transaction which the host's code has left open would be lost with it, and
    their mails would be sent again.

    Raises:
        ContentNotReady: the code left a transaction open, or switched autocommit off.
    """
    connection = connections[outbox.database()]
    if connection.in_atomic_block:
        with savepoint_in_transaction(connection.alias):
            yield
        return
    process = os.getpid()
    try:
        yield
    except BaseException:
        _restore(connection, process)
        raise
    if _restore(connection, process):
        raise ContentNotReady("Its template or the code behind it left a transaction of the database open.")


def _restore(connection: BaseDatabaseWrapper, process: int) -> bool:
    """Undo what is left of a transaction; returns whether something was."""
    if os.getpid() != process:
        # A copy of the worker that the host's code has made: it holds the same claim, and must not use it.
        os._exit(0)
    autocommit = connection.settings_dict["AUTOCOMMIT"]
    if not connection.in_atomic_block and (connection.connection is None or connection.autocommit == autocommit):
        return False
    connection.in_atomic_block = False
    connection.needs_rollback = False
    connection.closed_in_transaction = False
    connection.commit_on_exit = True
    connection.savepoint_ids, connection.atomic_blocks, connection.run_on_commit = [], [], []
    with suppress(Error):
        connection.rollback()
        connection.set_autocommit(autocommit)
    with suppress(Error):
        connection.close()
    return True
