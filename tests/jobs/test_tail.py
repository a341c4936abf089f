"""The last lines of a log, whatever its length."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.jobs import tail as module
from lora_trainer.jobs.tail import tail


@given(st.lists(st.text("abé🫛 ", max_size=30), max_size=40), st.integers(0, 50), st.booleans(), st.integers(1, 40))
def test_the_last_lines(tmp_path_factory, lines: list[str], count: int, ended: bool, block: int) -> None:
    path = tmp_path_factory.getbasetemp() / "log.txt"
    text = "\n".join(lines) + "\n" * (ended and bool(lines))
    path.write_text(text, encoding="utf-8", newline="")
    before, module._BLOCK = module._BLOCK, block
    try:
        assert tail(path, count) == (text.splitlines()[-count:] if count else [])
    finally:
        module._BLOCK = before


def test_no_log_yet(tmp_path: Path) -> None:
    assert tail(tmp_path / "log.txt", 5) == []


def test_of_a_progress_bar_the_last_state(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(b"one\r\n 10%\r 20%\r 30%\nthree \xff\n")
    assert tail(tmp_path / "log.txt", 9) == ["one", " 30%", "three �"]
