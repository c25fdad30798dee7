"""The pages of the inbox, on the site and as files that need no server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.template.loader import render_to_string
from django.urls import reverse

from .reading import Envelope, File, read_letters

#: No scripts, no forms, nothing from elsewhere. A frame made with ``srcdoc`` inherits it (CSP Level 3 §7.8), so it
#: holds for the mail, too, and keeps images from telling their server who reads.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-src 'self'; base-uri 'none'"


@dataclass(frozen=True)
class PageUrls:
    """Where the pages and files are."""

    index: str
    letter: Callable[[Envelope], str]
    source: Callable[[Envelope], str]
    file: Callable[[Envelope, File], str]

    @classmethod
    def of_site(cls) -> PageUrls:
        """On the running site."""
        return cls(
            index=reverse("inbox"),
            letter=lambda letter: reverse("letter", args=[letter.mail.number]),
            source=lambda letter: reverse("source", args=[letter.mail.number]),
            file=lambda letter, file: reverse("attachment", args=[letter.mail.number, file.number]),
        )

    @classmethod
    def of_files(cls) -> PageUrls:
        """In a folder, beside the ``.eml`` files."""
        return cls(
            index="index.html",
            letter=lambda letter: f"{letter.mail.number:06}.html",
            source=lambda letter: letter.mail.file_name,
            file=lambda letter, file: f"attachments/{letter.mail.number:06}-{file.number}-{file.name}",
        )

    def list_entries(self, letters: Iterable[Envelope]) -> list[dict[str, Any]]:
        """What the list of mails shows."""
        return [{"letter": letter, "address": self.letter(letter)} for letter in letters]

    def page_context(self, letter: Envelope) -> dict[str, Any]:
        """What the page of a mail shows."""
        return {
            "letter": letter,
            "index": self.index,
            "source": self.source(letter),
            "files": [{"file": file, "address": self.file(letter, file)} for file in letter.files],
        }


def write_pages(directory: Path) -> Path:
    """Write a page for each mail that is stored in a folder, its attachments, and a list of all.

    Returns:
        Path of the list.
    """
    urls = PageUrls.of_files()
    letters = read_letters(directory)
    (directory / "attachments").mkdir(exist_ok=True)
    for letter in letters:
        page = render_to_string("inbox/letter.html", {**urls.page_context(letter), "policy": POLICY})
        (directory / urls.letter(letter)).write_text(page, encoding="utf-8")
        for file in letter.files:
            (directory / urls.file(letter, file)).write_bytes(file.content)
    index = directory / urls.index
    context = {"letters": urls.list_entries(letters), "policy": POLICY}
    index.write_text(render_to_string("inbox/list.html", context), encoding="utf-8")
    return index
