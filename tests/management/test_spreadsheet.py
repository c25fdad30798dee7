"""Tables of recipients as spreadsheet programs write them, and what people are told about those that are wrong."""

from __future__ import annotations

import csv
import io
import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from congressy_mailer.management.spreadsheet import Row, Spreadsheet, SpreadsheetError, variable_name
from tests.support.fuzzing import examples

pytestmark = pytest.mark.usefixtures("english")

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file, given its text or its bytes."""

    def write(content: str | bytes, encoding: str = "utf-8") -> Path:
        path = tmp_path / "people.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write


def rows(path: Path, **options: str) -> list[Row]:
    return list(Spreadsheet(path, **options).rows())


def complaint(path: Path, **options: str) -> str:
    with pytest.raises(SpreadsheetError) as caught:
        rows(path, **options)
    return str(caught.value)


TEXT = "Nome completo;E-mail;Cidade\nJoão da Conceição;joao@example.com;São Paulo\n"


@pytest.mark.parametrize(
    ("content", "encoding", "delimiter"),
    [
        # Excel in Brazil: "CSV (separado por vírgulas)", "CSV UTF-8" and "Texto Unicode".
        (TEXT.replace("\n", "\r\n").encode("cp1252"), "cp1252", ";"),
        (TEXT.replace("\n", "\r\n").encode("utf-8-sig"), "utf-8-sig", ";"),
        (TEXT.replace(";", "\t").replace("\n", "\r\n").encode("utf-16"), "utf-16", "\t"),
        # LibreOffice and Google.
        (TEXT.replace(";", ",").encode(), "utf-8-sig", ","),
        # What Excel reads without asking, and an old Mac.
        (f"sep=;\r\n{TEXT}".encode("cp1252"), "cp1252", ";"),
        (TEXT.replace("\n", "\r").encode(), "utf-8-sig", ";"),
    ],
)
def test_each_program_s_own_way_is_recognised(content: bytes, encoding: str, delimiter: str, write: Write) -> None:
    sheet = Spreadsheet(write(content))
    assert (sheet.encoding, sheet.delimiter, sheet.email_column) == (encoding, delimiter, "E-mail")
    variables = {"nome_completo": "João da Conceição", "e_mail": "joao@example.com", "cidade": "São Paulo"}
    assert list(sheet.rows()) == [Row(2, "joao@example.com", variables)]


CELL = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from(';,\t"\r\n '),
    max_size=12,
)


def encodable(values: Sequence[Sequence[str]], encoding: str) -> bool:
    try:
        "".join(map("".join, values)).encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@settings(max_examples=examples(150), deadline=None)
@given(
    table=st.integers(0, 4).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=6)),
    delimiter=st.sampled_from(";,\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    data=st.data(),
)
def test_whatever_is_written_is_read(
    table: list[list[str]], delimiter: str, encoding: str, quoting: Any, line_end: str, data: Any
) -> None:
    width = len(table[0]) if table else 0
    # A name of the header may be quoted and broken like any cell, as long as it is one's own.
    header = data.draw(st.lists(CELL, min_size=width, max_size=width, unique_by=variable_name))
    assume(not {"email", "e_mail", "mail"} & set(map(variable_name, header)) and "" not in map(variable_name, header))
    written = [["E-mail", *header], *(["ana@example.com", *cells] for cells in table)]
    assume(encodable(written, encoding))
    # Python's own writer leaves out the quotation marks that a lone carriage return needs.
    assume(quoting == csv.QUOTE_ALL or line_end == "\r\n" or "\r" not in "".join(map("".join, written)))
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=line_end).writerows(written)
    content = text.getvalue().encode(encoding)
    if encoding == "cp1252":
        # What happens to be UTF-8 as well is UTF-8.
        assume(content.isascii() or not _is_utf8(content))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "people.csv")
        path.write_bytes(content)
        read = [(row.number, row.problem, list(row.variables.values())) for row in Spreadsheet(path).rows()]
    stripped = [["ana@example.com", *(cell.strip() for cell in cells)] for cells in table]
    assert read == [(number, "", cells) for number, cells in enumerate(stripped, 2)]


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("column", "variable"),
    [
        ("Nome completo", "nome_completo"),
        ("Endereço de e-mail", "endereco_de_e_mail"),
        ("  Situação (2024)  ", "situacao_2024"),
        ("1ª opção", "column_1a_opcao"),
        ("_id", "id"),
        ("Straße", "straße"),
        ("ÇÃO", "cao"),
        ("İstanbul", "istanbul"),
        ("姓名", "姓名"),
        ("#", ""),
        ("", ""),
    ],
)
def test_a_column_is_a_variable(column: str, variable: str) -> None:
    assert variable_name(column) == variable


@pytest.mark.parametrize(
    "name", ["email", "E-MAIL", "Mail", "e mail", "Endereço de e-mail", "ENDEREÇO DE EMAIL", "Email address"]
)
def test_the_column_of_the_address_is_found_by_its_name(name: str, write: Write) -> None:
    assert rows(write(f"Nome,{name}\nAna,ana@example.com\n"))[0].to == "ana@example.com"


def test_the_column_of_the_address_may_be_told(write: Write) -> None:
    path = write("Nome,Contato,E-mail\nAna,ana@example.com,x\n")
    assert rows(path, email_column="contato")[0].to == "ana@example.com"
    assert complaint(path, email_column="Telefone") == (
        'people.csv, row 1: there is no column "Telefone". The columns are "Nome", "Contato", "E-mail".'
    )


def test_a_header_that_holds_other_delimiters_is_told_by_its_address(write: Write) -> None:
    path = write("Nome, como no crachá, completo;E-mail\nAna;ana@example.com\n")
    assert rows(path)[0].variables == {"nome_como_no_cracha_completo": "Ana", "e_mail": "ana@example.com"}


def test_a_table_of_one_column_is_not_taken_apart(write: Write) -> None:
    assert [row.to for row in rows(write('E-mail\n"""Silva, Ana"" <ana@example.com>"\nbia@example.com\n'))] == [
        '"Silva, Ana" <ana@example.com>', "bia@example.com",
    ]  # fmt: skip


