from __future__ import annotations

import codecs
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.config import BadInput
from lora_trainer.dataset.captions import (
    are_tags,
    caption_dropout_at,
    caption_text,
    parse_weights,
    read_caption,
    tags,
    trained_line,
    vary,
    with_trained_line,
    with_trigger,
)

CAPTION = "1girl, 黒髪, été 🐈"
words = st.text(st.characters(exclude_characters="\\()[]:,", exclude_categories=["Cs"]), min_size=1)
tag_lists = st.lists(st.sampled_from([f"tag {number}" for number in range(40)]), unique=True)


def varied(caption: str, rng: random.Random | None = None, **options: object) -> str:
    plain = {
        "shuffle": False, "keep_tokens": 0, "tag_dropout": 0.0, "caption_dropout": 0.0, "prefix": "", "suffix": "",
    }  # fmt: skip
    return vary(caption, rng=rng or random.Random(0), **{**plain, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        CAPTION.encode(),
        codecs.BOM_UTF8 + CAPTION.encode(),
        codecs.BOM_UTF16_LE + CAPTION.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + CAPTION.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + CAPTION.encode("utf-32-le"),
        f"  {CAPTION} \r\nsecond line\r\n".encode(),
        f"\n\n{CAPTION}\n".encode(),
    ],
)
def test_caption_is_read_in_any_unicode(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert read_caption(path) == CAPTION
    assert path.read_bytes() == data


@pytest.mark.parametrize("data", ["黒髪の少女".encode("cp932"), "黑发".encode("gb18030"), "a, b".encode("utf-16-le")])
def test_other_encodings_are_named_not_guessed(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "10_kuro" / "髪.txt"
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"10_kuro/髪\.txt.*not text in UTF-8.*encoding UTF-8"):
        read_caption(path)


@pytest.mark.parametrize("data", [b"\r\n a, b\rnote \n", codecs.BOM_UTF8 + b"\r\n a, b\rnote \n"])
def test_the_whole_text_keeps_its_line_ends(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert caption_text(path) == "\r\n a, b\rnote \n"


def test_a_caption_is_64_kib_at_most(tmp_path: Path) -> None:
    path = tmp_path / "10_kuro" / "a.txt"
    path.parent.mkdir()
    path.write_bytes(b"a" * 65536)
    assert read_caption(path) == "a" * 65536
    path.write_bytes(b"a" * 65537)
    with pytest.raises(BadInput, match=r"10_kuro/a\.txt.*larger than 64 KiB.*Shorten it"):
        read_caption(path)


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("a, b", "c", "c"),
        ("\n  a, b \r\nnote\r\n", "c", "\nc\r\nnote\r\n"),
        ("a\nnote\n\n", "", "\nnote\n\n"),
        ("", "c", "c"),
        (" \n", "c", "c \n"),
    ],
)
def test_only_the_trained_line_is_changed(text: str, line: str, expected: str) -> None:
    assert with_trained_line(text, line) == expected


@given(
    st.text(" \n\r\t"),
    st.text("ab, ", min_size=1).filter(str.strip),
    st.sampled_from(["", "\n", "\r\n", "\r"]),
    st.text("ab,\n \r\u2028"),
    st.text("cd, ", min_size=1).filter(str.strip),
)
def test_what_stands_around_the_trained_line_stays(before: str, old: str, end: str, after: str, new: str) -> None:
    before = before + "\n" if before else ""
    after = after.lstrip("\n") if end else ""
    assert trained_line(before + old + end + after) == old.strip()
    assert with_trained_line(before + old + end + after, new) == before + new + end + after


def test_empty_caption_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n \n")
    assert read_caption(path) == ""


def test_missing_caption_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_caption(tmp_path / "none.txt")


def test_tags_are_stripped_and_not_empty() -> None:
    assert tags(" 1girl ,long hair,, smile,") == ["1girl", "long hair", "smile"]


def test_tags_are_told_from_sentences() -> None:
    assert are_tags(["1girl, long hair, smile", "solo, hat, from behind", "a cat"])
    assert not are_tags(["a photo of a cat, sitting on a red mat in the sun, in the garden", "a dog", "sks dog"])
    assert not are_tags([])


@pytest.mark.parametrize(
    ("caption", "trigger", "expected"),
    [
        ("1girl, smile", "kuro", "kuro, 1girl, smile"),
        ("1girl, Kuro, smile", "kuro", "kuro, 1girl, smile"),
        ("kuro, smile", "kuro", "kuro, smile"),
        ("kuro, smile, kuro", "kuro", "kuro, smile"),
        ("smile, red hat", "kuro, red hat", "kuro, red hat, smile"),
        ("sks dog on a mat", "sks dog", "sks dog on a mat"),
        ("sksdog on a mat", "sks", "sks, sksdog on a mat"),
        ("a photo of a dog", "sks dog", "sks dog, a photo of a dog"),
        ("", "kuro", "kuro"),
        ("a,b", "", "a,b"),
    ],
)
def test_trigger_word_stands_first_and_once(caption: str, trigger: str, expected: str) -> None:
    assert with_trigger(caption, trigger) == expected


