"""Filters of the list of messages, each of which is a range of one index."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..models import Batch, DeliveryStatus, RecipientStatus, State
from ..models.choices import FINAL, WAITING
from .lists import first_id

_TROUBLE = (
    DeliveryStatus.BOUNCED, DeliveryStatus.REJECTED, DeliveryStatus.COMPLAINED, DeliveryStatus.UNSUBSCRIBED,
)  # fmt: skip
_MOST_WITH_TROUBLE = 1000


class StatusFilter(admin.SimpleListFilter):
    """Where a message is on its way, or what went wrong after it was sent."""

    title = _("state")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [*((state.value, state.label) for state in State), *((one.value, one.label) for one in _TROUBLE)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value in _TROUBLE:
            rows = RecipientStatus.objects.using(queryset.db).filter(trouble=value).order_by("-message_id")
            return queryset.filter(id__in=list(rows.values_list("message_id", flat=True)[:_MOST_WITH_TROUBLE]))
        if value in FINAL - {State.SENT}:
            return queryset.filter(unsent=value)
        if value in WAITING:
            return queryset.filter(open_batch__isnull=False, state=value)
        if value == State.SENDING:
            return queryset.filter(sweep_at__isnull=False, state=value)
        return queryset.filter(state=value) if value == State.SENT else queryset


class _LinkedFilter(admin.SimpleListFilter):
    """One that only links of other pages set: it is offered while it is in force."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        value = self.value()
        return [(value, value)] if value else []


class BatchFilter(_LinkedFilter):
    """The messages of one batch; the batch's page links to it."""

    title = _("batch")
    parameter_name = "batch"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if not value:
            return queryset
        try:
            batch = (
                Batch.objects.using(queryset.db)
                .only("created_at", "stored_at", "last_stored_at")
                .filter(pk=UUID(value))
                .first()
            )
        except ValueError:
            return queryset.none()
        if batch is None:
            return queryset.none()
        # So that the newest rows of all are not read first.
        messages = queryset.filter(batch=batch, id__gte=first_id(batch.created_at - timedelta(minutes=1)))
        if batch.stored_at is not None and batch.last_stored_at is not None:
            messages = messages.filter(id__lt=first_id(batch.last_stored_at + timedelta(minutes=1)))
        return messages


class AboutFilter(_LinkedFilter):
    """The messages about one object; the object's page links to it."""

    title = _("about")
    parameter_name = "about"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        model, _, key = (self.value() or "").partition(":")
        return queryset.filter(about_model=model, about_id=key) if key else queryset
