"""Forms of the suppression list in the admin: one address by hand, or a file of them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from .. import suppressions
from ..exceptions import InvalidAddress, InvalidOption
from ..models import Suppression
from ..suppressions.lists import check_list_id
from ..suppressions.rules import Scope


class SuppressionForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form that puts an address on the list by hand."""

    scope = forms.ChoiceField(
        label=_("Mail"), required=False, choices=[("", _("all mail")), *Scope.choices],
        help_text=_("Which mail it gets no more."),
    )  # fmt: skip

    class Meta:
        model = Suppression
        fields = ("address", "scope", "list_id", "reason")

    def clean_address(self) -> str:
        try:
            return suppressions.comparable(self.cleaned_data["address"], str(_("address")))
        except InvalidAddress as error:
            raise forms.ValidationError(str(error)) from error

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        scope, list_id = data.get("scope"), data.get("list_id")
        if scope == Scope.LIST and not list_id:
            self.add_error("list_id", _("Say which list."))
        elif scope != Scope.LIST and list_id:
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


class ImportForm(forms.Form):
    """A file of addresses."""

    file = forms.FileField(
        label=_("File"),
        help_text=_("CSV. Its first row names the columns; those called scope, list_id and reason are read too."),
    )
    scope = forms.ChoiceField(
        label=_("Mail"), required=False,
        choices=[("", _("all mail")), *(choice for choice in Scope.choices if choice[0] != Scope.LIST)],
        help_text=_("For rows without such a column."),
    )  # fmt: skip
    reason = forms.CharField(label=_("Reason"), required=False, help_text=_("For rows without such a column."))
