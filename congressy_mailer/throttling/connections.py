"""``MAX_CONNECTIONS``: a slot for each connection that is open, for all workers together."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from datetime import timedelta

from ..broker.processes import new_claim_token, owner_is_gone
from ..conf import mailer_settings
from .store import LimitStore, SlotAnswer
from .stores import limit_stores

# Seconds between two signs of life of a connection in use.
_RENEW_INTERVAL = 10.0

# Seconds until somebody who was refused asks again, and others of the same process are refused unasked.
_SHORTEST_WAIT, _LONGEST_WAIT = 1.0, 3.0


class ConnectionSlot:
    """The right to have one connection open. Where it was not acquired there is nothing to release."""

    def __init__(self, using: str) -> None:
        self._name = using or "default"
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
        """When there is no more mail for now: whether the connection may stay open, since nobody waits for its slot."""
        return self.acquired and not self._request().others_wait and self.acquired

    def release(self) -> None:
        """The connection is closed. Never raises."""
        if self.acquired:
            self.acquired = False
            _refused_until.pop(self._name, None)
            if mailer_settings().MAX_CONNECTIONS is not None:
                limit_stores.run_on_both(lambda store: store.release(self._name, [self._owner]))

    def _acquire(self) -> None:
        refused_for = _refused_until.get(self._name, 0.0) - time.monotonic()
        if refused_for <= 0:
            self._request()
            if self.acquired:
                return
            refused_for = random.uniform(_SHORTEST_WAIT, _LONGEST_WAIT)  # noqa: S311 - only to spread them
            _refused_until[self._name] = time.monotonic() + refused_for
        self.retry_in = timedelta(seconds=max(refused_for, _SHORTEST_WAIT))

    def _request(self) -> SlotAnswer:
        limit = mailer_settings().MAX_CONNECTIONS
        if limit is None:
            answer = SlotAnswer(granted=True, others_wait=False)
        else:
            answer = limit_stores.run(_acquire_from_store(self._name, self._owner, limit))
        self.acquired, self._renewed_at = answer.granted, time.monotonic()
        return answer


def connection_slot(using: str) -> ConnectionSlot:
    """A slot for a new connection: ``acquired``, or not, and then ``retry_in`` says when to ask again.

    Args:
        using: alias of the mail backend; empty: the default one.
    """
    return ConnectionSlot(using)


def _acquire_from_store(name: str, owner: str, limit: int) -> Callable[[LimitStore], SlotAnswer]:
    def acquire(store: LimitStore) -> SlotAnswer:
        answer = store.acquire(name, owner, limit)
        ended = [other for other in answer.owners if owner_is_gone(other)]
        if ended:
            # Killed on this host: its connections were closed with it.
            store.release(name, ended)
            answer = store.acquire(name, owner, limit)
        return answer

    return acquire


#: By mail backend, until when this process does not ask again.
_refused_until: dict[str, float] = {}

os.register_at_fork(after_in_child=_refused_until.clear)
