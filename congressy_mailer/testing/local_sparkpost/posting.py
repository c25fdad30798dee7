"""Posting events in batches, as SparkPost does (API reference, "Event Webhooks"; article "Webhook Best Practices").

Batches come in no order, and their events neither; the same batch comes again, and so does the same event in another
batch; what is not answered with 2xx is posted again after ever longer waits, 12 times, and is gone then. Here all of
that happens within seconds, and from a seed: the same events lead to the same batches.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from .webhooks import Webhook, Webhooks

#: SparkPost tries so often, over 8 hours.
MAX_ATTEMPTS = 12
#: Largest batch that is usual.
LARGEST_BATCH = 350


@dataclass(frozen=True, kw_only=True)
class PostingOptions:
    """How events are posted."""

    #: Seconds between two collections; SparkPost's are 30 to 60.
    every: float = 0.3
    #: How many of 100 batches, and of 100 events, come twice.
    repeated_percent: int = 20
    #: Events of a batch at the most.
    largest_batch: int = LARGEST_BATCH
    #: Seconds before a batch that was refused is posted again; doubled each time.
    retry_after: float = 0.5
    #: Of all that is left to chance.
    seed: int = 0


@dataclass
class Batch:
    """Events on their way to a webhook."""

    id: str
    webhook: Webhook
    events: Sequence[dict[str, Any]]
    attempts: int = 0
    #: Monotonic time of the next attempt.
    due: float = 0.0


@dataclass(frozen=True)
class PostAttempt:
    """A batch that has been posted once."""

    id: str
    webhook: str
    events: int
    attempt: int
    #: HTTP status; ``None``: there was no answer.
    status: int | None


class Poster:
    """A thread that collects events and posts them."""

    def __init__(self, webhooks: Webhooks, options: PostingOptions) -> None:
        self._webhooks = webhooks
        self._options = options
        self._rng = random.Random(options.seed)  # noqa: S311
        self._events: list[dict[str, Any]] = []
        self._batches: list[Batch] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        #: Everything that was posted, in order.
        self.posted: list[PostAttempt] = []
        #: Batches that were given up.
        self.lost = 0

    def add(self, events: Sequence[dict[str, Any]]) -> None:
        """Post these next time."""
        with self._changed:
            self._events += events

    def start(self) -> None:
        """Post from now on."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="local-sparkpost-events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Post no more; what is left is posted after the next start."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait_until_done(self, seconds: float = 30) -> None:
        """Wait until all events so far have been posted and taken, or given up.

        Raises:
            TimeoutError: they have not, after that time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._events and not self._batches, seconds):
                remaining = len(self._events) + sum(len(batch.events) for batch in self._batches)
                raise TimeoutError(f"{remaining} events were still to be posted after {seconds} s.")

    def _run(self) -> None:
        while not self._stopping.wait(self._options.every):
            with self._changed:
                self._batches += self._make_batches(self._events)
                self._events = []
                due = [batch for batch in self._batches if batch.due <= time.monotonic()]
                self._rng.shuffle(due)
                self._changed.notify_all()
            for batch in due:
                if self._stopping.is_set():
                    break
                finished = self._post(batch)
                with self._changed:
                    if finished:
                        self._batches.remove(batch)
                    self._changed.notify_all()

    def _make_batches(self, events: Sequence[dict[str, Any]]) -> Iterator[Batch]:
        for webhook in self._webhooks:
            wanted = [event for event in events if webhook.active and _type(event) in webhook.events]
            again = [event for event in wanted if self._is_repeated()]
            for some in (wanted, again):
                yield from self._split(webhook, some)

    def _split(self, webhook: Webhook, events: Sequence[dict[str, Any]]) -> Iterator[Batch]:
        remaining = list(events)
        self._rng.shuffle(remaining)
        while remaining:
            size = self._rng.randint(1, min(len(remaining), self._options.largest_batch))
            batch, remaining = remaining[:size], remaining[size:]
            id_ = f"{self._rng.getrandbits(128):032x}"
            yield Batch(id_, webhook, batch)
            if self._is_repeated():
                yield Batch(id_, webhook, batch)

    def _is_repeated(self) -> bool:
        return self._rng.random() * 100 < self._options.repeated_percent

    def _post(self, batch: Batch) -> bool:
        """Returns whether that was all."""
        batch.attempts += 1
        try:
            status: int | None = self._webhooks.post(batch.webhook, batch.events, batch=batch.id).status_code
        except requests.RequestException:
            status = None
        self.posted.append(PostAttempt(batch.id, batch.webhook.id, len(batch.events), batch.attempts, status))
        if status is not None and 200 <= status < 300:
            return True
        if batch.attempts >= MAX_ATTEMPTS:
            self.lost += 1
            return True
        batch.due = time.monotonic() + self._options.retry_after * 2 ** (batch.attempts - 1)
        return False


def _type(event: dict[str, Any]) -> str:
    (inside,) = event["msys"].values()
    return str(inside["type"])
