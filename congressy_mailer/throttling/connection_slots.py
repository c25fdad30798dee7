"""A slot for each connection that is open, for all workers together: ``MAX_CONNECTIONS``, and what servers show.

A server that refuses a connection as one too many allows as many as the others that are open. That is remembered, and
forgotten little by little.
"""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections.abc import Callable
from datetime import timedelta

from ..broker.claim_owners import new_claim_token, owner_is_gone
from ..conf import mailer_settings
from ..replies import Reply
from .store import LimitStore, SlotAnswer
from .store_choice import limit_stores

logger = logging.getLogger("congressy_mailer.throttling")

_NO_LIMIT = 1_000_000

# Seconds between two signs of life of a connection in use.
_RENEW_INTERVAL = 10.0

# Seconds until a refused task asks again; until then others of the same process are refused without asking.
_SHORTEST_WAIT, _LONGEST_WAIT = 1.0, 3.0


class ConnectionSlot:
    """The right to have one connection open. Where it was not acquired there is nothing to release."""

    def __init__(self, using: str, *, extra: bool = False) -> None:
        self._name = using or "default"
        self._extra = extra
        self._owner = new_claim_token("connection")
        self._renewed_at = 0.0
        #: Whether a connection may be opened, or stay open.
        self.acquired = False
        #: Where it may not be opened: when it makes sense to ask again.
        self.retry_in = timedelta(0)
        self._acquire()

    def renew(self, before_query: Callable[[], None] = lambda: None) -> bool:
        """Before each mail, and for the price of a look at the clock: whether the connection may be used.

        It may not where the slot was lost: to a Redis that has lost its memory, or because the process was stopped for
        longer than a slot is held. Then the connection is to be closed.

        Args:
            before_query: called before Redis is asked, which may not answer at once.
        """
        if self.acquired and time.monotonic() - self._renewed_at >= _RENEW_INTERVAL:
            before_query()
            self._request()
        return self.acquired

    def may_stay_open(self) -> bool:
        """Without more mail for now: whether the connection may stay open, since no process waits for its slot."""
        if not self.acquired:
            return False
        answer = self._request()
        # Where the server allows few, the next mail may be another process's.
        return self.acquired and not answer.others_wait and not answer.limit_learnt

    def refused_by_server(self, reply: Reply) -> bool:
        """The server has said that there are too many connections, and the one of this slot was not opened.

        Returns:
            Whether others are open, so that one of those will do; ``retry_in`` says when to ask again. Otherwise the
            server cannot be used.
        """
        limit, is_new = limit_stores.run(lambda store: store.learn_limit(self._name, self._owner))
        self.acquired = False
        if limit:
            self._refuse()
        if is_new:
            logger.warning(
                "The mail backend %r allows %d connections at a time: %s. No more are opened for ten minutes, and then "
                "one more at a time. A lower MAX_CONNECTIONS spares the tries.",
                self._name, limit, reply,
            )  # fmt: skip
        return limit > 0

    def release(self) -> None:
        """The connection is closed. Never raises."""
        if self.acquired:
            self.acquired = False
            _refused_until.pop(self._name, None)
            limit_stores.run_on_both(lambda store: store.release(self._name, [self._owner]))

    def _acquire(self) -> None:
        refused_for = _refused_until.get(self._name, 0.0) - time.monotonic()
        if refused_for <= 0:
            self._request()
            # Who has another one does not keep this process from asking for its first.
            if not self.acquired and not self._extra:
                self._refuse()
        else:
            self.retry_in = timedelta(seconds=max(refused_for, _SHORTEST_WAIT))

    def _refuse(self) -> None:
        refused_for = random.uniform(_SHORTEST_WAIT, _LONGEST_WAIT)  # noqa: S311 - only to spread them
        _refused_until[self._name] = time.monotonic() + refused_for
        self.retry_in = timedelta(seconds=refused_for)

    def _request(self) -> SlotAnswer:
        # Counted without a limit as well: the server may have one.
        limit = mailer_settings().MAX_CONNECTIONS or _NO_LIMIT
        answer = limit_stores.run(_acquire_from_store(self._name, self._owner, limit, quiet=self._extra))
        self.acquired, self._renewed_at = answer.granted, time.monotonic()
        return answer


def connection_slot(using: str, *, extra: bool = False) -> ConnectionSlot:
    """A slot for a new connection: ``acquired``, or not, and then ``retry_in`` says when to ask again.

    Args:
        using: alias of the mail backend; empty: the default one.
        extra: there is another connection already. Other processes do not give up theirs for this one.
    """
    return ConnectionSlot(using, extra=extra)


def _acquire_from_store(name: str, owner: str, limit: int, *, quiet: bool) -> Callable[[LimitStore], SlotAnswer]:
    def acquire(store: LimitStore) -> SlotAnswer:
        answer = store.acquire(name, owner, limit, quiet=quiet)
        ended = [other for other in answer.owners if owner_is_gone(other)]
        if ended:
            # Killed on this host: its connections were closed with it.
            store.release(name, ended)
            answer = store.acquire(name, owner, limit, quiet=quiet)
        return answer

    return acquire


def share_connections(tasks: int) -> None:
    """Have the tasks that a worker runs at the same time share ``MAX_CONNECTIONS``.

    Args:
        tasks: how many there are.
    """
    global _tasks
    _tasks = tasks


def connections_per_task() -> int:
    """How many connections one task may have at the same time; 1 outside of workers, and where there is no limit."""
    most: int | None = mailer_settings().MAX_CONNECTIONS
    return math.ceil(most / _tasks) if most and _tasks else 1


#: Tasks of this worker at the same time; 0: this is none.
_tasks = 0

#: By mail backend, until when this process does not ask again.
_refused_until: dict[str, float] = {}


def forget_refusals() -> None:
    """Ask again for each mail backend at the next time."""
    _refused_until.clear()


os.register_at_fork(after_in_child=forget_refusals)
