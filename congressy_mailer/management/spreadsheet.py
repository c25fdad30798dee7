"""A table of recipients as spreadsheet programs export it, read a row at a time.

Excel in Brazil writes semicolons, in Windows-1252 or in UTF-8 with a byte order mark, and as "Unicode text" tabs in
UTF-16; LibreOffice and Google write commas in UTF-8. The file is read several times, and never as a whole.
"""

from __future__ import annotations

import codecs
import csv
import re
import unicodedata
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path

from django.core.management.base import CommandError
from django.utils.translation import gettext as _

from ..exceptions import InvalidAddress
from ..mime.addresses import address_with_name, comparable_address, normalise_address

#: Encodings that a file may be in, by Python's name for them, the likelier one first.
ENCODINGS = {"utf-8-sig": "UTF-8", "cp1252": "Windows-1252", "utf-16": "UTF-16"}

_DELIMITERS = (";", ",", "\t")
# The unit separator, which no spreadsheet program writes: so a table of one column is not taken apart.
_NO_DELIMITER = "\x1f"
# Excel's own way to say it, on a line before the table.
_SEPARATOR_LINE = re.compile("sep=(.)[\r\n]*", re.IGNORECASE)

# What xlsx and ods files begin with (they are ZIP archives), and xls.
_WORKBOOK_SIGNATURES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_BLOCK_BYTES = 1 << 16

# Columns of addresses, as variables.
_ADDRESS_COLUMN_NAMES = {
    "email", "e_mail", "mail", "email_address", "e_mail_address", "endereco_de_email", "endereco_de_e_mail",
    "endereco_eletronico", "correio_eletronico",
}  # fmt: skip

# Enough to recognise a value by.
_MAX_SHOWN_LENGTH = 60


