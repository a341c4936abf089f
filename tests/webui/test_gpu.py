"""One GPU, the WebUI's and the training's: lent for each picture, and given back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from safetensors.numpy import load_file

from tests.webui.conftest import draw, training
from tests.webui.host_tab import HostTab
from tests.webui.program import REAL, SLOW
from tests.webui.webui import HAS_PROC, WebUI

EPOCHS, REPEATS = 4, 1 if SLOW else 5
STEPS = 7 * EPOCHS * REPEATS
MODEL_BYTES = 150 << 20  # less than the stand-in's model takes, and than any real one but the demo's


def events(webui: WebUI, job: int) -> list[str]:
    """The kinds of what the job's worker has told."""
    lines = (webui.extension / "jobs" / str(job) / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["event"] for line in lines]


@pytest.fixture(scope="module")
def undisturbed(webui: WebUI, facts: dict[str, Any]) -> Path:
    """The LoRA of a training in whose time the WebUI made no picture; the WebUI's memory is looked at meanwhile."""
    draw(webui, "meadow")
    memory = {"with the model": webui.resident()}
    job = training(webui, "undisturbed", EPOCHS, REPEATS)
    webui.until_step(job, 2)
    memory["released"] = webui.resident()
    webui.until_status(job, "finished", seconds=1800)
    assert "paused" not in events(webui, job)
    draw(webui, "meadow")
    facts["memory"] = {**memory, "with it again": webui.resident()}
    return webui.lora_folder / "undisturbed.safetensors"


@pytest.mark.skipif(not HAS_PROC, reason="the memory of a process is read from /proc")
@pytest.mark.skipif(bool(REAL) and not SLOW, reason="the demo's base is too small to be seen in its memory")
def test_the_model_is_let_go_of_while_a_training_runs(undisturbed: Path, facts: dict[str, Any]) -> None:
    memory = facts["memory"]
    assert memory["released"] < memory["with the model"] - MODEL_BYTES
    assert memory["with it again"] > memory["released"] + MODEL_BYTES


def test_a_picture_made_in_a_training_changes_nothing_of_it(
    webui: WebUI, tab: HostTab, undisturbed: Path, facts: dict[str, Any]
) -> None:
    job = training(webui, "disturbed", EPOCHS, REPEATS)
    webui.until_step(job, 2)
    tab.top("txt2img")
    type_a_prompt(tab)
    assert "paused" not in events(webui, job)  # counting its tokens is nothing for the GPU
    for field, value in {"width": 64, "height": 64, "steps": 4}.items():
        tab.set_number(field, value)
    before = webui.ask(f"jobs/{job}")["step"]
    tab.generate(seed=11)
    tab.shoot("15-generated-in-a-training")
    assert before < STEPS
    assert webui.until_status(job, "finished", seconds=1800)["step"] == STEPS
    told = events(webui, job)
    assert told.count("paused") == told.count("resumed") == 1
    facts["generate"] = {"step": before, "pauses": told.count("paused")}
    same(undisturbed, webui.lora_folder / "disturbed.safetensors")


def type_a_prompt(tab: HostTab) -> None:
    counter = tab.page.locator("#txt2img_token_counter").first
    before = counter.text_content() or ""
    tab.prompt.press_sequentially("a meadow at night")
    expect(counter).not_to_have_text(before)


def same(one: Path, other: Path) -> None:
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    assert all((first[key] == second[key]).all() for key in first)
