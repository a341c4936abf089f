"""What a training made, from the events of its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer.jobs.event_log import find_events, read_events
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.jobs.history import History, Moment, history
from tests.jobs.made import draw, lora, save_lora, tell, train


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path / "1")
    folder.path.mkdir()
    return folder


def test_each_moment_has_its_previews_and_loras(folder: JobFolder) -> None:
    train(folder)
    made = history(folder)
    assert made.prompts == ["zdm", "zdm, red"]
    assert made.moments == [
        Moment(0, 0, {0: "epoch000000-00-42.png", 1: "epoch000000-01-42.png"}, []),
        Moment(70, 1, {0: "epoch000001-00-42.png", 1: "epoch000001-01-42.png"}, ["zdm-000001.safetensors"]),
        Moment(140, 2, {0: "epoch000002-00-42.png", 1: "epoch000002-01-42.png"}, ["zdm.safetensors"]),
    ]


def test_a_folder_without_anything_has_no_history(folder: JobFolder) -> None:
    assert history(folder) == history(JobFolder(folder.path / "nowhere")) == History([], [])


def test_what_is_gone_is_not_told_of(folder: JobFolder) -> None:
    train(folder)
    (folder.models / "zdm-000001.safetensors").unlink()
    (folder.samples / "epoch000000-01-42.png").unlink()
    baseline, first, _ = history(folder).moments
    assert (baseline.previews, first.loras) == ({0: "epoch000000-00-42.png"}, [])


def test_of_a_file_that_was_made_twice_the_last_word_counts(folder: JobFolder) -> None:
    """A job that began anew with other pictures has other steps."""
    draw(folder, "epoch000001-00-42.png", "red", epoch=1, step=70, prompt="old", number=0)
    draw(folder, "epoch000001-00-42.png", "red", epoch=1, step=35, prompt="new", number=0)
    made = history(folder)
    assert made.prompts == ["new"] and [moment.step for moment in made.moments] == [35]


def test_events_that_say_too_little_are_passed_over(folder: JobFolder) -> None:
    """So are those of jobs of other kinds, whose pictures belong to no step."""
    draw(folder, "cell-0-0.png", "red", weight=0.7, prompt="zdm", number=0)
    draw(folder, "a.png", "red", epoch="1", step=70, prompt="zdm", number=0)
    draw(folder, "b.png", "red", epoch=1, step=70, prompt="zdm", number=10**12)
    tell(folder, "sample", epoch=1, step=70, prompt="zdm", number=0)
    tell(folder, "saved", path=5, epoch=1, step=70)
    assert history(folder).prompts == [] and not any(moment.previews for moment in history(folder).moments)


def test_a_lora_is_shown_by_the_preview_of_its_own_moment_or_the_one_before(folder: JobFolder) -> None:
    train(folder, epochs=3)
    save_lora(folder, "zdm-step00000100.safetensors", lora(), epoch=2, step=100)
    made = history(folder)
    assert made.previews_of("zdm-000001.safetensors")[:1] == ["epoch000001-00-42.png"]
    assert made.previews_of("zdm.safetensors")[:1] == ["epoch000003-00-42.png"]
    assert made.previews_of("zdm-step00000100.safetensors")[:1] == ["epoch000002-00-42.png"]
    draw(folder, "step00000100-00-42.png", "red", epoch=2, step=100, prompt="zdm", number=0)
    assert history(folder).previews_of("zdm-step00000100.safetensors")[:1] == ["step00000100-00-42.png"]
    assert made.previews_of("other.safetensors") == []


def test_the_baseline_shows_no_lora(folder: JobFolder) -> None:
    draw(folder, "epoch000000-00-42.png", "grey", epoch=0, step=0, prompt="zdm", number=0)
    save_lora(folder, "zdm.safetensors", lora(), epoch=1, step=70)
    assert history(folder).previews_of("zdm.safetensors") == []


def test_events_of_a_kind_are_found_with_their_offsets(folder: JobFolder) -> None:
    train(folder)
    tell(folder, "warning", message='said "event": "sample" in its text')
    everything, _ = read_events(folder.events)
    wanted = [event for event in everything if event.kind in ("sample", "saved")]
    assert list(find_events(folder.events, ("sample", "saved"))) == wanted and len(wanted) == 8
    assert list(find_events(folder.path / "nowhere", ("sample",))) == []
