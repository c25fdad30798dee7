"""Spans for OpenTelemetry: one for the call that stores mail, one for each attempt, joined by the message's row.

Nothing is imported here: a process in which spans are recorded has imported the API already. Nothing raises.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from ..conf import mailer_settings
from ..models import Message

_NAME = "congressy_mailer"
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NANOSECONDS = 1_000_000_000


def _api() -> Any:
    """OpenTelemetry's API of traces, where something in this process has imported it."""
    return sys.modules.get("opentelemetry.trace")


class StoringSpan:
    """The span of a call that stores mail, if the caller's own span is recorded."""

    def __init__(self, *, bulk: bool = False, mails: int | None = None) -> None:
        """
        Args:
            bulk: the call stores a batch.
            mails: how many mails it stores, where that is known before and may be another number than one.
        """
        self._bulk = bulk
        self._mails = mails
        self._span: Any = None
        self._current: Any = None
        #: Its context as W3C's Trace Context writes it, for the rows; empty: nothing is recorded.
        self.traceparent = ""

    def __enter__(self) -> StoringSpan:
        if (api := _api()) is not None:
            with suppress(Exception):
                self._begin(api)
        return self

    def _begin(self, api: Any) -> None:
        if not api.get_current_span().is_recording():
            return
        conf = mailer_settings()
        queue = conf.BULK_QUEUE if self._bulk else conf.QUEUE
        attributes: dict[str, str | int] = {
            "messaging.system": _NAME,
            "messaging.operation.type": "send",
            "messaging.operation.name": "send",
            "messaging.destination.name": queue,
        }
        if self._mails is not None:
            attributes["messaging.batch.message_count"] = self._mails
        self._span = api.get_tracer(_NAME).start_span(
            f"send {queue}", kind=api.SpanKind.PRODUCER, attributes=attributes
        )
        # An exception's words may name an address.
        self._current = api.use_span(self._span, record_exception=False, set_status_on_exception=False)
        self._current.__enter__()
        context = self._span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def stored(self, key: object, **attributes: str | int) -> None:
        """Name what was stored: a message, or a batch."""
        if self._span is not None:
            with suppress(Exception):
                name = "congressy_mailer.batch.id" if self._bulk else "messaging.message.id"
                self._span.set_attributes({name: str(key), **attributes})

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span is None:
            return
        with suppress(Exception):
            if error_type is not None:
                self._span.set_attribute("error.type", error_type.__qualname__)
                self._span.set_status(_api().StatusCode.ERROR)
        with suppress(Exception):
            if self._current is not None:
                self._current.__exit__(None, None, None)
        with suppress(Exception):
            self._span.end()


def is_traced(message: Message) -> bool:
    """Whether attempts of a message have spans: the call that stored it had one, and this process may record some."""
    return _api() is not None and bool(message.traceparent or (message.batch and message.batch.traceparent))


def record_attempt(message: Message, attempt: Mapping[str, Any], words: str | None) -> None:
    """Record an attempt that has just come to its end.

    Args:
        message: that :func:`is_traced` is true of.
        attempt: the fields that its line in the log has.
        words: why it was not accepted; ``None``: it was.
    """
    with suppress(Exception):
        _record(_api(), message, attempt, words)


def _record(api: Any, message: Message, attempt: Mapping[str, Any], words: str | None) -> None:
    match = _TRACEPARENT.fullmatch(message.traceparent or (message.batch.traceparent if message.batch else ""))
    if match is None:
        return
    stored_by = api.SpanContext(
        int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=api.TraceFlags(int(match[3], 16))
    )
    task = api.get_current_span().get_span_context()
    links = [api.Link(stored_by), *([api.Link(task)] if task.is_valid else [])]
    # Mails of a batch were stored by one call: as children of it they would be one trace of a million spans.
    parent = api.set_span_in_context(api.NonRecordingSpan(stored_by)) if message.traceparent else None
    attributes = {
        "messaging.system": _NAME,
        "messaging.operation.type": "process",
        "messaging.operation.name": "deliver",
        "messaging.destination.name": attempt["queue"],
        "messaging.message.id": attempt["message_id"],
        "congressy_mailer.batch.id": attempt["batch_id"],
        "congressy_mailer.backend": attempt["backend"],
        "congressy_mailer.attempt": attempt["attempt"],
        "congressy_mailer.outcome": attempt["outcome"],
        "congressy_mailer.reply.code": attempt["code"],
        "congressy_mailer.recipients": attempt.get("recipients"),
        "error.type": None if words is None else str(attempt["code"] or attempt["outcome"]),
    }
    ended = time.time_ns()
    span = api.get_tracer(_NAME).start_span(
        f"deliver {attempt['queue']}",
        context=parent,
        kind=api.SpanKind.CONSUMER,
        attributes={name: value for name, value in attributes.items() if value is not None},
        links=links,
        start_time=ended - round((attempt["duration_ms"] or 0) * _NANOSECONDS / 1000),
    )
    if words is not None:
        span.set_status(api.StatusCode.ERROR, words)
    span.end(ended)
