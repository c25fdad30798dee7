"""``python -m tests.support.execute CODE ARGUMENTS…``: what ``python -c`` does, as a module."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    exec(sys.argv[1], {"__name__": "__main__"})  # noqa: S102
