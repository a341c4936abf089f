"""The page: quicksettings, txt2img, the extensions' tabs, Settings, Extensions; the ids are the real ones'."""

from __future__ import annotations

import json

import gradio as gr
from modules import extra_networks, script_callbacks, sd_models, shared, ui_extensions, ui_settings
from modules.call_queue import wrap_gradio_gpu_call, wrap_queued_call
from modules.txt2img import txt2img

OLD = hasattr(gr.Button, "update")  # gradio 3 takes `_js`, which is `js` in 4


def js(code):
    return {"_js": code} if OLD else {"js": code}


def create_ui():
    script_callbacks.ui_settings_callback()
    with gr.Blocks(analytics_enabled=False) as txt2img_interface:
        _txt2img()
    settings = ui_settings.UiSettings()
    settings_interface = settings.create_ui()
    title = "Txt2img" if shared.is_forge else "txt2img"
    tabs = [(txt2img_interface, title, "txt2img"), *script_callbacks.ui_tabs_callback()]
    tabs += [(settings_interface, "Settings", "settings"), (ui_extensions.create_ui(), "Extensions", "extensions")]
    with gr.Blocks(analytics_enabled=False, title="Stable Diffusion") as demo:
        settings.add_quicksettings()
        with gr.Tabs(elem_id="tabs"):
            for interface, label, name in tabs:
                with gr.TabItem(label, id=name, elem_id=f"tab_{name}"):
                    interface.render()
        settings.add_functionality()
    return demo


def update_token_counter(text, steps):
    words = extra_networks.parse_prompt(text)[0].replace(",", " ").split()
    return f"<span class='gr-box gr-text-input'>{len(words)}/75</span>"


def _txt2img():
    with gr.Row(elem_id="txt2img_toprow"):
        with gr.Column(scale=6):
            prompt = gr.Textbox(label="Prompt", elem_id="txt2img_prompt", show_label=False, lines=3)
            negative = gr.Textbox(label="Negative prompt", elem_id="txt2img_neg_prompt", show_label=False, lines=3)
        with gr.Column(scale=1):
            submit = gr.Button("Generate", elem_id="txt2img_generate", variant="primary")
            counter = gr.HTML("<span>0/75</span>", elem_id="txt2img_token_counter", visible=False)
            count = gr.Button(visible=False, elem_id="txt2img_token_button")
    with gr.Tabs(elem_id="txt2img_extra_tabs"):
        with gr.Tab("Generation", id="txt2img_generation"):
            steps = gr.Slider(1, 150, value=20, step=1, label="Sampling steps", elem_id="txt2img_steps")
            width = gr.Slider(64, 2048, value=512, step=8, label="Width", elem_id="txt2img_width")
            height = gr.Slider(64, 2048, value=512, step=8, label="Height", elem_id="txt2img_height")
            cfg_scale = gr.Slider(1, 30, value=7, step=0.5, label="CFG Scale", elem_id="txt2img_cfg_scale")
            seed = gr.Number(label="Seed", value=-1, elem_id="txt2img_seed", precision=0)
            gallery = gr.Gallery(label="Output", show_label=False, elem_id="txt2img_gallery")
            info = gr.Textbox(visible=False, elem_id="generation_info_txt2img")
            html_info = gr.HTML(elem_id="html_info_txt2img")
        with gr.Tab("Lora", elem_id="txt2img_lora"):
            cards = gr.HTML("Loading...", elem_id="txt2img_lora_cards_html")
            refresh = gr.Button("Refresh", elem_id="txt2img_lora_extra_refresh_internal", visible=False)
    inputs = [prompt, negative, steps, cfg_scale, width, height, seed]
    made = wrap_gradio_gpu_call(txt2img, extra_outputs=[None, ""])
    submit.click(made, inputs, [gallery, info, html_info], show_progress=False)
    count.click(wrap_queued_call(update_token_counter), [prompt, steps], [counter], show_progress=False)
    refresh.click(_cards, [], [cards], show_progress=False)


def _cards():
    """The LoRAs as the page of cards has them; A1111 cannot make them while no model is there."""
    sd_models.check_for_cards()
    network = extra_networks.extra_network_registry.get("lora")
    found = network.cards() if network else []
    return "".join(
        f'<div class="card" data-name="{name}" data-prompt=\'{json.dumps(text)}\'></div>' for name, text in found
    )
