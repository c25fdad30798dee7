"""The mails about an object, on the object's own page in the host's admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from ..conf.tenants import current_schema
from ..models import Batch, Message
from ..models.about import about_fields, mails_about
from .content import render_batch_subjects, render_subjects, shown_title
from .lists import short_time
from .status import status_badge

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = object

_MOST_SHOWN = 20
_MOST_BATCHES = 5


class MailsAboutMixin(_ModelAdmin):
    """For a ``ModelAdmin`` of the host's: its pages show the mails about the object to users who may see messages.

    ``class OrderAdmin(MailsAboutMixin, admin.ModelAdmin)``: nothing else is needed. Where the page has ``fieldsets``,
    they get one more.
    """

    @property
    def media(self) -> forms.Media:
        return super().media + forms.Media(css={"all": ["congressy_mailer/admin.css"]})

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [*super().get_readonly_fields(request, obj), "mails_about_it"]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = []
        for title, options in super().get_fieldsets(request, obj):
            fields = [field for field in options["fields"] if field != "mails_about_it"]
            fieldsets.append((title, {**options, "fields": fields}))
        if obj is not None and request.user.has_perm("congressy_mailer.view_message"):
            fieldsets.append((_("Mails"), {"fields": ["mails_about_it"]}))
        return fieldsets

    @admin.display(description=_("mails about it"))
    def mails_about_it(self, obj: Model) -> str:
        """The newest of them, each with a link to its page, and one to all."""
        messages = list(
            mails_about(obj).select_related("batch").only(
                "to", "cc", "bcc", "state", "delivery", "created_at", "subject", "template", "sensitive",
                "content_dropped_at",
                "batch__subject", "batch__template", "batch__sensitive",
            )[: _MOST_SHOWN + 1]
        )  # fmt: skip
        render_subjects(messages[:_MOST_SHOWN])
        lines = [_line(message) for message in messages[:_MOST_SHOWN]] + _batch_lines(obj)
        if not lines:
            return str(_("No mail is about it."))
        shown: SafeString = format_html(
            '<ul class="mailer-about">{}</ul>', format_html_join("", "<li>{}</li>", ((line,) for line in lines))
        )
        if len(messages) > _MOST_SHOWN and not current_schema():
            about = about_fields(obj)
            query = urlencode({"about": f"{about.about_model}:{about.about_id}"})
            address = f"{reverse('admin:congressy_mailer_message_changelist')}?{query}"
            shown += format_html('<p><a href="{}">{}</a></p>', address, _("All of them"))
        return shown


def _batch_lines(obj: Model) -> list[str]:
    """Batches that are about it as a whole."""
    about = about_fields(obj)
    found = Batch.objects.filter(about_id=about.about_id, about_model=about.about_model).order_by("-id")
    batches = list(found.only("subject", "template", "sensitive", "created_at", "content_dropped_at")[:_MOST_BATCHES])
    render_batch_subjects(batches)
    return [
        format_html(
            "{} {} <time>{}</time>",
            _("batch"), _link(reverse("admin:congressy_mailer_batch_change", args=[batch.pk]), shown_title(batch)),
            short_time(batch.created_at),
        )
        for batch in batches
    ]  # fmt: skip


def _line(message: Message) -> str:
    return format_html(
        "{} {} {} <time>{}</time>",
        _link(reverse("admin:congressy_mailer_message_change", args=[message.pk]), shown_title(message)),
        ", ".join(message.recipients[:3]), status_badge(message), short_time(message.created_at),
    )  # fmt: skip


def _link(address: str, title: object) -> str:
    """A link to a page of ours, where the user may open it: a tenant's staff may not."""
    return str(title) if current_schema() else format_html('<a href="{}">{}</a>', address, title)
