"""Pauses in the admin: seen, added and removed by users with the permissions."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from ..models import Pause, PauseScope
from .lists import short_time
from .lookups import FilterLookupsOnly
from .tenants import PublicSchemaOnly

# The argument of pause() that names a thing of this scope.
_ARGUMENTS = {
    PauseScope.QUEUE: "queue",
    PauseScope.BACKEND: "using",
    PauseScope.CAMPAIGN: "campaign",
    PauseScope.BATCH: "batch",
}


def target(scope: str, name: str) -> dict[str, Any]:
    """The arguments of :func:`congressy_mailer.pause` for what a row names."""
    return {} if scope == PauseScope.ALL else {_ARGUMENTS[PauseScope(scope)]: name}


class PauseForm(forms.ModelForm):  # type: ignore[type-arg]
    """The form for a new pause: what is paused, and why."""

    class Meta:
        model = Pause
        fields = ("scope", "name", "reason")
        help_texts = {
            "name": _(
                "The queue, the alias of the mail backend, the campaign, or the id of the batch; empty for all sending."
            ),
            "reason": _("For the other people who look after the mail."),
        }

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        scope, name = data.get("scope"), (data.get("name") or "").strip()
        if scope == PauseScope.ALL and name:
            self.add_error("name", _("Empty where all sending is paused."))
        elif scope and scope != PauseScope.ALL and not name:
            self.add_error("name", _("Say which one."))
        elif scope:
            # Imported on first use: every process of the host imports the admin's classes.
            from ..exceptions import InvalidOption
            from ..pausing import check_target

            try:
                check_target(**target(scope, name))
            except InvalidOption as error:
                self.add_error("name", str(error))
        return data


@admin.register(Pause)
class PauseAdmin(PublicSchemaOnly, FilterLookupsOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """List of what is paused. The permission to add pauses, the one to delete resumes."""

    form = PauseForm
    change_form_template = "congressy_mailer/admin/pause.html"
    add_form_template = "admin/change_form.html"
    delete_confirmation_template = "congressy_mailer/admin/resume.html"
    # What and why, first: of a list that is wider than its screen the end is not seen.
    list_display = ("scope", "name", "reason", "since", "paused_by")
    list_filter = ("scope",)
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    ordering = ("-paused_at",)
    # In the place of Django's own: deleting a pause is resuming it, and has that name for people.
    actions = ("delete_selected",)

    class Media:
        css = {"all": ["congressy_mailer/admin.css"]}

    @admin.display(description=_("since"))
    def since(self, pause: Pause) -> str:
        return short_time(pause.paused_at)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Pause]:
        return super().get_queryset(request).filter(resumed_at=None)

    def get_fields(self, request: HttpRequest, obj: Pause | None = None) -> Any:
        return PauseForm.Meta.fields if obj is None else ("scope", "name", "reason", "paused_by", "paused_at")

    def has_change_permission(self, request: HttpRequest, obj: Pause | None = None) -> bool:
        return False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        # "Delete", in red, would be taken for something else.
        return super().change_view(request, object_id, form_url, {"show_delete": False, **(extra_context or {})})

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        return super().delete_view(request, object_id, {"title": _("Resume"), **(extra_context or {})})

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: int) -> HttpResponse:
        self._say_resumed(request, 1)
        return HttpResponseRedirect(reverse("admin:congressy_mailer_pause_changelist"))

    def save_model(self, request: HttpRequest, obj: Pause, form: Any, change: bool) -> None:
        """Pause it as everybody does."""
        from .. import pausing

        new = pausing.pause(**target(obj.scope, obj.name), reason=obj.reason, by=request.user.get_username())
        obj.pk = new.pk

    def delete_model(self, request: HttpRequest, obj: Pause) -> None:
        """Resume it as everybody does."""
        from .. import pausing

        pausing.resume(**target(obj.scope, obj.name), by=request.user.get_username())

    @admin.action(description=_("Resume the selected pauses"), permissions=["delete"])
    def delete_selected(self, request: HttpRequest, pauses: QuerySet[Pause]) -> None:
        resumed = list(pauses)
        self.log_deletions(request, pauses)
        for pause in resumed:
            self.delete_model(request, pause)
        self._say_resumed(request, len(resumed))

    def _say_resumed(self, request: HttpRequest, count: int) -> None:
        text = ngettext("%(count)d pause ended.", "%(count)d pauses ended.", count) % {"count": count}
        self.message_user(request, text, messages.SUCCESS)
