"""Which look-ups the query string of a list may ask for: those of its filters, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = object

_DATE_PARTS = ("year", "month", "day")


class FilterLookupsOnly(_ModelAdmin):
    """A list that answers the look-ups of ``list_filter`` and ``date_hierarchy``, and refuses all others.

    Django lets the query string ask for every field of the model. A user who may see the list could then find out a
    text that no page shows, a letter at a time: ``?text__startswith=https://www.example.com/reset/a``.
    """

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup in self._filter_lookups(request)

    def _filter_lookups(self, request: HttpRequest | None) -> set[str]:
        lookups: set[str] = set()
        for entry in self.get_list_filter(request) if request is not None else self.list_filter:
            lookups.update(_expected_parameters(entry, request, self))
        if self.date_hierarchy:
            lookups.update(f"{self.date_hierarchy}__{part}" for part in _DATE_PARTS)
        return lookups


def _expected_parameters(entry: Any, request: HttpRequest | None, model_admin: Any) -> set[str]:
    """The parameters of one entry of ``list_filter``."""
    if callable(entry):
        return {entry.parameter_name} if issubclass(entry, admin.SimpleListFilter) else set()
    path, make = entry if isinstance(entry, list | tuple) else (entry, admin.FieldListFilter.create)
    model: type[Model] = model_admin.model
    field = model._meta.get_field(path)
    one = make(field, request, {}, model, model_admin, field_path=path)
    return {name for name in one.expected_parameters() if name}
