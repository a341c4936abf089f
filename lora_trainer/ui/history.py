"""Step 9: what was trained, epoch by epoch."""

from __future__ import annotations

from lora_trainer.ui.widgets import folded, mount


def panel() -> None:
    with folded("9 · History", "history", open=True):
        mount("history")
