"""Where Django's tests are: they are part of its sources, and of no wheel."""

from __future__ import annotations

import email.errors
import os
import sys

import pytest

if not hasattr(email.errors, "HeaderWriteError"):
    # Python 3.12.4 has brought it, and Django's tests import it.
    email.errors.HeaderWriteError = type("HeaderWriteError", (email.errors.MessageError,), {})  # type: ignore[misc]
sys.path.insert(0, os.environ["DJANGO_TESTS"])


def pytest_configure(config: pytest.Config) -> None:
    """Django's tests expect warnings, and catch those that they do not expect."""
    config.addinivalue_line("filterwarnings", "default")
