"""A browser that is logged in, its pictures, and what axe-core finds in a page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Page, sync_playwright

from congressy_mailer.testing.local_sparkpost.startable import Startable
from demo.services import Services

#: The package's pages in the admin.
ADMIN = "/admin/congressy_mailer"

#: Findings that are none of ours: they are in Django's own templates, on its own pages as well.
_DJANGOS = [
    ".toggle-nav-sidebar", "#nav-sidebar", "#header", "#changelist-filter", "#changelist-search", ".actions",
    "#result_list thead", ".paginator",
]  # fmt: skip
_SERIOUS = {"serious", "critical"}
_LONGEST = 60.0


class Browser(Startable):
    """Chromium as one person uses it."""

    page: Page

    def __init__(self, services: Services, chromium: str, pictures: Path) -> None:
        self.services = services
        self._chromium, self._pictures = chromium, pictures
        # The package brings axe-core itself.
        self._axe = files("axe_playwright_python") / "axe.min.js"
        #: Addresses outside the site that a page wanted to fetch.
        self.outside: list[str] = []

    def start(self) -> None:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=self._chromium, args=["--no-sandbox"])
        self._context = self._open("pt-BR", "light", 1280)
        self.page = self._context.new_page()
        self.log_in(self.page)

    def close(self) -> None:
        self._browser.close()
        self._playwright.stop()

    def _open(self, locale: str, scheme: Any, width: int) -> BrowserContext:
        context = self._browser.new_context(
            locale=locale, color_scheme=scheme, viewport={"width": width, "height": 900}, base_url=self.services.address
        )
        context.set_default_timeout(20_000)
        context.route(lambda url: not url.startswith((self.services.address, "data:")), self._refuse)
        return context

    def _refuse(self, route: Any) -> None:
        self.outside.append(route.request.url)
        route.abort()

    def log_in(self, page: Page) -> None:
        """As the demo's administrator."""
        page.goto("/admin/login/?next=/admin/")
        page.fill("#id_username", "admin")
        page.fill("#id_password", self.services.admin_password)
        page.click("input[type=submit]")
        page.wait_for_selector("#user-tools")

    @contextmanager
    def other(self, locale: str, scheme: str, width: int) -> Iterator[Page]:
        """A page of the same session in another language, colour scheme and width."""
        context = self._open(locale, scheme, width)
        try:
            context.add_cookies(self._context.cookies())  # type: ignore[arg-type]
            yield context.new_page()
        finally:
            context.close()

    def picture(self, name: str, page: Page | None = None) -> None:
        """A picture of the whole page."""
        page = page or self.page
        size = page.viewport_size
        assert size is not None
        # As if the window were as high: Chromium paints no frame that lies below it.
        height = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": size["width"], "height": max(height, size["height"])})
        page.screenshot(path=str(self._pictures / f"{name}.png"), full_page=True)
        page.set_viewport_size(size)

    def serious_findings(self, page: Page) -> list[str]:
        """What axe-core calls serious or critical in what this package adds to a page."""
        page.evaluate(self._axe.read_text())
        found = page.evaluate(
            """exclude => axe.run(
                {exclude: exclude.filter(one => document.querySelector(one)).map(one => [one])}, {iframes: false})""",
            _DJANGOS,
        )
        return [
            f"{one['id']}: {one['help']}: {node['html'][:160]}"
            for one in found["violations"]
            if one["impact"] in _SERIOUS
            for node in one["nodes"]
        ]


def wait_until(happened: Callable[[], Any], what: str) -> Any:
    """What comes as soon as workers have done it."""
    deadline = time.monotonic() + _LONGEST
    while not (result := happened()):
        if time.monotonic() > deadline:
            raise AssertionError(f"Not within {_LONGEST:.0f} s: {what}")
        time.sleep(0.1)
    return result
