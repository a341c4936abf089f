"""Our tab inside a WebUI's page, and what a user does beside it."""

from __future__ import annotations

import re

from playwright.sync_api import Error, Locator, Request, expect

from tests.browser.tab import Tab

TITLE = "Train LoRA"


class HostTab(Tab):
    """`faults` are errors of our own scripts alone: a WebUI's page has some of its own, and asks other machines."""

    def _look_at(self, request: Request) -> None:
        """What the page asks for is the WebUI's affair."""

    def _failed(self, error: Error) -> None:
        if "lora_trainer" in (error.stack or ""):
            self.faults.append(f"{error}\n{error.stack}")

    def open(self) -> None:
        self.page.goto(self.address)
        self.ready()
        self.top(TITLE)

    def reload(self) -> None:
        self.page.reload()
        self.ready()
        self.top(TITLE)

    def top(self, title: str) -> None:
        """One of the WebUI's own tabs; what A1111 calls txt2img is Txt2img in Forge."""
        named = re.compile(f"^\\s*{re.escape(title)}\\s*$", re.IGNORECASE)
        self.page.locator("#tabs > .tab-nav").first.get_by_text(named).click()

    def ready(self) -> None:
        super().ready()
        expect(self.page.locator("#lora_trainer_start[data-drawn]")).to_be_attached()

    @property
    def prompt(self) -> Locator:
        return self.page.locator("#txt2img_prompt textarea")

    def set_number(self, field: str, value: int) -> None:
        """One of txt2img's numbers."""
        number = self.page.locator(f"#txt2img_{field} input[type=number], #txt2img_{field} input").first
        number.fill(str(value))
        number.blur()

    def generate(self, seed: int, seconds: float = 300) -> None:
        """A picture by the WebUI's button; returns once it is there."""
        self.set_number("seed", seed)
        self.page.locator("#txt2img_generate").click()
        expect(self.page.locator("#html_info_txt2img").first).to_contain_text(f"Seed: {seed},", timeout=seconds * 1000)
