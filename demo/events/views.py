"""The pages."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.admin.views.decorators import staff_member_required
from django.contrib.auth import views as auth_views
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse, reverse_lazy

from .forms import InvitationForm, PasswordResetForm, RegistrationForm
from .mails import send_boleto, send_confirmation, send_invitation
from .models import Event, Registration


def home(request: HttpRequest) -> HttpResponse:
    """The event, and the form to register for it."""
    event = Event.objects.earliest("starts_at")
    form = RegistrationForm(request.POST or None, instance=Registration(event=event))
    if request.method == "POST" and form.is_valid():
        registration = _register(request, form)
        return redirect("registration", code=registration.code)
    return render(request, "events/home.html", {"event": event, "form": form}, status=422 if form.errors else 200)


@transaction.atomic
def _register(request: HttpRequest, form: RegistrationForm) -> Registration:
    """Store the registration and its mail together: either both exist afterwards, or neither."""
    registration: Registration = form.save(commit=False)
    registration.paid = registration.payment == Registration.Payment.PIX
    registration.save()
    address = request.build_absolute_uri(reverse("registration", args=[registration.code]))
    if registration.paid:
        send_confirmation(registration, address)
    else:
        send_boleto(registration, address)
    return registration


def registration(request: HttpRequest, code: str) -> HttpResponse:
    """One registration, for whoever knows its code."""
    found = get_object_or_404(Registration.objects.select_related("event"), code=code)
    return render(request, "events/registration.html", {"registration": found, "event": found.event})


@staff_member_required
def invite(request: HttpRequest) -> HttpResponse:
    """Invite somebody to speak."""
    form = InvitationForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        send_invitation(**form.cleaned_data)
        messages.success(request, f"O convite para {form.cleaned_data['speaker']} está a caminho.")
        return redirect("invite")
    return render(request, "events/invite.html", {"form": form}, status=422 if form.errors else 200)


class PasswordReset(auth_views.PasswordResetView):
    """Ask for a link that sets a new password."""

    form_class = PasswordResetForm
    template_name = "events/password_reset.html"
    success_url = reverse_lazy("password_reset_sent")


class PasswordResetSent(auth_views.PasswordResetDoneView):
    """The same words whether the address is known or not."""

    template_name = "events/password_reset_sent.html"


class NewPassword(auth_views.PasswordResetConfirmView):
    """Set it, behind the link of the mail."""

    template_name = "events/new_password.html"
    success_url = reverse_lazy("new_password_set")


class NewPasswordSet(auth_views.PasswordResetCompleteView):
    """Done."""

    template_name = "events/new_password_set.html"
