"""The handover of mails to a transport, and what is done for them until the last one has its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from datetime import timedelta

from ..models import Message
from ..transports.base import Transport
from . import sending_rate
from .handover_outcomes import Outcomes
from .mail_source import Mails
from .memory import HeldMails
from .task_parts import Route, TaskParts


class Handover:
    """One delivery over one mail backend."""

    def __init__(self, parts: TaskParts, route: Route, claim_more: Callable[[], Sequence[Message]] | None) -> None:
        """
        Args:
            parts: of the task.
            route: the backend.
            claim_more: claims what comes next, once all that was claimed is handed over; ``None``: nothing does.
        """
        self._parts = parts
        self._route = route
        self._claim_more = claim_more
        #: How long the next mail's turn is away, where that ended the slice.
        self.permit_wait = timedelta(0)

    def deliver(self, transport: Transport, messages: Sequence[Message]) -> None:
        """Hand over these messages, in this order, and record what becomes of them.

        Raises:
            TransportUnavailable: the backend cannot be used.
        """
        held_mails = HeldMails()
        recording = Outcomes(self._parts, self._route, held_mails)
        mails = Mails(messages, self._parts, self._route, recording, held_mails, self._claim_more)
        began, count = time.monotonic(), 0
        outcomes = transport.deliver(mails, self._before_waiting)
        try:
            for outcome in outcomes:
                count += 1
                recording.record(outcome)
        finally:
            # A signal's exception may come between two outcomes, while others are still to be heard.
            if isinstance(outcomes, Generator):
                outcomes.close()
            held_mails.release_all()
            self.permit_wait = mails.permit_wait
        sending_rate.observe(self._route.using, count, time.monotonic() - began)
        if recording.error is not None:
            raise recording.error
        recording.settle_login_doubts()

    def _before_waiting(self) -> None:
        """Before a server is waited for: record what is known, and keep the claims on what is in its hands."""
        self._parts.recorder.flush()
        self._parts.claims.keep_handed_over()
