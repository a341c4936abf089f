"""Our section in the WebUI's settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECTION = ("lora_trainer", "Train LoRA")


@dataclass(frozen=True)
class Option:
    """`label` and `info` as the settings show them, and as localizations know them."""

    default: Any
    label: str
    info: str


OPTIONS = {
    "lora_trainer_pause_to_generate": Option(
        True,
        "Pause the training while the WebUI makes pictures",
        "Without it both use the GPU at once, which needs memory for both.",
    ),
    "lora_trainer_install_at_start": Option(
        False,
        "Install the training packages when the WebUI starts",
        "Else the tab asks, and installs them while you watch.",
    ),
    "lora_trainer_datasets": Option("", "Folder of the datasets", "Empty: the extension's own."),
    "lora_trainer_jobs": Option(
        "", "Folder of the training jobs", "Empty: the extension's own. Counts from the next start of the WebUI."
    ),
    "lora_trainer_open_to_all": Option(
        False,
        "Let other machines read and train without a password",
        "For a WebUI that others can reach (--listen, --share) and that asks nobody for a password.",
    ),
}
FOLDERS = ("lora_trainer_datasets", "lora_trainer_jobs")


def add() -> None:
    """Puts the section into the settings."""
    from modules import shared

    visible = not getattr(shared.cmd_opts, "hide_ui_dir_config", False)
    for name, option in OPTIONS.items():
        component = {"visible": visible} if name in FOLDERS else None
        info = shared.OptionInfo(option.default, option.label, component_args=component, section=SECTION)
        info.comment_after = f" <span class='info'>{option.info}</span>"
        info.restrict_api = True  # whom they let in, and where to, is said on the page
        shared.opts.add_option(name, info)


def value(name: str) -> Any:
    """As it is set, whether the settings have been shown or not."""
    from modules import shared

    return shared.opts.data.get(name, OPTIONS[name].default)


def folder(name: str, own: Path) -> Path:
    """The folder that is set, or the extension's own."""
    text = str(value(name) or "").strip()
    return Path(text).expanduser().absolute() if text else own


def when_changed(names: tuple[str, ...], act: Callable[[], None]) -> None:
    """Has `act` be called once one of them was changed in the settings, where the WebUI has that page."""
    from modules import shared

    for name in names:
        if name in shared.opts.data_labels:
            shared.opts.onchange(name, act, call=False)