def test_nothing_asked_changes_nothing() -> None:
    assert varied("a photo,  of two  spaces") == "a photo,  of two  spaces"


def test_prefix_and_suffix_are_joined_with_a_space_and_counted_as_tags() -> None:
    assert varied("b, c", prefix="a,", suffix=", d") == "a, b, c , d"
    caption = varied("b, c, d, e", prefix="a,", shuffle=True, keep_tokens=2, tag_dropout=0.5)
    assert caption.startswith("a, b")


def test_caption_dropout_takes_prefix_and_suffix_too() -> None:
    assert varied("a, b", prefix="p", suffix="s", caption_dropout=1.0) == ""


def test_dropouts_happen_as_often_as_stated() -> None:
    rng = random.Random(1)
    empty = sum(varied("a", rng, caption_dropout=0.3) == "" for _ in range(2000))
    left = sum(len(tags(varied("a, b, c, d, e", rng, tag_dropout=0.2, keep_tokens=1))) for _ in range(1000))
    assert abs(empty / 2000 - 0.3) < 0.04  # four standard deviations
    assert abs(left / 1000 - (1 + 4 * 0.8)) < 0.11


@given(tag_lists, st.integers(0, 9), st.floats(0, 1), st.booleans(), st.integers())
def test_kept_tags_stay_and_others_are_never_invented(
    pieces: list[str], keep: int, dropout: float, shuffle: bool, seed: int
) -> None:
    caption = varied(", ".join(pieces), random.Random(seed), shuffle=shuffle, keep_tokens=keep, tag_dropout=dropout)
    result = tags(caption)
    assert result[:keep] == pieces[:keep]
    assert set(result) <= set(pieces)
    assert len(set(result)) == len(result)
    if dropout == 0:
        assert sorted(result) == sorted(pieces)
    if not shuffle:
        assert result == [tag for tag in pieces if tag in result]


def test_shuffle_reaches_every_order() -> None:
    rng = random.Random(0)
    assert len({varied("k, a, b, c", rng, shuffle=True, keep_tokens=1) for _ in range(200)}) == 6


def test_every_nth_epoch_has_no_captions() -> None:
    assert [caption_dropout_at(0.1, 2, epoch) for epoch in (1, 2, 3, 4)] == [0.1, 1.0, 0.1, 1.0]
    assert caption_dropout_at(0.1, 0, 2) == 0.1


# The examples with which the WebUI documents its own syntax.
@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                *[("a ", 1.0), ("house", 1.3 * 1.1**2), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.5 * 1.1)],
                *[(", sun, ", 1.1), ("sky", 1.1**4), (".", 1.1)],
            ],
        ),
        ("[a]", [("a", 1 / 1.1)]),
        ("(a: 1.2 ) (b:.5)(c:+2)(d:-1)", [("a", 1.2), (" ", 1.0), ("b", 0.5), ("c", 2.0), ("d", -1.0)]),
        ("time: 12:30, a) b] c:1.2)", [("time: 12:30, a) b] c:1.2)", 1.0)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        (r"\o/ \\ back", [(r"o/ \ back", 1.0)]),
        ("hatsune_miku_\\(append\\)", [("hatsune_miku_(append)", 1.0)]),
        ("(black hair:1.2), (髪:0.8)", [("black hair", 1.2), (", ", 1.0), ("髪", 0.8)]),
        ("()", [("", 1.0)]),
        ("", [("", 1.0)]),
    ],
)
def test_weights_are_read_as_the_webui_reads_them(text: str, runs: list[tuple[str, float]]) -> None:
    parsed = parse_weights(text)
    assert [words for words, _ in parsed] == [words for words, _ in runs]
    assert [weight for _, weight in parsed] == pytest.approx([weight for _, weight in runs])


@given(st.text("ab ()[]:.12\\,"))
def test_any_brackets_are_tolerated(text: str) -> None:
    runs = parse_weights(text)
    assert all(first[1] != second[1] for first, second in zip(runs, runs[1:], strict=False))
    letters = [letter for words, _ in runs for letter in words if letter in "ab,"]
    assert letters == [letter for letter in text if letter in "ab,"]


@given(words, st.integers(0, 200))
def test_a_weight_comes_back_as_written(text: str, hundredths: int) -> None:
    assert parse_weights(f"({text}:{hundredths / 100})") == [(text, hundredths / 100)]
