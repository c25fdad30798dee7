"""The suppression list in the admin: an address a row, to be seen, and changed by the same rules as everywhere."""

from __future__ import annotations

import csv
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.core.management.base import CommandError
from django.db.models import Exists, OuterRef, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from .. import suppressions
from ..conf import mailer_settings
from ..exceptions import InvalidAddress, InvalidOption
from ..models import Suppression
from ..suppressions.entries import Entry
from ..suppressions.rules import Scope, Source
from .lists import FastList, PeriodFilter, short_time
from .suppression_filters import ScopeFilter, SourceFilter, chosen_columns
from .suppression_forms import ImportForm, SuppressionForm
from .viewing import log


class AddressList(ChangeList):
    """One row for each address: the first of its reasons that the filters let through. All of its reasons are read for
    the page at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows = list(self.result_list)
        reasons: dict[str, list[Suppression]] = defaultdict(list)
        for entry in suppressions.active().filter(address__in=[row.address for row in rows]).order_by("id"):
            reasons[entry.address].append(entry)
        for row in rows:
            row.reasons_of_address = reasons[row.address]
        self.result_list = rows


@admin.register(Suppression)
class SuppressionAdmin(FastList, admin.ModelAdmin):  # type: ignore[type-arg]
    """List and page of suppressed addresses."""

    form = SuppressionForm
    list_display = ("address", "mail", "reasons", "since")
    list_filter = (ScopeFilter, SourceFilter, PeriodFilter)
    search_fields = ("address",)
    search_help_text = _("The address, or its beginning.")
    change_list_template = "congressy_mailer/admin/suppressions.html"
    # What is deleted together would be deleted without asking whether it may.
    actions = None

    class Media:
        css = {"all": ["congressy_mailer/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Suppression]:
        return suppressions.active()

    def get_changelist(self, request: HttpRequest, **options: Any) -> Any:
        return AddressList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Suppression], search_term: str
    ) -> tuple[QuerySet[Suppression], bool]:
        """By the form in which addresses are compared, as far as it is one already."""
        earlier = suppressions.active().filter(
            address=OuterRef("address"), id__lt=OuterRef("id"), **chosen_columns(request)
        )
        firsts = queryset.exclude(Exists(earlier))
        term = search_term.strip()
        if not term:
            return firsts, False
        try:
            return firsts.filter(address=suppressions.comparable(term, "q")), False
        except InvalidAddress:
            return queryset.filter(id__in=_beginning_with(firsts, term.lower())), False

    @admin.display(description=_("mail"))
    def mail(self, entry: Suppression) -> str:
        return _mail_of(_reasons_of(entry))

    @admin.display(description=_("why"))
    def reasons(self, entry: Suppression) -> str:
        return ", ".join(dict.fromkeys(one.get_source_display() for one in _reasons_of(entry)))

    @admin.display(description=_("since"))
    def since(self, entry: Suppression) -> str:
        return short_time(min(one.created_at for one in _reasons_of(entry)))

    def get_fields(self, request: HttpRequest, obj: Suppression | None = None) -> Any:
        return list(SuppressionForm.Meta.fields)

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
        obj.created_at = timezone.now()
        scopes = suppressions.scopes_of(obj.scope or None, obj.list_id)
        suppressions.add(
            Entry(
                at=obj.created_at, source=Source.MANUAL, reason=obj.reason, address=obj.address, scope=scope,
                list_id=obj.list_id,
            )
            for scope in scopes
        )  # fmt: skip
        lookup = {"address": obj.address, "scope": scopes[0], "list_id": obj.list_id, "source": Source.MANUAL}
        obj.pk = suppressions.active().get(**lookup).pk

    def delete_model(self, request: HttpRequest, obj: Suppression) -> None:
        """Remove this reason through the public function, which also schedules its removal from SparkPost's list."""
        suppressions.remove(obj.address, scope=Scope(obj.scope), list_id=obj.list_id, source=Source(obj.source))

    # Pages

    def get_urls(self) -> list[Any]:
        page = self.admin_site.admin_view
        return [
            path("import/", page(self.import_view), name="congressy_mailer_suppression_import"),
            path("export/", page(self.export_view), name="congressy_mailer_suppression_export"),
            path("<path:object_id>/remove/", page(self.remove_view), name="congressy_mailer_suppression_remove"),
            *super().get_urls(),
        ]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """The page of an address: every reason, and taking it off."""
        if request.method != "GET":
            raise PermissionDenied
        # Loaded where it is looked at: every process of the host has the admin's classes.
        from .reasons import shown_reason

        entry = self._entry(request, object_id)
        entries = [
            (one, _mail_of([one]), [*map(shown_reason, filter(None, (one.reason, one.refusal)))],
             self.has_delete_permission(request, one))
            for one in _reasons_of(entry)
        ]  # fmt: skip
        context = {
            **self.admin_site.each_context(request),
            "title": entry.address,
            "subtitle": None,
            "opts": self.opts,
            "original": entry,
            "media": self.media,
            "entries": entries,
            "may_remove": any(deletable for *_, deletable in entries),
            "messages_url": reverse("admin:congressy_mailer_message_changelist")
            if request.user.has_perm("congressy_mailer.view_message")
            else "",
        }
        return TemplateResponse(request, "congressy_mailer/admin/suppression.html", context)

    def _entry(self, request: HttpRequest, object_id: str) -> Suppression:
        entry: Suppression | None = self.get_object(request, unquote(object_id))
        if entry is None:
            raise Http404
        if not self.has_view_permission(request, entry):
            raise PermissionDenied
        return entry

    def remove_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Remove all entries of an address, from every source."""
        if request.method != "POST" or not super().has_delete_permission(request):
            raise PermissionDenied
        entry = self._entry(request, object_id)
        log(request, [entry], gettext("Took the address off the list."))
        count = suppressions.unsuppress(entry.address)
        told = ngettext("%(count)d reason was taken off.", "%(count)d reasons were taken off.", count)
        self.message_user(request, told % {"count": count}, messages.SUCCESS)
        if suppressions.active().filter(pk=entry.pk).exists():
            return HttpResponseRedirect(reverse("admin:congressy_mailer_suppression_change", args=[quote(entry.pk)]))
        return HttpResponseRedirect(reverse("admin:congressy_mailer_suppression_changelist"))

    def import_view(self, request: HttpRequest) -> HttpResponse:
        """Put the addresses in a file on the list."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = ImportForm(request.POST, request.FILES) if request.method == "POST" else ImportForm()
        if form.is_bound and form.is_valid() and self._import(request, form):
            return HttpResponseRedirect(reverse("admin:congressy_mailer_suppression_changelist"))
        context = {
            **self.admin_site.each_context(request), "title": gettext("Import addresses"), "opts": self.opts,
            "form": form, "media": self.media + form.media,
        }  # fmt: skip
        return TemplateResponse(request, "congressy_mailer/admin/import.html", context)

    def _import(self, request: HttpRequest, form: ImportForm) -> bool:
        from ..management.suppression_files import MAX_EXPLAINED, import_file, import_summary, left_out_summary

        options = {**form.cleaned_data, "scope": form.cleaned_data["scope"] or None, "email_column": "", "list_id": ""}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "addresses.csv"
            file.write_bytes(b"".join(form.cleaned_data["file"].chunks()))
            try:
                result = import_file(file, options)
            except (CommandError, InvalidOption) as error:
                form.add_error("file", str(error))
                return False
        self._log_list(request, gettext("Imported a file of addresses."))
        self.message_user(request, import_summary(result), messages.SUCCESS)
        if result.problems:
            self.message_user(request, left_out_summary(result), messages.WARNING)
            for problem in result.problems[:MAX_EXPLAINED]:
                self.message_user(request, problem, messages.WARNING)
        return True

    def export_view(self, request: HttpRequest) -> StreamingHttpResponse:
        """The whole list as CSV, as it can be imported."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        self._log_list(request, gettext("Exported the list."))
        response = StreamingHttpResponse(_csv_lines(), content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="suppressions-{timezone.localdate():%Y-%m-%d}.csv"'
        response["Cache-Control"] = "no-store"
        return response

    def _log_list(self, request: HttpRequest, what: str) -> None:
        """Write down what is about no single address."""
        LogEntry.objects.create(
            user_id=str(request.user.pk), content_type=ContentType.objects.get_for_model(Suppression), object_id=None,
            object_repr=str(self.opts.verbose_name_plural), action_flag=ADDITION, change_message=what,
        )  # fmt: skip


def _beginning_with(entries: QuerySet[Suppression], term: str) -> list[UUID]:
    from ..outbox.search import LAST, MOST_FOUND

    # In the order of the index: sorted by time, a beginning that many have would be read whole.
    found = entries.filter(address__gte=term, address__lt=term + LAST).order_by("address")
    return list(found.values_list("id", flat=True)[:MOST_FOUND])


def _csv_lines() -> Iterator[str]:
    from ..management.suppression_files import export_rows

    class Line:
        """What the writer writes to."""

        def write(self, text: str) -> str:
            return text

    # Excel takes a file without this mark for Windows-1252.
    yield "\ufeff"
    yield from map(csv.writer(Line()).writerow, export_rows())


def _reasons_of(entry: Suppression) -> list[Suppression]:
    """All that is against its address."""
    known = getattr(entry, "reasons_of_address", None)
    return known or list(suppressions.active().filter(address=entry.address).order_by("id"))


def _mail_of(entries: list[Suppression]) -> str:
    """Which mail these reasons stop."""
    scopes = {entry.scope for entry in entries}
    if {Scope.TRANSACTIONAL, Scope.NON_TRANSACTIONAL} <= scopes:
        return gettext("all mail")
    lists = mailer_settings().LISTS
    names = [str(Scope(scope).label) for scope in Scope.values if scope in scopes and scope != Scope.LIST]
    names += [str(lists.get(entry.list_id, entry.list_id)) for entry in entries if entry.scope == Scope.LIST]
    return ", ".join(dict.fromkeys(names))
