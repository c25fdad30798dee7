"""HTML → the plain text that goes beside it, for mails whose template has no ``.txt``."""

from __future__ import annotations

import re
from html import unescape

from html_to_markdown import ConversionOptions, PreprocessingOptions, convert

_OPTIONS = ConversionOptions(
    output_format="plain",
    extract_metadata=False,
    # The library otherwise drops navigation and forms, which is right for web pages and wrong for mails.
    preprocessing=PreprocessingOptions(enabled=False),
    # Outlook's way of hiding a preheader; display:none, visibility:hidden and [hidden] are left out by themselves.
    exclude_selectors=['[style*="mso-hide"]'],
)
#: Characters of HTML that are read. Mail programs clip a mail long before (Gmail at 102 kB), and broken HTML costs
#: the library time that grows with the square of the length: 4 s at this one, in the worst case that was found.
_MAX_HTML_LENGTH = 1_000_000

_BINARY_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
# Every alternative fails at the next "<" at the latest, or runs to the end of the text and matches there: the time
# stays proportional to the length, whatever the HTML is.
_TOKEN = re.compile(
    r"""
      (?P<dropped>  <!--.*?(?:-->|\Z) | <(?P<name>style|script|title)\b.*?(?:</(?P=name)\b[^<>]*+>|\Z) )
    | (?P<pre>      <pre\b.*?(?:</pre\b|\Z) )
    | (?P<opening>  <a(?=[\s/>]) (?: [^<>"'] | "[^"<]*+" | '[^'<]*+' )*+ > )
    | (?P<closing>  </a\b[^<>]*+> )
    | (?P<block>    </?(?:br|center|div|h[1-6]|li|ol|p|t[dhr]|table|tbody|ul)\b[^<>]*+> ) \s*+
    | (?P<newline>  [\r\n]+ )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_HREF = re.compile(r"""[\s"']href\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*+>")
_SHOWN_SCHEMES = ("http://", "https://", "mailto:")
_BLANK_LINES = re.compile(r"\n{3,}")
#: A column wider than this, in characters, belongs to a layout and not to a list of figures: it is not padded.
_MAX_COLUMN_WIDTH = 48


def text_from_html(html: str) -> str:
    """Make readable plain text of a mail's HTML.

    Links keep their address in angle brackets (RFC 3986, appendix C), cells of a table stand in columns, an image
    is shown by its ``alt``. Styles, scripts, the title and hidden parts, such as a preheader, are left out. What is
    nested more than 1,000 levels deep or comes after the first million characters is left out too: no mail program
    shows it.
    """
    # The library refuses what it takes for a binary file: control characters, lone surrogates, and "%PDF" in front.
    source = "<!DOCTYPE html>" + _BINARY_CHARACTERS.sub("", html[:_MAX_HTML_LENGTH])
    text = convert(_append_link_addresses(source), _OPTIONS).content or ""
    lines = _align(text.split("\n"))
    return _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in lines)).strip()


def _append_link_addresses(html: str) -> str:
    """The HTML on one line outside of ``<pre>``, with the address of each link written behind what it shows."""
    pieces: list[str] = []
    address, label_start, position = "", 0, 0
    for token in _TOKEN.finditer(html):
        pieces.append(html[position : token.start()])
        position = token.end()
        if token["newline"]:
            pieces.append(" ")
        elif token["block"]:
            # Spaces behind it are no text, and the library would begin the next line with one.
            pieces.append(token["block"])
        elif token["pre"]:
            pieces.append(token["pre"])
        elif token["opening"]:
            pieces.append(token["opening"])
            address, label_start = _link_address(token["opening"]), len(pieces)
        elif token["closing"]:
            if address and not _shows(unescape(_TAG.sub("", "".join(pieces[label_start:]))), address):
                pieces.append(f" &lt;{_escape(address)}&gt;")
            pieces.append(token["closing"])
            address = ""
    pieces.append(html[position:])
    return "".join(pieces)


def _link_address(opening: str) -> str:
    href = _HREF.search(opening)
    address = unescape(next(filter(None, href.groups()), "")).strip() if href else ""
    if not address.lower().startswith(_SHOWN_SCHEMES):
        return ""
    if address.lower().startswith("mailto:"):
        return address[len("mailto:") :].partition("?")[0]
    return "".join(address.split())


def _shows(label: str, address: str) -> bool:
    return _without_scheme(address) in _without_scheme(label)


def _without_scheme(address: str) -> str:
    return re.sub(r"^https?://", "", address.strip().lower()).removesuffix("/")


def _escape(address: str) -> str:
    return address.replace("&", "&amp;").replace("<", "%3C").replace(">", "%3E")


def _align(lines: list[str]) -> list[str]:
    """Turn the tabs between the cells of neighbouring rows into columns."""
    aligned: list[str] = []
    rows: list[list[str]] = []
    for line in [*lines, ""]:
        if "\t" in line:
            rows.append([cell.strip() for cell in line.split("\t")])
            continue
        aligned += _columns(rows)
        rows = []
        aligned.append(line)
    return aligned


def _columns(rows: list[list[str]]) -> list[str]:
    widths: dict[int, int] = {}
    for row in rows:
        for column, cell in enumerate(row[:-1]):
            if len(cell) <= _MAX_COLUMN_WIDTH:
                widths[column] = max(widths.get(column, 0), len(cell))
    return [
        "  ".join([*(cell.ljust(widths.get(column, 0)) for column, cell in enumerate(row[:-1])), *row[-1:]])
        for row in rows
    ]
