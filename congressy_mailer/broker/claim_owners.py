"""Who holds a message: a task in a process, and whether that process is still there.

A broker gives a task out again when it believes that nobody works on it any more. It may be wrong: a connection that
was lost, or a visibility timeout that is over, says nothing about a process that is in the midst of a mail. So what a
task holds is taken from it only when its process is gone for certain, or when the lease is over.
"""

from __future__ import annotations

import os
import re
import socket
from functools import lru_cache
from hashlib import blake2s
from pathlib import Path
from uuid import uuid4

_TOKEN = re.compile(r".*:(?P<host>[0-9a-f]{8})-(?P<process>\d+)-(?P<started>\d+):[0-9a-f]{8}", re.DOTALL)

#: What :func:`process_name` looks like.
PROCESS_NAME = re.compile(r"[0-9a-f]{8}-\d{1,20}-\d{1,20}")


def new_claim_token(owner: str) -> str:
    """A token for one claim by this process.

    Args:
        owner: for people who look at the row: the Celery task's id. At most 50 characters of it are kept.
    """
    return f"{owner[:50]}:{process_name()}:{uuid4().hex[:8]}"


def process_name() -> str:
    """What tells this process from all others: its host, its number, and when it began."""
    process = os.getpid()
    return f"{host_id()}-{process}-{_start_time(process) or 0}"


def owner_of(token: str) -> str:
    """The :func:`process_name` of the token's process; empty: the token is not one of ours."""
    match = _TOKEN.fullmatch(token)
    return f"{match['host']}-{match['process']}-{match['started']}" if match is not None else ""


def owner_is_gone(token: str) -> bool:
    """Whether the process that made the token has ended. ``False`` where that cannot be known, as on another host."""
    match = _TOKEN.fullmatch(token)
    if match is None or match["host"] != host_id():
        return False
    process = int(match["process"])
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    started = _start_time(process)
    # Its number is another process's by now.
    return started is not None and match["started"] != "0" and started != int(match["started"])


@lru_cache(maxsize=1)
def host_id() -> str:
    """What tells this host from others: process numbers mean something only within it, and until it starts anew."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            # Containers may share the name of their host, and not its processes.
            parts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text())
        except OSError:
            parts.append("")
    return blake2s("|".join(parts).encode(), digest_size=4).hexdigest()


def _start_time(process: int) -> int | None:
    """When a process began, in ticks since the system did; ``None`` where the system does not tell."""
    try:
        # The second field is the program's name, which may hold anything.
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
