"""What is sent: mail number N is the same for everybody who knows the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

#: Recipients of what was rolled back begin with this.
NEVER = "never-"
#: Those of the other project with this.
NEIGHBOURS = "other-"


@dataclass(frozen=True)
class Mail:
    """One mail of a run."""

    #: Its ``idempotency_key``, or what tells it from the others of its batch.
    key: str
    #: Arguments of ``send_mail()``.
    arguments: dict[str, Any]
    #: Addresses that must get one copy each, and that no other mail goes to.
    recipients: tuple[str, ...]

    def for_batch(self) -> dict[str, Any]:
        """The same as arguments of ``Recipient``."""
        options = {name: self.arguments[name] for name in ("to", "cc", "bcc") if name in self.arguments}
        return {**options, "key": self.key, "context": {"user": {"username": self.key}}}


def file_of(key: str) -> bytes:
    """What the attachment of a mail has in it, as far as it has one."""
    return f"ficha de {key}\n".encode()


def make_mail(seed: int, number: int) -> Mail:
    """Ready text, ready HTML or a template; to one, two or three recipients."""
    rng = random.Random(f"mail {seed} {number}")
    key = f"chaos-{seed}-{number}"
    recipients = tuple(f"p{number}-{copy}@example.com" for copy in range(rng.choices([1, 2, 3], [75, 15, 10])[0]))
    arguments: dict[str, Any] = {"subject": f"Inscrição {number}", "to": recipients[:1], "idempotency_key": key}
    if len(recipients) > 1:
        arguments[rng.choice(["cc", "bcc"])] = recipients[1:]
    kind = rng.choice(["text", "html", "template"])
    if kind == "template":
        arguments |= {"template": "mail/hello", "context": {"user": {"username": f"Pessoa {number}"}}}
    elif kind == "html":
        arguments["html_message"] = f"<p>Olá, pessoa <b>{number}</b></p>"
    else:
        arguments["message"] = f"Olá, pessoa {number}\n" * rng.randint(1, 40)
    if rng.random() < 0.1:
        arguments["attachments"] = [(f"{key}.txt", file_of(key))]
    return Mail(key, arguments, recipients)
