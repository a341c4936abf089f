"""The same with other settings, one job each, and one sheet of pictures."""

from __future__ import annotations

from lora_trainer.ui.widgets import folded, mount


def panel() -> None:
    with folded("Train several and compare", "compare", open=True):
        mount("compare")
