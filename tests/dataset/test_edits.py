from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.config import BadInput
from lora_trainer.dataset import edits
from lora_trainer.dataset.captions import tags, with_trigger
from lora_trainer.dataset.edits import Edit, tag_key

letters = st.characters(exclude_characters=",\\_", exclude_categories=["C", "Z"])
words = st.text(letters, min_size=1, max_size=6)
drawn_tags = st.lists(words, min_size=1, max_size=3).map(" ".join) | st.sampled_from(
    ["green_hair", "Green Hair", "green hair", "^_^", ">_<", "o_o", r"zdm \(mascot\)", "zdm (mascot)", "1girl", "黒髪"]
)
lines = st.lists(drawn_tags, max_size=8).flatmap(
    lambda pieces: st.sampled_from([", ", ",", " , ", ",  "]).map(lambda comma: comma.join(pieces))
)
any_edit: st.SearchStrategy[Edit] = st.one_of(
    st.lists(drawn_tags, min_size=1, max_size=3).map(edits.remove),
    st.tuples(st.lists(drawn_tags, min_size=1, max_size=3), st.sampled_from(["start", "end"])).map(
        lambda given: edits.add(*given)  # type: ignore[arg-type]
    ),
    st.tuples(drawn_tags, drawn_tags).map(lambda given: edits.replace(*given)),
    st.just(edits.dedupe()),
    st.lists(drawn_tags, max_size=2).map(edits.sort),
    drawn_tags.map(edits.put_first),
)


def keys(line: str) -> list[str]:
    return [tag_key(tag) for tag in tags(line)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("green_hair", "green hair"),
        ("Green Hair", "green_hair"),
        ("green  hair", "green hair"),
        (r"zdm \(mascot\)", "zdm_(mascot)"),
        (r"\[x\]", "[x]"),
        ("ＧREEN", "ｇreen"),
    ],
)
def test_spellings_of_one_tag(one: str, other: str) -> None:
    assert tag_key(one) == tag_key(other)


@pytest.mark.parametrize(
    ("one", "other"), [("green hair", "green hairs"), ("^_^", ">_<"), ("_", "__"), ("a (b)", "a b")]
)
def test_different_tags(one: str, other: str) -> None:
    assert tag_key(one) != tag_key(other)


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (edits.remove(["green hair", "shirt"]), "zdm, green_hair, Shirt,t-shirt, ^_^", "zdm, t-shirt, ^_^"),
        (edits.remove([r"zdm (mascot)"]), r"1girl, zdm \(mascot\)", "1girl"),
        (edits.remove(["a"]), "a", ""),
        (edits.remove(["in the sun"]), "a photo of a dog, in the sun, on a mat.", "a photo of a dog, on a mat."),
        (edits.remove(["dog"]), "a photo of a dog, in the sun", "a photo of a dog, in the sun"),
        (edits.add(["hat", "1girl"]), "1girl,smile", "1girl, smile, hat"),
        (edits.add(["hat", "cape"], "start"), "1girl, smile", "hat, cape, 1girl, smile"),
        (edits.add(["hat"]), "", "hat"),
        (edits.add(["green hair"]), "Green_Hair ,x", "Green_Hair ,x"),
        (edits.replace("green_hair", "teal hair"), "a, green hair, b", "a, teal hair, b"),
        (edits.replace("green hair", "green_hair"), "a, green hair", "a, green_hair"),
        (edits.replace("b", "x, y"), "a, b, c", "a, x, y, c"),
        (edits.replace("b", "c"), "a, b, c", "a, c"),
        (edits.replace("b", "x"), "B, a, b", "x, a"),
        (edits.dedupe(), "a, green hair, b, green_hair, A", "a, green hair, b"),
        (edits.sort(), "smile, 1girl, Blue eyes", "1girl, Blue eyes, smile"),
        (edits.sort(["zdm"]), "smile, zdm, 1girl", "zdm, 1girl, smile"),
        (edits.sort(), "b, a", "a, b"),
        (edits.sort(), "the photo of a dog on a mat, in the garden.", "the photo of a dog on a mat, in the garden."),
        (edits.put_first("zdm"), "1girl, smile, ZDM", "zdm, 1girl, smile"),
        (edits.put_first("green hair"), "a, green_hair", "green hair, a"),
        (edits.put_first("zdm, chibi"), "a, chibi", "zdm, chibi, a"),
        (edits.put_first("sks dog"), "sks dog on a mat,asleep", "sks dog on a mat,asleep"),
        (edits.put_first("sks dog"), "A photo of a dog.", "sks dog, A photo of a dog."),
        (edits.put_first("zdm"), "", "zdm"),
    ],
)
def test_what_each_edit_does(edit: Edit, before: str, after: str) -> None:
    assert edit(before) == after


