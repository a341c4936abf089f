"""Before step 1: whether the training packages are there, and a way to get them."""

from __future__ import annotations

from lora_trainer.ui.widgets import Widgets, mount


def panel(widgets: Widgets) -> None:
    mount("setup")
