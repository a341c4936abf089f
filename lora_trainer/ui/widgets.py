"""The one place where settings become gradio's components, and where gradio 3 and 4 differ."""

from __future__ import annotations

import html
import json
from typing import Any

import gradio as gr

from lora_trainer.config import SETTINGS, Config
from lora_trainer.config.form import as_form, choices, kind, slider
from lora_trainer.config.setting import Setting
from lora_trainer.config.settings import RATE_FREE_OPTIMIZERS

PREFIX = "lora_trainer_"
HIDDEN = "lora-trainer-hidden"  # the class of what the browser's side shows when there is reason to
SCRIPT = "js" if int(gr.__version__.partition(".")[0]) >= 4 else "_js"
MOST_BUTTONS = 4  # choices that stand side by side; more go into a list
LINES = 3
LEFT_TO_HOST = ("output_folder",)  # shown empty, and then decided by the host


class Widgets:
    """The components of a page as they are laid out, each setting's at most once.

    No event of theirs reaches Python: what is typed goes to `loraTrainer.form` in the browser, and comes from there.
    """

    def __init__(self) -> None:
        self.components: dict[str, Any] = {}

    def settings(self, *names: str) -> None:
        """These settings side by side."""
        with gr.Row(elem_classes=["lora-trainer-settings"]):
            for name in names:
                self.components[name] = component(SETTINGS[name])

    def form(self) -> None:
        """What the browser's side needs, once everything is laid out: the values at first, and a way to set them."""
        names = list(self.components)
        values = {name: component.value for name, component in self.components.items()}
        mount("form", values=json.dumps(values), ratefree=json.dumps(RATE_FREE_OPTIMIZERS))
        fill = gr.Button("", elem_id=f"{PREFIX}fill", elem_classes=[HIDDEN])
        fill.click(None, None, list(self.components.values()), **{SCRIPT: f"() => loraTrainer.form.fill({names})"})
        for name, widget in self.components.items():
            widget.change(None, [widget], None, **{SCRIPT: f"(value) => loraTrainer.form.changed('{name}', value)"})


def component(row: Setting) -> Any:
    """The setting's component, with its label, its help and its default."""
    help = f"{row.help} {row.applies.sentence}" if row.applies else row.help
    value = "" if row.name in LEFT_TO_HOST else as_form(Config())[row.name]
    facts: dict[str, Any] = {"label": row.label, "info": help, "value": value, "elem_id": f"{PREFIX}{row.name}"}
    made = _component(row, {**facts, "interactive": True})
    made.do_not_save_to_config = True  # the WebUI would keep its value in ui-config.json
    return made


def mount(name: str, **data: str) -> None:
    """The place that `loraTrainer.panels[name]` draws in, with texts that its script finds in its dataset."""
    attributes = "".join(f' data-{key}="{html.escape(text)}"' for key, text in data.items())
    gr.HTML(f'<div id="{PREFIX}{name}" class="lora-trainer-panel"{attributes}></div>')


def folded(title: str, name: str, open: bool = False) -> gr.Accordion:
    """A fold with a title, for a `with`."""
    return gr.Accordion(title, open=open, elem_id=f"{PREFIX}fold_{name}", elem_classes=["lora-trainer-fold"])


def sub_tab(title: str, name: str) -> gr.TabItem:
    """One of the tab's own tabs, for a `with`."""
    return gr.TabItem(title, id=name, elem_id=f"{PREFIX}tab_{name}")


def _component(row: Setting, facts: dict[str, Any]) -> Any:
    what = kind(row)
    if what == "switch":
        return gr.Checkbox(**facts)
    if what == "choices":
        return gr.CheckboxGroup(list(row.choices), **facts)
    if what == "choice":
        words = choices(row)
        return (gr.Radio if len(words) <= MOST_BUTTONS else gr.Dropdown)(words, **facts)
    if span := slider(row):
        return gr.Slider(span[0], span[1], step=span[2], **facts)
    lines = {"lines": LINES} if what == "lines" else {"max_lines": 1}
    return gr.Textbox(**lines, **facts)
