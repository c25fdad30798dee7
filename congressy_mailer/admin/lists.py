"""Lists that answer at once, however many rows there are: newest first by key, counted up to a limit."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from .lookups import FilterLookupsOnly
from .tenants import PublicSchemaOnly

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = object

#: Rows that are counted, and pages that can be turned to.
MOST_COUNTED = 10_000


class CappedPaginator(Paginator):  # type: ignore[type-arg]
    """Pages of the newest rows: a database that counts all of them reads all of them."""

    @cached_property
    def count(self) -> int:
        """How many rows there are, up to :data:`MOST_COUNTED`."""
        rows: Any = self.object_list
        return int(rows.order_by()[:MOST_COUNTED].count())


class FastList(PublicSchemaOnly, FilterLookupsOnly, _ModelAdmin):
    """A list by primary key. A UUIDv7 begins with the time, so that the newest rows come first."""

    paginator = CappedPaginator
    ordering = ("-id",)
    show_full_result_count = False
    # They count all rows by each filter.
    show_facets = admin.ShowFacets.NEVER
    # A database that sorts by another column reads all rows.
    sortable_by = ()
    list_per_page = 50


class ReadOnly:
    """Read-only lists: only the outbox changes states, by its rules."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class PeriodFilter(admin.SimpleListFilter):
    """Since when, as a range of keys."""

    title = _("time")
    parameter_name = "since"
    _DAYS = {"1": _("in the last 24 hours"), "7": _("in the last 7 days"), "30": _("in the last 30 days")}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(self._DAYS.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value not in self._DAYS:
            return queryset
        return queryset.filter(id__gte=first_id(timezone.now() - timedelta(days=int(value))))


def first_id(moment: datetime) -> UUID:
    """Not above any id that was given out since then (RFC 9562 §5.7: it begins with the milliseconds)."""
    return UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


def short_time(moment: datetime | None) -> str:
    """A moment as narrow as may be, in the reader's time zone and language."""
    return date_format(timezone.localtime(moment), "SHORT_DATETIME_FORMAT") if moment else ""
