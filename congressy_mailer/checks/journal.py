"""Check of the directory in which workers note what was accepted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.core.checks import CheckMessage, Warning, register
from django.utils.translation import gettext as _

from ..conf import settings_if_valid
from .settings import Apps

# As Linux names them. What a host wrote before it was lost another one may read there, or an older state of it; and a
# lock may hold on one host alone.
_OF_NETWORKS = {
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2", "gpfs", "lustre", "nfs",
    "nfs4", "ocfs2", "smb3", "smbfs",
}  # fmt: skip


@register("congressy_mailer")
def check_journal_directory(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """``congressy_mailer.W015``: ``JOURNAL_DIRECTORY`` is unusable, or shared with other hosts or users."""
    from ..outbox import journal_folder

    conf = settings_if_valid()
    if conf is None or conf.JOURNAL_DIRECTORY is None or not journal_folder.SUPPORTED:
        return []
    problem = _problem(journal_folder.directory())
    if not problem:
        return []
    return [
        Warning(
            _("A worker that runs as this user cannot keep a journal: %(problem)s.") % {"problem": problem},
            hint=_(
                "Without the journal, a killed worker repeats the mail that it sent in its last 100 ms. Set "
                "CONGRESSY_MAILER['JOURNAL_DIRECTORY'] to a directory on a disk of this host that the user can write "
                "to, or to None."
            ),
            id="congressy_mailer.W015",
        )
    ]


def _problem(path: str) -> str:
    """Why no journal can lie in a directory; empty: one can."""
    from ..outbox import journal_folder

    if not path:
        return _("no directory for temporary files is writable")
    existing = path
    try:
        with journal_folder.open_directory(path):
            pass
    except journal_folder.UnusableDirectory as error:
        return f"{error.path} {_translated(error.reason)}"
    except OSError:
        # The first worker makes it, and what is missing around it.
        while not os.path.lexists(existing):
            existing = os.path.dirname(existing)
    if not (os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK)):
        return _("%(path)s is not a directory that this user can write to") % {"path": existing}
    if (kind := file_system(existing)) in _OF_NETWORKS:
        return _("%(path)s is on a network file system, %(kind)s") % {"path": existing, "kind": kind}
    return ""


def _translated(reason: str) -> str:
    reasons = {
        "is not a directory, or is a symbolic link": _("is not a directory, or is a symbolic link"),
        "belongs to another user": _("belongs to another user"),
        "is open to other users: its mode must be 0700": _("is open to other users: its mode must be 0700"),
    }
    return reasons[reason]


def file_system(path: str, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The kind of file system that a path is on, as Linux names it; empty where the system does not tell.

    Args:
        path: of something that exists.
        mounts: what tells.
    """
    try:
        lines = [line.split() for line in mounts.read_text(errors="surrogateescape").splitlines()]
    except OSError:
        return ""
    real = os.path.realpath(path)
    found: dict[str, str] = {}
    for _source, place, kind, *_options in lines:
        # Blanks and the like are written as octal numbers (proc_pid_mounts(5), getmntent(3)).
        point = place.encode(errors="surrogateescape").decode("unicode_escape", errors="replace")
        # What was mounted later lies over what was there.
        found[point] = kind
    around = [point for point in found if os.path.commonpath([point, real]) == point]
    return found[max(around, key=len)] if around else ""
