"""Our section in the WebUI's settings, and who may use the routes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI

from lora_trainer.hosts.webui import options
from lora_trainer.hosts.webui.access import access_of
from lora_trainer.packages import ROOT


def test_the_section_has_every_option(modules: SimpleNamespace) -> None:
    options.add()
    shown = modules.shared.opts.data_labels
    assert shown.keys() == options.OPTIONS.keys()
    for name, info in shown.items():
        assert (info.default, info.label, info.section) == (
            options.OPTIONS[name].default,
            options.OPTIONS[name].label,
            ("lora_trainer", "Train LoRA"),
        )
        assert options.OPTIONS[name].info in info.comment_after and info.restrict_api


def test_folders_are_hidden_where_the_webui_hides_its_own(modules: SimpleNamespace) -> None:
    modules.shared.cmd_opts.hide_ui_dir_config = True
    options.add()
    shown = modules.shared.opts.data_labels
    hidden = {name for name, info in shown.items() if info.component_args == {"visible": False}}
    assert hidden == {"lora_trainer_datasets", "lora_trainer_jobs"}


@pytest.mark.parametrize("language", ["ja_JP", "zh_CN"])
def test_the_section_is_there_in_every_language(language: str) -> None:
    words = json.loads((ROOT / "localizations" / f"{language}.json").read_text(encoding="utf-8"))
    texts = {text for option in options.OPTIONS.values() for text in (option.label, option.info)}
    assert not texts - words.keys()


def test_an_option_counts_before_the_settings_are_shown(modules: SimpleNamespace) -> None:
    assert options.value("lora_trainer_pause_to_generate") is True
    modules.shared.opts.data["lora_trainer_pause_to_generate"] = False
    assert options.value("lora_trainer_pause_to_generate") is False


def test_a_folder_is_the_one_that_is_set_or_our_own(modules: SimpleNamespace, tmp_path: Path) -> None:
    own = tmp_path / "own"
    assert options.folder("lora_trainer_datasets", own) == own
    modules.shared.opts.data["lora_trainer_datasets"] = f" {tmp_path / 'ずんだ'} "
    assert options.folder("lora_trainer_datasets", own) == tmp_path / "ずんだ"
    modules.shared.opts.data["lora_trainer_datasets"] = "below"
    assert options.folder("lora_trainer_datasets", own) == Path("below").absolute()


def test_a_webui_without_settings_has_nothing_to_heed(modules: SimpleNamespace) -> None:
    options.when_changed(("lora_trainer_datasets",), lambda: None)
    assert modules.shared.opts.data_labels == {}


def test_users_are_those_of_the_command_line(modules: SimpleNamespace) -> None:
    app = FastAPI()
    modules.shared.cmd_opts.api_auth = "me:secret, you:a:b"
    access = access_of(app)
    assert access.users == {"me": "secret", "you": "a:b"} and access.gradio_app is app
    modules.shared.cmd_opts.api_auth = None
    assert access_of(app).users is None


@pytest.mark.parametrize(
    ("flag", "reached"),
    [
        ({}, False),
        ({"listen": True}, True),
        ({"share": True}, True),
        ({"ngrok": "token"}, True),
        ({"server_name": "0.0.0.0"}, True),
        ({"server_name": "127.0.0.1"}, False),
        ({"server_name": None}, False),
    ],
)
def test_other_machines_reach_what_the_command_line_opens(
    modules: SimpleNamespace, flag: dict[str, object], reached: bool
) -> None:
    vars(modules.shared.cmd_opts).update(flag)
    access = access_of(FastAPI())
    assert access.listening_remotely is reached and access.allowed_remotely is False
    modules.shared.opts.data["lora_trainer_open_to_all"] = True
    assert access_of(FastAPI()).allowed_remotely is True
