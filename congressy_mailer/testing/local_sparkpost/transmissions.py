"""``POST /transmissions``: sending by HTTP (API reference, "Transmissions"; codes from the article "Extended Error
Codes")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parseaddr
from typing import Any

from .account import Account
from .answers import Answer, ApiError
from .events import AcceptedMail, content_fields, key_fields, sender_of
from .generation import data_of, generate
from .heads import read_head
from .list_unsubscribe import with_list_unsubscribe
from .mailbox import Mailbox
from .msys_header import MAX_CAMPAIGN_BYTES, MAX_TAGS, address_of
from .substitution import SubstitutionError

#: Bytes of a transmission's content.
MAX_CONTENT_BYTES = 20_000_000

_OBJECTS = ("options", "metadata", "substitution_data")


def send(account: Account, mailbox: Mailbox, new_queue_id: Callable[[], str], body: Any) -> Answer:
    """Take a transmission, and make a mail for each of its recipients.

    Raises:
        ApiError: it is refused as a whole.
    """
    transmission = _check_transmission(body)
    valid, errors = _recipients(transmission["recipients"])
    if not valid:
        raise ApiError(400, "Message generation rejected", "5002", "At least one valid recipient is required")
    _check_sender(account, transmission["content"])
    _check_limit(account, len(valid))
    options = transmission.get("options") or {}
    _is_ahead(options.get("start_time"))
    if account.rules.suppression == "inline" and len(transmission["recipients"]) == 1:
        _check_suppression(account, str(valid[0]["address"]["email"]), options)
    transmission_id = account.new_id()
    for recipient in valid:
        _send_one(account, mailbox, new_queue_id(), transmission, recipient, transmission_id)
    results = {
        "total_rejected_recipients": len(errors),
        "total_accepted_recipients": len(valid),
        "id": transmission_id,
    }
    if not errors:
        return Answer(200, {"results": results})
    warnings = [{"message": "transmission created, but with validation errors", "code": "2000"}]
    return Answer(200, {"results": {**results, "rcpt_to_errors": errors}, "errors": warnings})


def _check_transmission(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ApiError(422, "invalid data format/type", "1300", "the body must be an object")
    for key in ("recipients", "content"):
        if not body.get(key):
            raise ApiError(422, "required field is missing", "1400", f"{key} is required")
    if isinstance(body["recipients"], dict):
        raise ApiError(404, "resource not found", "1600", "stored recipient lists are not kept here")
    if not isinstance(body["recipients"], list):
        raise _invalid("recipients must be a list")
    for key in _OBJECTS:
        if not isinstance(body.get(key) or {}, dict):
            raise _invalid(f"{key} must be an object")
    campaign = body.get("campaign_id") or ""
    if not isinstance(campaign, str) or len(campaign.encode("utf-8", "surrogatepass")) > MAX_CAMPAIGN_BYTES:
        raise _invalid(f"campaign_id is limited to {MAX_CAMPAIGN_BYTES} bytes")
    _check_content(body["content"])
    return body


def _check_content(content: Any) -> None:
    if not isinstance(content, dict):
        raise _invalid("content must be an object")
    if "template_id" in content:
        raise ApiError(404, "resource not found", "1600", "stored templates are not kept here")
    if "email_rfc822" in content:
        beside = set(content) - {"email_rfc822"}
        if beside or not isinstance(content["email_rfc822"], str):
            raise ApiError(422, "Invalid combination of fields", "1301", "email_rfc822 is a text and stands alone")
        return
    for key in ("from", "subject"):
        if not content.get(key):
            raise ApiError(422, "required field is missing", "1400", f"content.{key} is required")
    if not content.get("html") and not content.get("text"):
        raise ApiError(422, "required field is missing", "1400", "at least one of content.html and content.text")


def _recipients(recipients: list[Any]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Those that are right, and what is wrong with the others."""
    valid, errors = [], []
    for recipient in recipients:
        problem = _recipient_error(recipient)
        if problem:
            errors.append(problem)
        else:
            address = recipient["address"]
            named = parseaddr(address) if isinstance(address, str) else None
            valid.append({**recipient, "address": {"name": named[0], "email": named[1]} if named else address})
    return valid, errors


