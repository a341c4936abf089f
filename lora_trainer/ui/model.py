"""Step 2: the base model, and the files that a Flux has beside its own."""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui.widgets import HIDDEN, PREFIX, Widgets, folded, mount


def panel(widgets: Widgets) -> None:
    with folded("2 · Base model", "model", open=True):
        mount("model")
        widgets.settings("base_model")
        with gr.Column(elem_id=f"{PREFIX}with_parts", elem_classes=[HIDDEN]):
            mount("parts")
            widgets.settings("clip_l", "t5xxl")
            widgets.settings("ae", "t5_tokenizer")
