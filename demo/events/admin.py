"""Events and registrations in the admin."""

from django.contrib import admin

from congressy_mailer.admin.about import MailsAboutMixin

from .models import Event, Registration


@admin.register(Event)
class EventAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "starts_at", "city", "price")


@admin.register(Registration)
class RegistrationAdmin(MailsAboutMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("person", "email", "payment", "paid", "code", "created_at")
    list_filter = ("paid", "payment")
    search_fields = ("person", "email", "code")
