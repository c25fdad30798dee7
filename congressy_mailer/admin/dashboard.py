"""The dashboard in the admin: whether mail flows, and where it does not."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.text import capfirst

from ..models import Dashboard
from .lookups import FilterLookupsOnly
from .tenants import PublicSchemaOnly


@admin.register(Dashboard)
class DashboardAdmin(PublicSchemaOnly, FilterLookupsOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    """One page, for users with the permission ``view_dashboard``."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        # There is nothing but the one page.
        return obj is None and super().has_view_permission(request)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        # Loaded where it is looked at: every process of the host has the admin's classes.
        from ..monitoring.dashboard import page
        from .reasons import shown_reason

        shown = page(request.GET.get("span", ""))
        for outage in (outage for backend in shown["backends"] for outage in backend["outages"]):
            outage["reason"] = shown_reason(outage["reason"])
        context = {
            **self.admin_site.each_context(request),
            "title": capfirst(self.opts.verbose_name),
            "opts": self.opts,
            **shown,
            **(extra_context or {}),
        }
        response = TemplateResponse(request, "admin/congressy_mailer/dashboard.html", context)
        response["Cache-Control"] = "no-store"
        return response
