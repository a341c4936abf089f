"""What runs, and what waits."""

from __future__ import annotations

from lora_trainer.ui.widgets import folded, mount


def panel() -> None:
    with folded("Queue", "queue", open=True):
        mount("queue")
