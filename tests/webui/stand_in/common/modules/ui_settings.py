"""The tab "Settings": one page for each section; "Apply settings" saves all, "Reload UI" makes the page again."""

from __future__ import annotations

import gradio as gr
from modules import sd_models, shared, ui
from modules.call_queue import wrap_gradio_call_no_job

opts = shared.opts
_COMPONENTS = {str: gr.Textbox, int: gr.Number, float: gr.Number, bool: gr.Checkbox}


def create_setting_component(key):
    info = opts.data_labels[key]
    args = info.component_args() if callable(info.component_args) else info.component_args or {}
    component = info.component or _COMPONENTS.get(type(info.default), gr.Textbox)
    return component(label=info.label, value=lambda: getattr(opts, key), elem_id=f"setting_{key}", **args)


class UiSettings:
    def create_ui(self):
        self.components = {}
        sections = {}
        for key, info in opts.data_labels.items():
            if info.section and info.section[0] != "sd":
                sections.setdefault(tuple(info.section), []).append(key)
        with gr.Blocks(analytics_enabled=False) as interface:
            with gr.Row():
                self.submit = gr.Button("Apply settings", variant="primary", elem_id="settings_submit")
                restart = gr.Button("Reload UI", variant="primary", elem_id="settings_restart_gradio")
            self.result = gr.HTML(elem_id="settings_result")
            with gr.Tabs(elem_id="settings"):
                for (name, label), keys in sections.items():
                    with gr.TabItem(label, elem_id=f"settings_{name}"):
                        for key in keys:
                            self.components[key] = create_setting_component(key)
                with gr.TabItem("Actions", id="actions"):
                    gr.HTML("")
            self.text = gr.Textbox(elem_id="settings_json", value=lambda: opts.dumpjson(), visible=False)
            restart.click(shared.state.request_restart, [], [], **ui.js("restart_reload"))
        return interface

    def add_quicksettings(self):
        with gr.Row(elem_id="quicksettings"):
            self.checkpoint = gr.Dropdown(
                label="Stable Diffusion checkpoint",
                value=lambda: opts.sd_model_checkpoint,
                choices=sd_models.checkpoint_tiles(),
                allow_custom_value=True,
                elem_id="setting_sd_model_checkpoint",
            )
            self.change = gr.Button("Change checkpoint", elem_id="change_checkpoint", visible=False)

    def add_functionality(self):
        self.submit.click(
            wrap_gradio_call_no_job(self.run_settings, extra_outputs=[gr.update()]),
            list(self.components.values()),
            [self.text, self.result],
        )
        self.change.click(
            sd_models.choose_checkpoint,
            [self.checkpoint],
            [self.checkpoint, self.text],
            **ui.js("(v) => { const name = desiredCheckpointName; desiredCheckpointName = null; return name || v; }"),
        )

    def run_settings(self, *values):
        changed = [key for key, value in zip(self.components, values) if opts.set(key, value)]
        opts.save(shared.config_filename)
        return opts.dumpjson(), f"{len(changed)} settings changed: {', '.join(changed)}."
