"""Several databases on one storage: none deletes what another one needs, whether it knows of it or not."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import checks, serializers
from django.utils import timezone

from congressy_mailer import outbox, send_mail, tasks
from congressy_mailer.delivery import upkeep
from congressy_mailer.health import check_health
from congressy_mailer.models import Attachment, Installation, Message, State, StoredFile, attachment_storage
from congressy_mailer.outbox import installation
from tests.conftest import run_concurrently
from tests.support.commands import mailer
from tests.support.forked import least_environment, run_code
from tests.support.storages import Stubborn, stored_paths, use_stubborn_storage

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.database,
    pytest.mark.usefixtures("english", "published"),
]

FILE = ("ticket.pdf", b"%PDF")

OtherDatabase = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def storage(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Stubborn]:
    return use_stubborn_storage(settings, monkeypatch, str(tmp_path / "bucket"))


def scheduled() -> Message:
    return send_mail(
        "Ticket", "Here", to="ana@example.com", attachments=[FILE], send_at=timezone.now() + timedelta(days=3)
    )


def copied_rows() -> str:
    rows = []
    for model in (Installation, StoredFile, Message, Attachment):
        fields = [field.name for field in model._meta.concrete_fields if not getattr(field, "generated", False)]
        rows += json.loads(serializers.serialize("json", model._default_manager.all(), fields=fields))
    return json.dumps(rows)


@pytest.fixture
def other_database(tmp_path: Path) -> OtherDatabase:
    """Run statements in another process, on another database and the same storage; returns what they print as JSON."""

    def run(statements: str, copy: str = "") -> dict[str, Any]:
        (tmp_path / "rows.json").write_text(copy)
        program = f"""
            import json, os
            from datetime import timedelta
            os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
            from django.conf import settings
            settings.STORAGES = {{**settings.STORAGES, "default": {{
                "BACKEND": "tests.support.storages.Stubborn",
                "OPTIONS": {{"location": {str(tmp_path / "bucket")!r}}},
            }}}}
            import django
            django.setup()
            from django.core.management import call_command
            from django.utils import timezone
            from congressy_mailer import outbox, periodic, send_mail
            from congressy_mailer.broker import sending
            from congressy_mailer.delivery import upkeep
            from congressy_mailer.models import Installation, Message, StoredFile
            sending.send = lambda *arguments, **options: True
            call_command("migrate", verbosity=0)
            rows = {str(tmp_path / "rows.json")!r}
            if os.path.getsize(rows):
                Installation.objects.all().delete()
                call_command("loaddata", rows, verbosity=0)
            def finish():
                long_ago = timezone.now() - timedelta(days=400)
                Message.objects.update(state="sent", due_at=None, finished_at=long_ago)
            def purge_for_days():
                for days in range(5):
                    while upkeep.purge_some():
                        pass
                    later = timezone.now() + timedelta(days=3)
                    timezone.now = lambda: later
                upkeep.purge()
            result = {{}}
        """
        environment = {
            **least_environment(), "DATABASE_URL": f"sqlite://{tmp_path}/staging.sqlite3",
            "MAILER_TEST_DIRECTORY": str(tmp_path),
        }  # fmt: skip
        program = textwrap.dedent(program) + textwrap.dedent(statements) + "\nprint(json.dumps(result))"
        done = run_code(program, environment=environment)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    return run


def read(message: Message) -> bytes:
    with message.attachments.get().file.open() as file:
        return bytes(file.read())


def an_hour_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = timezone.now() + timedelta(hours=1, minutes=1)
    monkeypatch.setattr(timezone, "now", lambda: moment)


def test_a_test_stage_on_the_same_bucket_deletes_nothing_of_productions(other_database: OtherDatabase) -> None:
    production = scheduled()
    there = other_database(
        """
        for _ in range(3):
            send_mail("x", "y", to="eva@example.com", attachments=[("a.txt", b"theirs")])
        finish()
        purge_for_days()
        result["key"] = str(outbox.current_installation().key)
        result["files"] = StoredFile.objects.count()
        """
    )
    assert there["files"] == 0
    assert there["key"] != str(outbox.current_installation().key)
    assert read(production) == FILE[1]
    assert stored_paths() == [production.attachments.get().file.name]


def test_a_copy_of_productions_database_deletes_nothing_and_says_so(
    other_database: OtherDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    production = scheduled()
    tasks.purge()
    backup = copied_rows()
    an_hour_passes(monkeypatch)
    tasks.purge()
    numbers_given_out_since = scheduled()
    # It sends and drops what production has scheduled, and stores files of its own.
    there = other_database(
        """
        finish()
        own = send_mail("x", "y", to="eva@example.com", attachments=[("a.txt", b"theirs")])
        with own.attachments.get().file.open() as file:
            result["own"] = file.read().decode()
        for days in range(5):
            while upkeep.purge_some():
                pass
            later = timezone.now() + timedelta(days=3)
            timezone.now = lambda: later
        from congressy_mailer.health import check_health
        result["problems"] = check_health().problems
        from django.core import checks
        found = checks.run_checks(databases=["default"], tags=["congressy_mailer"])
        result["checks"] = [one.id for one in found]
        """,
        copy=backup,
    )
    assert there["own"] == "theirs"
    assert any("installation --new" in problem for problem in there["problems"])
    assert "congressy_mailer.W014" in there["checks"]
    assert [read(production), read(numbers_given_out_since)] == [FILE[1], FILE[1]]
    # Production goes on as before.
    assert outbox.may_delete_files()
    assert outbox.current_installation().contested_at is None


def test_a_copy_that_is_told_so_has_a_folder_of_its_own(other_database: OtherDatabase) -> None:
    production = scheduled()
    tasks.purge()
    there = other_database(
        """
        call_command("mailer", "installation", "--new")
        with Message.objects.get().attachments.get().file.open() as file:
            result["copied"] = file.read().decode()
        own = send_mail("x", "y", to="eva@example.com", attachments=[("a.txt", b"theirs")])
        result["path"] = own.attachments.get().file.name
        finish()
        purge_for_days()
        result["files"] = StoredFile.objects.count()
        result["contested"] = outbox.current_installation().contested_at is not None
        """,
        copy=copied_rows(),
    )
    assert there["copied"] == FILE[1].decode()
    assert not there["path"].startswith(outbox.current_installation().folder)
    assert (there["files"], there["contested"]) == (0, False)
    assert read(production) == FILE[1]
    assert stored_paths() == [production.attachments.get().file.name]
    assert outbox.may_delete_files()


def overtake() -> None:
    """Another database with the same key writes its own token into the folder."""
    path = f"{outbox.current_installation().folder}/owner"
    Path(attachment_storage().path(path)).write_text("of another database")


def test_an_original_that_was_overtaken_stops_deleting_until_a_person_decides(
    caplog: pytest.LogCaptureFixture,
) -> None:
    message = scheduled()
    tasks.purge()
    tasks.sweep(time.time())
    assert check_health().ok
    overtake()
    Message.objects.update(state=State.SENT, due_at=None, finished_at=timezone.now() - timedelta(days=31))
    upkeep.purge_some()
    assert len(stored_paths()) == 1
    assert caplog.text.count("another database has used the folder") == 1
    (problem,) = check_health().problems
    assert problem.startswith("No attachment file is deleted since 20")
    assert "None is deleted since" in mailer("installation").out
    (warning,) = [
        one for one in checks.run_checks(databases=["default"], tags=["congressy_mailer"]) if one.id.endswith("W014")
    ]
    assert warning.hint is not None
    upkeep.purge_some()
    assert caplog.text.count("another database has used the folder") == 1
    assert "Installation " in mailer("installation", "--keep").out
    assert check_health().ok
    upkeep.purge_some()
    assert stored_paths() == []
    assert message.pk is not None


def test_the_token_changes_once_an_hour_and_only_where_there_are_files(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks.purge()
    assert not attachment_storage().exists(f"{outbox.current_installation().folder}/owner")
    scheduled()
    tokens = []
    for _ in range(3):
        tasks.purge()
        tasks.purge()
        tokens.append(outbox.current_installation().token)
        an_hour_passes(monkeypatch)
    assert len(set(tokens)) == 3
    folder = Path(attachment_storage().path(outbox.current_installation().folder))
    assert [path.name for path in folder.glob("owner*")] == ["owner"]
    assert (folder / "owner").read_text() == tokens[-1]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_that_is_killed_while_the_token_changes_contests_nothing(
    monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    scheduled()
    tasks.purge()
    an_hour_passes(monkeypatch)
    original = Stubborn.save

    def killed(self: Any, name: Any, content: Any, max_length: Any = None) -> Any:
        if moment == "after":
            original(self, name, content, max_length)
        raise KeyboardInterrupt

    monkeypatch.setattr(Stubborn, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        tasks.purge()
    monkeypatch.setattr(Stubborn, "save", original)
    assert outbox.may_delete_files(rotate=True)
    assert outbox.may_delete_files()


def test_workers_that_ask_while_the_token_changes_contest_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduled()
    outbox.may_delete_files(rotate=True)
    monkeypatch.setattr("congressy_mailer.outbox.installation.ROTATE_EVERY", timedelta(0))
    results = run_concurrently(lambda worker: [outbox.may_delete_files(rotate=worker == 0) for _ in range(20)], 4)
    assert all(all(part) for part in results)
    assert outbox.current_installation().contested_at is None


def test_a_token_that_is_changed_while_a_worker_looks_is_not_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice, so that neither row that it reads names what it has read in the folder."""
    scheduled()
    outbox.may_delete_files(rotate=True)
    monkeypatch.setattr(installation, "ROTATE_EVERY", timedelta(0))
    read, left = installation._read_token, [2]

    def look(storage: Any, of: Installation) -> str | None:
        if left[0] == 2:
            change()
        found = read(storage, of)
        if left[0]:
            change()
        return found

    def change() -> None:
        left[0] -= 1
        with monkeypatch.context() as patch:
            patch.setattr(installation, "_read_token", read)
            assert outbox.may_delete_files(rotate=True)

    monkeypatch.setattr(installation, "_read_token", look)
    assert outbox.may_delete_files()
    assert left == [0]
    assert outbox.current_installation().contested_at is None


def test_a_storage_that_cannot_be_asked_deletes_nothing_and_contests_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scheduled()
    Message.objects.update(state=State.SENT, due_at=None, finished_at=timezone.now() - timedelta(days=31))

    def away(self: Any, name: str) -> bool:
        raise ConnectionError("no route to the bucket")

    monkeypatch.setattr(Stubborn, "exists", away)
    upkeep.purge_some()
    assert len(stored_paths()) == 1
    assert "No file is deleted now, since the storage cannot be asked: ConnectionError: no route" in caplog.text
    complaint = mailer("installation", "--keep").complaint
    assert "The storage cannot be written: ConnectionError: no route to the bucket" in complaint
    monkeypatch.undo()


def test_there_is_one_installation_whoever_asks_first() -> None:
    assert Installation.objects.count() == 1
    Installation.objects.all().delete()
    keys = run_concurrently(lambda worker: outbox.current_installation().key, 4)
    assert len(set(keys)) == 1
