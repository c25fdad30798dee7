"""The mails of an event: one function for each."""

from __future__ import annotations

from congressy_mailer import send_bulk, send_mail
from congressy_mailer.models import Batch, Message

from .models import Event, Registration
from .voucher import voucher_pdf


def send_confirmation(registration: Registration, address: str) -> Message:
    """Confirm a registration that is paid, with the voucher attached.

    Args:
        registration: it.
        address: where the site shows it.
    """
    return send_mail(
        template="registration/confirmation",
        context={"registration": registration, "event": registration.event, "address": address},
        to=[registration.email],
        attachments=[(f"voucher-{registration.code}.pdf", voucher_pdf(registration), "application/pdf")],
        idempotency_key=f"confirmation-{registration.pk}",
        about=registration,
    )


def send_boleto(registration: Registration, address: str) -> Message:
    """Tell how to pay a registration that is not paid yet."""
    return send_mail(
        template="registration/boleto",
        context={"registration": registration, "event": registration.event, "address": address},
        to=[registration.email],
        idempotency_key=f"boleto-{registration.pk}",
        about=registration,
    )


def send_invitation(event: Event, speaker: str, email: str, talk: str) -> Message:
    """Invite somebody to speak; the answer goes to the event's organiser."""
    return send_mail(
        template="speaker/invitation",
        context={"event": event, "speaker": speaker, "talk": talk},
        to=[email],
        reply_to=[event.organiser_email],
    )


def send_news(event: Event, address: str) -> Batch:
    """Tell everybody who has registered of the programme; whoever wants no more of that leaves in one click.

    Args:
        event: which one.
        address: where the site shows it.
    """
    return send_bulk(
        ((registration.email, {"registration": registration}) for registration in event.registrations.order_by("pk")),
        template="news/programme",
        context={"event": event, "address": address},
        list_id="novidades",
        campaign="programacao",
        track_opens=True,
        track_clicks=True,
    )
