"""The outbox holds the mail of all tenants of django-tenants, so that no tenant's own staff may look into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from ..conf.tenants import current_schema

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = object


class PublicSchemaOnly(_ModelAdmin):
    """For a ``ModelAdmin`` of ours: it is only there for users of the public schema. A tenant has users of its own."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return not current_schema() and super().has_module_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return not current_schema() and super().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return not current_schema() and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return not current_schema() and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return not current_schema() and super().has_delete_permission(request, obj)
