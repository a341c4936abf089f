"""Step 8: the name, and off it goes."""

from __future__ import annotations

from lora_trainer.ui.widgets import Widgets, folded, mount


def panel(widgets: Widgets) -> None:
    with folded("8 · Name and start", "start", open=True):
        widgets.settings("output_name")
        mount("start")
