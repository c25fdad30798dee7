"""What a mail costs in the journal of a process: ``python -m benchmarks.journal [DIRECTORY]``.

Noted one by one, and marked as recorded in groups, as a worker does it. Beside it what a commit to the same disk would
cost each mail, which is how nothing was repeated without a journal.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

MAILS = 20_000
#: As many as a server next door accepts in 50 ms.
GROUP = 40
ROUNDS = 5


def main(directory: str) -> None:
    django.setup()

    from congressy_mailer.delivery.noting import Notes
    from congressy_mailer.models import Message, clock
    from congressy_mailer.outbox import Journal
    from congressy_mailer.replies import Outcome, Reply

    reply = Reply(250, "2.0.0 OK 01/23-45678-9ABCDEF0")
    messages = [Message(id=uuid4(), to=["ana@example.com"]) for _ in range(MAILS)]
    outcomes = [Outcome(message.id, ("ana@example.com",), reply=reply) for message in messages]
    best = commit = float("inf")
    # There is no database here to ask for the time.
    no_clock = patch.object(clock, "difference", lambda: type(clock._TOLERANCE)(0))
    with tempfile.TemporaryDirectory(dir=directory) as folder, no_clock:
        for number in range(ROUNDS):
            journal = Journal(os.open(Path(folder, str(number)), os.O_RDWR | os.O_CREAT, 0o600))
            notes = Notes("task:01234567-1-1:01234567", journal)
            began = time.perf_counter()
            for start in range(0, MAILS, GROUP):
                for message, outcome in zip(
                    messages[start : start + GROUP], outcomes[start : start + GROUP], strict=True
                ):
                    notes.note(message, outcome)
                notes.forget([message.id for message in messages[start : start + GROUP]])
            best = min(best, (time.perf_counter() - began) / MAILS)
            began = time.perf_counter()
            for _ in range(20):
                os.pwrite(journal.file, b"\0" * 200, 0)
                os.fdatasync(journal.file)
            commit = min(commit, (time.perf_counter() - began) / 20)
            journal.close()
    print(f"journal in {directory}: {best * 1e6:.1f} µs a mail; a write that waits for the disk {commit * 1e6:.0f} µs")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir())
