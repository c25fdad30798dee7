"""Delivery over SparkPost's HTTP API: a call for each mail, or one for many of a batch that are alike."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.views.decorators.debug import sensitive_variables

from ..exceptions import SparkPostError, TransportUnavailable, account_refused
from ..mime.writer import written
from ..replies import Outcome, Reply, Verdict
from ..sparkpost.answers import created, refusal
from ..sparkpost.client import Client
from ..sparkpost.transmissions import MAX_RECIPIENTS, ToSend, encoded, likeness, many, one, to_of
from .base import Composed, nothing
from .envelope import Letter, address

# What is taken at once, for those that are alike among it: bytes of mail, and seconds of composing.
_MOST_BYTES = 8_000_000
_LONGEST_TAKING = 1.0


class SparkPostTransport:
    """A transport over a client of the API. Its connection is kept by the client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def deliver(self, mails: Iterable[Composed], before_waiting: Callable[[], None] = nothing) -> Iterator[Outcome]:
        """See :meth:`congressy_mailer.transports.base.Transport.deliver`.

        No mail is pulled while a call is on its way. Where the answer to one is lost, its mails are in doubt, and
        the API counts as unavailable for those after them.
        """
        source = _Source(mails)
        while letters := source.take():
            for together in _alike(letters):
                # A call may take its time, and another worker take over what waits behind it.
                if together[0].composed.may_begin():
                    yield from self._deliver(together, before_waiting)
        if source.error is not None:
            raise source.error

    def close(self) -> None:
        """See :meth:`congressy_mailer.transports.base.Transport.close`."""

    def _deliver(self, letters: Sequence[Letter], before_waiting: Callable[[], None]) -> Iterator[Outcome]:
        request = _together(letters) if len(letters) > 1 else None
        if request is not None:
            before_waiting()
            outcomes = self._call(request, letters)
            if not _refused(outcomes):
                yield from outcomes
                self._raise_if_lost(outcomes)
                return
            # Nobody has anything, and one of them may be the cause.
        for letter in letters:
            if not letter.sendable:
                yield _unsendable(letter)
                continue
            if not letter.composed.may_begin():
                return
            before_waiting()
            outcomes = self._call(_alone(letter), [letter])
            yield from outcomes
            self._raise_if_lost(outcomes)

    @sensitive_variables()
    def _call(self, request: dict[str, Any], letters: Sequence[Letter]) -> list[Outcome]:
        """Make one call.

        Raises:
            TransportUnavailable: nobody has anything, through no fault of any mail.
        """
        try:
            transmissions = self._client.transmissions
            answer = transmissions.request("POST", transmissions.uri, data=encoded(request), whole=True)
        except SparkPostError as error:
            return self._without_transmission(letters, error)
        addresses = [recipient["address"]["email"] for recipient in request["recipients"]]
        what = created(answer if isinstance(answer, dict) else {}, addresses)
        return [_outcome(letter, what.reply, what.rejected, unclear=what.unclear) for letter in letters]

    def _without_transmission(self, letters: Sequence[Letter], error: SparkPostError) -> list[Outcome]:
        found = refusal(error)
        if found.verdict is Verdict.UNAVAILABLE:
            unavailable = account_refused(found.reply) if error.status else TransportUnavailable(str(error))
            if error.retry_after is not None:
                unavailable.retry_in = timedelta(seconds=error.retry_after)
            raise unavailable from None
        if found.verdict is Verdict.SENDER_REFUSED:
            return [Outcome(letter.composed.key, reply=found.reply, sender_refused=True) for letter in letters]
        outcomes = []
        for letter in letters:
            said = dict.fromkeys(letter.recipients, found.reply)
            rejected = found.verdict is Verdict.REJECTED
            outcomes.append(
                Outcome(
                    letter.composed.key,
                    deferred={} if rejected else said,
                    rejected={**letter.refused, **(said if rejected else {})},
                    reply=found.reply,
                    in_doubt=found.in_doubt,
                )
            )
        return outcomes

    def _raise_if_lost(self, outcomes: Sequence[Outcome]) -> None:
        """An answer that did not come is the server's fault: who comes next need not find that out again."""
        if outcomes[0].in_doubt and outcomes[0].reply.code is None:
            raise TransportUnavailable(outcomes[0].reply.text)


class _Source:
    """The mails to come."""

    def __init__(self, mails: Iterable[Composed]) -> None:
        self._mails = iter(mails)
        #: What has come up while a mail was asked for; those before it are sent first.
        self.error: Exception | None = None

    def take(self) -> list[Letter]:
        """As many as may share a call, and no more than that; one that goes alone is the last of them."""
        letters: list[Letter] = []
        size, began = 0, time.monotonic()
        while self.error is None and len(letters) < MAX_RECIPIENTS:
            try:
                composed = next(self._mails, None)
            except Exception as error:
                self.error = error
                break
            if composed is None:
                break
            letters.append(address(composed))
            size += len(composed.mail.wire or b"")
            alone = composed.mail.batch is None
            if alone or size > _MOST_BYTES or time.monotonic() - began > _LONGEST_TAKING:
                break
        return letters


def _alike(letters: Sequence[Letter]) -> Iterator[list[Letter]]:
    """Those that may share a call together, and all others each alone."""
    groups: dict[object, list[Letter]] = {}
    seen: Counter[object] = Counter()
    for position, letter in enumerate(letters):
        alike = likeness(letter.composed.mail) if letter.sendable and not letter.refused else None
        if alike is None:
            groups[position] = [letter]
            continue
        # Never two mails to one address: what is said of an address would be said of both.
        who = alike, next(iter(letter.recipients.values())).lower()
        groups.setdefault((alike, seen[who]), []).append(letter)
        seen[who] += 1
    yield from groups.values()


def _together(letters: Sequence[Letter]) -> dict[str, Any] | None:
    addresses = [next(iter(letter.recipients.values())) for letter in letters]
    return many([letter.composed.mail for letter in letters], addresses)


def _alone(letter: Letter) -> dict[str, Any]:
    mail = letter.composed.mail
    recipients = list(letter.recipients.values())
    return one(ToSend(written(mail, eight_bit=False), recipients, to_of(mail.to), mail.sparkpost))


def _refused(outcomes: Sequence[Outcome]) -> bool:
    """The call as a whole was refused, for what may be in one of its mails."""
    return all(
        (outcome.rejected or outcome.deferred)
        and not (outcome.accepted or outcome.in_doubt)
        and outcome.reply.code != 200
        for outcome in outcomes
    )


def _unsendable(letter: Letter) -> Outcome:
    if letter.problem is not None:
        rejected = dict.fromkeys(letter.composed.mail.envelope, letter.problem)
        return Outcome(letter.composed.key, rejected=rejected, reply=letter.problem)
    return Outcome(letter.composed.key, rejected=letter.refused, reply=next(iter(letter.refused.values())))


def _outcome(letter: Letter, reply: Reply, refused: Mapping[str, Reply], *, unclear: bool) -> Outcome:
    accepted: list[str] = []
    rejected = dict(letter.refused)
    for recipient, sent_as in letter.recipients.items():
        if sent_as in refused:
            rejected[recipient] = refused[sent_as]
        else:
            accepted.append(recipient)
    if unclear and accepted:
        said = Reply(None, "SparkPost did not say for whom of this call it has taken the mail.")
        return Outcome(
            letter.composed.key, deferred=dict.fromkeys(accepted, said), rejected=rejected, reply=reply, in_doubt=True
        )
    return Outcome(letter.composed.key, tuple(accepted), rejected=rejected, reply=reply)
