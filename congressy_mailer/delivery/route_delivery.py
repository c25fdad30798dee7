"""Delivery over the mail backends that messages may go over: their own, or those of ``FAILOVER`` in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from ..exceptions import NoFreeConnection, TransportUnavailable
from ..mime.addresses import domain_of
from ..models import Message, clock
from ..outbox.backoff import FLOOR
from ..redaction import redact_unavailable
from ..throttling import rate_limiter_for
from ..transports.selection import transport_for
from . import failover, sending_rate
from .admission import Admission
from .availability import CircuitBreaker, make_due_if_known
from .handover import Handover
from .task_parts import Route, TaskParts


class RouteDelivery:
    """Delivers what one task has claimed, one mail backend after the other."""

    def __init__(self, parts: TaskParts, admission: Admission) -> None:
        """
        Args:
            parts: of the task.
            admission: of what is claimed later.
        """
        self._parts = parts
        self._admission = admission
        #: Claims what comes next: so many messages at the most, which name this mail backend; ``None``: nothing does.
        self.claim_next: Callable[[int, str], list[Message]] | None = None
        #: How long the next mail's turn is away, where that ended the slice.
        self.permit_wait = timedelta(0)
        #: Mail that waited for a backend is due now and unpublished.
        self.made_due = False
        #: Mail backends that cannot be used, and until when.
        self._unavailable_until: dict[str, datetime] = {}
        #: Until when mail was put back that waits for one of them.
        self._held_back_until: set[datetime] = set()

    def deliver(self, using: str, messages: Sequence[Message]) -> None:
        """Deliver over the first mail backend that is available, and mail that is bound to another one over that.

        Raises:
            TransportUnavailable: for some of them there is none.
        """
        unavailable: TransportUnavailable | None = None
        bound_mail_waits = False
        messages = list(messages)
        for route in failover.routes(using, messages):
            if self._admission.is_paused(route):
                # All that may go nowhere else has been put back.
                continue
            mine = [
                message for message in messages
                if message.id in self._parts.claims.waiting and failover.may_use(message, route)
            ]  # fmt: skip
            if not mine:
                continue
            unbound = {message.id for message in mine if not failover.is_bound(message)}
            try:
                self._deliver_over(
                    route, mine, unbound, partial(self._claim_more, using, route, messages, mine, unbound)
                )
            except TransportUnavailable as error:
                unavailable = error
                bound_mail_waits |= len(unbound) < len(mine)
            if route not in self._unavailable_until:
                # It can be used: what has not been begun waits for it.
                messages = [message for message in messages if failover.is_bound(message)]
        unfinished = [message.id for message in messages if not failover.is_bound(message)]
        if unfinished:
            # Whichever is tried first.
            until = min(self._unavailable_until.values())
            self._hold_back(unfinished, until)
            if unavailable is not None and unavailable.retry_in is not None:
                unavailable.retry_in = min(unavailable.retry_in, max(until - clock.now(), FLOOR))
        if unavailable is not None and (unfinished or bound_mail_waits):
            raise unavailable

    def release_held_back(self) -> None:
        """Have what was put back be tried as soon as its mail backend can be used: perhaps it could by then."""
        try:
            self.made_due |= make_due_if_known(self._held_back_until)
        finally:
            self._held_back_until.clear()

    def _claim_more(
        self,
        using: str,
        route: str,
        messages: list[Message],
        of_route: list[Message],
        reroutable: set[UUID],
        breaker: CircuitBreaker,
    ) -> Sequence[Message]:
        """Claim what comes next while the connection is warm, and have it go through all that the first went through.

        Args:
            using: what the messages name.
            route: alias of the mail backend in use.
            messages: all that are delivered; what is claimed is added.
            of_route: those that may go over the backend; likewise.
            reroutable: those of them that another backend may take; likewise.
            breaker: of the backend.

        Returns:
            What may be sent now.
        """
        if self.claim_next is None or breaker.is_probing:
            return ()
        if not self._admission.is_current:
            # A slice may go on for half a minute: what was claimed is sent, and what comes next is looked at anew.
            return ()
        limit = sending_rate.fitting_claim(route, self._parts.deadlines.slice_left)
        claimed = self._parts.claims.claim(partial(self.claim_next, limit, using))
        self._parts.claims.add(claimed)
        claimed = list(self._admission.admit(claimed))
        # What is bound to another backend comes after this one.
        mine = [message for message in claimed if message.using == using and failover.may_use(message, route)]
        messages += claimed
        of_route += mine
        reroutable |= {message.id for message in mine if not failover.is_bound(message)}
        breaker.look_up({domain_of(message.from_email) for message in mine})
        sendable = self._sendable_now(breaker, mine)
        self._parts.claims.set_route(route, sendable)
        return sendable

    def _deliver_over(
        self,
        using: str,
        messages: Sequence[Message],
        reroutable: Set[UUID],
        claim_more: Callable[[CircuitBreaker], Sequence[Message]],
    ) -> None:
        """Deliver over one mail backend.

        Args:
            using: its alias.
            messages: what may go over it.
            reroutable: those of them that stay open where it cannot be used, since another may take them. Until when
                that is, is in ``_unavailable_until`` afterwards.
            claim_more: claims what comes next, and adds it to both.

        Raises:
            TransportUnavailable: the backend as a whole was found to be.
        """
        self._unavailable_until.pop(using, None)
        senders = {domain_of(message.from_email) for message in messages}
        breaker = CircuitBreaker(
            using,
            senders,
            before_update=self._parts.recorder.flush,
            none_open=self._parts.claims.take_none_unavailable(messages),
        )
        handover = Handover(
            self._parts,
            Route(using, breaker, rate_limiter_for(using), self._hold_back),
            None if self.claim_next is None else partial(claim_more, breaker),
        )
        try:
            if "" in breaker.open_until:
                self._unavailable_until[using] = breaker.open_until[""]
                first = [message for message in messages if message.id not in reroutable]
            else:
                first = list(messages)
            first = self._sendable_now(breaker, first)
            if first:
                self._parts.claims.set_route(using, first)
                with transport_for(using) as transport:
                    handover.deliver(transport, first)
            # It was taken, and its time was over before it was begun.
            self._parts.claims.take_back_handed_over()
            self._parts.claims.put_back_for(handover.permit_wait, messages)
        except NoFreeConnection as no_connection:
            self._parts.claims.take_back_handed_over()
            self._parts.claims.put_back_for(no_connection.retry_in, messages)
        except TransportUnavailable as raised:
            self._parts.recorder.flush()
            error = redact_unavailable(self._parts.claims.handed_over.values(), raised)
            self._parts.claims.take_back_handed_over()
            error.retry_in = breaker.record_failure("", str(error), minimum_wait=raised.retry_in)
            self._unavailable_until[using] = breaker.open_until[""]
            mine = [message.id for message in messages if message.id not in reroutable]
            self._hold_back(mine, breaker.open_until[""])
            raise error from None
        finally:
            self.permit_wait = handover.permit_wait
            breaker.release_probes()
            self.made_due |= breaker.made_due

    def _sendable_now(self, breaker: CircuitBreaker, messages: Sequence[Message]) -> list[Message]:
        """Those that may be sent now; the others are put back until it makes sense to look again."""
        sendable = []
        blocked: dict[datetime, list[UUID]] = {}
        for message in messages:
            until = breaker.open_until.get("") or breaker.open_until.get(domain_of(message.from_email))
            if until is None:
                sendable.append(message)
            else:
                blocked.setdefault(until, []).append(message.id)
        for until, ids in blocked.items():
            self._hold_back(ids, until)
        return sendable

    def _hold_back(self, ids: Sequence[UUID], until: datetime) -> None:
        """Put back what waits for a mail backend until it is tried again."""
        self._parts.claims.put_back(ids, until=until)
        self._held_back_until.add(until)
