"""What a context stores by name only and a worker finds again: rows of models, and members of enums."""

from __future__ import annotations

import copy
import enum
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any, NamedTuple

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import ProgrammingError, connections, models, router

from ..exceptions import ContentError, ContentNotReady


class RowReference(NamedTuple):
    """Where a model instance is found again."""

    #: ``app_label.model``, in lower case.
    model: str
    #: Primary key, as Django's serializers write it: the field's ``to_python()`` reads it, whatever its type is.
    pk: str
    #: Alias of the database.
    using: str


def row_reference(instance: models.Model) -> RowReference:
    """How a saved instance is found again.

    Raises:
        ValueError: it is not saved, or its model is in no installed app; the text says so, without a subject.
    """
    label = instance._meta.label
    if instance.pk is None or instance._state.adding:
        raise ValueError(f"an instance of {label} that is not saved: save it first, since the worker fetches it again")
    try:
        apps.get_model(instance._meta.label_lower)
    except LookupError:
        raise ValueError(f"an instance of {label}, which is in no installed app") from None
    return RowReference(
        instance._meta.label_lower,
        str(_primary_key_field(type(instance)).value_to_string(instance)),
        instance._state.db or router.db_for_write(type(instance), instance=instance),
    )


class Rows:
    """The rows that many references mean, fetched with one query for each model and database."""

    def __init__(self, references: Iterable[RowReference]) -> None:
        """
        Raises:
            django.db.OperationalError: the database cannot be asked.
        """
        wanted: dict[tuple[str, str], set[Any]] = {}
        for reference in references:
            try:
                key = _primary_key(_model(reference), reference)
            except (ContentError, ContentNotReady):
                continue  # Said again by get(), to the one context that it concerns.
            wanted.setdefault((reference.model, reference.using), set()).add(key)
        self._rows: dict[tuple[str, str], dict[Any, models.Model] | ContentNotReady] = {}
        for (label, using), keys in wanted.items():
            try:
                self._rows[label, using] = apps.get_model(label)._base_manager.using(using).in_bulk(keys)
            except ProgrammingError as error:
                # A table or column of a newer deployment, whose migration has not run yet.
                self._rows[label, using] = ContentNotReady(f"{label} cannot be read from {using!r}: {error}")

    def get(self, reference: RowReference) -> models.Model:
        """A new copy of the row, so that what one mail's template does to it is not seen in the next mail.

        Raises:
            ContentError: there is no such row any more.
            ContentNotReady: this process does not know the model or the database, or its table is not there.
        """
        model = _model(reference)
        key = _primary_key(model, reference)
        rows = self._rows[reference.model, reference.using]
        if isinstance(rows, ContentNotReady):
            raise rows
        if key not in rows:
            raise ContentError(f"{model._meta.label} pk={reference.pk} no longer exists.")
        return copy.copy(rows[key])


def enum_reference(member: enum.Enum) -> tuple[str, str]:
    """How an enum's member is found again: ``module:Class`` and the member's name.

    Raises:
        ValueError: a worker could not find it; the text says so, without a subject.
    """
    kind = type(member)
    reference = f"{kind.__module__}:{kind.__qualname__}"
    try:
        if enum_member(reference, str(member.name)) is member:
            return reference, member.name
    except ContentNotReady:
        pass
    raise ValueError(
        f"a member of {kind.__module__}.{kind.__qualname__}, which a worker could not find again: only enums of an "
        f"installed app, at the top of a module or in a class there, can be stored. Pass its .value or .label"
    )


def enum_member(reference: str, name: str) -> enum.Enum:
    """The member that was stored.

    Nothing but modules of installed apps, and of the project that the settings module is in, is ever imported.

    Raises:
        ContentNotReady: there is no such enum, or it has no such member.
    """
    module_name, _, qualified_name = reference.partition(":")
    try:
        if not _is_importable(module_name):
            raise LookupError("it is in no installed app")
        target: Any = sys.modules.get(module_name) or import_module(module_name)
        for part in qualified_name.split("."):
            target = vars(target)[part]
        if not isinstance(target, enum.EnumType):
            raise LookupError("it is not an enum")
        return target.__members__[name]
    except (ImportError, LookupError, TypeError) as error:
        raise ContentNotReady(f"{name!r} of the enum {reference} is not known here: {error}") from None


def _is_importable(module_name: str) -> bool:
    packages = {config.name for config in apps.get_app_configs()}
    # Absent where the settings were given by settings.configure().
    if settings_module := getattr(settings, "SETTINGS_MODULE", ""):
        packages.add(settings_module.partition(".")[0])
    return any(module_name == package or module_name.startswith(f"{package}.") for package in packages)


def _model(reference: RowReference) -> type[models.Model]:
    if reference.using not in connections.settings:
        raise ContentNotReady(f"There is no database {reference.using!r} here, which {reference.model} is read from.")
    try:
        return apps.get_model(reference.model)
    except (LookupError, ValueError):
        raise ContentNotReady(f"There is no model {reference.model} here.") from None


def _primary_key(model: type[models.Model], reference: RowReference) -> Any:
    try:
        key = _primary_key_field(model).to_python(reference.pk)
    except (ValidationError, ValueError) as error:
        raise ContentError(f"{model._meta.label} cannot have the primary key {reference.pk!r}.") from error
    # A composite primary key is read as a list, while instances have a tuple.
    return tuple(key) if isinstance(key, list) else key


def _primary_key_field(model: type[models.Model]) -> models.Field[Any, Any]:
    field = model._meta.pk
    assert field is not None  # Only an abstract model has none.
    return field
