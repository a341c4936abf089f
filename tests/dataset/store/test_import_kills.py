"""An import killed at any moment: after the next `finish_imports` the set is as before or complete."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.config import BadInput
from lora_trainer.dataset.store import importing
from lora_trainer.dataset.store.importing import finish_imports, import_pictures
from lora_trainer.packages import ROOT
from tests.dataset.store.conftest import copied_at_each_step


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set with one picture, and beside it a folder of everything that an import may meet."""
    source = tmp_path / "photos"
    source.mkdir()
    for number, name in enumerate(("as_it_is.jpg", "developed.gif", "unread.png")):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(source / name)
        (source / name).with_suffix(".txt").write_text(name, encoding="utf-8")
    (source / "unread.txt").write_bytes(b"\xff")
    Image.new("RGB", (20, 20), "red").save(tmp_path / "first.png")
    import_pictures(tmp_path / "zdm", [tmp_path / "first.png"], folder_name="10_zdm")
    return tmp_path / "zdm"


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and ".lora_trainer" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def own(folder: Path) -> list[str]:
    return [path.name for path in (folder / ".lora_trainer").iterdir() if path.name != "import.lock"]


@pytest.fixture
def killed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(importing, "ahead", one_by_one)
    with copied_at_each_step(folder, tmp_path / "copies") as copies:
        import_pictures(folder, [tmp_path / "photos"], folder_name="10_zdm")
    return copies


def one_by_one(work: Callable[[Any], Any], items: Any) -> Iterator[Any]:
    """`ahead` without threads: nothing else moves while a copy is taken."""
    yield from map(work, items)


BEFORE = {"10_zdm/first.png", "originals/first.png"}
ADDED = {"as_it_is.jpg", "as_it_is.txt", "developed.png", "developed.txt", "unread.png"}
AFTER = BEFORE | {f"10_zdm/{name}" for name in ADDED}
AFTER |= {f"originals/{name}" for name in ("as_it_is.jpg", "developed.gif", "unread.png", "unread.txt")}


def test_a_set_is_as_before_or_complete(killed: list[Path], folder: Path) -> None:
    whole = files(folder)
    assert set(whole) == AFTER
    outcomes = []
    for copy in killed:
        sentences = finish_imports(copy)
        found = files(copy)
        assert set(found) in (BEFORE, AFTER)
        assert found.items() <= whole.items()
        assert own(copy) == []
        outcome = "has been completed" if set(found) == AFTER else "before its end has been undone"
        assert sentences in ([], [f"An import that was interrupted {outcome}."])
        outcomes.append(set(found) == AFTER)
    assert outcomes == sorted(outcomes)  # never complete and then again not
    assert outcomes[0] is False and outcomes[-1] is True


def test_finishing_may_be_killed_too(killed: list[Path], folder: Path, tmp_path: Path) -> None:
    whole = files(folder)
    interesting = [copy for copy in killed if any((copy / ".lora_trainer").glob("import-*.*"))][::4]
    for copy in interesting:
        with copied_at_each_step(copy, tmp_path / f"again {copy.name}") as again:
            finish_imports(copy)
        for second in again:
            finish_imports(second)
            assert files(second) == files(copy)
            assert own(second) == []
    assert files(interesting[-1]) == whole


def test_a_name_taken_in_between_is_not_overwritten(killed: list[Path]) -> None:
    """A person may put pictures into the folder after the kill."""
    [first_whole, *_] = [copy for copy in killed if any((copy / ".lora_trainer").glob("*.whole"))]
    mine = first_whole / "10_zdm" / "developed.png"
    mine.write_bytes(b"mine")
    finish_imports(first_whole)
    assert mine.read_bytes() == b"mine"
    renamed = {name.replace("developed", "developed_2") for name in AFTER}
    assert set(files(first_whole)) == renamed | {"10_zdm/developed.png"}


def test_the_next_import_finishes_it_too(killed: list[Path], tmp_path: Path) -> None:
    [whole, *_] = [copy for copy in killed if any((copy / ".lora_trainer").glob("*.whole"))]
    result = import_pictures(whole, [tmp_path / "photos"], folder_name="10_zdm")
    assert (result.added, result.already) == (0, 3)
    assert result.notices == ("An import that was interrupted has been completed.",)
    assert set(files(whole)) == AFTER


def test_nothing_left_means_nothing_to_do(folder: Path, tmp_path: Path) -> None:
    assert finish_imports(folder) == []
    assert finish_imports(tmp_path / "photos") == []
    assert not (tmp_path / "photos" / ".lora_trainer").exists()


CHILD = """
import sys
from pathlib import Path
from lora_trainer.dataset.store.importing import import_pictures
folder, source, moment = sys.argv[1:]
def report(kind, done, **facts):
    if done == int(moment):
        print("here", flush=True)
        sys.stdin.read()
import_pictures(Path(folder), [Path(source)], folder_name="10_zdm", report=report)
"""


@pytest.mark.parametrize("moment", [1, 3])
def test_a_killed_process(folder: Path, tmp_path: Path, moment: int) -> None:
    words = [sys.executable, "-c", CHILD, str(folder), str(tmp_path / "photos"), str(moment)]
    before = files(folder)
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline().strip() == b"here"
            with pytest.raises(BadInput, match="is being imported into already"):
                import_pictures(folder, [tmp_path / "photos"], folder_name="10_zdm")
            assert finish_imports(folder) == []  # it is not this one's to clear up
            assert any(name.endswith(".part") for name in own(folder))
        finally:
            child.kill()
    assert finish_imports(folder) == ["An import that was interrupted before its end has been undone."]
    assert files(folder) == before and own(folder) == []
    assert import_pictures(folder, [tmp_path / "photos"], folder_name="10_zdm").added == 3
    assert set(files(folder)) == AFTER