def test_what_is_empty_is_left_out_and_counted_as_programs_count(write: Write) -> None:
    path = write(
        '\n;;\nE-mail;Nome;;\n\nana@example.com;"Ana\nSilva";;\n;;;\n  bia@example.com  ;Bia\ncai@example.com\n'
    )
    assert [(row.number, row.to, row.variables["nome"], row.problem) for row in rows(path)] == [
        (5, "ana@example.com", "Ana\nSilva", ""),
        (7, "bia@example.com", "Bia", ""),
        (8, "cai@example.com", "", ""),
    ]


def test_rows_that_no_mail_can_be_made_of_say_why(write: Write) -> None:
    text = (
        "Nome,E-mail\nAna,\nAna,ana@\nJoão,joão@example.com\nAna,a@x.com; b@x.com\n"
        f"Ana,ana@example.com,,mais\nAna,{'a' * 70}\nAna,ana@example.com,,\n"
    )
    assert [row.problem for row in rows(write(text))] == [
        'column "E-mail": it is empty',
        "column \"E-mail\": 'ana@' is not one mail address",
        "column \"E-mail\": 'joão@example.com' has a letter before the @ that no address may have, such as one with an "
        "accent",
        "column \"E-mail\": 'a@x.com; b@x.com' is not one mail address",
        "it has 4 cells, and there are 2 columns. Put text that holds the delimiter in quotation marks.",
        f"column \"E-mail\": '{'a' * 59}…' is not one mail address",
        "",
    ]


def test_what_a_terminal_would_obey_is_not_shown_as_it_is(write: Write) -> None:
    assert "\x1b" not in rows(write("E-mail\n\x1b[2Jx\n"))[0].problem


