"""The outbox in Django's admin: to look at, not to change."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..models import Attachment, Batch, Event, Mail, Message, RecipientStatus, WebhookBatch
from .suppressions import SuppressionAdmin


class ReadOnly:
    """Nobody adds, changes or deletes here: states follow the rules of the outbox alone."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def hide_sensitive(mail: Mail, text: str) -> str:
    """The text, or a placeholder where the mail is sensitive."""
    return str(_("(confidential)")) if mail.sensitive else text


class AttachmentInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = Attachment
    fields = ("display_filename", "mimetype", "size")
    readonly_fields = ("display_filename",)
    extra = 0

    @admin.display(description=_("file name"))
    def display_filename(self, attachment: Attachment) -> str:
        mail = attachment.message or attachment.batch
        assert mail is not None
        return hide_sensitive(mail, attachment.filename)


class EventInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = Event
    fields = ("at", "type", "recipient", "detail")
    extra = 0


class StatusInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]
    model = RecipientStatus
    fields = (
        "recipient", "arrival", "arrival_at", "detail", "opened_at", "clicked_at", "unsubscribed_at", "complained_at",
    )  # fmt: skip
    extra = 0


@admin.register(Message)
class MessageAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """List and page of messages."""

    list_display = ("created_at", "recipient_list", "state", "delivery", "content_summary", "attempts", "sent_at")
    list_filter = ("state", "delivery", "transactional", "created_at")
    search_fields = ("to", "message_id", "template")
    ordering = ("-created_at",)
    date_hierarchy = "created_at"
    show_full_result_count = False
    inlines = (StatusInline, AttachmentInline, EventInline)
    fieldsets = (
        (None, {"fields": ("state", "delivery", "reason", "reply", "attempts", "due_at")}),
        (_("Envelope"), {"fields": ("from_email", "to", "cc", "bcc", "reply_to", "message_id", "display_headers")}),
        (_("Content"), {"fields": ("display_subject", "template", "display_text", "language", "timezone")}),
        (_("Times"), {"fields": ("created_at", "queued_at", "send_at", "expires_at", "sent_at", "finished_at")}),
        (
            _("Options"),
            {"fields": ("priority", "transactional", "sensitive", "using", "idempotency_key", "crashes", "remaining")},
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        large_fields = ("context", "html", "batch__context", "batch__html")
        return super().get_queryset(request).select_related("batch").defer("mime", *large_fields)

    @admin.display(description=_("recipients"))
    def recipient_list(self, message: Message) -> str:
        return ", ".join(message.recipients)

    @admin.display(description=_("content"))
    def content_summary(self, message: Message) -> str:
        return message.content.template or self.display_subject(message)

    @admin.display(description=_("subject"))
    def display_subject(self, message: Message) -> str:
        return hide_sensitive(message, message.content.subject)

    @admin.display(description=_("headers"))
    def display_headers(self, message: Message) -> str:
        return hide_sensitive(message, "\n".join(f"{name}: {value}" for name, value in message.headers.items()))

    @admin.display(description=_("text"))
    def display_text(self, message: Message) -> str:
        return hide_sensitive(message, message.content.text)


@admin.register(Batch)
class BatchAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """List and page of batches."""

    list_display = ("created_at", "content_summary", "key", "stored_at", "cancelled_at", "skipped")
    list_filter = ("created_at",)
    search_fields = ("key", "template")
    ordering = ("-created_at",)
    show_full_result_count = False
    inlines = (AttachmentInline,)
    fieldsets = (
        (None, {"fields": ("progress_summary", "stored_at", "cancelled_at", "due_at", "skipped", "problems")}),
        (_("Content"), {"fields": ("display_subject", "template", "from_email", "reply_to", "language", "timezone")}),
        (_("Options"), {"fields": ("key", "send_at", "expires_at", "priority", "transactional", "sensitive", "using")}),
    )

    @admin.display(description=_("content"))
    def content_summary(self, batch: Batch) -> str:
        return batch.template or self.display_subject(batch)

    @admin.display(description=_("subject"))
    def display_subject(self, batch: Batch) -> str:
        return hide_sensitive(batch, batch.subject)

    @admin.display(description=_("messages"))
    def progress_summary(self, batch: Batch) -> str:
        states = batch.progress().states
        return ", ".join(f"{state.label}: {count}" for state, count in states.items())


class ProblemFilter(admin.SimpleListFilter):
    """Batches of events that were set aside."""

    title = _("problem")
    parameter_name = "problem"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("with a problem"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.exclude(problem="") if self.value() else queryset


@admin.register(WebhookBatch)
class WebhookBatchAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """List and page of the batches of events that SparkPost has posted."""

    list_display = ("received_at", "events", "due_at", "problem")
    list_filter = (ProblemFilter, "received_at")
    search_fields = ("key",)
    ordering = ("-received_at",)
    show_full_result_count = False
    # Not what it says: recipients of sensitive mail may be in it.
    fields = ("key", "received_at", "events", "due_at", "attempts", "problem")

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookBatch]:
        return super().get_queryset(request).defer("body")


__all__: list[Any] = ["BatchAdmin", "MessageAdmin", "SuppressionAdmin", "WebhookBatchAdmin"]
