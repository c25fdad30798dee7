"""The suppression list in the admin: to be seen, and changed by the same rules as everywhere."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .. import suppressions
from ..conf import mailer_settings
from ..exceptions import InvalidAddress, InvalidOption
from ..mime.addresses import comparable_address, normalise_address
from ..models import Suppression
from ..suppressions.entries import Entry
from ..suppressions.lists import check_list_id
from ..suppressions.rules import Scope, Source


class SuppressionForm(forms.ModelForm):  # type: ignore[type-arg]
    """An address that somebody puts on the list by hand."""

    class Meta:
        model = Suppression
        fields = ("address", "scope", "list_id", "reason")

    def clean_address(self) -> str:
        try:
            return comparable_address(normalise_address(self.cleaned_data["address"], str(_("address"))))
        except InvalidAddress as error:
            raise forms.ValidationError(str(error)) from error

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        scope, list_id = data.get("scope"), data.get("list_id")
        if scope == Scope.LIST and not list_id:
            self.add_error("list_id", _("Say which list."))
        elif scope and scope != Scope.LIST and list_id:
            self.add_error("list_id", _("Only where it is about mail of one list."))
        elif list_id:
            try:
                check_list_id(list_id, transactional=False)
            except InvalidOption as error:
                self.add_error("list_id", str(error))
        return data

    def _get_validation_exclusions(self) -> set[str]:
        # That it is there once is not for the form to say: what was taken off may be put there again.
        return {*super()._get_validation_exclusions(), "address"}  # type: ignore[misc]


@admin.register(Suppression)
class SuppressionAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """List and page of suppressions."""

    form = SuppressionForm
    list_display = ("address", "scope", "list_id", "source", "created_at")
    list_filter = ("scope", "source", "created_at")
    search_fields = ("address",)
    search_help_text = _("The address, or its beginning.")
    ordering = ("-created_at",)
    show_full_result_count = False
    # What is deleted together would be deleted without asking whether it may.
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Suppression]:
        return suppressions.active()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Suppression], search_term: str
    ) -> tuple[QuerySet[Suppression], bool]:
        """By the form in which addresses are compared, as far as it is one already."""
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            return queryset.filter(address=comparable_address(normalise_address(term, "q"))), False
        except InvalidAddress:
            return queryset.filter(address__startswith=term.lower()), False

    def get_fields(self, request: HttpRequest, obj: Suppression | None = None) -> Any:
        if obj is None:
            return list(SuppressionForm.Meta.fields)
        return ["address", "scope", "list_id", "source", "reason", "created_at", "synced_at", "refusal"]

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "list_id" and field is not None:
            lists = mailer_settings().LISTS
            return forms.ChoiceField(
                label=field.label, required=False, choices=[("", "—"), *((key, name) for key, name in lists.items())]
            )
        return field

    def has_change_permission(self, request: HttpRequest, obj: Suppression | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Suppression | None = None) -> bool:
        deletable = obj is None or obj.source != Source.COMPLIANCE
        return deletable and super().has_delete_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Suppression, form: Any, change: bool) -> None:
        """Put it there as everybody does, so that what is there already, or was, is known."""
        lookup = {"address": obj.address, "scope": obj.scope, "list_id": obj.list_id}
        obj.created_at = timezone.now()
        suppressions.add(
            [
                Entry(
                    at=obj.created_at,
                    source=Source.MANUAL,
                    reason=obj.reason,
                    address=obj.address,
                    scope=Scope(obj.scope),
                    list_id=obj.list_id,
                )
            ]
        )
        obj.pk = suppressions.active().get(**lookup).pk

    def delete_model(self, request: HttpRequest, obj: Suppression) -> None:
        """Take it off as everybody does: SparkPost's list is still to be told."""
        suppressions.remove(obj.address, scope=Scope(obj.scope), list_id=obj.list_id)
