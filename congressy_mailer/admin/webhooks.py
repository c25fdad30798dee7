"""What SparkPost has posted, in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ..models import WebhookBatch
from ..tracking import inbox
from .lists import FastList, PeriodFilter, ReadOnly, short_time


class ProblemFilter(admin.SimpleListFilter):
    """Batches of events that were set aside."""

    title = _("problem")
    parameter_name = "problem"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("with a problem"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.exclude(problem="") if self.value() else queryset


@admin.register(WebhookBatch)
class WebhookBatchAdmin(FastList, ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """List and page of the batches of events that SparkPost has posted."""

    list_display = ("received", "events", "processed", "due", "shown_problem")
    actions = ("process_again",)
    list_filter = (ProblemFilter, PeriodFilter)
    search_fields = ("key",)
    # The body is not shown: recipients of sensitive mail may be in it.
    fields = ("key", "received_at", "events", "processed", "due_at", "attempts", "shown_problem")
    readonly_fields = ("shown_problem",)

    class Media:
        css = {"all": ["congressy_mailer/admin.css"]}

    @admin.display(description=_("received at"))
    def received(self, batch: WebhookBatch) -> str:
        return short_time(batch.received_at)

    @admin.display(description=_("due at"))
    def due(self, batch: WebhookBatch) -> str:
        return short_time(batch.due_at)

    @admin.display(description=_("problem"))
    def shown_problem(self, batch: WebhookBatch) -> str:
        # Loaded where it is looked at: every process of the host has the admin's classes.
        from .reasons import shown_reason

        return shown_reason(batch.problem)

    def get_queryset(self, request: HttpRequest) -> QuerySet[WebhookBatch]:
        return super().get_queryset(request).defer("body")

    def has_process_permission(self, request: HttpRequest) -> bool:
        """Whether the user may have batches processed again; needed by the action of that name."""
        return bool(request.user.has_perm("congressy_mailer.change_webhookbatch"))

    @admin.action(description=_("Process again what was set aside"), permissions=["process"])
    def process_again(self, request: HttpRequest, batches: QuerySet[WebhookBatch]) -> None:
        count = inbox.process_again(batches)
        self.message_user(
            request,
            ngettext(
                "%(count)d batch is processed again by the next sweep.",
                "%(count)d batches are processed again by the next sweep.",
                count,
            )
            % {"count": count},
        )
