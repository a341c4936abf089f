from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import ImageFilter

from tests.commands.conftest import Command, contents
from tests.dataset.doctor.scenes import scene
from tests.flux_files import write_tokenizer


@pytest.fixture
def mascot(tmp_path: Path) -> Path:
    """Three sound pictures, a copy, a small one, a blurred one, one that cannot be read, and a caption left alone."""
    folder = tmp_path / "sets" / "mascot" / "10_zdm"
    folder.mkdir(parents=True)
    for number in range(3):
        scene(number).save(folder / f"{number}.png")
    scene(0).save(folder / "copy.bmp")
    scene(3, 200).save(folder / "small.png")
    scene(4).filter(ImageFilter.GaussianBlur(4)).save(folder / "blurred.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    for path in sorted(folder.iterdir()):
        path.with_suffix(".txt").write_text("zdm, hat", encoding="utf-8")
    (folder / "2.txt").write_text(", ".join(f"word {number}" for number in range(40)), encoding="utf-8")
    (folder / "alone.txt").write_text("zdm", encoding="utf-8")
    return folder.parent


def test_findings_and_buckets_are_told(command: Command, mascot: Path) -> None:
    before = contents(mascot)
    said = command("doctor", "mascot", "--datasets", mascot.parent)
    text = "\n".join(said.out)
    assert said.code == 0 and contents(mascot) == before
    assert said.out[0] == "7 pictures, to be trained at 512 x 512:"
    assert said.out[1].split()[:3] == ["size", "pictures", "cropped"]
    assert said.out[2].split() == ["512", "x", "512", "6", "0.0%", "0.0%", "1"]
    headings = [line for line in said.out if line.endswith(" (1)")]
    assert [line.split()[0] for line in headings] == [
        *("unreadable", "too-small", "blurred", "duplicate", "cut-off", "no-picture"),
    ]
    assert "10_zdm/small.png: 200 x 200 pixels would be enlarged 2.56 times" in text
    assert "10_zdm/2.png: its caption has 149 tokens, 75 are trained" in text  # 40 words, 70 digits, 39 commas


def test_as_json(command: Command, mascot: Path) -> None:
    (line,) = command("doctor", mascot, "--json").out
    facts = json.loads(line)
    assert facts["pictures"] == 7 and facts["left_out"] == [] and len(facts["trained"]) == 6
    (same,) = [found for found in facts["findings"] if found["kind"] == "duplicate"]
    assert [Path(file).name for file in same["files"]] == ["0.png", "copy.bmp"]
    assert [Path(file).name for file in same["leave_out"]] == ["copy.bmp"] and same["remedy"]
    small = next(row for row in facts["trained"] if row["picture"].endswith("small.png"))
    assert (small["size"], small["bucket"], small["cropped"], small["enlarged"]) == ([200, 200], [512, 512], 0, 2.56)


def test_what_it_finds_can_be_left_out(command: Command, mascot: Path) -> None:
    said = command("doctor", mascot, "--leave-out", "duplicate", "too-small", "unreadable", "--json")
    names = ["broken.jpg", "copy.bmp", "small.png"]
    assert said.code == 0 and [Path(file).name for file in json.loads(said.out[0])["left_out"]] == names
    assert {path.name for path in (mascot / "left_out").rglob("*.*")} >= {*names, "small.txt"}
    assert {path.stem for path in (mascot / "10_zdm").iterdir()} == {"0", "1", "2", "blurred", "alone"}
    kinds = {found["kind"] for found in json.loads(command("doctor", mascot, "--json").out[0])["findings"]}
    assert kinds == {"blurred", "cut-off", "no-picture"}


def test_nothing_to_leave_out_moves_nothing(command: Command, mascot: Path) -> None:
    before = contents(mascot)
    assert command("doctor", mascot, "--leave-out", "near-duplicate").code == 0
    assert contents(mascot) == before


def test_the_size_and_the_length_can_be_chosen(command: Command, mascot: Path) -> None:
    said = command(
        "doctor", mascot, "--resolution", "192x192", "--set", "max_token_length=150", "min_bucket=128", "--json"
    )
    facts = json.loads(said.out[0])
    kinds = {found["kind"] for found in facts["findings"]}
    assert kinds == {"unreadable", "duplicate", "no-picture"}, "at 192 pixels, a blur of 4 of 512 is small"
    assert {tuple(row["bucket"]) for row in facts["trained"]} == {(192, 192)}
    said = command("doctor", mascot, "--set", "family=sdxl")
    assert said.out[0].endswith("1024 x 1024:") and "too-small (6)" in said.out


def test_captions_of_flux_are_as_long_as_t5_reads_them(command: Command, tmp_path: Path) -> None:
    scene(1).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a photo of a blob in red, " * 70, encoding="utf-8")  # of T5, 8 tokens each
    flux = ("doctor", tmp_path, "--set", "family=flux", "resolution=512x512")
    said = command(*flux)
    assert "note: the lengths of captions were not looked at: t5_tokenizer" in said.out[-1]
    named = (*flux, f"t5_tokenizer={write_tokenizer(tmp_path / 'tokenizer.json')}")
    assert "its caption has 560 tokens, 511 are trained" in "\n".join(command(*named).out)
    assert "560 tokens, 255 are trained" in "\n".join(command(*named, "t5_length=256").out)
    (tmp_path / "a.txt").write_text("a photo of a blob in red, " * 60, encoding="utf-8")
    assert command(*named).out[-1] == "Nothing to put right."


def test_a_sound_set(command: Command, tmp_path: Path) -> None:
    scene(1).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("hat, cape", encoding="utf-8")
    assert command("doctor", tmp_path).out[-1] == "Nothing to put right."


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--resolution", "big"], "resolution"),
        (["--resolution", "2x2"], "resolution"),
        (["--set", "no_such=1"], "no_such"),
        (["--set", "max_token_length=100"], "max_token_length"),
        (["--resolution", "2048x2048"], "max_bucket"),
    ],
)
def test_bad_settings(command: Command, tmp_path: Path, options: list[str], words: str) -> None:
    said = command("doctor", tmp_path, *options)
    assert said.code == 2 and words in said.errors[0] and not said.out


def test_bad_folders(command: Command, tmp_path: Path) -> None:
    assert "neither a folder nor a dataset" in command("doctor", tmp_path / "none").errors[0]
    said = command("doctor", tmp_path)
    assert said.code == 2 and "has no pictures" in said.errors[0]


def test_progress_comes_before_the_result(command: Command, mascot: Path) -> None:
    said = command("doctor", "mascot", "--datasets", mascot.parent, "--json", "--progress")
    *told, result = map(json.loads, said.out)
    assert told == [{"done": number, "of": 7} for number in range(1, 8)] and result["pictures"] == 7
