"""Step 6: how long it trains."""

from __future__ import annotations

from lora_trainer.ui.widgets import Widgets, folded, mount


def panel(widgets: Widgets) -> None:
    with folded("6 · Repeats and epochs", "steps", open=True):
        widgets.settings("repeats", "epochs", "batch_size")
        mount("steps")
