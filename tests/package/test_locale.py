"""The Brazilian Portuguese catalogue: whole, compiled, and what the admin shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from babel.messages import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import translation
from django.utils.translation.template import templatize

import congressy_mailer
from congressy_mailer import send_mail
from congressy_mailer.models import Event, State

PACKAGE = Path(congressy_mailer.__file__).parent
FOLDER = PACKAGE / "locale" / "pt_BR" / "LC_MESSAGES"

# As makemessages has them: Django's lazy names besides those of gettext.
KEYWORDS: dict[str, Any] = {
    **DEFAULT_KEYWORDS,
    "gettext_noop": None,
    "gettext_lazy": None,
    "ngettext_lazy": (1, 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext_lazy": ((1, "c"), 2, 3),
}

#: Context and text, or texts where it has a plural.
Text = tuple[str | None, str | tuple[str, ...]]


def texts_of_the_package() -> Iterator[Text]:
    """Every text in code and templates that is marked for translation."""
    for path in PACKAGE.rglob("*"):
        if path.suffix not in {".py", ".html", ".txt"}:
            continue
        source = path.read_text()
        if path.suffix != ".py":
            # Django's own way to have templates read by tools that know Python only.
            source = templatize(source, origin=str(path))
        for _, text, _, context in extract("python", BytesIO(source.encode()), KEYWORDS):
            yield context, text


def translations(catalogue: Catalog) -> dict[Text, object]:
    def plain(texts: str | Sequence[str]) -> str | tuple[str, ...]:
        return texts if isinstance(texts, str) else tuple(texts)

    return {(message.context, plain(message.id)): plain(message.string) for message in catalogue if message.id}


@pytest.fixture(scope="module")
def catalogue() -> Catalog:
    """What the translators wrote."""
    with (FOLDER / "django.po").open("rb") as file:
        return read_po(file, abort_invalid=True)


def test_every_text_of_the_package_is_in_the_catalogue_and_no_other(catalogue: Catalog) -> None:
    assert set(texts_of_the_package()) == set(translations(catalogue))


def test_nothing_is_untranslated_or_fuzzy(catalogue: Catalog) -> None:
    unfinished = [
        message.id
        for message in catalogue
        if message.id
        and (message.fuzzy or not all([message.string] if isinstance(message.string, str) else message.string))
    ]
    assert unfinished == []


def test_placeholders_are_those_of_the_original(catalogue: Catalog) -> None:
    wrong = [str(error) for message in catalogue if message.id for error in message.check(catalogue)]
    assert wrong == []


def test_the_compiled_catalogue_is_up_to_date(catalogue: Catalog) -> None:
    with (FOLDER / "django.mo").open("rb") as file:
        compiled = read_mo(file)
    assert translations(compiled) == translations(catalogue)


def test_states_have_portuguese_names() -> None:
    with translation.override("pt-br"):
        assert str(State.QUEUED.label) == "na fila"
        assert all(str(label) != str(value) for value, label in [*State.choices, *Event.Type.choices])
    with translation.override("en"):
        assert str(State.QUEUED.label) == "queued"


@pytest.mark.django_db
def test_the_admin_speaks_portuguese(client: Client) -> None:
    client.force_login(User.objects.create_superuser("suporte"))
    message = send_mail("Senha", "991122", to="ana@example.com", sensitive=True, language="pt-br")
    listed = client.get(reverse("admin:congressy_mailer_message_changelist")).content.decode()
    for text in ("Mensagens", "Destinatários", "Estado", "na fila", "Quando", "(confidencial)"):
        assert text in listed
    shown = client.get(reverse("admin:congressy_mailer_message_change", args=[message.pk])).content.decode()
    for text in ("Destinatários", "O que aconteceu", "Espera por um worker", "Detalhes", "Suprimir os destinatários"):
        assert text in shown
