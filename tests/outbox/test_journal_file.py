"""The format of a journal: what was noted is read again, and nothing else is, whatever is in the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from congressy_mailer.outbox import journal_file
from congressy_mailer.outbox.journal_file import Acceptance, Journal, claim_digest, read_acceptances, recipient_digest
from congressy_mailer.replies import Reply
from tests.support.fuzzing import examples

pytestmark = pytest.mark.once

CLAIM = claim_digest("task:0123abcd-1-2:0123abcd")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def new(path: Path) -> Iterator[Callable[[], Journal]]:
    """Begin a journal in the file, which is emptied."""
    made: list[Journal] = []

    def begin() -> Journal:
        made.append(Journal(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)))
        return made[-1]

    yield begin
    for journal in made:
        journal.close()


def accepted(key: UUID | None = None, **values: Any) -> Acceptance:
    return Acceptance(key or uuid4(), CLAIM, 1_800_000_000.25, Reply(250, "2.0.0 OK 1/2"), **values)


acceptances = st.builds(
    Acceptance,
    key=st.uuids(),
    claim=st.binary(min_size=16, max_size=16),
    at=st.floats(allow_nan=False, allow_infinity=False),
    reply=st.builds(Reply, st.none() | st.integers(200, 599), st.text(max_size=60)),
    recipients=st.frozensets(st.binary(min_size=8, max_size=8), max_size=5),
)


def test_what_is_noted_and_not_recorded_is_read(new: Callable[[], Journal], path: Path) -> None:
    journal = new()
    notes = [accepted() for _ in range(3)]
    for note in notes:
        journal.note(note)
    assert list(read_acceptances(path.read_bytes())) == notes == journal.unrecorded()
    journal.forget([notes[0].key])
    assert list(read_acceptances(path.read_bytes())) == notes[1:]
    assert notes[0].key not in journal
    assert not journal.is_empty
    journal.forget([notes[1].key, notes[2].key, uuid4()])
    assert list(read_acceptances(path.read_bytes())) == []
    assert journal.is_empty


def test_it_begins_anew_once_all_is_recorded_and_nothing_of_before_is_read(
    new: Callable[[], Journal], path: Path
) -> None:
    journal = new()
    for _ in range(5):
        for note in (notes := [accepted() for _ in range(3)]):
            journal.note(note)
        length = path.stat().st_size
        journal.forget([note.key for note in notes])
    last = accepted()
    journal.note(last)
    # It is as long as before, and what is behind it stood there already.
    assert path.stat().st_size == length
    assert list(read_acceptances(path.read_bytes())) == [last]


def test_what_has_no_room_is_not_noted(new: Callable[[], Journal], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_file, "SIZE", 300)
    journal = new()
    notes = [accepted() for _ in range(10)]
    for note in notes:
        journal.note(note)
    assert path.stat().st_size <= 300
    found = list(read_acceptances(path.read_bytes()))
    assert found == notes[: len(found)]
    assert 0 < len(found) < 10
    journal.forget([note.key for note in notes])
    assert journal.is_empty


def test_all_mails_of_one_call_of_sparkposts_have_room(new: Callable[[], Journal]) -> None:
    journal = new()
    for _ in range(2000):
        journal.note(Acceptance(uuid4(), CLAIM, 1.0, Reply(200, "x" * 200)))
    assert len(journal.unrecorded()) == 2000


def test_no_address_is_in_it_and_yet_it_says_who_has_the_mail(new: Callable[[], Journal], path: Path) -> None:
    envelope = ["ana@example.com", "eva@example.com", "rui@example.com"]
    journal = new()
    journal.note(accepted(recipients=frozenset({recipient_digest("eva@example.com")})))
    assert b"example" not in path.read_bytes()
    (found,) = journal.unrecorded()
    assert found.accepted_of(envelope) == ("eva@example.com",)
    assert accepted().accepted_of(envelope) == tuple(envelope)


def test_a_closed_one_writes_nowhere(new: Callable[[], Journal], path: Path) -> None:
    journal = new()
    journal.close()
    # The number of a file that is closed is soon another file's.
    with path.with_name("other").open("wb+") as other:
        before = path.read_bytes()
        journal.note(accepted())
        journal.forget([uuid4()])
        journal.discard()
        assert journal.unrecorded() == []
        assert (path.read_bytes(), other.read()) == (before, b"")


@given(st.lists(acceptances, max_size=6, unique_by=lambda acceptance: acceptance.key), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(100))
def test_wherever_writing_is_broken_off_what_stood_before_is_read_and_nothing_else(
    new: Callable[[], Journal], path: Path, notes: list[Acceptance], data: st.DataObject
) -> None:
    journal = new()
    ends = [path.stat().st_size]
    for note in notes:
        journal.note(note)
        ends.append(path.stat().st_size)
    journal.close()
    written = path.read_bytes()
    cut = data.draw(st.integers(0, len(written)))
    behind = data.draw(st.binary(max_size=50))
    whole = max((number for number, end in enumerate(ends) if end <= cut), default=0)
    assert list(read_acceptances(written)) == notes
    # Behind it lies what was there before.
    for torn in (written[:cut], written[:cut] + b"\0" * (len(written) - cut), written[:cut] + behind):
        found = list(read_acceptances(torn))
        assert found[:whole] == notes[:whole]
        assert found == notes[: len(found)]


@given(st.lists(acceptances, min_size=1, max_size=4, unique_by=lambda acceptance: acceptance.key), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(100))
def test_what_was_changed_is_not_read(
    new: Callable[[], Journal], path: Path, notes: list[Acceptance], data: st.DataObject
) -> None:
    journal = new()
    for note in notes:
        journal.note(note)
    journal.close()
    changed = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    # Fewer may be left, but none says anything else.
    assert all(found in notes for found in read_acceptances(bytes(changed)))


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: journal_file._MAGIC + data))
@settings(max_examples=examples(300))
def test_hostile_bytes_are_read_as_nothing(data: bytes) -> None:
    assert list(read_acceptances(data)) == []


@given(st.binary(max_size=120))
@settings(max_examples=examples(300))
def test_a_hostile_entry_with_a_right_checksum_raises_nothing(body: bytes) -> None:
    data = journal_file._MAGIC + journal_file._GENERATION.pack(7) + journal_file._entry(body, 7)
    for found in read_acceptances(data):
        # It can be stored and shown.
        assert str(found.reply).isprintable()
        assert found.accepted_of(["ana@example.com"]) in ((), ("ana@example.com",))


def test_a_file_that_cannot_be_written_is_an_error_that_leaves_what_stood_there(
    new: Callable[[], Journal], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = new()
    first = accepted()
    journal.note(first)
    pwrite = os.pwrite

    def half(file: int, data: bytes, place: int) -> int:
        return pwrite(file, data[: len(data) // 2], place)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(OSError, match="not all of it"):
        journal.note(accepted())
    assert list(read_acceptances(path.read_bytes())) == [first]
    monkeypatch.undo()
    journal.note(last := accepted())
    assert list(read_acceptances(path.read_bytes())) == [first, last]
