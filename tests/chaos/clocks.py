"""Wrong clocks, by libfaketime: ``python -m tests.chaos.clocks …`` is ``python -m celery …`` with such a clock."""

from __future__ import annotations

import select
import time
from datetime import timedelta
from pathlib import Path

#: How far a worker's clock is from the database's.
APART = timedelta(hours=1)

_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/homebrew/lib")


def find_faketime() -> Path | None:
    """The library, for programs with threads; ``None`` where it is not installed."""
    # On Debian it is in the folder of the architecture. All folders are thousands.
    patterns = (f"{folder}{name}/faketime/libfaketimeMT.so.1" for name in ("", "/*") for folder in _FOLDERS)
    return next((path for pattern in patterns for path in sorted(Path("/").glob(pattern.lstrip("/")))), None)


def clock_environment(library: Path, ahead: timedelta) -> dict[str, str]:
    """What a process sees whose clock is so far ahead, or behind where that is negative."""
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{ahead.total_seconds():+.0f}",
        # A host whose clock is wrong measures how long something takes as well as any other.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
    }


def sleep(seconds: float) -> None:
    """``time.sleep()``, which Python does with the one call that fails with EINVAL under that library."""
    select.select([], [], [], seconds)


if __name__ == "__main__":
    time.sleep = sleep
    from celery.__main__ import main

    main()
