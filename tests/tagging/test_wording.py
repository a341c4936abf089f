from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.dataset.captions import parse_weights
from lora_trainer.tagging.wording import TagOptions, merged, worded
from tests.tagging.onnx_files import selected_tags

NAMES = [row["name"] for row in csv.DictReader(selected_tags().read_text(encoding="utf-8").splitlines())]

# As wd14-tagger for the WebUI lists them; thanks there go to Meow-San. Some are tags of elder models only.
FACES = (
    "0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o", "@_@", "^_^",
    "o_o", "u_u", "x_x", "|_|", "||_||",
)  # fmt: skip


def test_underscores_become_spaces_but_in_faces() -> None:
    assert worded(["long_hair", "^_^", "1girl", "hatsune_miku_(append)"], TagOptions()) == (
        "long hair, ^_^, 1girl, hatsune miku (append)"
    )
    assert worded(["long_hair", "^_^"], TagOptions(underscores=True)) == "long_hair, ^_^"


def test_of_all_real_tags_the_faces_keep_their_underscore() -> None:
    assert worded(FACES, TagOptions()) == ", ".join(FACES)
    kept = {name for name in NAMES if "_" in worded([name], TagOptions())}
    assert kept == set(FACES) & set(NAMES)
    assert len(kept) == 14


@pytest.mark.parametrize("excluded", ["long_hair", "long hair", "Long Hair"])
def test_excluded_tags_are_found_in_any_spelling(excluded: str) -> None:
    options = TagOptions(excluded=(excluded, "hatsune miku \\(append\\)"))
    assert worded(["1girl", "long_hair", "hatsune_miku_(append)", "hair"], options) == "1girl, hair"


def test_captions_with_weights_give_back_every_real_tag() -> None:
    options = TagOptions(escaped=True)
    assert worded(["hatsune_miku_(append)"], options) == r"hatsune miku \(append\)"
    for name in NAMES:
        assert parse_weights(worded([name], options)) == [(worded([name], TagOptions()), 1.0)]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("keep", "solo, Green Hair"),
        ("replace", "1girl, green hair, smile"),
        ("append", "solo, Green Hair, 1girl, smile"),
        ("prepend", "1girl, smile, solo, Green Hair"),
    ],
)
def test_existing_captions(how: str, expected: str) -> None:
    assert merged("solo, Green Hair", "1girl, green hair, smile", how) == expected
    assert merged("", "1girl, green hair", how) == merged(" \n", "1girl, green hair", how) == "1girl, green hair"


def test_a_caption_that_is_kept_is_kept_to_the_letter() -> None:
    assert merged("a dog ,  on grass.", "dog, grass", "keep") == "a dog ,  on grass."


def test_nothing_found_changes_nothing_unless_it_replaces() -> None:
    assert [merged("solo", "", how) for how in ("keep", "append", "prepend", "replace")] == ["solo", "solo", "solo", ""]


def test_sentences_are_put_together_as_sentences() -> None:
    assert merged("A dog on grass.", "It runs.", "append") == "A dog on grass. It runs."
    assert merged("A dog on grass.", "dog, grass", "prepend") == "dog, grass, A dog on grass."
    assert merged("zdm, solo", "a dog on grass", "append") == "zdm, solo, a dog on grass"


tags = st.lists(st.sampled_from(["1girl", "solo", "long hair", "zdm", "^_^"]), unique=True)


@given(tags, tags)
def test_put_together_nothing_is_lost_doubled_or_moved(existing: list[str], found: list[str]) -> None:
    new = [tag for tag in found if tag not in existing]
    assert merged(", ".join(existing), ", ".join(found), "append") == ", ".join(existing + new)
    assert merged(", ".join(existing), ", ".join(found), "prepend") == ", ".join(new + existing)
