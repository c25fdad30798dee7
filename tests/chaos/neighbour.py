"""Another project on the same broker and the same attachment storage, with a database and a secret key of its own.

``python -m tests.chaos.neighbour --journal FILE`` stores a few mails, each with a file, and purges all the while what
is sent, as a project would that keeps nothing. At SIGTERM it stores no more, and ends once nothing of it is left.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from threading import Event

import django
from django.core.management import call_command
from django.db import Error

from tests.chaos.journal import JournalWriter
from tests.chaos.mails import NEIGHBOURS

#: Between two mails, in seconds.
_PAUSE = 0.5


def work(journal: JournalWriter, told_to_end: Event) -> None:
    """Store, purge, and do so again."""
    from congressy_mailer import send_mail
    from congressy_mailer.delivery import upkeep
    from congressy_mailer.models import Message, StoredFile

    number = 0
    while not told_to_end.is_set() or Message.objects.exists():
        # Its own worker may have SQLite's only writer.
        try:
            if not told_to_end.is_set():
                to = f"{NEIGHBOURS}{number}@example.com"
                send_mail("Of another project", "x", to=to, attachments=[("theirs.txt", f"{number}".encode())])
                journal.write("stored", time.time(), to)
                number += 1
            upkeep.purge()
        except Error as error:
            print(f"{time.time():.3f} {error}", flush=True)
        time.sleep(_PAUSE)
    upkeep.purge()
    journal.write("left", time.time(), str(StoredFile.objects.count()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--journal", type=Path, required=True)
    options = parser.parse_args()
    told_to_end = Event()
    signal.signal(signal.SIGTERM, lambda number, frame: told_to_end.set())
    django.setup()
    call_command("migrate", verbosity=0)
    print(json.dumps({"ready": True}), flush=True)
    with JournalWriter(options.journal) as journal:
        work(journal, told_to_end)


if __name__ == "__main__":
    main()