@given(any_edit, lines)
def test_an_edit_is_done_after_the_first_time(edit: Edit, line: str) -> None:
    once = edit(line)
    assert keys(edit(once)) == keys(once)
    assert edit(once) == once


@given(any_edit, lines)
def test_a_caption_that_keeps_its_tags_keeps_every_space(edit: Edit, line: str) -> None:
    changed = edit(line)
    assert changed == line or tags(changed) != tags(line)


@given(lines, st.lists(drawn_tags, min_size=1, max_size=3))
def test_removed_are_these_and_no_others(line: str, unwanted: list[str]) -> None:
    gone = set(map(tag_key, unwanted))
    assert tags(edits.remove(unwanted)(line)) == [tag for tag in tags(line) if tag_key(tag) not in gone]


@given(lines, drawn_tags, st.sampled_from(["start", "end"]))
def test_added_is_taken_away_again(line: str, tag: str, at: str) -> None:
    added = edits.add([tag], at)(line)  # type: ignore[arg-type]
    if tag_key(tag) in keys(line):
        assert added == line
    else:
        assert tags(added)[0 if at == "start" else -1] == tag
        assert tags(edits.remove([tag])(added)) == tags(line)


@given(lines)
def test_deduped_has_each_tag_once_in_its_first_place(line: str) -> None:
    assert keys(edits.dedupe()(line)) == list(dict.fromkeys(keys(line)))


@given(lines, st.lists(drawn_tags, max_size=2))
def test_sorted_has_the_same_tags(line: str, first: list[str]) -> None:
    found = edits.sort(first)(line)
    assert sorted(tags(found)) == sorted(tags(line))
    front = set(map(tag_key, first))
    if found != line:
        rest = [key for key in keys(found) if key not in front]
        assert rest == sorted(rest) and keys(found)[len(keys(found)) - len(rest) :] == rest


@given(lines, drawn_tags)
def test_replaced_is_gone_and_the_new_one_is_there_once(line: str, new: str) -> None:
    for old in tags(line)[:1]:
        found = keys(edits.replace(old, new)(line))
        assert tag_key(new) in found
        assert tag_key(old) not in found or tag_key(old) == tag_key(new)


@given(lines, words)
def test_the_trigger_word_goes_where_training_puts_it(line: str, trigger: str) -> None:
    before = [tag for tag in tags(line) if tag_key(tag) != tag_key(trigger) or tag.casefold() == trigger.casefold()]
    expected = with_trigger(", ".join(before), trigger)
    assert keys(edits.put_first(trigger)(", ".join(before))) == keys(expected)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: edits.remove([]),
        lambda: edits.remove(["a", " "]),
        lambda: edits.add([""]),
        lambda: edits.replace("a", ""),
        lambda: edits.replace(" ", "a"),
        lambda: edits.put_first(" , "),
    ],
)
def test_nothing_asked_for_is_bad_input(ask: Callable[[], object]) -> None:
    with pytest.raises(BadInput, match="Name a tag"):
        ask()


def test_only_the_trained_line_of_a_file_is_edited() -> None:
    texts = {1: "\r\n  a, b \r\nb, note\r\n", 2: "c,  a", 3: "", 4: "b"}
    changed = edits.edited(texts, edits.remove(["b"]))
    assert changed.keys() == {1, 4}
    assert changed[1].splitlines() == ["", "a", "b, note"] and changed[1].endswith("\r\n")
    assert changed[4] == ""


def test_edits_follow_each_other() -> None:
    assert edits.edited({"x": "b, a"}, edits.sort(), edits.put_first("b")) == {}
    assert edits.edited({"x": "b, a"}, edits.add(["c"]), edits.sort(["c"])) == {"x": "c, a, b"}
