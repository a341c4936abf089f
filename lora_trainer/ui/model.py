"""Step 2: the base model."""

from __future__ import annotations

from lora_trainer.ui.widgets import Widgets, folded, mount


def panel(widgets: Widgets) -> None:
    with folded("2 · Base model", "model", open=True):
        mount("model")
        widgets.settings("base_model")
