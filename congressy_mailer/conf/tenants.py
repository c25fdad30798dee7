"""The tenants of django-tenants: which schema of the database a connection is set to, for the host's own tables.

Its backend gives a connection a ``schema_name`` and ``set_schema()``; nothing of that package is imported. Without it
there is no tenant. The mailer's own tables are in the public schema, which each tenant's connection looks into as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.signals import setting_changed
from django.db import DEFAULT_DB_ALIAS, connections
from django.dispatch import receiver

if TYPE_CHECKING:
    from django.db.models import Model


def current_schema() -> str:
    """The schema of the tenant that the connection is set to; empty: none, or the public schema."""
    if not _has_tenants():
        return ""
    name = getattr(connections[_database()], "schema_name", None) or ""
    return "" if name == _public_schema() else str(name)


def schema_of(model: type[Model]) -> str:
    """The schema of the tenant that the rows of a model are in at the moment; empty for what all tenants share."""
    schema = current_schema()
    return schema if schema and _is_of_tenants(model) else ""


def tenants_key(key: str) -> str:
    """A caller's key as it is stored: the same key of two tenants is not the same."""
    schema = current_schema()
    return f"{key}@{schema}" if schema else key


def schema_exists(schema: str) -> bool:
    """Whether a schema is there. PostgreSQL passes over one that is not, and finds the rows of the public one."""
    with connections[_database()].cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", [schema])
        return cursor.fetchone() is not None


@contextmanager
def in_schema(schema: str) -> Iterator[None]:
    """Set the connection to a schema for a while.

    Args:
        schema: a tenant's; empty: the public one.

    Raises:
        LookupError: the database has no schemas of tenants.
    """
    if current_schema() == schema:
        yield
        return
    if not _has_tenants():
        raise LookupError(f"The database {_database()!r} has no schemas of tenants here.")
    connection: Any = connections[_database()]
    tenant, with_public = connection.tenant, connection.include_public_schema
    connection.set_schema(schema or _public_schema())
    try:
        yield
    finally:
        connection.set_tenant(tenant, with_public)


# Asked for each mail and each recipient of a batch; it depends on the database's engine alone.
@cache
def _has_tenants() -> bool:
    return hasattr(connections[_database()], "set_schema")


@receiver(setting_changed, dispatch_uid="congressy_mailer.conf.tenants")
def _ask_again(*, setting: str, **kwargs: Any) -> None:
    if setting in ("DATABASES", "TENANT_DB_ALIAS"):
        _has_tenants.cache_clear()


def _database() -> str:
    return str(getattr(settings, "TENANT_DB_ALIAS", DEFAULT_DB_ALIAS))


def _public_schema() -> str:
    return str(getattr(settings, "PUBLIC_SCHEMA_NAME", "public"))


def _is_of_tenants(model: type[Model]) -> bool:
    installed = set(getattr(settings, "TENANT_APPS", ()))
    for name, kind in getattr(settings, "TENANT_TYPES", {}).items():
        installed |= set(kind["APPS"]) if name != _public_schema() else set()
    config = apps.get_app_config(model._meta.app_label)
    return not installed.isdisjoint({config.name, f"{type(config).__module__}.{type(config).__qualname__}"})
