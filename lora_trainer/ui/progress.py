"""What the training does."""

from __future__ import annotations

from lora_trainer.ui.widgets import Widgets, folded, mount


def panel(widgets: Widgets) -> None:
    with folded("Progress", "progress", open=True):
        mount("progress")