class SpreadsheetError(CommandError):
    """The file cannot be read as a table of recipients; says where and what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    #: Its number as spreadsheet programs show it.
    number: int
    #: The address in its normal form, with the name where there is one.
    to: str = field(repr=False)
    #: The cells, by the name of the column's variable.
    variables: Mapping[str, str] = field(repr=False)
    #: Why no mail can be made of it; empty where one can.
    problem: str = ""

    @property
    def address(self) -> str:
        """The address alone, the same for everybody who writes it in another case or with another name."""
        return comparable_address(self.to)


class Spreadsheet:
    """A file with a table of recipients, recognised but not read yet.

    Args:
        path: the file.
        email_column: name of the column of addresses; empty: found by its name.
        name_column: name of the column that the address is given a name from; empty: none.
        read_cell: makes of a cell below the header what it stands for.

    Raises:
        SpreadsheetError: it is not such a file, or has no such columns.
    """

    def __init__(
        self,
        path: Path,
        *,
        email_column: str = "",
        name_column: str = "",
        read_cell: Callable[[str], str] = str,
    ) -> None:
        self.path = path
        self._read_cell = read_cell
        #: One of :data:`ENCODINGS`.
        self.encoding, self.sha256 = _inspect(path)
        self.delimiter, self._header_row, self._header = self._detect_format(email_column)
        self._variables = self._map_variables()
        self._address_index = self._column_index(email_column) if email_column else self._find_address_column()
        self._name_index = self._column_index(name_column) if name_column else None

    @property
    def email_column(self) -> str:
        """Name of the column of addresses."""
        return self._header[self._address_index]

    @property
    def name_column(self) -> str:
        """Name of the column of names; empty where there is none."""
        return "" if self._name_index is None else self._header[self._name_index]

    @property
    def variables(self) -> dict[str, str]:
        """Names of the columns, by the template's variables that they are."""
        return {variable: self._header[position] for variable, position in self._variables.items()}

    def rows(self) -> Iterator[Row]:
        """The rows below the header, but for empty ones.

        Raises:
            SpreadsheetError: the table is broken from some row on.
        """
        for number, cells in _table(self.path, self.encoding, self.delimiter):
            if number > self._header_row:
                yield self._row(number, cells)

    def _detect_format(self, email_column: str) -> tuple[str, int, list[str]]:
        """Delimiter, and the row of the header with its number: with the right delimiter one of them is the address."""
        headers = dict(_headers(self.path, self.encoding))
        if not headers:
            raise SpreadsheetError(
                _("%(file)s is empty: its first row must name the columns.") % {"file": self.path.name}
            )

        def likelihood(delimiter: str) -> tuple[bool, bool, int]:
            _number, cells, is_consistent = headers[delimiter]
            # Names are compared without punctuation, so that "E-mail," would do as well as "E-mail".
            return bool(_matching_columns(cells, email_column)), is_consistent, len(cells)

        delimiter = max(headers, key=likelihood)
        number, header, _is_consistent = headers[delimiter]
        return delimiter if len(header) > 1 else _NO_DELIMITER, number, header

    def _map_variables(self) -> dict[str, int]:
        positions: dict[str, int] = {}
        for position, column in enumerate(self._header):
            variable = variable_name(column)
            if variable in positions:
                details = {"first": self._header[positions[variable]], "second": column, "variable": variable}
                raise self._error(
                    _(
                        'the columns "%(first)s" and "%(second)s" would both be the variable %(variable)s. Rename one '
                        "of them."
                    )
                    % details
                )
            if variable:
                positions[variable] = position
        return positions

    def _find_address_column(self) -> int:
        positions = _matching_columns(self._header, "")
        if len(positions) == 1:
            return positions[0]
        details = {"columns": self._quote_columns(positions or range(len(self._header)))}
        if positions:
            raise self._error(
                _("several columns may hold the addresses: %(columns)s. Name the right one by --email-column.")
                % details
            )
        raise self._error(
            _(
                'no column has a name for addresses, such as "E-mail". The columns are %(columns)s. Name the one with '
                "the addresses by --email-column; if the names of the columns are missing, add them as the first row."
            )
            % details
        )

    def _column_index(self, column: str) -> int:
        positions = _matching_columns(self._header, column)
        if not positions:
            raise self._error(
                _('there is no column "%(column)s". The columns are %(columns)s.')
                % {"column": column, "columns": self._quote_columns(range(len(self._header)))}
            )
        return positions[0]

    def _quote_columns(self, positions: Sequence[int]) -> str:
        return ", ".join(f'"{truncate(self._header[position])}"' for position in positions if self._header[position])

    def _error(self, problem: str) -> SpreadsheetError:
        details = {"file": self.path.name, "row": self._header_row, "what": problem}
        return SpreadsheetError(_("%(file)s, row %(row)d: %(what)s") % details)

    def _row(self, number: int, cells: Sequence[str]) -> Row:
        cells = [*map(self._read_cell, cells), *[""] * (len(self._header) - len(cells))]
        variables = {variable: cells[position] for variable, position in self._variables.items()}
        if any(cells[len(self._header) :]):
            problem = _(
                "it has %(cells)d cells, and there are %(columns)d columns. Put text that holds the delimiter in "
                "quotation marks."
            ) % {"cells": len(cells), "columns": len(self._header)}
            return Row(number, "", variables, problem)
        address = cells[self._address_index]
        try:
            to = normalise_address(address, self.email_column)
        except InvalidAddress:
            return Row(number, "", variables, _in_column(self.email_column, _address_problem(address)))
        name = "" if self._name_index is None else " ".join(cells[self._name_index].split())
        try:
            return Row(number, address_with_name(name, to, self.name_column) if name else to, variables)
        except InvalidAddress:
            column = self._header[self._name_index or 0]
            problem = _("%(value)r cannot be the name of an address") % {"value": truncate(name)}
            return Row(number, "", variables, _in_column(column, problem))


def variable_name(column: str) -> str:
    """The template's variable for a column: ``Nome completo`` → ``nome_completo``; empty where it has no letters."""
    # Decomposed, accents are characters of their own.
    plain = "".join(one for one in unicodedata.normalize("NFKD", column) if not unicodedata.combining(one))
    name = re.sub(r"[\W_]+", "_", plain.lower()).strip("_")
    # Django would read a number; and a variable may not begin with an underscore.
    return f"column_{name}" if name[:1].isnumeric() else name


def truncate(value: str) -> str:
    """Enough of a value to recognise it by."""
    return value if len(value) <= _MAX_SHOWN_LENGTH else f"{value[: _MAX_SHOWN_LENGTH - 1]}…"


