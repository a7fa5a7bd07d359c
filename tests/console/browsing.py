"""A real Chromium for the tests of pages, and what every page has to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.support.gateways import RunningGateway, ask
from tests.support.requirements import program

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
PATIENCE_MS = 15_000
"""A machine that does other things as well takes longer; and who has sent wrong tokens waits on purpose."""

expect.set_options(timeout=PATIENCE_MS)

WIDTHS = (390, 1_440)
AXE = Axe().axe_script
RUN_AXE = "options => axe.run(document, options).then(found => found.violations)"
VIOLATIONS = {"resultTypes": ["violations"], "preload": False}
"""axe lists one example alone of what it finds right, and loads no styles for rules of sound and rotation."""

SERIOUS = {"serious", "critical"}
EXPECTED_NOISE = ("401 (Unauthorized)", "Password forms should have")
"""Nobody is signed in at first; and a token has no user name."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's own; Playwright's cannot be had from a package."""
    path = program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Visitor:
    """Somebody at a browser; what goes wrong on a page is kept."""

    def __init__(self, browser: Browser, base: str, *, width: int = 1440, scheme: str = "light") -> None:
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            accept_downloads=True,
            permissions=["clipboard-read", "clipboard-write"],
        )
        self.context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self.base = base
        self.width = width
        self.scheme = scheme
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def sign_in(self, token: str) -> None:
        """By a token, as the page does it, but without waiting for what it shows then."""
        body, own = {"token": token}, {"x-lightmeter-console": "1"}
        answer = ask("POST", f"{self.base}/console/session", body=body, headers=own)
        assert answer.status == 200, answer.body
        name, _, value = answer.headers["Set-Cookie"].partition(";")[0].partition("=")
        self.context.add_cookies([{"name": name, "value": value, "url": self.base}])

    def visit(self, path: str, heading: str | None = None) -> Page:
        """A page of the console, once it is shown."""
        self.page.goto(f"{self.base}/console/{path}")
        if heading is not None:
            expect(self.page.get_by_role("heading", level=1)).to_have_text(heading)
        expect(self.page.get_by_text("Loading …")).to_have_count(0)
        return self.page

    def check_everywhere(self) -> None:
        """The same page on a desk and on a phone, in light and in dark, is right; and as narrow and wide as any."""
        for width in (320, 3_840):
            self._resize(width)
            assert self.page.evaluate("document.documentElement.scrollWidth") <= width
        for width in WIDTHS:
            self._resize(width)
            self._paint("light")
            self.check()
            # Nothing else is another in other colours.
            self._paint("dark")
            self.check(rules=["color-contrast"])
        self._paint("light")
        self._resize(WIDTHS[-1])

    def check(self, *, axe: bool = True, rules: Sequence[str] = ()) -> None:
        """Nothing went wrong, nothing is wider than the window, and axe finds nothing serious by all ``rules``."""
        assert self.wrong == [], f"{self.page.url}: {self.wrong}"
        assert self.page.evaluate("document.documentElement.scrollWidth") <= self.width
        if axe:
            options = {**VIOLATIONS, **({"runOnly": list(rules)} if rules else {})}
            if not self.page.evaluate("'axe' in window"):
                self.page.evaluate(AXE)
            found = self.page.evaluate(RUN_AXE, options)
            serious = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in SERIOUS]
            assert serious == [], f"{self.page.url}, {self.width} px, {self.scheme}: {serious}"

    def _resize(self, width: int) -> None:
        self.width = width
        self.page.set_viewport_size({"width": width, "height": 900})

    def _paint(self, scheme: str) -> None:
        self.scheme = scheme
        self.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(noise in text for noise in EXPECTED_NOISE):
            self.wrong.append(text)


@contextmanager
def visitor(
    browser: Browser, gateway: RunningGateway, token: str | None, *, width: int = 1440, scheme: str = "light"
) -> Iterator[Visitor]:
    """Somebody at the console, signed in with ``token`` where there is one."""
    person = Visitor(browser, gateway.admin_url, width=width, scheme=scheme)
    try:
        if token is not None:
            person.sign_in(token)
        yield person
    finally:
        person.context.close()
