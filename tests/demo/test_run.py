"""The demo from end to end: its LoRA learns the mascot, and one of another mascot does not pass for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from lora_trainer.demo.mascots import CONTROL, MASCOT, write_training_set
from lora_trainer.demo.run import run_demo

EPOCHS = 4  # of the demo's ten: enough to learn it


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    run_demo(folder, epochs=EPOCHS)
    return folder


def test_learns_the_mascot_and_says_so_by_figures(out: Path) -> None:
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["learned"] is True and report["steps"] == EPOCHS * 70
    assert report["score_after"] > report["score_before"] and report["loss_after"] < report["loss_before"]
    assert report["seconds"] > 0 and report["peak_rss_mb"] > 0


def test_writes_the_lora_and_a_sheet_of_every_epoch(out: Path) -> None:
    assert len(load_file(out / "Lora" / f"{MASCOT.trigger}.safetensors")) == 3 * (192 + 72)
    with Image.open(out / "contact_sheet.png") as sheet:
        width, height = sheet.size
    assert width > 4 * 64 and height > (EPOCHS + 1) * 64
    assert len(list((out / "Lora" / f"{MASCOT.trigger}-run" / "previews").glob("*.png"))) == 4 * (EPOCHS + 1)


def test_a_lora_of_another_mascot_does_not_pass(tmp_path: Path) -> None:
    """The other mascot under this one's trigger word and in the same scenes: only its looks differ."""
    folder = tmp_path / f"10_{MASCOT.trigger}"
    write_training_set(CONTROL, folder)
    for caption in folder.glob("*.txt"):
        text = caption.read_text(encoding="utf-8").replace(CONTROL.trigger, MASCOT.trigger)
        caption.write_text(text, encoding="utf-8")
    result = run_demo(tmp_path, pictures=folder, epochs=EPOCHS)
    assert not result.learned and result.score_after < result.score_before
