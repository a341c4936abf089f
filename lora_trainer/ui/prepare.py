"""Step 3: pictures are cut, and described by a tagger."""

from __future__ import annotations

from lora_trainer.ui.widgets import Widgets, folded, mount


def panel(widgets: Widgets) -> None:
    with folded("3 · Crop and tag", "prepare", open=True):
        widgets.settings("crop", "crop_size")
        widgets.settings("tagger", "tag_threshold", "character_threshold")
        widgets.settings("trigger_word", "existing_captions")
        mount("prepare")
