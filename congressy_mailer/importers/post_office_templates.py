"""Templates that django-post_office keeps in the database, written as files that Django finds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from .queue import model_of, rows_of

# Letters that mean the same on every file system; no part begins with a dot.
_NAME = re.compile(r"\w[\w.@ -]*(?:/\w[\w.@ -]*)*")
_LANGUAGE = re.compile(r"[A-Za-z0-9]+(?:[-_@][A-Za-z0-9]+)*")
_OWN_TAGS = re.compile(r"\{%\s*load\s[^%]*\bpost_office\b")


@dataclass(slots=True)
class WrittenTemplates:
    """What became of the templates."""

    #: Files that were written, or would be.
    written: list[Path] = field(default_factory=list)
    #: Files that were there, with this content.
    known: int = 0
    #: Of each template that stays where it is, which and why.
    left: list[str] = field(default_factory=list)


def write_templates(folder: Path, *, dry_run: bool) -> WrittenTemplates:
    """Write each template, and each of its translations, as the files that :mod:`congressy_mailer.content.templates`
    looks for.

    Args:
        folder: where to; the names of templates may lead into folders below it. No file in it is changed.
        dry_run: write nothing.

    Raises:
        ImportRefused: django-post_office is not installed.
        OSError: a file cannot be written.
    """
    result = WrittenTemplates()
    taken: dict[str, bytes] = {}
    model = model_of("post_office", "EmailTemplate", "django-post_office")
    for row in rows_of(model).order_by("name", "language", "pk"):
        title = f"{row.name} ({row.language})" if row.language else row.name
        problem = _problem(row)
        if problem:
            result.left.append(f"{title}: {problem}")
            continue
        files = {folder / name: text.encode() for name, text in _files(row).items()}
        other = next((path for path, text in files.items() if _content(path, taken) not in (None, text)), None)
        if other is not None:
            result.left.append(f"{title}: {other} says something else")
            continue
        for path, text in files.items():
            if _content(path, taken) == text:
                result.known += 1
                continue
            taken[str(path).lower()] = text
            if not dry_run:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text)
            result.written.append(path)
    return result


def _problem(row: Any) -> str:
    if not _NAME.fullmatch(row.name) or row.name.endswith((".html", ".htm", ".txt", ".", " ")) or "/." in row.name:
        return "its name cannot be that of a file"
    if row.language and not _LANGUAGE.fullmatch(row.language):
        return "its language cannot be a part of a file's name"
    if not (row.content.strip() or row.html_content.strip()):
        return "it has neither text nor HTML"
    if any(_OWN_TAGS.search(text) for text in (row.subject, row.content, row.html_content)):
        return "it loads tags of post_office, which will not be there: give inline images as attachments"
    return ""


def _files(row: Any) -> dict[PurePosixPath, str]:
    language = f".{row.language.lower().replace('_', '-')}" if row.language else ""
    parts = {"_subject.txt": row.subject, ".txt": row.content, ".html": row.html_content}
    return {PurePosixPath(f"{row.name}{language}{end}"): text for end, text in parts.items() if text.strip()}


def _content(path: Path, taken: dict[str, bytes]) -> bytes | None:
    """What a file holds or is about to; names that differ in their case may be the same file."""
    if (content := taken.get(str(path).lower())) is not None:
        return content
    return path.read_bytes() if path.is_file() else None
