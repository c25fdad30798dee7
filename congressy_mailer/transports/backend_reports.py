"""What a mail backend reports of a mail beside raising or returning: results of single recipients, and ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core.mail import EmailMessage

from ..mime.addresses import comparable_address
from ..replies import Reply
from .http_answers import attribute, status_of

#: Statuses of Anymail's ``anymail_status`` ("Anymail's normalized ESP sent status"), in its order.
_ACCEPTED = frozenset({"sent", "queued"})
_REJECTED = frozenset({"invalid", "rejected"})
_FAILED = "failed"

# What django-ses adds to the extra headers of a mail that it has sent.
_IDS_IN_HEADERS = {"message_id": "id", "request_id": "request"}


@dataclass(frozen=True, slots=True)
class BackendReport:
    """Results of the recipients, each as the envelope names it."""

    accepted: tuple[str, ...] = ()
    rejected: Mapping[str, Reply] = field(default_factory=dict)
    #: The provider could not send to them this time.
    failed: Mapping[str, Reply] = field(default_factory=dict)
    #: Of these nothing is said that can be read.
    unknown: tuple[str, ...] = ()


def read_report(mail: EmailMessage, error: BaseException | None, envelope: Iterable[str]) -> BackendReport | None:
    """What Anymail has left in ``anymail_status``; ``None`` where there is no result of any recipient.

    Args:
        mail: as the backend was given it.
        error: raised by the backend; Anymail's hold the mail that it has worked at.
        envelope: bare addresses.
    """
    statuses = _statuses(mail) or (_statuses(attribute(error, "email_message")) if error is not None else {})
    if not statuses:
        return None
    code = status_of(attribute(attribute(mail, "anymail_status"), "esp_response"))
    accepted: list[str] = []
    unknown: list[str] = []
    rejected: dict[str, Reply] = {}
    failed: dict[str, Reply] = {}
    for recipient in envelope:
        status = statuses.get(comparable_address(recipient))
        if status in _ACCEPTED:
            accepted.append(recipient)
        elif status in _REJECTED:
            rejected[recipient] = Reply(code, f"{status}, says the mail backend")
        elif status == _FAILED:
            failed[recipient] = Reply(code, f"{status}, says the mail backend")
        else:
            unknown.append(recipient)
    return BackendReport(tuple(accepted), rejected, failed, tuple(unknown))


def provider_ids(mail: EmailMessage, headers_before: Mapping[str, Any]) -> str:
    """The provider's ids of a mail, for people and for its support; empty where the backend keeps none.

    Args:
        mail: as the backend has left it.
        headers_before: its extra headers before it was handed over.
    """
    status = attribute(mail, "anymail_status")
    recipients = attribute(status, "recipients")
    ids = [attribute(one, "message_id") for one in recipients.values()] if isinstance(recipients, Mapping) else []
    ids = ids or [attribute(status, "message_id")]
    found = list(dict.fromkeys(str(one) for one in ids if isinstance(one, str | int) and one))
    headers = attribute(mail, "extra_headers")
    if not found and isinstance(headers, Mapping):
        found = [
            f"{label} {headers[name]}"
            for name, label in _IDS_IN_HEADERS.items()
            if headers.get(name) and headers[name] != headers_before.get(name)
        ]
    return ", ".join(found)


def _statuses(mail: Any) -> dict[str, str | None]:
    recipients = attribute(attribute(mail, "anymail_status"), "recipients")
    if not isinstance(recipients, Mapping):
        return {}
    return {comparable_address(str(address)): attribute(one, "status") for address, one in recipients.items()}
