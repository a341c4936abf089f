"""Names that every file system takes."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.dataset.store.names import MOST_BYTES, free_stem, readable, safe_stem, stem_key

RESERVED = {"CON", "PRN", "AUX", "NUL"} | {f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"}
TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # Unicode's names of what turns text
anything = st.text(st.characters(codec=None), max_size=300)  # lone surrogates too


@given(anything | st.lists(st.sampled_from(["con", ".", " ", "\u200d", "\u202e", "x", ":", "lpt1"])).map("".join))
def test_any_name_becomes_safe(text: str) -> None:
    name = safe_stem(text)
    assert 0 < len(name.encode()) <= MOST_BYTES  # encodes: no lone surrogate is left
    assert not set(name) & set('<>:"/\\|?*\0')
    assert all(unicodedata.category(letter) != "Cc" for letter in name)
    assert not TURNING & set(map(unicodedata.bidirectional, name))
    assert name[0] not in ". " and name[-1] not in ". "
    assert unicodedata.normalize("NFC", name) == name
    assert name.split(".")[0].strip().upper() not in RESERVED


@given(anything)
def test_a_safe_name_stays(text: str) -> None:
    assert safe_stem(safe_stem(text)) == safe_stem(text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ずんだもん 🐈‍⬛", "ずんだもん 🐈‍⬛"),
        ("שלום", "שלום"),
        ("photo\u202egnp.exe", "photognp.exe"),
        ("CON", "_CON"),
        ("com1.old", "_com1.old"),
        ("COM¹", "_COM¹"),
        ("nul ", "_nul"),
        ("console", "console"),
        ('a<b>:"c|?*', "a_b___c___"),
        (" .hidden. ", "hidden"),
        ("e\u0301", "é"),
        ("", "picture"),
        ("...", "picture"),
        ("猫" * 85, "猫" * 40),
        ("x" * 119 + "猫", "x" * 119),
    ],
)
def test_names(given: str, expected: str) -> None:
    assert safe_stem(given) == expected


WANTED = ["cat", "Cat", "CAT_2", "cat_2", "é", "e\u0301", "É", "x" * 200, "x" * 130, "straße", "STRASSE"]


@given(st.lists(st.sampled_from(WANTED)))
def test_stems_are_unique_on_every_system(wanted: list[str]) -> None:
    taken: set[str] = set()
    stems = [free_stem(stem, taken) for stem in wanted]
    assert len({unicodedata.normalize("NFC", stem).casefold() for stem in stems}) == len(wanted)
    assert all(len(stem.encode()) <= MOST_BYTES for stem in stems)
    assert taken == {stem_key(stem) for stem in stems}


def test_the_second_of_a_name_has_a_number() -> None:
    taken = {stem_key("Cat")}
    assert [free_stem("cat", taken) for _ in range(3)] == ["cat_2", "cat_3", "cat_4"]


def test_messages_show_what_is_there() -> None:
    assert readable("a\u202eb\x1b[31m\nc") == "ab[31mc"
