"""The admin in headless Chromium, with a real site, worker, Redis and mail server: ``python -m tests.browser``.

The exit status is 1 where something does not hold, and 2 where there is no Chromium: nothing is skipped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from demo.services import Services

_ROOT = Path(__file__).resolve().parents[2]


class BrowserServices(Services):
    """The demo's services, whose site speaks the browser's language."""

    settings = "tests.browser.settings"


def main() -> int:
    """Run every scenario and look at every page; returns the exit status."""
    parser = argparse.ArgumentParser("python -m tests.browser", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", action="append", help="only scenarios whose names begin so (may be repeated)")
    parser.add_argument("--pictures", type=Path, default=_ROOT / "build" / "browser", help="folder for the pictures")
    parser.add_argument("--screenshots", type=Path, help="only make the documentation's pictures, in this folder")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("tests.browser: chromium was not found: apt install chromium", file=sys.stderr)
        return 2
    # The browser is driven from this thread, and the outbox is asked from it as well.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    options.pictures.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="mailer-browser-"))
    passed = failed = 0
    try:
        with BrowserServices(directory) as services:
            from .driving import Browser
            from .pages import take_screenshots
            from .scenarios import SCENARIOS

            with Browser(services, chromium, options.pictures) as browser:
                if options.screenshots:
                    take_screenshots(browser, options.screenshots)
                    return 0
                for scenario in SCENARIOS:
                    if options.only and not scenario.__name__.startswith(tuple(options.only)):
                        continue
                    began = time.monotonic()
                    try:
                        scenario(browser)
                    except Exception:
                        failed += 1
                        traceback.print_exc()
                        browser.picture("failed")
                        word = "FAILED"
                    else:
                        passed += 1
                        word = "ok"
                    print(f"{word:<7}{time.monotonic() - began:5.1f} s  {scenario.__name__}", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
