"""Step 5: what the captions say."""

from __future__ import annotations

from lora_trainer.ui.widgets import Widgets, folded, mount


def panel(widgets: Widgets) -> None:
    with folded("5 · Captions", "captions", open=True):
        mount("captions")
