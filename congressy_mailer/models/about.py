"""The host's object that a mail is about: an order, a registration. It is kept by its model and primary key, as the
objects of a context are, so that a mail outlives it and the host needs no table of content types.
"""

from __future__ import annotations

from typing import NamedTuple

from django.db.models import Model, QuerySet

from ..conf.tenants import schema_of
from ..exceptions import InvalidOption
from .mail import Mail
from .messages import Message

_LONGEST = 200


class About(NamedTuple):
    """The columns of :class:`.Mail` that name the object."""

    about_model: str | None = None
    about_id: str | None = None
    about_name: str = ""


def about_fields(instance: object) -> About:
    """The object as it is stored.

    Raises:
        InvalidOption: it is no saved instance of a model.
    """
    if instance is None:
        return About()
    if not isinstance(instance, Model):
        raise InvalidOption(f"about must be an instance of a model, not {type(instance).__name__}.")
    # Proxies are the same object.
    meta = type(instance)._meta.concrete_model._meta  # type: ignore[union-attr]
    if instance.pk is None:
        raise InvalidOption(f"about: this {meta.label} has not been saved.")
    key = str(instance.pk)
    if len(key) > _LONGEST:
        raise InvalidOption(f"about: the primary key of this {meta.label} is longer than {_LONGEST} characters.")
    # Keys are the same in the schemas of tenants, and their rows are not.
    schema = schema_of(type(instance))
    label = f"{meta.label_lower}@{schema}" if schema else meta.label_lower
    if len(label) > _LONGEST:
        raise InvalidOption(f"about: the names of {meta.label} and its tenant's schema are too long together.")
    name = "".join(one if one.isprintable() else " " for one in str(instance))
    return About(label, key, " ".join(name.split())[:_LONGEST])


def mails_about(instance: Model) -> QuerySet[Message]:
    """The messages about an object of the host's, newest first.

    They include mail of a batch whose :class:`~congressy_mailer.Recipient` names the object, but not mail of batches
    that are about the object as a whole.

    Args:
        instance: the object that was given as ``about=``.
    """
    about = about_fields(instance)
    if about.about_id is None:
        return Message.objects.none()
    return Message.objects.filter(about_id=about.about_id, about_model=about.about_model).order_by("-id")


def about_object(mail: Mail) -> Model | None:
    """The object that a mail is about; ``None`` where there is none, it is gone, or it is another tenant's."""
    from django.apps import apps

    if mail.about_model is None or mail.about_id is None:
        return None
    label, _, schema = mail.about_model.partition("@")
    try:
        model = apps.get_model(label)
        if schema_of(model) != schema:
            return None
        found: Model | None = model._default_manager.filter(pk=mail.about_id).first()
    except (LookupError, ValueError):
        # A model that was renamed, or has another kind of key now.
        return None
    return found
