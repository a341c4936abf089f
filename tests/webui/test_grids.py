"""Grids that the WebUI draws itself: what is compared is what its users get."""

from __future__ import annotations

import io
import json
import urllib.request
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.jobs.patience import until
from tests.webui.conftest import SIZE, draw, training
from tests.webui.host_tab import HostTab
from tests.webui.pictures import Drawn, difference
from tests.webui.webui import WebUI

PROMPT = "zorble, meadow"
PREVIEWS: dict[str, Any] = {
    "preview_prompts": [PROMPT],
    "preview_size": [SIZE, SIZE],
    "preview_steps": 4,
    "preview_cfg": 2,
    "preview_seed": 7,
    "preview_sampler": "Euler a",
}


@pytest.fixture(scope="module")
def trained(webui: WebUI) -> int:
    """A job of two epochs."""
    job = training(webui, "gridded", epochs=2, learning_rate=5e-3, **PREVIEWS)
    webui.until_status(job, "finished", seconds=1800)
    return job


@pytest.fixture(scope="module")
def grid(webui: WebUI, trained: int) -> dict[str, Any]:
    """Of both epochs at two weights, drawn."""
    asked = webui.ask("grids", "POST", {"job": trained, "weights": [0.5, 1]})
    until(lambda: webui.ask(f"tasks/{asked['task']['id']}")["state"] != "running", 1800, every=0.2)
    task = webui.ask(f"tasks/{asked['task']['id']}")
    assert task["state"] == "finished", task["detail"]
    shown: dict[str, Any] = webui.ask(f"grids/{asked['grid']['id']}")
    assert shown["drawn"] == len(shown["cells"]) == 5
    return shown


def cell(webui: WebUI, grid: dict[str, Any], lora: int | None = None, weight: int | None = None) -> Drawn:
    found = next(each for each in grid["cells"] if (each["lora"], each["weight"]) == (lora, weight))
    with urllib.request.urlopen(f"{webui.address}lora-trainer/v1/{found['picture']}", timeout=60) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB")).astype(float)


def test_a_cell_is_the_very_picture_that_txt2img_makes(
    webui: WebUI, trained: int, grid: dict[str, Any], facts: dict[str, Any]
) -> None:
    webui.ask(f"jobs/{trained}/keep", "POST", {"file": grid["loras"][0]["file"], "name": "gridded-first"})
    without = draw(webui, PROMPT)
    made = [draw(webui, f"{PROMPT} <lora:gridded-first:{weight:g}>") for weight in grid["weights"]]
    assert difference(without, cell(webui, grid)) == 0
    assert [difference(picture, cell(webui, grid, 0, place)) for place, picture in enumerate(made)] == [0, 0]
    told = [difference(without, picture) for picture in made]
    assert 0 < told[0] < told[1]
    facts["grid"] = {"levels from the base alone": dict(zip(map(str, grid["weights"]), told))}


def test_nothing_of_a_grid_comes_into_the_users_folders(webui: WebUI, grid: dict[str, Any]) -> None:
    folder = webui.extension / "jobs" / "grids" / str(grid["id"])
    assert len(list(folder.glob("*.png"))) == len(grid["cells"])
    made = [path for path in webui.data.rglob("*.png") if webui.extension not in path.parents]
    assert all(path.is_relative_to(webui.lora_folder) for path in made)
    known = webui.sdapi("loras")
    assert not any(each["name"].startswith("lora_trainer") for each in known)


def test_an_epoch_is_kept_at_its_weight_by_a_click_on_its_cell(webui: WebUI, tab: HostTab, trained: int) -> None:
    tab.show("Queue & history")
    row = tab.page.locator(f'.lora-trainer-history-job[data-job="{trained}"]')
    row.locator(".lora-trainer-history-head").click()
    row.locator(".lora-trainer-history-grid").click()
    dialog = tab.page.locator("#lora_trainer_drawn_grid")
    dialog.get_by_label("Weights of the LoRA, a column for each").fill("0.6, 0.9")
    expect(dialog).to_contain_text("5 pictures")
    tab.page.locator("#lora_trainer_grid_draw").click()
    expect(dialog.locator("td button")).to_have_count(6, timeout=1_800_000)  # the one without stands in both rows
    tab.shoot("16-grid", dialog)
    dialog.locator("td button").nth(1).click()
    tab.page.locator("#lora_trainer_picture_act").click()
    expect(tab.page.locator("#lora_trainer_keep_weight")).to_have_value("0.6")
    tab.page.locator("#lora_trainer_keep_name").fill("gridded-chosen")
    tab.page.locator("#lora_trainer_keep").click()
    expect(tab.page.locator(".lora-trainer-toast")).to_contain_text("gridded-chosen")
    card = json.loads((webui.lora_folder / "gridded-chosen.json").read_text(encoding="utf-8"))
    assert card["preferred weight"] == 0.6
    tab.reload()
    tab.show("My LoRAs")
    expect(tab.panel("loras")).to_contain_text("gridded-chosen")


def test_a_grid_is_there_again_and_goes_away_when_it_is_deleted(webui: WebUI, tab: HostTab, trained: int) -> None:
    tab.show("Queue & history")
    row = tab.page.locator(f'.lora-trainer-history-job[data-job="{trained}"]')
    row.locator(".lora-trainer-history-head").click()
    row.locator(".lora-trainer-history-grid").click()
    before = webui.ask(f"grids?job={trained}")["grids"]
    tab.page.locator("#lora_trainer_grids button").first.click()
    dialog = tab.page.locator("#lora_trainer_drawn_grid")
    expect(dialog.locator("td button")).to_have_count(6)
    dialog.get_by_text("Delete grid", exact=True).click()
    tab.confirm()
    expect(tab.page.locator("#lora_trainer_grids button")).to_have_count(len(before) - 1)
    assert len(webui.ask(f"grids?job={trained}")["grids"]) == len(before) - 1
