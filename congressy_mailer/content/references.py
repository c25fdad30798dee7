"""What a context stores by name only and a worker finds again: rows of models, and members of enums."""

from __future__ import annotations

import copy
import enum
import sys
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib import import_module
from typing import Any, NamedTuple

from billiard.exceptions import SoftTimeLimitExceeded
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connections, models, router, transaction

from ..exceptions import ContentError, ContentNotReady
from ..replies import error_text

#: The process is short of memory, or out of the time that Celery allows: no fault of the value being read.
AT_LIMITS = (MemoryError, SoftTimeLimitExceeded)


class RowReference(NamedTuple):
    """Where a model instance is found again."""

    #: ``app_label.model``, in lower case.
    model: str
    #: Primary key of any type, as Django's serializers write it: the field's ``to_python()`` reads it.
    pk: str
    #: Alias of the database.
    using: str


def row_reference(instance: models.Model) -> RowReference:
    """How a saved instance is found again.

    Raises:
        ValueError: it is not saved, was deleted, or its model is in no installed app; the text says so, without a
            subject.
    """
    label = instance._meta.label
    if instance.pk is None and not instance._state.adding:
        raise ValueError(f"an instance of {label} that was deleted: the worker could not fetch it again")
    if instance.pk is None or instance._state.adding:
        raise ValueError(f"an instance of {label} that is not saved: save it first, since the worker fetches it again")
    try:
        apps.get_model(instance._meta.label_lower)
    except LookupError:
        raise ValueError(f"an instance of {label}, which is in no installed app") from None
    return RowReference(
        instance._meta.label_lower,
        str(_primary_key_field(type(instance)).value_to_string(instance)),
        # Not where it was read: a replica may not have it yet, or not what was changed a moment ago.
        router.db_for_write(type(instance), instance=instance),
    )


class Rows:
    """The rows that many references mean, fetched with one query for each model and database.

    Where that query fails, each row is fetched by itself when it is needed: one row that cannot be read, or whose
    model's code raises for it, stops no other context.
    """

    def __init__(self, references: Iterable[RowReference]) -> None:
        #: Databases that cannot be asked, and why.
        self._away: dict[str, ContentNotReady] = {}
        wanted: dict[tuple[str, str], set[Any]] = {}
        for reference in references:
            # An error is raised again by get(), to the one context that it concerns.
            with suppress(Exception):
                key = _primary_key(_model(reference), reference)
                wanted.setdefault((reference.model, reference.using), set()).add(key)
        self._rows: dict[tuple[str, str], dict[Any, models.Model] | None] = {}
        for (label, using), keys in wanted.items():
            try:
                self._rows[label, using] = _fetched(apps.get_model(label), using, keys)
            except AT_LIMITS:
                raise
            except Exception:
                self._rows[label, using] = None

    def get(self, reference: RowReference) -> models.Model:
        """A new copy of the row, so that what one mail's template does to it is not seen in the next mail.

        Raises:
            ContentError: there is no such row any more.
            ContentNotReady: this process does not know the model or the database, or the row cannot be read now.
        """
        model = _model(reference)
        key = _primary_key(model, reference)
        rows = self._rows.get((reference.model, reference.using))
        if rows is None:
            rows = self._fetched_alone(model, reference, key)
        if key not in rows:
            raise ContentError(f"{model._meta.label} pk={reference.pk} no longer exists.")
        return copy.copy(rows[key])

    def _fetched_alone(self, model: type[models.Model], reference: RowReference, key: Any) -> dict[Any, models.Model]:
        if reference.using in self._away:
            raise self._away[reference.using]
        try:
            return _fetched(model, reference.using, {key})
        except AT_LIMITS:
            raise
        except Exception as error:
            # Perhaps a table or column of a newer deployment, whose migration has not run yet.
            not_ready = ContentNotReady(
                f"{model._meta.label} cannot be read from {reference.using!r}: {error_text(error)}"
            )
            if not _answers(reference.using):
                # The other contexts need not wait for it, each for as long as connecting may take.
                self._away[reference.using] = not_ready
            raise not_ready from error


def savepoint_in_transaction(using: str) -> AbstractContextManager[None]:
    """A savepoint within an open transaction, so that a failing query does not break the queries after it."""
    return transaction.atomic(using=using) if connections[using].in_atomic_block else nullcontext()


def _fetched(model: type[models.Model], using: str, keys: Collection[Any]) -> dict[Any, models.Model]:
    with savepoint_in_transaction(using):
        return model._base_manager.using(using).in_bulk(keys)


def _answers(using: str) -> bool:
    """Whether this database can be asked at all."""
    connection = connections[using]
    if connection.in_atomic_block:
        return True
    try:
        connection.close_if_unusable_or_obsolete()
        connection.ensure_connection()
    except Exception:
        return False
    return True


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
    if isinstance(member, enum.Flag) and len(list(member)) != 1:
        raise ValueError(
            f"a combination of flags of {kind.__module__}.{kind.__qualname__}, which has no name that a worker could "
            "find it by. Pass its .value, or a list of its members"
        )
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
