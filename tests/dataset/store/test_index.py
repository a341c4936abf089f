"""An index that is damaged, full or shared."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_trainer.config import BadInput
from lora_trainer.dataset.store import Dataset
from lora_trainer.packages import ROOT

Draw = Callable[..., Path]


@pytest.fixture
def folder(draw: Draw, tmp_path: Path) -> Path:
    for number in range(40):
        draw(f"zdm/10_zdm/{number}.png", (16, 16), f"old {number}")
    with Dataset.open(tmp_path / "zdm") as dataset:
        change(dataset, "new")
        change(dataset, "newer")
    return tmp_path / "zdm"


def change(dataset: Dataset, text: str) -> int:
    return dataset.change_captions(text, {entry.id: f"{text} {entry.file}" for entry in dataset.entries()})


def index_of(folder: Path) -> Path:
    return folder / ".lora_trainer" / "index.sqlite"


@pytest.mark.parametrize("data", [b"no database at all " * 500, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_index_is_built_anew_from_the_folder(folder: Path, data: bytes) -> None:
    index_of(folder).write_bytes(data)
    with Dataset.open(folder) as dataset:
        (notice,) = dataset.notices
        assert "built anew" in notice and "index.sqlite.damaged-1" in notice
        assert [entry.caption for entry in dataset.entries()] == [f"newer {number}.png" for number in range(40)]
        assert dataset.history() == []
        change(dataset, "newest")
    assert (folder / ".lora_trainer" / "index.sqlite.damaged-1").read_bytes() == data
    with Dataset.open(folder) as dataset:
        assert dataset.notices == [] and len(dataset.history()) == 1


@pytest.mark.parametrize("seed", range(12))
def test_any_damage_is_mended_or_does_no_harm(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(index_of(folder).read_bytes())
    for _ in range(3):
        block = rng.randrange(len(data) // 4096) * 4096
        data[block : block + 4096] = rng.choice([bytes(4096), rng.randbytes(4096)])
    index_of(folder).write_bytes(data[: len(data) - rng.choice([0, 4096, 5000])])
    with Dataset.open(folder) as dataset:
        assert [entry.caption for entry in dataset.entries()] == [f"newer {number}.png" for number in range(40)]
        while dataset.undo():
            pass
        change(dataset, "newest")
    assert (folder / "10_zdm" / "39.txt").read_text(encoding="utf-8") == "newest 39.png"


def test_damage_that_sqlites_own_message_cannot_quote_is_mended(folder: Path) -> None:
    data = index_of(folder).read_bytes()
    index_of(folder).write_bytes(data.replace(b"TABLE entry (", b"TABLE entr\xa9 ("))
    with Dataset.open(folder) as dataset:
        assert "built anew" in dataset.notices[0] and len(dataset.entries()) == 40


def test_a_damaged_index_that_cannot_be_put_aside_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: str) -> None:
        raise PermissionError(13, "Permission denied")

    index_of(folder).write_bytes(b"no database at all " * 500)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(BadInput, match=r"damaged, and cannot be put aside \(Permission denied\).*Close other programs"):
        Dataset.open(folder)


def test_damage_found_later_is_a_sentence(folder: Path) -> None:
    sentence = "is damaged. Open the set again"
    with Dataset.open(folder) as dataset, pytest.raises(BadInput, match=sentence), dataset._index.changing():
        raise sqlite3.DatabaseError("database disk image is malformed")


def test_an_index_of_a_later_version_is_left_alone(folder: Path) -> None:
    connection = sqlite3.connect(index_of(folder))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = index_of(folder).read_bytes()
    with pytest.raises(BadInput, match="later version of this program.*Update"):
        Dataset.open(folder)
    assert index_of(folder).read_bytes() == before


def test_a_deleted_index_is_built_anew_without_a_word(folder: Path) -> None:
    shutil.rmtree(folder / ".lora_trainer")
    with Dataset.open(folder) as dataset:
        assert dataset.notices == [] and len(dataset.entries()) == 40


def test_a_full_disk_is_a_sentence_and_changes_nothing(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        before = dataset.entries(), dataset.history()
        with dataset._index.reading() as db:
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(BadInput, match="database or disk is full.*space on its disk"):
            dataset.change_captions("long", {entry.id: "long " * 2000 for entry in before[0]})
        assert (dataset.entries(), dataset.history()) == before
        assert dataset.undo()


def test_two_have_the_same_set_open(folder: Path) -> None:
    with Dataset.open(folder) as first, Dataset.open(folder) as second:
        change(first, "from the first")
        assert [entry.caption for entry in second.entries()] == [entry.caption for entry in first.entries()]
        step = second.undo()
        assert step and step.what == "from the first"
        assert first.entries()[0].caption == "newer 0.png"
        change(second, "from the second")
        assert first.flush() == second.flush() == []
        assert (folder / "10_zdm" / "0.txt").read_text(encoding="utf-8") == "from the second 0.png"
        first.remove([first.entries()[0].id])
        assert len(second.entries()) == 39


def test_processes_and_threads_take_turns(folder: Path) -> None:
    """Each changes one caption many times: no change is lost, and none is half done."""
    code = (
        "import sys; from pathlib import Path; from lora_trainer.dataset.store import Dataset\n"
        "with Dataset.open(Path(sys.argv[1])) as dataset:\n"
        "    entry = dataset.entries()[int(sys.argv[2])]\n"
        "    for number in range(25):\n"
        "        assert dataset.change_captions('by a process', {entry.id: str(number)})\n"
        "        assert dataset.flush() == []\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(folder), str(place)], cwd=ROOT) for place in (0, 1)]
    refused: list[BaseException] = []

    def work(dataset: Dataset, place: int) -> None:
        try:
            entry = dataset.entries()[place]
            for number in range(25):
                dataset.change_captions("by a thread", {entry.id: str(number)})
                refused.extend(AssertionError(sentence) for sentence in dataset.flush())
        except BadInput as error:
            refused.append(error)

    with Dataset.open(folder) as dataset:
        threads = [threading.Thread(target=work, args=(dataset, place)) for place in (2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [process.wait() for process in processes] == [0, 0] and not refused
        assert [entry.caption for entry in dataset.entries()[:5]] == ["24"] * 4 + ["newer 4.png"]
        assert len(dataset.history()) == 2 + 100
        while dataset.undo():
            pass
    assert (folder / "10_zdm" / "2.txt").read_text(encoding="utf-8") == "old 2"
