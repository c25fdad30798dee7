"""The journals of this host's worker processes: where they lie, which is in use, and what those of others say.

They lie in a directory of this user's and this outbox's own, in which nobody else can write: what stands there decides
which mail is not sent again. Nothing of it is needed. Without a directory, or with a disk that is full, mails leave as
they would, and a process that is killed may repeat what it had sent in the moment before.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from uuid import UUID

from celery.signals import worker_process_shutdown
from django.db import connections
from django.utils.crypto import salted_hmac

from ..broker.claim_owners import PROCESS_NAME, owner_of, process_name
from ..conf import mailer_settings
from ..models import State
from ..models.transactions import database
from ..replies import error_text
from .journal_file import SIZE, Acceptance, Journal, claim_digest, read_acceptances
from .rows import rows

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows, on which Celery does not run workers
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("congressy_mailer.outbox")

#: Seconds after which a dead process's journal is removed although its mails are unknown: of another database.
LONGEST_KEPT = 7 * 86400.0

# Seconds. What cleans up directories for temporary files goes by when a file was last written.
_TOUCH_EVERY = 3600.0

# Seconds after a failure in which no journal is made.
_PAUSE = 60.0


#: Whether this system has what it takes.
SUPPORTED = fcntl is not None

#: Why a directory is not used.
NO_DIRECTORY = "is not a directory, or is a symbolic link"
OF_ANOTHER_USER = "belongs to another user"
OPEN_TO_OTHERS = "is open to other users: its mode must be 0700"


class UnusableDirectory(Exception):
    """Another user may have written the files of a directory, or can read them."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path
        #: For people.
        self.reason = reason


def directory() -> str:
    """Where this process' journals lie, and those of others of this host; empty: nowhere."""
    configured = mailer_settings().JOURNAL_DIRECTORY
    if configured is None or not SUPPORTED:
        return ""
    # Not the one for what runs, /run: without root there is only that of a session, which is emptied when it ends.
    try:
        parent = tempfile.gettempdir() if configured == "auto" else os.fspath(configured)
    except OSError:
        # Nothing on this host can be written.
        return ""
    return os.path.join(parent, f"congressy-mailer-{os.geteuid()}-{_outbox_name()}")


def _outbox_name() -> str:
    """A name that tells this outbox from others on the host, and discloses nothing of it."""
    values = connections[database()].settings_dict
    where = "|".join(str(values[name]) for name in ("ENGINE", "HOST", "PORT", "NAME"))
    return salted_hmac("congressy_mailer.journal", where, algorithm="sha256").hexdigest()[:16]


@contextmanager
def open_directory(path: str, *, create: bool = False) -> Iterator[int]:
    """A descriptor of the directory, for the length of a ``with`` block.

    Args:
        path: of the directory.
        create: make it where it is missing.

    Raises:
        FileNotFoundError: it is missing.
        UnusableDirectory: another user could have written its files, or can read them.
        OSError: it cannot be opened or made.
    """
    if create:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise UnusableDirectory(path, NO_DIRECTORY) from None
        raise
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.geteuid():
            raise UnusableDirectory(path, OF_ANOTHER_USER)
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise UnusableDirectory(path, OPEN_TO_OTHERS)
        yield descriptor
    finally:
        os.close(descriptor)


# Writing


class _Journals:
    """The journals of this process: as many as it runs tasks at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Journal] = []
        self._used: list[Journal] = []
        self._names: dict[Journal, tuple[str, str]] = {}
        self._touched: dict[Journal, float] = {}
        self._next_try = 0.0
        os.register_at_fork(after_in_child=self._reset_after_fork)

    def _reset_after_fork(self) -> None:
        # They are the parent's. As long as a child has them open, too, the parent would seem to be alive.
        self._lock = threading.Lock()
        for journal in (*self._idle, *self._used):
            journal.close()
        self._idle, self._used = [], []
        self._names, self._touched = {}, {}

    def take(self) -> Journal | None:
        """One that no other task has; ``None`` where there can be none now."""
        path = directory()
        if not path:
            return None
        with self._lock:
            journal = self._idle.pop() if self._idle else None
        if journal is not None and not self._is_in_place(journal, path):
            self._drop(journal)
            journal = None
        if journal is None:
            if time.monotonic() < self._next_try:
                return None
            try:
                journal = self._make(path)
            except (OSError, UnusableDirectory) as error:
                self.failed(error)
                return None
        with self._lock:
            self._used.append(journal)
        return journal

    def put_back(self, journal: Journal) -> None:
        """The task that had it has ended."""
        with self._lock:
            # Not in a process that was forked meanwhile.
            if journal in self._used:
                self._used.remove(journal)
                self._idle.append(journal)

    def failed(self, error: Exception) -> None:
        """Say once why there is none, and leave it at that for a while."""
        first = self._next_try == 0.0
        self._next_try = time.monotonic() + _PAUSE
        words = str(error) if isinstance(error, UnusableDirectory) else error_text(error)
        # A handler of the host's that raises must not stop the mail.
        with suppress(Exception):
            logger.log(
                logging.WARNING if first else logging.DEBUG,
                "No journal can be kept: %s. Mails leave all the same; a worker that is killed may repeat what it had "
                "sent in the last 100 ms.",
                words,
            )

    def _make(self, path: str) -> Journal:
        name = f"{process_name()}.{secrets.token_hex(4)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open_directory(path, create=True) as folder:
            file = os.open(name, flags, 0o600, dir_fd=folder)
        try:
            # Locked for as long as this process lives, so that others see at once whether it does.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            journal = Journal(file)
        except BaseException:
            os.close(file)
            with suppress(OSError):
                os.unlink(os.path.join(path, name))
            raise
        self._names[journal] = path, name
        self._touched[journal] = time.monotonic()
        return journal

    def _is_in_place(self, journal: Journal, path: str) -> bool:
        """Whether the file is still there under its name."""
        if self._names[journal][0] != path:
            return False
        try:
            if time.monotonic() - self._touched[journal] > _TOUCH_EVERY:
                os.utime(journal.file)
                self._touched[journal] = time.monotonic()
            return os.fstat(journal.file).st_nlink > 0
        except OSError:
            return False

    def _drop(self, journal: Journal) -> None:
        path, name = self._names.pop(journal)
        self._touched.pop(journal)
        journal.close()
        if journal.is_empty:
            with suppress(OSError, UnusableDirectory), open_directory(path) as folder:
                os.unlink(name, dir_fd=folder)

    def close(self) -> None:
        """Remove those that no task has and that say nothing."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._next_try = 0.0
        for journal in idle:
            self._drop(journal)


