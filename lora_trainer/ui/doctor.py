"""Step 4: what is wrong with the pictures."""

from __future__ import annotations

from lora_trainer.ui.widgets import Widgets, folded, mount


def panel(widgets: Widgets) -> None:
    with folded("4 · Check the pictures", "doctor", open=False):
        mount("doctor")
