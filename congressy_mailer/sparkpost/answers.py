"""What SparkPost's Transmissions API answers, and what that means for the mail: pure rules.

Statuses and codes are those of SparkPost's pages "Extended Error Codes" and "Transmissions" (API reference). The
verdicts are those that a reply of SMTP would have, so that a mail has the same end whichever way it went.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..exceptions import SparkPostError
from ..replies import Reply, Verdict

# Of the API's key, its account or the place where it was asked; 408 and 429 say that nothing was taken this time.
_ACCOUNT_STATUSES = {401, 402, 403, 404, 405, 406, 407, 408, 415, 420, 425, 429}
# "Server resources unavailable" and "Message generation not configured", which come with status 400; limits of sending.
_UNAVAILABLE_CODES = {"1100", "1303", "1304", "1502", "1601", "1900", "1910", "2101", "2102", "2103"}
# Sending domains that are blocked or not set up, and tracking domains of theirs that are not ready.
_SENDER_CODES = {"7000", "7001", "2009", "2010", "2011", "2012"}
_SENDING_DOMAIN = re.compile(r"(unconfigured|unverified|invalid) .{0,40}(sending|tracking) domain", re.IGNORECASE)
# Those of a server that stands between and has passed the request on: it does not know what came of it.
_GATEWAY_STATUSES = {502, 504}
_PAYLOAD_TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class Refusal:
    """What it means that a transmission was not simply accepted."""

    verdict: Verdict
    #: The status with the words, or what happened instead of an answer.
    reply: Reply
    #: SparkPost may have taken it.
    in_doubt: bool = False


def classify_error(error: SparkPostError) -> Refusal:
    """What an error of the client means for the transmission as a whole.

    A server's own fault is no mail's: it counts as unavailable, and everything stays queued. Where no answer came, or
    one that is not SparkPost's own, the transmission may have been created: that is in doubt, as the content of an SMTP
    session is whose reply was lost.
    """
    status = error.status
    reply = Reply(status, str(error))
    if status is None:
        return Refusal(Verdict.DEFERRED if error.in_doubt else Verdict.UNAVAILABLE, reply, error.in_doubt)
    codes = set(error.codes)
    if status < 300 or status in _GATEWAY_STATUSES or (status >= 500 and status != 503 and not codes):
        # Without a code: nothing said no to this mail.
        return Refusal(Verdict.DEFERRED, Reply(None, str(error)), in_doubt=True)
    if status < 400 or status >= 500 or status in _ACCOUNT_STATUSES or codes & _UNAVAILABLE_CODES:
        return Refusal(Verdict.UNAVAILABLE, reply)
    if codes & _SENDER_CODES or _SENDING_DOMAIN.search(str(error)):
        return Refusal(Verdict.SENDER_REFUSED, reply)
    if not codes and status != _PAYLOAD_TOO_LARGE:
        # Perhaps a proxy's answer: no reason to end a mail for good.
        return Refusal(Verdict.DEFERRED, reply)
    return Refusal(Verdict.REJECTED, reply)


@dataclass(frozen=True, slots=True)
class TransmissionResult:
    """What became of the recipients of a transmission that was created."""

    reply: Reply
    #: Addresses that were refused, as they were sent, with the reason.
    rejected: Mapping[str, Reply] = field(default_factory=dict)
    #: It was not said who was accepted: those who are not among ``rejected`` may have it or not.
    unclear: bool = False


def parse_result(answer: Mapping[str, Any], addresses: Sequence[str]) -> TransmissionResult:
    """Read what was said of each recipient.

    SparkPost counts those that it refuses, and describes what is wrong with them; it does not say in a field of its own
    whose description that is.

    Where the counts of accepted and refused recipients do not add up to those that were sent, the result is unclear.

    Args:
        answer: the whole of it.
        addresses: of all recipients, as they were sent; those of copies among them.
    """
    results = answer.get("results")
    if not isinstance(results, Mapping) or not results.keys() & {"id", "total_accepted_recipients"}:
        # This is no answer to a transmission.
        return TransmissionResult(
            Reply(None, "SparkPost's HTTP API answered without a word of the mail."), unclear=True
        )
    reply = Reply(200, f"OK {results.get('id', '')}".rstrip())
    count = _as_int(results.get("total_rejected_recipients")) or 0
    accepted = _as_int(results.get("total_accepted_recipients"))
    if accepted == 0:
        count = max(count, len(addresses))
    elif accepted is not None and accepted + count != len(addresses):
        # The counts leave recipients out, or name more than there are: they may be of another call.
        return TransmissionResult(reply, unclear=True)
    if count <= 0:
        return TransmissionResult(reply)
    errors = results.get("rcpt_to_errors")
    texts = [_error_text(error) for error in errors if isinstance(error, Mapping)] if isinstance(errors, list) else []
    if count >= len(addresses):
        # All of them, and the reasons may be in any order.
        reason = Reply(200, "; ".join(dict.fromkeys(texts)) or "The recipient was refused.")
        named = _rejected_by_name(texts, addresses)
        return TransmissionResult(reply, {address: named.get(address, reason) for address in addresses})
    rejected = _rejected_by_name(texts, addresses)
    if len(rejected) > count:
        # Some are named for another reason.
        rejected = {}
    return TransmissionResult(reply, rejected, unclear=len(rejected) != count)


def _as_int(value: Any) -> int | None:
    """SparkPost writes numbers as texts, too."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _error_text(error: Mapping[Any, Any]) -> str:
    words = [str(error[name]) for name in ("code", "message", "description") if error.get(name)]
    return " ".join(words)


def _rejected_by_name(texts: Sequence[str], addresses: Sequence[str]) -> dict[str, Reply]:
    """Those whose address is in what was said."""
    by_address = {address.lower(): address for address in addresses}
    found: dict[str, Reply] = {}
    for words in texts:
        # Not parts of a longer address.
        for piece in re.split(r"[\s'\"<>,;:()\[\]]+", words.lower()):
            address = by_address.get(piece.rstrip("."))
            if address is not None:
                found[address] = Reply(200, words)
    return found
