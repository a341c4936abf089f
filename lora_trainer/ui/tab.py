"""The whole tab."""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui import (
    advanced,
    captions,
    compare,
    config_text,
    doctor,
    history,
    loras,
    model,
    pictures,
    prepare,
    previews,
    progress,
    queue,
    setup,
    start,
    steps,
)
from lora_trainer.ui.widgets import Widgets, sub_tab

TITLE, NAME = "Train LoRA", "lora_trainer"
GUIDE = (setup, pictures, model, prepare, doctor, captions, steps, previews, start, progress, advanced, config_text)


def build() -> gr.Blocks:
    """The tab's components, to be put into a WebUI or to be served by themselves."""
    widgets = Widgets()
    with gr.Blocks(analytics_enabled=False, title=TITLE) as tab, gr.Tabs(elem_id="lora_trainer_tabs"):
        with sub_tab("Train", "train"):
            for part in GUIDE:
                part.panel(widgets)
            widgets.form()
        with sub_tab("Queue & history", "queue"):
            queue.panel()
            history.panel()
        with sub_tab("My LoRAs", "loras"):
            loras.panel()
        with sub_tab("Compare", "compare"):
            compare.panel()
    return tab