def _recipient_error(recipient: Any) -> dict[str, str] | None:
    address = recipient.get("address") if isinstance(recipient, dict) else None
    plain = parseaddr(address)[1] if isinstance(address, str) else address
    if not plain or (isinstance(plain, dict) and not plain.get("email")):
        text = "address.email is required for each recipient"
        return {"message": "required field is missing", "code": "1400", "description": text}
    if not address_of(plain):
        return {"message": "invalid data format/type", "code": "1300", "description": f"{plain} is not an address"}
    tags = recipient.get("tags") or []
    if not isinstance(tags, list) or len(tags) > MAX_TAGS:
        return {"message": "invalid data format/type", "code": "1300", "description": f"at most {MAX_TAGS} tags"}
    if not all(isinstance(recipient.get(key) or {}, dict) for key in ("metadata", "substitution_data")):
        return {"message": "invalid data format/type", "code": "1300", "description": "data must be an object"}
    return None


def _check_sender(account: Account, content: Mapping[str, Any]) -> None:
    if account.sending_domains is None:
        return
    if "email_rfc822" in content:
        sender = sender_of(read_head(str(content["email_rfc822"]).encode("utf-8", "surrogatepass")))
    else:
        from_address = content["from"]
        sender = str(from_address.get("email") if isinstance(from_address, dict) else parseaddr(from_address)[1])
    domain = sender.rpartition("@")[2].lower()
    if domain not in account.sending_domains:
        raise ApiError(400, "Invalid domain", "7001", f"Unconfigured Sending Domain <{domain}>")


def _check_limit(account: Account, mails: int) -> None:
    """A transmission that goes beyond the limit is refused as a whole, with 420."""
    if account.sending_limit is None:
        return
    if mails > account.sending_limit:
        raise ApiError(420, "Exceed Sending Limit (daily)", "2101", "no mail of this transmission is sent")
    account.sending_limit -= mails


def _check_suppression(account: Account, recipient: str, options: Mapping[str, Any]) -> None:
    happening = account.suppression_of(recipient, transactional=options.get("transactional") is True)
    if happening is not None and not options.get("skip_suppression"):
        raise ApiError(400, "Message generation rejected", "1902", happening.fields["reason"])


def _send_one(
    account: Account,
    mailbox: Mailbox,
    queue_id: str,
    transmission: Mapping[str, Any],
    recipient: dict[str, Any],
    transmission_id: str,
) -> None:
    keys = {
        **transmission,
        "tags": recipient.get("tags"),
        # Where both have it, a recipient's own counts.
        "metadata": {**(transmission.get("metadata") or {}), **(recipient.get("metadata") or {})},
        # On, unless it was said otherwise: unlike over SMTP.
        "options": {"open_tracking": True, "click_tracking": True, **(transmission.get("options") or {})},
    }
    address = str(recipient["address"]["email"])
    common = {
        "recipient": address,
        "message_id": queue_id,
        "transmission_id": transmission_id,
        "received_by": "rest",
        **key_fields(keys),
    }
    try:
        in_bodies = keys["options"].get("perform_substitutions") is not False
        content = generate(transmission["content"], data_of(transmission, recipient), in_bodies=in_bodies)
    except SubstitutionError as error:
        account.generation_failed(AcceptedMail(**common, sender="", subject="", size=0), str(error))
        return
    transactional = keys["options"].get("transactional") is True
    content = with_list_unsubscribe(content, message_id=queue_id, transactional=transactional, rules=account.rules)
    fields = content_fields(content)
    mail = AcceptedMail(**common, **fields, size=len(content))
    if _is_ahead(keys["options"].get("start_time")):
        account.schedule(mail)
        return
    mailbox.add(sender=fields["sender"], recipients=(address,), content=content, connection=0, queue_id=queue_id)
    account.accept(mail)


def _is_ahead(start_time: Any) -> bool:
    """Whether a transmission is to wait (article "Scheduling Your Emails Using the Transmissions API")."""
    if start_time is None:
        return False
    try:
        moment = datetime.fromisoformat(start_time)
        return moment > datetime.now(UTC)
    except (TypeError, ValueError):
        raise _invalid("options.start_time must be a time in ISO 8601") from None


def _invalid(description: str) -> ApiError:
    return ApiError(422, "invalid data format/type", "1300", description)
