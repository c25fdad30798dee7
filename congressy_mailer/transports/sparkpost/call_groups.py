"""Mails in groups that may share a call of SparkPost's API, and the requests made of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ...replies import Reply
from ...sparkpost.transmissions import (
    MAX_RECIPIENTS,
    TransmissionMail,
    batch_transmission,
    grouping_key,
    to_addresses,
    transmission,
)
from ..base import ComposedMail, MailSource
from ..envelope import Envelope, envelope_for

# What is taken at once, for those that are alike among it, and what is called for at the same time: bytes of mail, and
# where the rate is limited also seconds. One mail of any size passes.
MAX_GROUP_BYTES = 32_000_000
_MAX_PACED_SECONDS = 1.0


class CallSource:
    """The mails to come, in groups for calls."""

    def __init__(self, mails: Iterable[ComposedMail], most_alone: int) -> None:
        """
        Args:
            mails: as they are asked for.
            most_alone: how many are taken together of those that share no call.
        """
        self._source = mails if isinstance(mails, MailSource) else None
        self._mails = iter(mails)
        self._most_alone = most_alone
        #: What has come up while a mail was asked for; those before it are sent first.
        self.error: Exception | None = None

    def next_group(self) -> list[Envelope]:
        """As many as may share a call, or as many single ones as may be called for at the same time."""
        envelopes: list[Envelope] = []
        alone, size, began = 0, 0, time.monotonic()
        while self.error is None and len(envelopes) < MAX_RECIPIENTS:
            if alone and (alone >= self._most_alone or not self._has_one_at_hand):
                break
            try:
                composed = next(self._mails, None)
            except Exception as error:
                self.error = error
                break
            if composed is None:
                break
            envelopes.append(_envelope(composed))
            size += len(composed.mail.wire)
            alone += composed.mail.batch is None
            if size > MAX_GROUP_BYTES or (self._is_paced and time.monotonic() - began > _MAX_PACED_SECONDS):
                break
        return envelopes

    @property
    def _has_one_at_hand(self) -> bool:
        return self._source is not None and self._source.ready > 0

    @property
    def _is_paced(self) -> bool:
        return self._source is None or self._source.is_paced


def grouped(envelopes: Sequence[Envelope]) -> Iterator[list[Envelope]]:
    """Groups of mails that may share a call; every other mail is a group of its own."""
    groups: dict[object, list[Envelope]] = {}
    seen: Counter[object] = Counter()
    for position, envelope in enumerate(envelopes):
        group_key = grouping_key(envelope.composed.mail) if envelope.sendable and not envelope.refused else None
        if group_key is None:
            groups[position] = [envelope]
            continue
        # Never two mails to one address: what is said of an address would be said of both.
        key_and_address = group_key, next(iter(envelope.recipients.values())).lower()
        groups.setdefault((group_key, seen[key_and_address]), []).append(envelope)
        seen[key_and_address] += 1
    yield from groups.values()


def _envelope(composed: ComposedMail) -> Envelope:
    envelope = envelope_for(composed)
    try:
        if not composed.mail.wire.isascii():
            composed.mail.wire.decode()
    except UnicodeDecodeError:
        # JSON carries text. What is signed cannot be written in another way.
        return replace(envelope, problem=Reply(554, "5.6.1 Not sent: SparkPost's API takes no mail that is not UTF-8."))
    return envelope


def batch_request(envelopes: Sequence[Envelope]) -> dict[str, Any] | None:
    """One request for all of a group; ``None`` where they cannot share one after all."""
    addresses = [next(iter(envelope.recipients.values())) for envelope in envelopes]
    return batch_transmission([envelope.composed.mail for envelope in envelopes], addresses)


def single_request(envelope: Envelope) -> dict[str, Any]:
    """The request for one mail."""
    mail = envelope.composed.mail
    recipients = list(envelope.recipients.values())
    return transmission(TransmissionMail(mail.wire, recipients, to_addresses(mail.to), mail.sparkpost))
