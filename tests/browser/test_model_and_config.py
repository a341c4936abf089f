"""The base model and the config as text, as a user finds them on the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, expect
from safetensors.torch import save_file

from lora_trainer.config import load_toml
from lora_trainer.files import digest
from lora_trainer.hosts.standalone import DEMO
from tests.browser.server import Server
from tests.browser.tab import Tab, shows

OF_THE_DEMO = "demo/base.safetensors"
OF_SDXL = (
    "model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.0.transformer.x",
    "conditioner.embedders.1.model.x", "v_pred",
)  # fmt: skip
SD_SCRIPTS = """pretrained_model_name_or_path = "D:/base.safetensors"
network_dim = 12
nonsense = 3
train_data_dir = "D:/zdm"
"""
PRESETS = '{"a": {"config": {"network_dim": 4, "seed": 1}}, "b": {"config": {"network_dim": 5, "seed": 1}}}'


@pytest.fixture
def more_models(server: Server) -> None:
    """Models that somebody has put into the folder since the page was opened."""
    folder = server.folder / "models" / "Stable-diffusion"
    save_file({name: torch.zeros(4, 4, 3, 3) for name in OF_SDXL}, folder / "noobXL.safetensors")
    save_file({"joint_blocks.0.x_block.attn.qkv.weight": torch.zeros(1)}, folder / "sd3.safetensors")
    (folder / "page.safetensors").write_text("<html>Not found</html>", encoding="utf-8")


def row(tab: Tab, name: str) -> Locator:
    return tab.panel("model").locator(f'button[data-name="{name}"]')


def with_line(line: str) -> re.Pattern[str]:
    """Any text that has this line."""
    return re.compile(rf"(?:^|\n){re.escape(line)}\n")


def value(tab: Tab, setting: str) -> Any:
    return tab.page.evaluate("name => loraTrainer.form.value(name)", setting)


def test_the_only_base_model_is_chosen_and_said_what_it_is(tab: Tab) -> None:
    details = tab.panel("model_details")

    shows(details, "SD1.5")
    shows(details, "epsilon")
    expect(tab.field("base_model")).to_have_value(OF_THE_DEMO)
    details.get_by_role("button", name="Compute the hash").click()
    expect(details.locator("code")).to_have_text(digest(DEMO / "base.safetensors"))


def test_a_base_model_by_its_family(tab: Tab, more_models: None) -> None:
    panel, details = tab.panel("model"), tab.panel("model_details")
    tab.panel("model_refresh").click()
    shows(panel, "SDXL (1)")
    panel.get_by_role("button", name="SDXL (1)").click()
    expect(row(tab, OF_THE_DEMO)).to_have_count(0)
    row(tab, "noobXL.safetensors").click()
    shows(details, "v prediction")
    expect(tab.field("base_model")).to_have_value("noobXL.safetensors")
    panel.get_by_role("button", name="SD3 (1)").click()
    row(tab, "sd3.safetensors").click()
    shows(details, "a Stable Diffusion 3 model, which can't be trained. Choose an SD1.5, SD2, SDXL or Flux.1 model.")
    panel.get_by_role("button", name="All").click()
    tab.panel("model_search").fill("PAGE")
    row(tab, "page.safetensors").click()
    shows(details, "a web page, saved in place of the model")
    assert not tab.faults


def test_values_to_begin_with_are_filled_in_and_taken_back(tab: Tab, more_models: None) -> None:
    tab.panel("model_refresh").click()
    row(tab, "noobXL.safetensors").click()
    tab.panel("model").get_by_text("Values to begin with").click()
    expect(tab.panel("preset_base")).to_have_value("noobai")
    before = value(tab, "rank")
    tab.panel("preset_fill").click()
    expect(tab.field("rank")).to_have_value("16")
    assert (value(tab, "prediction_type"), value(tab, "family")) == ("v", "auto")
    tab.shoot("model", tab.page.locator("#lora_trainer_fold_model"))
    tab.page.get_by_role("button", name="Undo").click()
    expect(tab.field("rank")).to_have_value(str(before))


def test_the_text_follows_the_form_and_the_form_the_text(tab: Tab) -> None:
    tab.fold("config_text")
    area = tab.panel("config_area")
    expect(area).to_have_value(with_line("rank = 32"))
    tab.fill("rank", "48")
    expect(area).to_have_value(with_line("rank = 48"))
    area.fill(area.input_value().replace("rank = 48", "rank=24"))
    shows(tab.panel("config_text"), "not in the form yet")
    tab.panel("config_format").click()
    expect(area).to_have_value(with_line("rank = 24"))
    tab.panel("config_apply").click()
    expect(tab.field("rank")).to_have_value("24")
    shows(tab.panel("config_text"), "as in the form")


def test_every_mistake_is_shown_with_its_line(tab: Tab) -> None:
    tab.fold("config_text")
    area, found = tab.panel("config_area"), tab.panel("config_found")
    area.fill("rank = 0\n[training]\noptimiser = 'Lion'\nbatch_size = 'two'\n")
    tab.panel("config_format").click()
    for line in ("Line 1", "Line 3", "Line 4"):
        shows(found, line)
    shows(found, 'Did you mean "optimizer"?')
    tab.shoot("config", tab.page.locator("#lora_trainer_fold_config_text"))
    found.get_by_role("button", name="Line 3").click()
    selected = "element => element.value.slice(element.selectionStart, element.selectionEnd)"
    assert area.evaluate(selected) == "optimiser = 'Lion'"
    tab.panel("config_apply").click()
    expect(found.locator("li")).not_to_have_count(0)
    assert value(tab, "batch_size") == 2


def test_a_config_of_another_program_is_read(tab: Tab, tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text(SD_SCRIPTS, encoding="utf-8")
    (tmp_path / "presets.json").write_text(PRESETS, encoding="utf-8")
    tab.fold("config_text")
    tab.panel("config_files").set_input_files(tmp_path / "train.toml")
    shows(tab.panel("config_report"), "nonsense = 3")
    tab.panel("config_apply").click()
    expect(tab.field("rank")).to_have_value("12")
    expect(tab.field("base_model")).to_have_value(OF_THE_DEMO)
    assert [part["folder"] for part in value(tab, "subsets")] == ["D:/zdm"]
    tab.page.evaluate("loraTrainer.choose('demo')")
    assert value(tab, "subsets") == []
    tab.panel("config_files").set_input_files(tmp_path / "presets.json")
    tab.panel("config_presets").select_option(index=1)
    tab.panel("config_preset").click()
    expect(tab.panel("config_area")).to_have_value(with_line("rank = 5"))


def test_what_is_downloaded_can_be_trained_elsewhere(tab: Tab, tmp_path: Path) -> None:
    tab.page.evaluate("loraTrainer.choose('demo')")
    row(tab, OF_THE_DEMO).click()
    tab.fold("config_text")
    with tab.page.expect_download() as download:
        tab.panel("config_download").click()
    download.value.save_as(tmp_path / "config.toml")
    config = load_toml(tmp_path / "config.toml")
    assert Path(config.base_model).is_file() and [Path(part.folder).name for part in config.subsets] == ["demo"]
    tab.panel("config_export").click()
    shows(tab.panel("config_report"), "accelerate launch train_network.py")
    with tab.page.expect_download() as download:
        tab.panel("config_report").get_by_role("link").first.click()
    download.value.save_as(tmp_path / "sd.toml")
    assert "network_dim = 32" in (tmp_path / "sd.toml").read_text(encoding="utf-8")
