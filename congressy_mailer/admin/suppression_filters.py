"""Filters of the suppression list: each is a range of one index, newest first."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..suppressions.rules import Scope, Source


class _ColumnFilter(admin.SimpleListFilter):
    """Addresses with a reason of one kind; with several such filters, a reason that is of all of these kinds."""

    choices_of_column: Any = ()

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(self.choices_of_column)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        # The reasons themselves and not the addresses that have such a one: for those a database looks through all
        # addresses, or makes a table of them first.
        value = self.value()
        return queryset.filter(**{str(self.parameter_name): value}) if value else queryset


class ScopeFilter(_ColumnFilter):
    """By the mail that is stopped."""

    title = _("mail")
    parameter_name = "scope"
    choices_of_column = Scope.choices


class SourceFilter(_ColumnFilter):
    """By what has put it there."""

    title = _("source")
    parameter_name = "source"
    choices_of_column = Source.choices


def chosen_columns(request: HttpRequest) -> dict[str, str]:
    """The conditions of the filters that are in force, by column."""
    names = (str(one.parameter_name) for one in (ScopeFilter, SourceFilter))
    return {name: value for name in names if (value := request.GET.get(name))}
