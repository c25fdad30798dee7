"""What people fill in."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import PasswordResetForm as DjangoPasswordResetForm

from congressy_mailer import Priority, send_mail

from .models import Event, Registration


class RegistrationForm(forms.ModelForm):  # type: ignore[type-arg]
    """A registration for one event, given with the instance."""

    class Meta:
        model = Registration
        fields = ("person", "email", "payment")
        widgets = {
            "person": forms.TextInput(attrs={"autocomplete": "name"}),
            "email": forms.EmailInput(attrs={"autocomplete": "email"}),
            "payment": forms.RadioSelect,
        }

    def clean_email(self) -> str:
        # Said beside the field, before the database says it.
        email: str = self.cleaned_data["email"]
        if Registration.objects.filter(event=self.instance.event, email=email).exists():
            raise forms.ValidationError("Já existe uma inscrição com este e-mail.")
        return email


class InvitationForm(forms.Form):
    """An invitation to speak at an event."""

    event = forms.ModelChoiceField(Event.objects.all(), label="Evento", empty_label=None)
    speaker = forms.CharField(label="Nome de quem será convidado", max_length=120)
    email = forms.EmailField(label="E-mail")
    talk = forms.CharField(label="Tema da palestra", max_length=160)


class PasswordResetForm(DjangoPasswordResetForm):
    """Django's own, except for how its mail is sent."""

    email = forms.EmailField(label="E-mail", max_length=254, widget=forms.EmailInput(attrs={"autocomplete": "email"}))

    def send_mail(
        self,
        subject_template_name: str,
        email_template_name: str,
        context: dict[str, Any],
        from_email: str | None,
        to_email: str,
        html_email_template_name: str | None = None,
    ) -> None:
        """Queue the mail; its link lets anybody in, so it is shown nowhere and dropped once it is sent."""
        send_mail(
            template="account/password_reset",
            context={key: context[key] for key in ("user", "protocol", "domain", "uid", "token")},
            to=[to_email],
            from_email=from_email,
            transactional=True,
            sensitive=True,
            priority=Priority.HIGH,
        )
