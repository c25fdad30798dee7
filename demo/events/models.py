"""Events and the people who register for them."""

from __future__ import annotations

import secrets
from datetime import date, timedelta

from django.db import models
from django.utils import timezone

#: Letters and digits that nobody takes for one another.
_CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_DAYS_TO_PAY = 3


def new_code() -> str:
    """A code for a voucher, such as ``7KQ2-M9XA``."""
    letters = [secrets.choice(_CODE_LETTERS) for _ in range(8)]
    return f"{''.join(letters[:4])}-{''.join(letters[4:])}"


class Event(models.Model):
    """An event with its organiser."""

    name = models.CharField("nome", max_length=120)
    summary = models.TextField("resumo")
    starts_at = models.DateTimeField("início")
    ends_at = models.DateTimeField("término")
    venue = models.CharField("local", max_length=120)
    city = models.CharField("cidade", max_length=80)
    price = models.DecimalField("valor da inscrição", max_digits=8, decimal_places=2)
    organiser = models.CharField("organização", max_length=120)
    organiser_email = models.EmailField("e-mail da organização")

    class Meta:
        verbose_name = "evento"
        verbose_name_plural = "eventos"

    def __str__(self) -> str:
        return self.name


class Registration(models.Model):
    """One person's registration."""

    class Payment(models.TextChoices):
        """How it is paid."""

        #: Paid at once.
        PIX = "pix", "Pix"
        #: Paid within three days.
        BOLETO = "boleto", "Boleto bancário"

    event = models.ForeignKey(Event, on_delete=models.CASCADE, related_name="registrations", verbose_name="evento")
    person = models.CharField("nome completo", max_length=120)
    email = models.EmailField("e-mail")
    payment = models.CharField("forma de pagamento", max_length=10, choices=Payment.choices, default=Payment.PIX)
    paid = models.BooleanField("paga", default=False)
    code = models.CharField("código", max_length=9, unique=True, default=new_code)
    created_at = models.DateTimeField("inscrição feita em", default=timezone.now)

    class Meta:
        verbose_name = "inscrição"
        verbose_name_plural = "inscrições"
        constraints = [
            models.UniqueConstraint(
                fields=["event", "email"],
                name="one_registration_per_address",
                violation_error_message="Já existe uma inscrição com este e-mail.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.person} ({self.code})"

    @property
    def first_name(self) -> str:
        """What a mail calls the person."""
        return self.person.split()[0]

    @property
    def pay_until(self) -> date:
        """Last day on which the boleto can be paid."""
        return timezone.localdate(self.created_at) + timedelta(days=_DAYS_TO_PAY)

    @property
    def boleto_line(self) -> str:
        """The digits under the boleto's bar code; nobody's real boleto."""
        number = f"{self.pk or 0:010}"
        cents = f"{int(self.event.price * 100):010}"
        return f"00190.00009 {number[:5]}.{number[5:]}0 00000.000000 1 0000{cents}"
