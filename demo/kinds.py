"""The kinds of mail that the demo sends, in English: the mails themselves are Portuguese."""

from __future__ import annotations

from collections import Counter

from congressy_mailer.models import Message

#: What each template is for, and how its subject begins.
_KINDS = {
    "registration/confirmation": ("registration confirmed, with a voucher as PDF", "Inscrição confirmada …"),
    "registration/boleto": ("payment slip for a registration that is not paid yet", "Falta pouco: pague o boleto …"),
    "account/password_reset": ("link for a new password", "Crie uma nova senha"),
    "speaker/invitation": ("invitation to give a talk", "Convite para palestrar …"),
    "news/programme": ("news for everybody registered, by send_bulk()", "…, a programação do congresso está no ar"),
}


def kind(message: Message) -> str:
    """What a mail is for."""
    return _KINDS[_template(message)][0]


def kinds() -> list[tuple[str, str, int]]:
    """Of each kind that was sent: what it is for, its subject, and how many mails there are."""
    found = Counter(_template(message) for message in Message.objects.select_related("batch"))
    return [(*_KINDS[template], count) for template, count in found.most_common()]


def _template(message: Message) -> str:
    return str(message.batch.template if message.batch else message.template)
