"""Redirection for copies of production: each envelope is changed at the last moment, below every alias."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from ..conf import mailer_settings
from ..exceptions import InvalidAddress, TransportUnavailable
from ..mime.addresses import bare_address, comparable_address, domain_of, normalise_address
from ..mime.outgoing import OutgoingMail
from ..replies import Outcome, Reply
from ..sparkpost.headers import NAME as SPARKPOST_HEADER
from ..sparkpost.options import COPIES
from .base import ComposedMail, Transport, no_op

# Headers that name further recipients to a provider.
_NAMING_RECIPIENTS = (SPARKPOST_HEADER, "X-SMTPAPI", "X-MC-BccAddress")


class Redirect:
    """Where mail goes instead, as ``REDIRECT`` says."""

    def __init__(self, configured: Mapping[str, Any]) -> None:
        """
        Args:
            configured: a value of the setting.

        Raises:
            InvalidAddress: one of its addresses is none.
        """
        self._to = [bare_address(normalise_address(one, "REDIRECT['to']")) for one in configured["to"]]
        self._allowed = {one.lower() for one in configured.get("allow", ())}
        self._prefix = configured.get("subject", "")

    def apply(self, mail: OutgoingMail) -> OutgoingMail:
        """A copy of a mail for those alone who may be written to."""
        redirected = [one for one in mail.envelope if not self._may_reach(one)]
        headers: dict[str, str] = {}
        if redirected:
            named = {"X-Original-To": mail.to, "X-Original-Cc": mail.cc}
            headers = {name: ", ".join(map(bare_address, given)) for name, given in named.items() if given}
        envelope = {comparable_address(one): one for one in mail.envelope if self._may_reach(one)}
        for one in self._to if redirected else ():
            envelope.setdefault(comparable_address(one), one)
        subject = f"{self._prefix}{mail.subject}" if self._prefix else None
        changed = mail.with_head(subject=subject, headers=headers, without=_NAMING_RECIPIENTS)
        changed.envelope = list(envelope.values())
        # SparkPost makes copies of its own for these.
        changed.sparkpost = {key: value for key, value in mail.sparkpost.items() if key not in COPIES}
        return changed

    def outcome_for(self, recipients: Sequence[str], outcome: Outcome) -> Outcome:
        """What became of a mail as if it had gone to whom it was for.

        Args:
            recipients: its own envelope.
            outcome: of the changed mail.
        """
        redirected = [one for one in recipients if not self._may_reach(one)]
        if outcome.sender_refused or not redirected:
            return outcome
        own = set(recipients) - set(redirected)
        accepted, deferred, rejected = list(outcome.accepted), dict(outcome.deferred), dict(outcome.rejected)
        # Those who get it instead, of whom some may be recipients themselves.
        reached = {comparable_address(one) for one in accepted}
        waiting = next((deferred[one] for one in deferred if self._is_target(one)), None)
        refused = next((rejected[one] for one in rejected if self._is_target(one)), outcome.reply)
        accepted = [one for one in accepted if one in own]
        deferred = {one: reply for one, reply in deferred.items() if one in own}
        rejected = {one: reply for one, reply in rejected.items() if one in own}
        if waiting is not None:
            deferred |= dict.fromkeys(redirected, waiting)
        elif any(comparable_address(one) in reached for one in self._to):
            accepted += redirected
        else:
            rejected |= dict.fromkeys(redirected, refused)
        note = f"(redirected to {', '.join(self._to)})"
        reply = Reply(outcome.reply.code, f"{outcome.reply.text} {note}")
        return replace(outcome, accepted=tuple(accepted), deferred=deferred, rejected=rejected, reply=reply)

    def _may_reach(self, address: str) -> bool:
        return comparable_address(address) in self._allowed or f"@{domain_of(address)}" in self._allowed

    def _is_target(self, address: str) -> bool:
        return comparable_address(address) in {comparable_address(one) for one in self._to}


def configured_redirect() -> Redirect | None:
    """The redirect in force, if any.

    Raises:
        TransportUnavailable: it cannot be made. Nothing is sent: it might go to anybody.
    """
    configured = mailer_settings().REDIRECT
    if configured is None:
        return None
    try:
        return Redirect(configured)
    except InvalidAddress as error:
        raise TransportUnavailable(f"CONGRESSY_MAILER['REDIRECT'] has no effect, so nothing is sent: {error}") from None


class RedirectingTransport:
    """Hands changed mails to another transport, and tells what became of them as if they had not been changed."""

    def __init__(self, transport: Transport, redirect: Redirect) -> None:
        self._transport = transport
        self._redirect = redirect

    def deliver(self, mails: Iterable[ComposedMail], before_waiting: Callable[[], None] = no_op) -> Iterator[Outcome]:
        """See :meth:`congressy_mailer.transports.base.Transport.deliver`."""
        recipients: dict[UUID, Sequence[str]] = {}

        def changed() -> Iterator[ComposedMail]:
            for composed in mails:
                recipients[composed.key] = composed.mail.envelope
                yield replace(composed, mail=self._redirect.apply(composed.mail))

        for outcome in self._transport.deliver(changed(), before_waiting):
            yield self._redirect.outcome_for(recipients.pop(outcome.key), outcome)

    def close(self) -> None:
        """See :meth:`congressy_mailer.transports.base.Transport.close`."""
        self._transport.close()
