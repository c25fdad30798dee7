"""The database connection of one task, kept for the next one of its thread.

Celery closes every connection that Django knows of before and after each task, whatever ``CONN_MAX_AGE`` says: each
mail would open a connection. So the outbox's is taken out of Django's sight between tasks, and closed when no task has
come for a while.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import outbox

#: Seconds after which an idle connection is closed: each counts among those that the server allows.
LONGEST_IDLE = 60.0

#: Seconds after which the server is asked whether the connection still works. It may have been restarted.
TRUSTED = 1.0


@dataclass(frozen=True, slots=True)
class _Kept:
    """A connection that no task uses."""

    alias: str
    connection: BaseDatabaseWrapper
    since: float


_lock = threading.Lock()
#: By process and thread. What a process has inherited by a fork is another's, and left alone.
_kept: dict[tuple[int, int], _Kept] = {}
#: The process whose thread closes idle connections; 0: there is none.
_closing_in = 0


@contextmanager
def kept_connection() -> Iterator[None]:
    """Use the connection of this thread's last task, and keep it for the next one.

    Not where a host pools its connections, and not after an error of the database.
    """
    alias = outbox.database()
    if not _may_be_kept(alias):
        yield
        return
    _take(alias)
    try:
        yield
    finally:
        _keep(alias)


def _may_be_kept(alias: str) -> bool:
    settings = connections.settings[alias]
    # Without autocommit what a host's code has left open would be kept with it.
    autocommit, pooled = settings["AUTOCOMMIT"], settings["OPTIONS"].get("pool")
    return bool(autocommit) and not pooled and not connections[alias].in_atomic_block


def _take(alias: str) -> None:
    with _lock:
        kept = _kept.pop((os.getpid(), threading.get_ident()), None)
    if kept is None:
        return
    connection = kept.connection
    if kept.alias != alias or connection.settings_dict != connections[alias].settings_dict:
        connection.close()
        return
    connections[alias].close()
    connections[alias] = connection
    if time.monotonic() - kept.since > TRUSTED and not _is_usable(connection):
        connection.close()
    elif connection.settings_dict["CONN_MAX_AGE"]:
        # As Django does between requests. 0 would close it after each, which is what is avoided here.
        connection.close_if_unusable_or_obsolete()


def _is_usable(connection: BaseDatabaseWrapper) -> bool:
    return connection.connection is not None and connection.is_usable()


def _keep(alias: str) -> None:
    connection = connections[alias]
    if connection.connection is None or connection.errors_occurred or connection.in_atomic_block:
        return
    del connections[alias]
    with _lock:
        _kept[os.getpid(), threading.get_ident()] = _Kept(alias, connection, time.monotonic())
    _have_idle_ones_closed()


def _have_idle_ones_closed() -> None:
    global _closing_in
    with _lock:
        if _closing_in == os.getpid():
            return
        _closing_in = os.getpid()
    threading.Thread(target=_close_idle_ones, name="congressy-mailer-idle-database-connections", daemon=True).start()


def _close_idle_ones() -> None:
    global _closing_in
    while True:
        time.sleep(LONGEST_IDLE / 4)
        idle = []
        with _lock:
            mine = {key: kept for key, kept in _kept.items() if key[0] == os.getpid()}
            for key, kept in mine.items():
                if time.monotonic() - kept.since > LONGEST_IDLE:
                    idle.append(_kept.pop(key))
            if none_left := len(idle) == len(mine):
                _closing_in = 0
        _close([kept.connection for kept in idle])
        if none_left:
            return


def _close(idle: list[BaseDatabaseWrapper]) -> None:
    """Close connections that no thread uses, from any thread."""
    for connection in idle:
        connection.inc_thread_sharing()
        with suppress(Exception):
            connection.close()


def close_kept_connections() -> None:
    """Close what this process keeps for tasks to come."""
    with _lock:
        mine = [key for key in _kept if key[0] == os.getpid()]
        idle = [_kept.pop(key) for key in mine]
    _close([kept.connection for kept in idle])
