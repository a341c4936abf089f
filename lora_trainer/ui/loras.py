"""Step 10: the LoRAs there are, to be used."""

from __future__ import annotations

from lora_trainer.ui.widgets import folded, mount


def panel() -> None:
    with folded("10 · My LoRAs", "loras", open=True):
        mount("loras")
