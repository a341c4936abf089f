"""The tab in a browser, as a user sees it: by the words, fields and buttons on it."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Error, Locator, Page, Request, ViewportSize, expect

SUB_TABS = ("Train", "Queue & history", "My LoRAs", "Compare")
THEMES = ("light", "dark")
PHONE: ViewportSize = {"width": 390, "height": 844}


class Tab:
    """One page in one browser. `faults` are errors of its scripts, and requests to anywhere but the host."""

    def __init__(self, page: Page, address: str, pictures: Path) -> None:
        self.page, self.address, self._pictures = page, address, pictures
        self.faults: list[str] = []
        page.on("pageerror", self._failed)
        page.on("request", self._look_at)

    def _failed(self, error: Error) -> None:
        self.faults.append(str(error))

    def _look_at(self, request: Request) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.faults.append(f"asks for {request.url}")

    def open(self) -> None:
        """The page, drawn as far as that every panel is there."""
        self.page.goto(self.address)
        self.ready()

    def reload(self) -> None:
        self.page.reload()
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_selector("#lora_trainer_start_training", state="attached")

    def show(self, title: str) -> None:
        """One of the sub-tabs."""
        self.page.locator("#lora_trainer_tabs > .tab-nav button", has_text=title).click()

    def fold(self, name: str) -> Locator:
        """A panel, unfolded."""
        fold = self.page.locator(f"#lora_trainer_fold_{name}")
        title = fold.locator(".label-wrap").first
        if "open" not in (title.get_attribute("class") or ""):
            title.click()
        return fold

    def panel(self, name: str) -> Locator:
        """What our scripts have drawn in a panel."""
        return self.page.locator(f"#lora_trainer_{name}")

    def field(self, setting: str) -> Locator:
        """The first field of a setting's widget, made visible."""
        widget = self.page.locator(f"#lora_trainer_{setting}")
        if not widget.is_visible():
            widget.evaluate("element => loraTrainer.unfold(element)")
        return widget.locator("input[type=number], input:not([type=range]), textarea").first

    def fill(self, setting: str, text: str) -> None:
        """Types into a setting's field, as a user who then goes on to the next one."""
        field = self.field(setting)
        field.fill(text)
        field.blur()

    def tick(self, setting: str, on: bool) -> None:
        self.field(setting).set_checked(on)

    def choose(self, setting: str, words: str) -> None:
        """One of a setting's choices, from a list or from buttons."""
        field = self.field(setting)
        widget = self.page.locator(f"#lora_trainer_{setting}")
        if widget.locator("input[type=radio]").count():
            widget.locator("label", has_text=re.compile(f"^\\s*{re.escape(words)}\\s*$")).click()
        else:
            field.click()
            options = widget.locator("[role=option], ul.options li").or_(self.page.locator("ul.options li"))
            options.filter(has_text=re.compile(f"^[\\s✓]*{re.escape(words)}\\s*$")).first.click()

    def confirm(self) -> None:
        """Says yes to the question on the page."""
        self.page.locator("#lora_trainer_confirm").click()

    def told(self, setting: str) -> Locator:
        """What stands beside a setting's field about it."""
        return self.page.locator(f'.lora-trainer-beside[data-setting^="{setting}"]')

    def shoot(self, name: str, what: Locator | None = None) -> None:
        """Keeps a picture of the page, or of a part of it, in both themes."""
        self._pictures.mkdir(parents=True, exist_ok=True)
        for theme in THEMES:
            self.page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")
            path = self._pictures / f"{name}-{theme}.png"
            if what:
                what.screenshot(path=path, animations="disabled")
            else:
                self.page.screenshot(path=path, full_page=True, animations="disabled")
        self.page.evaluate("document.body.classList.remove('dark')")

    def shoot_on_a_phone(self, name: str) -> None:
        """The same of the whole page on a phone-wide window, where nothing may lie beyond the right edge."""
        before = self.page.viewport_size
        self.page.set_viewport_size(PHONE)
        try:
            self.shoot(name)
            wide = self.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= PHONE["width"], f"the page is {wide} px wide on a phone"
        finally:
            if before:
                self.page.set_viewport_size(before)


def shows(where: Locator, words: str | re.Pattern[str], seconds: float = 20) -> None:
    """Waits until these words stand there."""
    expect(where).to_contain_text(words, timeout=seconds * 1000)
