from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.commands.conftest import Command


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """One with a black figure on white, one that is all of one colour, one that cannot be read."""
    figure = Image.new("RGB", (400, 200), "white")
    figure.paste("black", (20, 60, 80, 140))
    paths = [tmp_path / name for name in ("figure.png", "plain.png", "broken.png")]
    figure.save(paths[0])
    Image.new("RGB", (200, 200), "green").save(paths[1])
    paths[2].write_bytes(b"no picture")
    return paths


def test_what_stands_out_is_told_of_each_picture(command: Command, pictures: list[Path]) -> None:
    said = command("focus", *pictures, "--json")
    figure, plain, broken = map(json.loads, said.out)
    assert said.code == 0 and [figure["picture"], plain["picture"]] == [str(pictures[0]), str(pictures[1])]
    left, top, right, bottom = figure["box"]
    assert figure["what"] == "subject" and left <= 20 and top <= 60 and 80 <= right < 200 and bottom >= 140
    assert plain["what"] == "centre" and "box" not in plain
    assert broken["problem"] and "box" not in broken


def test_a_person_reads_a_line_a_picture(command: Command, pictures: list[Path]) -> None:
    said = command("focus", *pictures)
    assert [line.partition(": ")[2].split()[0] for line in said.out[:2]] == ["subject", "centre"]
    assert len(said.out) == 3 and "broken.png" in said.out[2]
