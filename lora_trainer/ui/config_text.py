"""The whole form as text, and configs of other programs."""

from __future__ import annotations

from lora_trainer.ui.widgets import Widgets, folded, mount


def panel(widgets: Widgets) -> None:
    with folded("Config as text", "config_text", open=False):
        mount("config_text")
