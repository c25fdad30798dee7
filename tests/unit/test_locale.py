"""The Brazilian Portuguese catalogue: whole, compiled, and what the admin shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import translation

import congressy_mailer
from congressy_mailer import send_mail
from congressy_mailer.models import Event, State

PACKAGE = Path(congressy_mailer.__file__).parent
FOLDER = PACKAGE / "locale" / "pt_BR" / "LC_MESSAGES"


@pytest.fixture(scope="module")
def catalogue() -> Catalog:
    """What the translators wrote."""
    with (FOLDER / "django.po").open("rb") as file:
        return read_po(file, abort_invalid=True)


def test_every_text_of_the_package_is_in_the_catalogue_and_no_other(catalogue: Catalog) -> None:
    extracted = extract_from_dir(
        PACKAGE,
        method_map=[("**.py", "python")],
        keywords={"_": None, "gettext": None, "gettext_lazy": None},
    )
    assert {message for _, _, message, _, _ in extracted} == {message.id for message in catalogue if message.id}


def test_nothing_is_untranslated_or_fuzzy(catalogue: Catalog) -> None:
    unfinished = [message.id for message in catalogue if message.id and (message.fuzzy or not message.string)]
    assert unfinished == []


def test_the_compiled_catalogue_is_up_to_date(catalogue: Catalog) -> None:
    with (FOLDER / "django.mo").open("rb") as file:
        compiled = read_mo(file)
    assert {message.id: message.string for message in compiled if message.id} == {
        message.id: message.string for message in catalogue if message.id
    }


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
    for text in ("Mensagens", "Destinatários", "Estado", "na fila", "Tentativas", "(confidencial)"):
        assert text in listed
    shown = client.get(reverse("admin:congressy_mailer_message_change", args=[message.pk])).content.decode()
    for text in ("Envelope", "Horários", "Opções", "Próxima verificação em", "Anexos", "Eventos"):
        assert text in shown
