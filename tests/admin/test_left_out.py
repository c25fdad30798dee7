"""Why a batch has left recipients out, as support reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import translation
from django.utils.functional import lazy
from hypothesis import given, settings
from hypothesis import strategies as st

from congressy_mailer import Attachment, Recipient, send_bulk
from congressy_mailer.admin.left_out import shown_problem
from congressy_mailer.admin.left_out_texts import ERRORS, REWORDED
from congressy_mailer.exceptions import InvalidAddress
from congressy_mailer.mime.addresses import read_address
from tests.support.error_texts import MARK, Place, Sources
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
    ("=?x?q?a?= <ana@example.com>", "O nome '=?x?q?a?= ' não pode ser decodificado"),
    ("x" * 6001, "Tem mais de 6.000 caracteres: 'xxx"),
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

#: What of the package reads a recipient.
READERS = [
    Place("submission.recipients", "RecipientParser.parse"),
    Place("submission.batch_writer", "BatchWriter._prepare_attachments"),
    Place("submission.batch_writer", "BatchWriter._without_duplicates"),
]
NOT_OF_A_RECIPIENT = [
    # The batch's template was looked at when it was opened.
    Place("content.templates", "_check_name"),
    # A storage's errors end the call.
    Place("submission.attachments", "store_attachment"),
    # Rows and enums are read by workers.
    Place("content.references", "Rows.get"),
    Place("content.references", "enum_member"),
]

ENGLISH = re.compile(r"\b(the|this|of|is|was|must|not|with|and|has|have|holds|takes|which|that|it|its)\b")


@pytest.fixture
def portuguese() -> Iterator[None]:
    with translation.override("pt-br"):
        yield


@cache
def own_reasons() -> frozenset[str]:
    sources = Sources()
    errors = {text for _, text in sources.texts(sources.reached(READERS, but=NOT_OF_A_RECIPIENT))}
    return frozenset(errors | sources.given(Place("submission.batch_writer", "BatchWriter._skip_recipient"), "reason"))


@pytest.mark.once
@pytest.mark.usefixtures("portuguese")
def test_each_reason_of_the_package_is_shown_in_portuguese() -> None:
    reasons = own_reasons()
    # As many as there are, so that none is missed where the reading of the source fails.
    assert len(reasons) > 100
    assert [reason for reason in sorted(reasons) if shown_problem(reason) == reason] == []
    halves = {reason: ENGLISH.findall(shown_problem(reason)) for reason in sorted(reasons)}
    assert {reason: words for reason, words in halves.items() if words} == {}


@pytest.mark.once
def test_no_reason_is_there_that_the_package_does_not_make() -> None:
    with translation.override("pt-br"):
        shown = {shown_problem(reason) for reason in own_reasons()}
        for text in (*REWORDED.values(), *ERRORS):
            pattern = re.compile(re.sub(r"%\\\((\w+)\\\)s", ".+", re.escape(translation.gettext(text))))
            assert any(map(pattern.fullmatch, shown)), text


@pytest.mark.once
@pytest.mark.usefixtures("portuguese")
def test_each_reason_is_shown_in_portuguese_where_its_end_is_missing() -> None:
    long = "x" * 400
    for reason in sorted(own_reasons()):
        parts = reason.split(MARK)
        for count in range(2, len(parts)):
            # Cut within the last of these values, and in the middle of what follows it.
            begun = MARK.join(parts[:count])
            for stored in (f"{begun}{long}…", f"{begun}{long}{parts[count][: len(parts[count]) // 2]}…"):
                shown = shown_problem(stored)
                assert "…" in shown
                assert shown == stored or not ENGLISH.search(shown), stored


@pytest.mark.parametrize(("address", "shown"), REFUSED)
@pytest.mark.parametrize("argument", ["to", "cc[12]"])
def test_each_kind_of_refusal_is_shown_in_portuguese(address: str, shown: str, argument: str) -> None:
    with pytest.raises(InvalidAddress) as refusal, translation.override("pt-br"):
        read_address(address, argument)
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


@pytest.mark.usefixtures("portuguese")
@pytest.mark.parametrize("reason", ["The moon is 100 % full.", "The moon: it shines…", "", "…", "% (x)s is"])
def test_what_is_not_known_stays_as_it_was_stored(reason: str) -> None:
    assert shown_problem(reason) == reason


@dataclass
class Ticket:
    number: int


def _fail() -> str:
    raise LookupError("no such seat " + "z" * 600)


def of(**values: Any) -> Recipient:
    return Recipient(to="ana@example.com", **values)


#: Recipients, and how it is shown that they are left out.
LEFT_OUT: list[tuple[Any, str]] = [
    (7, "É do tipo int; informe um endereço, (endereço, contexto) ou um congressy_mailer.Recipient."),
    (of(cc="eva@"), "Não é um endereço de e-mail: 'eva@'."),
    (of(metadata={"a": {"b": "x\n"}}), "metadata['a']['b'] contém uma quebra de linha ou um caractere de controle na"),
    (of(metadata={"x\n": 1}), "metadata: a chave 'x\\n' contém uma quebra de linha"),
    (of(metadata={"a": "x" * 2000}), "metadata['a'] ocupa 2.002 caracteres no cabeçalho X-MSYS-API, em que"),
    (of(attachments=["/nowhere/boleto.pdf"]), "attachments[0]: não pode ser lido: FileNotFoundError: "),
    (of(attachments=[("a\n", b"")]), "attachments[0]: o nome do arquivo contém uma quebra de linha ou"),
    (
        of(attachments=[Attachment("big.pdf", b"x" * 11)]),
        "Com attachments[0] ('big.pdf'), os anexos chegam a 11 bytes; o",
    ),
    (of(alternatives=[("x", "text/html")]), "alternatives[0]: informe text/html em html_message=."),
    (of(language="xx"), "language='xx' não é um idioma que o Django conheça"),
    (of(language="de"), "Não existe o template 'welcome'. Procurado: welcome.de.html"),
    (of(context={"a": Ticket(1)}), 'context["a"] é do tipo Ticket, uma dataclass: passe'),
    (of(context={"a": [{b"": 1}]}), 'context["a"][0] tem uma chave do tipo bytes; ela precisa'),
    (of(context={"a": {"\0": 1}}), 'uma chave de context["a"] contém o caractere '),
    (
        of(context={"a": lazy(_fail, str)()}),
        'context["a"] é um valor lazy que não pode ser avaliado: LookupError: no such',
    ),
]


@pytest.mark.django_db
@pytest.mark.usefixtures("published")
def test_recipients_that_are_wrong_in_many_ways_are_explained(
    admin_client: Client, settings: Any, tmp_path: Path
) -> None:
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]
    for name in ("welcome.pt-br.txt", "welcome.pt-br_subject.txt", "welcome_subject.txt"):
        (tmp_path / name).write_text("x")
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "MAX_ATTACHMENT_BYTES": 10}
    batch = send_bulk(
        [recipient for recipient, _ in LEFT_OUT], template="welcome", language="pt-br", on_invalid="skip"
    )  # fmt: skip
    batch.refresh_from_db()
    assert batch.skipped == len(LEFT_OUT)
    page = admin_client.get(reverse("admin:congressy_mailer_batch_change", args=[batch.pk]))
    for (_, words), (_, shown) in zip(LEFT_OUT, page.context["problems"], strict=True):
        assert shown.startswith(words)
        assert len(shown) < 550
    # The last one is longer than what is stored.
    assert len(batch.problems[-1]["reason"]) == 500
    assert shown.endswith("zzz…")


@pytest.mark.django_db
def test_the_page_of_a_batch_says_why_in_the_readers_language(admin_client: Client, settings: Any) -> None:
    settings.LANGUAGE_CODE = "pt-br"
    batch = send_bulk(
        ["eva@example.com", "eva@example.com", "davi@", "josé@example.com", "x" * 300], subject="x", message="y",
        key="k", on_invalid="skip",
    )  # fmt: skip
    page = admin_client.get(reverse("admin:congressy_mailer_batch_change", args=[batch.pk])).content.decode()
    assert "Não é um endereço de e-mail: &#x27;davi@&#x27;." in page
    assert "não pode ter acentos" in page
    assert "Está duas vezes entre os destinatários" in page
    assert "is not a mail address" not in page
    assert f"<strong>{'x' * 199}…</strong>" in page
