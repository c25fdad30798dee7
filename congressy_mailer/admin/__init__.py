"""The outbox in Django's admin: to look at, not to change."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..models import Attachment, Event, Message


class ReadOnly:
    """Nobody adds, changes or deletes here: states follow the rules of the outbox alone."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class AttachmentInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = Attachment
    fields = ("shown_filename", "mimetype", "size")
    readonly_fields = ("shown_filename",)
    extra = 0

    @admin.display(description=_("file name"))
    def shown_filename(self, attachment: Attachment) -> str:
        mail = attachment.message or attachment.batch
        return str(_("(confidential)")) if mail is None or mail.sensitive else attachment.filename


class EventInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = Event
    fields = ("at", "type", "recipient", "detail")
    extra = 0


@admin.register(Message)
class MessageAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """List and page of messages."""

    list_display = ("created_at", "recipient_list", "what", "state", "attempts", "sent_at")
    list_filter = ("state", "transactional", "created_at")
    search_fields = ("to", "message_id", "template")
    ordering = ("-created_at",)
    date_hierarchy = "created_at"
    show_full_result_count = False
    inlines = (AttachmentInline, EventInline)
    fieldsets = (
        (None, {"fields": ("state", "reason", "reply", "attempts", "due_at")}),
        (_("Envelope"), {"fields": ("from_email", "to", "cc", "bcc", "reply_to", "message_id", "shown_headers")}),
        (_("Content"), {"fields": ("shown_subject", "template", "shown_text", "language", "timezone")}),
        (_("Times"), {"fields": ("created_at", "queued_at", "send_at", "expires_at", "sent_at", "finished_at")}),
        (
            _("Options"),
            {"fields": ("priority", "transactional", "sensitive", "using", "idempotency_key", "crashes", "remaining")},
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        unseen = ("context", "html", "batch__context", "batch__html")
        return super().get_queryset(request).select_related("batch").defer("mime", *unseen)

    @admin.display(description=_("recipients"))
    def recipient_list(self, message: Message) -> str:
        return ", ".join(message.recipients)

    @admin.display(description=_("content"))
    def what(self, message: Message) -> str:
        return message.content.template or self.shown_subject(message)

    @admin.display(description=_("subject"))
    def shown_subject(self, message: Message) -> str:
        return str(_("(confidential)")) if message.sensitive else message.content.subject

    @admin.display(description=_("headers"))
    def shown_headers(self, message: Message) -> str:
        if message.sensitive:
            return str(_("(confidential)"))
        return "\n".join(f"{name}: {value}" for name, value in message.headers.items())

    @admin.display(description=_("text"))
    def shown_text(self, message: Message) -> str:
        return str(_("(confidential)")) if message.sensitive else message.content.text


__all__: list[Any] = ["MessageAdmin"]
