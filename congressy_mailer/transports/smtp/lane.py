"""One connection to a mail server that may be opened and left while others are in use."""

from __future__ import annotations

import smtplib
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from django.core.mail.backends.smtp import EmailBackend
from django.db import connections

from ...throttling import ConnectionSlot
from .attempt import Attempt
from .session import Session
from .stream import Flow, Wait


class Lane:
    """A mail backend's connection, the right to have it, and what is said on it at this moment.

    For one thread; what takes a round trip or more can be left to a thread of its own, see ``busy_aside``.
    """

    def __init__(self, backend: EmailBackend, longest_envelope: Callable[[], float]) -> None:
        """
        Args:
            backend: which opens and closes the connection.
            longest_envelope: as :class:`.session.Session` has it.
        """
        self._backend = backend
        self._longest_envelope = longest_envelope
        self.slot: ConnectionSlot | None = None
        self.session: Session | None = None
        #: The server waits for its content, or is being sent it.
        self.sending: Attempt | None = None
        #: Its envelope is on its way.
        self.beginning: Attempt | None = None
        #: The round trip that is under way, and what it waits for.
        self.flow: Flow[None] | None = None
        self.wait: Wait | None = None
        self.began_at = 0.0
        #: Since when a content is on its way whose reply was not read.
        self.flying_since: float | None = None
        #: A content that is to be sent again, once the envelope behind it is answered.
        self.again: list[Attempt] = []
        #: Another thread opens or leaves it.
        self.busy_aside = False
        self._thread: threading.Thread | None = None
        #: Why it was not opened in this delivery.
        self.failed: Exception | None = None

    @property
    def is_under_way(self) -> bool:
        """Something was begun on it that has not come to its end."""
        return self.flow is not None or self.sending is not None

    def is_flying(self, at_most: float) -> bool:
        """Whether a content is on its way, and has been for less than so many seconds."""
        return self.flying_since is not None and time.monotonic() - self.flying_since < at_most

    def open(self) -> None:
        """Open the connection, here and now.

        Raises:
            Exception: any error of the backend, or ``OSError``.
        """
        self.session = self._opened()

    def open_aside(self, finished: Callable[[Lane, Session | Exception], None]) -> None:
        """Leave the connection that there is, and open another one, in a thread of its own.

        Args:
            finished: called there, with what came of it. It is busy until :meth:`take`.
        """
        old, self.session = self.session, None
        self._do_aside(partial(self._reopen, old, finished))

    def _reopen(self, old: Session | None, finished: Callable[[Lane, Session | Exception], None]) -> None:
        result: Session | Exception
        self._leave(old)
        try:
            result = self._opened()
        except Exception as error:
            result = error
        finished(self, result)

    def take(self, session: Session | None) -> None:
        """Have what another thread has opened, if anything."""
        self.busy_aside, self.session = False, session

    def close(self) -> None:
        """Leave the connection, politely where that is possible; what was announced is forgotten. Never raises."""
        session, slot = self._give_up()
        self._leave(session)
        if slot is not None:
            slot.release()

    def close_aside(self) -> None:
        """The same in a thread of its own, since a goodbye takes a round trip."""
        if self.session is None:
            self.close()
            return
        session, slot = self._give_up()

        def leave() -> None:
            self._leave(session)
            if slot is not None:
                slot.release()
            self.busy_aside = False

        self._do_aside(leave)

    def finish_aside(self, seconds: float) -> None:
        """Wait for the other thread, but not for longer."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _give_up(self) -> tuple[Session | None, ConnectionSlot | None]:
        self.sending = self.beginning = self.flow = self.wait = self.flying_since = None
        self.again = []
        session, self.session = self.session, None
        slot, self.slot = self.slot, None
        return session, slot

    def _leave(self, session: Session | None) -> None:
        if session is not None:
            session.prepare_close()
        with suppress(Exception):
            self._backend.close()

    def _opened(self) -> Session:
        self._backend.open()
        connection = self._backend.connection
        if not isinstance(connection, smtplib.SMTP):
            # With fail_silently=True the backend keeps the reason to itself.
            raise OSError("the backend has opened no connection, and has not said why")
        return Session(connection, self._longest_envelope())

    def _do_aside(self, job: Callable[[], None]) -> None:
        def run() -> None:
            try:
                job()
            finally:
                # A host's own backend may have asked the database, which has a connection for each thread.
                connections.close_all()

        # A worker's process does not wait for it at its end.
        self._thread = threading.Thread(target=run, name="congressy-mailer-smtp", daemon=True)
        self.busy_aside = True
        self._thread.start()
