"""The mails that are sent: one template, and for each recipient a context of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SENDER = "Congressy <mail@congressy.net>"
#: Without its extensions. It makes an HTML part and a text part, 7 kB together.
TEMPLATE = "bench/confirmation"
TEMPLATES = Path(__file__).parent / "project" / "templates"

_SESSIONS = [
    {"number": number, "title": f"Palestra {number}: computação e sociedade", "room": f"Sala {number % 7 + 1}",
     "hour": f"{8 + number // 2}h{30 * (number % 2):02}"}
    for number in range(1, 21)
]  # fmt: skip
#: What the template sees besides, whoever the mail is to.
SHARED: dict[str, Any] = {
    "event": {"name": "Congresso Brasileiro de Computação", "city": "Florianópolis", "days": "12 a 14 de março"},
    "sessions": _SESSIONS,
}


_FIRST_NAMES = {
    "ascii": (
        "Ana",
        "Carlos",
        "Daniela",
        "Eduardo",
        "Fernanda",
        "Gabriel",
        "Helena",
        "Igor",
        "Marina",
        "Rafael",
        "Vera",
    ),
    "others": (
        "João",
        "Conceição",
        "Inês",
        "Márcio",
        "Sebastião",
        "Lívia",
        "Zoë",
        "Øystein",
        "Łukasz",
        "Ünal",
        "Sílvia",
    ),
}
_LAST_NAMES = {
    "ascii": ("Almeida", "Barbosa", "Cardoso", "Duarte", "Ferreira", "Gomes", "Lima", "Moreira", "Ramos", "Souza",
              "Vieira", "Pereira", "Teixeira"),
    "others": ("Araújo", "Brandão", "Conceição", "Damião", "Estêvão", "Falcão", "Guimarães", "Magalhães", "Nóbrega",
               "Simões", "Sørensen", "Çelik", "Wałęsa"),
}  # fmt: skip
#: How recipients may be written, by what people call it.
SHAPES = {"plain addresses": "", "display names": "ascii", "display names beyond ASCII": "others"}


def address_as(shape: str, number: int) -> str:
    """A recipient's address in one of the :data:`SHAPES`."""
    address, names = f"pessoa{number}@example.com", SHAPES[shape]
    if not names:
        return address
    first, last = _FIRST_NAMES[names], _LAST_NAMES[names]
    return f"{first[number % len(first)]} {last[number % len(last)]} <{address}>"


@dataclass(frozen=True)
class Mail:
    """A mail to one recipient."""

    number: int
    #: What the address begins with, to tell a mail from the others.
    word: str = "pessoa"

    @property
    def address(self) -> str:
        return f"{self.word}{self.number}@example.com"

    @property
    def own_context(self) -> dict[str, Any]:
        """What the template sees that is this recipient's alone."""
        return {"name": f"Pessoa de número {self.number}", "code": f"{self.word}-{self.number:08}-"}

    @property
    def context(self) -> dict[str, Any]:
        """All that the template sees: JSON, since not all systems take more."""
        return SHARED | self.own_context

    def render(self) -> tuple[str, str, str]:
        """Subject, text and HTML, rendered where this is called: what callers do who have no worker for it."""
        from django.template.loader import render_to_string

        context = self.context
        return (
            render_to_string(f"{TEMPLATE}_subject.txt", context).strip(),
            render_to_string(f"{TEMPLATE}.txt", context),
            render_to_string(f"{TEMPLATE}.html", context),
        )

    def django_message(self) -> Any:
        """The same as Django's own object."""
        from django.core.mail import EmailMultiAlternatives

        subject, text, html = self.render()
        mail = EmailMultiAlternatives(subject, text, SENDER, [self.address])
        mail.attach_alternative(html, "text/html")
        return mail


class MergedMail(Mail):
    """A mail to all, in which SparkPost puts what is one recipient's alone."""

    @property
    def own_context(self) -> dict[str, Any]:
        return {name: f"{{{{{name}}}}}" for name in super().own_context}


@dataclass(frozen=True)
class ReadyMail(Mail):
    """A mail whose content is rendered once and is the same for all: where only a queue is to be filled."""

    content: list[tuple[str, str, str]] = field(default_factory=list)

    def render(self) -> tuple[str, str, str]:
        if not self.content:
            self.content.append(super().render())
        return self.content[0]
