"""Batches in the admin: how far each is, what is the matter with it, and taking it back."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Case, QuerySet, TextField, Value, When
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.text import capfirst
from django.utils.translation import gettext, ngettext, pgettext
from django.utils.translation import gettext_lazy as _

from ..models import Batch
from .content import find_batches_by_rendered_subject, hide_sensitive, render_batch_subjects, shown_title
from .lists import FastList, PeriodFilter, ReadOnly, short_time
from .viewing import log, may_view_content

# Much of a row that no list shows.
_LARGE = ("context", "html", "text", "alternatives", "headers", "problems")


class BatchList(ChangeList):
    """One page of batches, with the subjects that their templates have."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        render_batch_subjects(self.result_list)


@admin.register(Batch)
class BatchAdmin(FastList, ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """List and page of batches."""

    list_display = ("title", "stage", "stored", "key", "left_out", "about_name")
    list_filter = (PeriodFilter,)
    search_fields = ("key", "template", "shown_subject")
    search_help_text = _(
        "A part of the subject, of the key or of the template's name. A subject that is in a template is found for the "
        "newest batches."
    )

    class Media:
        css = {"all": ["congressy_mailer/admin.css"]}

    def get_changelist(self, request: HttpRequest, **options: Any) -> Any:
        return BatchList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Batch], search_term: str
    ) -> tuple[QuerySet[Batch], bool]:
        """By what the list shows, a part of which is looked for in each row: there are few beside the messages."""
        queryset = queryset.defer(*_LARGE)
        if not search_term.strip():
            return queryset, False
        # The subject of a sensitive mail must not be found out a letter at a time.
        shown = Case(When(sensitive=False, then="subject"), default=Value(""), output_field=TextField())
        queryset = queryset.annotate(shown_subject=shown)
        found, may_repeat = super().get_search_results(request, queryset, search_term)
        rendered = find_batches_by_rendered_subject(search_term)
        return found | queryset.filter(pk__in=rendered), may_repeat

    @admin.display(description=_("subject"))
    def title(self, batch: Batch) -> str:
        return shown_title(batch)

    @admin.display(description=_("state"))
    def stage(self, batch: Batch) -> str:
        """How far its caller came; how far its messages are, its page counts."""
        if batch.cancelled_at is not None:
            return pgettext("batch", "cancelled")
        return gettext("completely stored") if batch.stored_at is not None else gettext("being stored")

    @admin.display(description=_("left out"))
    def left_out(self, batch: Batch) -> str:
        return str(batch.skipped or "")

    @admin.display(description=_("when"))
    def stored(self, batch: Batch) -> str:
        return short_time(batch.created_at)

    def get_urls(self) -> list[Any]:
        cancel = self.admin_site.admin_view(self.cancel_view)
        return [
            path("<path:object_id>/cancel/", cancel, name="congressy_mailer_batch_cancel"),
            *super().get_urls(),
        ]

    def _batch(self, request: HttpRequest, object_id: str) -> Batch:
        batch: Batch | None = self.get_object(request, unquote(object_id))
        if batch is None:
            raise Http404
        if not self.has_view_permission(request, batch):
            raise PermissionDenied
        return batch

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The page of a batch."""
        if request.method != "GET":
            raise PermissionDenied
        # Loaded where it is looked at: every process of the host has the admin's classes.
        from .left_out import shown_problem

        batch = self._batch(request, object_id)
        progress = batch.progress()
        render_batch_subjects([batch])
        context = {
            **self.admin_site.each_context(request),
            "title": shown_title(batch) or gettext("Batch"),
            "subtitle": None,
            "opts": self.opts,
            "original": batch,
            "batch": batch,
            "media": self.media,
            "progress": progress,
            "states": [
                (state.label, state.value, count, _messages(batch, state)) for state, count in progress.states.items()
            ],
            "messages_url": _messages(batch),
            "facts": [(name, value) for name, value in _facts(request, batch) if value],
            "files": _files(request, batch),
            "problems": [(problem["recipient"], shown_problem(problem["reason"])) for problem in batch.problems],
            "may_cancel": not progress.done
            and batch.cancelled_at is None
            and request.user.has_perm("congressy_mailer.cancel_batch"),
        }
        return TemplateResponse(request, "congressy_mailer/admin/batch.html", context)

    def cancel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Take back what has not been sent."""
        if request.method != "POST" or not request.user.has_perm("congressy_mailer.cancel_batch"):
            raise PermissionDenied
        batch = self._batch(request, object_id)
        count = batch.cancel()
        log(request, [batch], gettext("Cancelled it."))
        told = ngettext("%(count)d message was taken back.", "%(count)d messages were taken back.", count)
        self.message_user(request, told % {"count": count}, messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:congressy_mailer_batch_change", args=[quote(batch.pk)]))


def _messages(batch: Batch, state: str = "") -> str:
    query = {"batch": str(batch.pk), **({"status": state} if state else {})}
    return f"{reverse('admin:congressy_mailer_message_changelist')}?{urlencode(query)}"


def _facts(request: HttpRequest, batch: Batch) -> list[tuple[str, Any]]:
    reply_to = ", ".join(batch.reply_to)
    may_view = batch.sensitive or may_view_content(request, batch)
    return [
        (capfirst(gettext("when")), short_time(batch.created_at)),
        (gettext("Key"), batch.key),
        (gettext("About"), batch.about_name),
        (gettext("Template"), batch.template),
        (gettext("From"), batch.from_email),
        (gettext("Reply to"), hide_sensitive(batch, reply_to) if reply_to and may_view else ""),
        (gettext("Language"), batch.language),
        (gettext("Kind"), gettext("transactional") if batch.transactional else gettext("not transactional")),
        (gettext("List"), batch.list_id),
        (gettext("Priority"), batch.get_priority_display()),
        (gettext("Mail backend"), batch.using),
        (gettext("Not before"), short_time(batch.send_at)),
        (gettext("Not after"), short_time(batch.expires_at)),
        (gettext("Cancelled"), short_time(batch.cancelled_at)),
        (gettext("Id"), str(batch.pk)),
    ]


def _files(request: HttpRequest, batch: Batch) -> list[tuple[str, str]]:
    may_view = batch.sensitive or may_view_content(request, batch)
    return [
        (hide_sensitive(batch, one.filename) if may_view and one.filename else one.mimetype, filesizeformat(one.size))
        for one in batch.attachments.all()
    ]
