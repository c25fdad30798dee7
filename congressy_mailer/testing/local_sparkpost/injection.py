"""Taking a mail that came over SMTP (SMTP API reference)."""

from __future__ import annotations

from .account import Account
from .events import AcceptedMail, content_fields, key_fields
from .list_unsubscribe import with_list_unsubscribe
from .mailbox import Mailbox
from .msys_header import copies_of, split_header


def inject(
    account: Account,
    mailbox: Mailbox,
    *,
    sender: str,
    recipients: tuple[str, ...],
    content: bytes,
    connection: int,
    queue_id: str,
) -> None:
    """Deliver a mail without its ``X-MSYS-API`` header to its recipients' mailboxes.

    Raises:
        BadHeader: its ``X-MSYS-API`` is refused.
    """
    keys, content = split_header(content)
    copies = copies_of(keys)
    content = with_list_unsubscribe(
        content,
        message_id=queue_id,
        transactional=(keys.get("options") or {}).get("transactional") is True,
        rules=account.rules,
    )
    mailbox.add(
        sender=sender,
        recipients=(*recipients, *(address for address, _ in copies)),
        content=content,
        connection=connection,
        queue_id=queue_id,
    )
    fields = content_fields(content)
    transmission_id = account.new_id()
    for address, kind in [*((recipient, "") for recipient in recipients), *copies]:
        account.accept(
            AcceptedMail(
                recipient=address,
                message_id=queue_id,
                transmission_id=transmission_id,
                received_by="smtp",
                kind=kind,
                size=len(content),
                **fields,
                **key_fields(keys),
            )
        )