_journals = _Journals()
take_journal = _journals.take
put_back_journal = _journals.put_back
journal_failed = _journals.failed


@worker_process_shutdown.connect(dispatch_uid="congressy_mailer.journals")
def close_journals(**options: object) -> None:
    """Remove the journals of this process as it ends; they are empty."""
    _journals.close()


# Reading


def acceptances_of(claims: Mapping[UUID, str]) -> dict[UUID, Acceptance]:
    """What journals say of claimed messages: that a server has taken the mail. Never raises.

    Args:
        claims: the token of each message's claim.
    """
    wanted: dict[str, dict[UUID, bytes]] = {}
    for key, token in claims.items():
        wanted.setdefault(owner_of(token), {})[key] = claim_digest(token)
    found: dict[UUID, Acceptance] = {}
    path = directory()
    if not path:
        return found
    try:
        with open_directory(path) as folder:
            for name in os.listdir(folder):
                claims_of_process = wanted.get(name.partition(".")[0])
                if claims_of_process:
                    # Another worker may have removed it, or it is no journal.
                    with suppress(OSError):
                        found |= {
                            acceptance.key: acceptance
                            for acceptance in _read(name, folder)
                            if claims_of_process.get(acceptance.key) == acceptance.claim
                        }
    except FileNotFoundError:
        # No process of this host has kept a journal.
        pass
    except (OSError, UnusableDirectory) as error:
        _journals.failed(error)
    return found


def remove_ended_journals() -> None:
    """Remove the journals of dead processes once their notes are recorded."""
    path = directory()
    if not path:
        return
    with suppress(OSError, UnusableDirectory), open_directory(path) as folder:
        for name in os.listdir(folder):
            if PROCESS_NAME.fullmatch(name.partition(".")[0]):
                with suppress(OSError):
                    _remove_if_ended(name, folder)


def _remove_if_ended(name: str, folder: int) -> None:
    file = _open_ours(name, folder)
    try:
        found = os.fstat(file)
        is_old = time.time() - found.st_mtime > LONGEST_KEPT
        if not found.st_size and not is_old:
            # Another process is about to lock it.
            return
        # BlockingIOError where its process is there.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_old or not _is_needed(list(read_acceptances(os.pread(file, SIZE, 0)))):
            os.unlink(name, dir_fd=folder)
    finally:
        os.close(file)


def _is_needed(acceptances: list[Acceptance]) -> bool:
    """Whether one is of a message that is still claimed, or of none that is known here."""
    if not acceptances:
        return False
    claims = {acceptance.key: acceptance.claim for acceptance in acceptances}
    stored = list(rows(claims).values_list("id", "state", "token"))
    held = any(state == State.SENDING and claim_digest(token) == claims[key] for key, state, token in stored)
    return held or len(stored) < len(claims)


def _read(name: str, folder: int) -> list[Acceptance]:
    file = _open_ours(name, folder)
    try:
        return list(read_acceptances(os.pread(file, SIZE, 0)))
    finally:
        os.close(file)


def _open_ours(name: str, folder: int) -> int:
    """Open a file of this user's own.

    Raises:
        OSError: it is no such file, or cannot be opened.
    """
    # An open of a pipe would wait for its other end.
    file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    found = os.fstat(file)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077:
        return file
    os.close(file)
    raise PermissionError(errno.EPERM, "it is no file of this user's own")
