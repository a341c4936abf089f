"""Step 7: the previews of each epoch."""

from __future__ import annotations

from lora_trainer.ui.widgets import Widgets, folded, mount


def panel(widgets: Widgets) -> None:
    with folded("7 · Preview prompts", "previews", open=True):
        widgets.settings("preview_prompts")
        mount("previews")