def _inspect(path: Path) -> tuple[str, str]:
    """Encoding and SHA-256 of a file."""
    if path.exists() and not path.is_file():
        raise SpreadsheetError(_("%(file)s is not a file; it is read more than once.") % {"file": path})
    digest = sha256()
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            names = ["utf-16"] if is_utf16 else ["utf-8-sig", "cp1252"]
            decoders = {name: codecs.getincrementaldecoder(name)() for name in names}
            for block in chain(iter(lambda: file.read(_BLOCK_BYTES), b""), [b""]):
                digest.update(block)
                for name, decoder in list(decoders.items()):
                    try:
                        text = decoder.decode(block, final=not block)
                    except UnicodeDecodeError:
                        text = "\0"
                    # No text holds it, and no database takes it.
                    if "\0" in text:
                        del decoders[name]
    except OSError as error:
        raise SpreadsheetError(
            _("%(file)s cannot be read: %(error)s") % {"file": path, "error": error.strerror or error}
        ) from error
    if decoders and not start.startswith(_WORKBOOK_SIGNATURES):
        return next(iter(decoders)), digest.hexdigest()
    raise SpreadsheetError(
        _(
            "%(file)s is not a table in text form. In the spreadsheet program save it as CSV, in UTF-8 where you are "
            "asked."
        )
        % {"file": path.name}
    )


def _headers(path: Path, encoding: str) -> Iterator[tuple[str, tuple[int, list[str], bool]]]:
    """For each delimiter that the file may have, its first row with a name in it.

    Yields:
        The delimiter; the row's number, its cells, and whether the row below has as many cells.
    """
    with path.open(encoding=encoding, newline="") as file:
        separator = _SEPARATOR_LINE.fullmatch(file.readline(_MAX_SHOWN_LENGTH))
    failure: SpreadsheetError | None = None
    any_header = False
    for delimiter in separator[1] if separator else _DELIMITERS:
        with closing(_table(path, encoding, delimiter)) as table:
            try:
                header = next((row for row in table if any(map(variable_name, row[1]))), None)
                if header:
                    any_header = True
                    yield delimiter, (*header, _next_row_has(len(header[1]), table))
            except SpreadsheetError as error:
                failure = error
    if failure and not any_header:
        raise failure


def _next_row_has(cells: int, table: Iterator[tuple[int, list[str]]]) -> bool:
    try:
        row = next(table, None)
    except SpreadsheetError:
        return False
    return row is None or len(row[1]) == cells


def _table(path: Path, encoding: str, delimiter: str) -> Generator[tuple[int, list[str]], None, None]:
    """The rows that are not empty, with their numbers."""
    number = 0
    with path.open(encoding=encoding, newline="") as file:
        first = file.readline()
        lines = file if _SEPARATOR_LINE.fullmatch(first) else chain([first], file)
        try:
            for number, cells in enumerate(csv.reader(lines, delimiter=delimiter, strict=True), 1):
                stripped = [cell.strip() for cell in cells]
                if any(stripped):
                    yield number, stripped
        except csv.Error as error:
            raise SpreadsheetError(
                _(
                    "%(file)s, row %(row)d: a quotation mark opens a cell and is not closed where the cell ends. Close "
                    "it there; within quotation marks, write two for one that is part of the text."
                )
                % {"file": path.name, "row": number + 1}
            ) from error


def _matching_columns(header: Sequence[str], column: str) -> list[int]:
    """Columns of this name; without one, columns that are named as addresses are."""
    if column and column in header:
        return [header.index(column)]
    names = {variable_name(column)} - {""} if column else _ADDRESS_COLUMN_NAMES
    return [position for position, name in enumerate(header) if variable_name(name) in names]


def _in_column(column: str, problem: str) -> str:
    return _('column "%(column)s": %(problem)s') % {"column": column, "problem": problem}


def _address_problem(value: str) -> str:
    if not value:
        return _("it is empty")
    details = {"value": truncate(value)}
    if value.count("@") == 1 and not value.partition("@")[0].isascii():
        return _("%(value)r has a letter before the @ that no address may have, such as one with an accent") % details
    return _("%(value)r is not one mail address") % details
