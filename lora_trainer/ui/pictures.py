"""Step 1: the pictures come in, and one of the sets is chosen."""

from __future__ import annotations

from lora_trainer.ui.widgets import Widgets, folded, mount


def panel(widgets: Widgets) -> None:
    with folded("1 · Pictures", "pictures", open=True):
        mount("pictures")
        widgets.settings("background")
