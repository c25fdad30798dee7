"""Files that survive the death of whoever writes them: one line for each thing that happened, written at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self


class Entry(NamedTuple):
    """One line."""

    #: What happened.
    what: str
    #: When, in seconds since the epoch.
    at: float
    #: To what.
    details: tuple[str, ...]


class JournalWriter:
    """Writes lines without a buffer of its own: what has been written is the system's, and no SIGKILL undoes it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, what: str, at: float, *details: str) -> None:
        os.write(self._file, "\t".join([what, f"{at:.6f}", *details, "\n"]).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


class JournalReader:
    """Reads what has been added since it was last asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def new_entries(self) -> Iterator[Entry]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._position += len(line)
                what, at, *details, _ = line.decode().split("\t")
                yield Entry(what, float(at), tuple(details))