def test_an_address_may_have_a_name(write: Write) -> None:
    path = write(
        'Nome,E-mail\nAna Silva,ana@example.com\n"Silva, Ana",Ana <ANA@example.com>\n,bia@example.com\n'
        f'"Ana\nMaria",ana@example.com\n{"a" * 301},ana@example.com\n'
    )
    read = rows(path, name_column="nome")
    assert [row.to for row in read] == [
        "Ana Silva <ana@example.com>", '"Silva, Ana" <ANA@example.com>', "bia@example.com",
        "Ana Maria <ana@example.com>", "",
    ]  # fmt: skip
    assert read[0].address == read[1].address == "ana@example.com"
    assert read[4].problem == f"column \"Nome\": '{'a' * 59}…' cannot be the name of an address"
    assert Spreadsheet(path, name_column="nome").name_column == "Nome"


def test_a_name_may_hold_what_nobody_sees(write: Write) -> None:
    path = write('Nome,E-mail\n" Ana\t \x7fSilva ",ANA@Exâmple.com\n"=?utf-8?q?a?=",bia@example.com\n')
    read = rows(path, name_column="nome")
    assert [row.to for row in read] == ["Ana Silva <ANA@xn--exmple-xta.com>", '"=?utf-8?q?a?=" <bia@example.com>']
    assert read[0].address == "ana@xn--exmple-xta.com"


def test_a_header_that_says_too_little_or_too_much_is_an_error(write: Write) -> None:
    assert complaint(write("")) == "people.csv is empty: its first row must name the columns."
    assert complaint(write("\n;;\n")) == "people.csv is empty: its first row must name the columns."
    assert complaint(write("ana@example.com,Ana\n")) == (
        'people.csv, row 1: no column has a name for addresses, such as "E-mail". The columns are "ana@example.com", '
        '"Ana". Name the one with the addresses by --email-column; if the names of the columns are missing, add them '
        "as the first row."
    )
    assert complaint(write("\nEmail,E-mail\n")) == (
        'people.csv, row 2: several columns may hold the addresses: "Email", "E-mail". Name the right one by '
        "--email-column."
    )
    assert complaint(write("E-mail,Opção 1,opcao_1\n")) == (
        'people.csv, row 1: the columns "Opção 1" and "opcao_1" would both be the variable opcao_1. Rename one of them.'
    )


def test_a_table_that_is_broken_is_an_error_that_says_where(write: Write) -> None:
    for broken in ('bia@example.com,"Bia\n', 'bia@example.com,"Bia" Silva\n', f'bia@example.com,"{"a" * 140_000}\n'):
        assert complaint(write(f"E-mail,Nome\nana@example.com,Ana\n{broken}")).startswith(
            "people.csv, row 3: a quotation mark opens a cell and is not closed where the cell ends."
        )
    assert complaint(write('"E-mail,Nome\n')).startswith("people.csv, row 1: a quotation mark")


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04\x14\0\x06\0",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"E-mail\nana@\0example.com\n",
        b"E-mail\n\x81\xff\n",
    ],
    ids=["xlsx", "xls", "NUL", "neither encoding"],
)
def test_a_file_that_is_no_text_is_an_error_that_says_what_to_do(content: bytes, write: Write) -> None:
    assert complaint(write(content)) == (
        "people.csv is not a table in text form. In the spreadsheet program save it as CSV, in UTF-8 where you are "
        "asked."
    )


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    assert complaint(tmp_path / "none.csv").endswith("none.csv cannot be read: No such file or directory")
    assert complaint(tmp_path).endswith(" is not a file; it is read more than once.")


def test_a_long_table_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = tmp_path / f"{count}.csv"
        with path.open("w", encoding="cp1252") as file:
            file.write("E-mail;Cidade\n")
            file.writelines(f"ana{number}@example.com;São Paulo\n" for number in range(count))
        tracemalloc.start()
        try:
            assert sum(1 for row in Spreadsheet(path).rows() if not row.problem) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(12_000) < peak(6000) + 50_000
