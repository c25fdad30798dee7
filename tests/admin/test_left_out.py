"""Why a batch has left recipients out, as support reads it."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import translation
from hypothesis import given, settings
from hypothesis import strategies as st

from congressy_mailer import send_bulk
from congressy_mailer.admin.left_out import shown_problem
from congressy_mailer.exceptions import InvalidAddress
from congressy_mailer.mime.addresses import read_address
from tests.support.fuzzing import examples

#: Of each kind of error that an address can be refused with.
REFUSED = [
    ("", "O endereço está vazio"),
    ("ana@", "Não é um endereço de e-mail: 'ana@'."),
    ("a@x.com <b@y.com>", "precisa ficar entre aspas."),
    ("josé@example.com", "A parte antes do @ de 'josé@example.com' não pode ter acentos"),
    ("a" * 65 + "@example.com", "a parte antes do @ tem mais de 64 caracteres"),
    ("a@" + "b." * 130 + "com", "tem mais de 254 caracteres"),
    ("x" * 301 + " <ana@example.com>", "O nome antes de 'ana@example.com' tem mais de 300 caracteres."),
    ("ana@❤.ws", "o domínio não tem forma em ASCII"),
    ("ana@my_host.com", "o domínio só pode ter letras"),
    ("ana@[1.2.3]", "não é um endereço IP entre colchetes"),
    ("ana@192.0.2.1", "nenhum domínio termina em '1', e um endereço IP"),
    ("ana@example.c", "nenhum domínio termina em 'c'."),
    ("root@web1", "Informe 'web1' em CONGRESSY_MAILER"),
    ("=?utf-8?q?ana?=@example.com", "parece um texto codificado"),
    ("x\x00@example.com", "a parte antes do @ não pode ser a de um endereço"),
    ("ana\n@example.com", "Contém uma quebra de linha"),
]


@pytest.mark.parametrize(("address", "shown"), REFUSED)
def test_each_kind_of_refusal_is_shown_in_portuguese(address: str, shown: str) -> None:
    with pytest.raises(InvalidAddress) as refusal, translation.override("pt-br"):
        read_address(address, "to")
    with translation.override("pt-br"):
        assert shown in shown_problem(str(refusal.value))


@settings(max_examples=examples(200), deadline=None)
@given(st.text(max_size=30) | st.from_regex(r"[a-zé\"(<@., ]{0,9}@?[a-z._é\[\]-]{0,12}", fullmatch=True))
def test_no_address_is_refused_in_english(address: str) -> None:
    refusal = ""
    try:
        read_address(address, "to")
    except InvalidAddress as error:
        refusal = str(error)
    with translation.override("pt-br"):
        assert not refusal or shown_problem(refusal) != refusal


def test_what_is_not_known_stays_as_it_was_stored() -> None:
    with translation.override("pt-br"):
        assert shown_problem("Metadata must be a dict, 100 % of them.") == "Metadata must be a dict, 100 % of them."


@pytest.mark.django_db
def test_the_page_of_a_batch_says_why_in_the_readers_language(admin_client: Client, settings: Any) -> None:
    settings.LANGUAGE_CODE = "pt-br"
    batch = send_bulk(
        ["eva@example.com", "eva@example.com", "davi@", "josé@example.com"], subject="x", message="y", key="k",
        on_invalid="skip",
    )  # fmt: skip
    page = admin_client.get(reverse("admin:congressy_mailer_batch_change", args=[batch.pk])).content.decode()
    assert "Não é um endereço de e-mail: &#x27;davi@&#x27;." in page
    assert "não pode ter acentos" in page
    assert "Está duas vezes entre os destinatários" in page
    assert "is not a mail address" not in page
