from __future__ import annotations

import pytest

from lora_trainer.dataset.advisor import advise, count_tags

# A green-haired mascot in seven pictures, in the words of the WD14 taggers; what SeaArt's guide takes out of its own
# set of this kind is on all of them.
FOLDED = (
    *("green_hair", "short_sleeves", "suspenders", "green_footwear", "shirt", "shorts", "green_shorts"),
    *("suspender_shorts", "green_sailor_collar"),
)
ALWAYS = "1boy, solo, green_hair, short_sleeves, suspenders, green_footwear, shirt, shorts, green_shorts"
ALWAYS += ", suspender_shorts, green_sailor_collar, full_body, white_background, simple_background"
MASCOT = {
    f"{number}.png": f"zdm, {ALWAYS}, {others}"
    for number, others in enumerate(
        (
            "smile, standing, looking_at_viewer, open_mouth, :d",
            "smile, standing, looking_at_viewer, closed_mouth, arms_behind_back",
            "standing, looking_at_viewer, yellow_eyes, open_mouth, hand_up",
            "frown, standing, looking_at_viewer, yellow_eyes, closed_mouth, ^_^",
            "smile, standing, looking_at_viewer, yellow_eyes, white_shirt",
            "smile, standing, looking_at_viewer, yellow_eyes, white_shirt, brooch",
            "smile, standing, looking_to_the_side, yellow_eyes, white_shirt",
        ),
        start=1,
    )
}


def test_the_guides_list_comes_out_for_its_mascot() -> None:
    advice = advise(MASCOT, "zdm")
    assert [row.tag for row in advice.fold] == list(FOLDED)
    assert all(row.count == 7 and "every picture" in row.why and "trigger word" in row.why for row in advice.fold)


def test_what_is_about_the_picture_stays_and_it_is_said_why() -> None:
    kept = {row.tag: row.why for row in advise(MASCOT, "zdm").kept}
    assert kept.keys() == {
        *("1boy", "solo", "full_body", "white_background", "simple_background", "standing", "looking_at_viewer"),
    }
    assert "how many" in kept["solo"] and "background" in kept["white_background"] and "view" in kept["full_body"]


def test_one_offs_are_named_with_their_picture() -> None:
    one_offs = dict(advise(MASCOT, "zdm").one_offs)
    assert one_offs["brooch"] == "6.png" and one_offs["^_^"] == "4.png"
    assert "white_shirt" not in one_offs and "green_hair" not in one_offs


def test_what_remains_is_all_but_the_folded() -> None:
    advice = advise(MASCOT, "zdm")
    rows = {row.tag: row.count for row in advice.remaining}
    assert rows["zdm"] == 7 and rows["yellow_eyes"] == 5 and not rows.keys() & set(FOLDED)
    assert not advice.bare
    assert advise(dict.fromkeys(range(4), "zdm, green hair"), "zdm").bare == (0, 1, 2, 3)


@pytest.mark.parametrize(("with_it", "of", "asked"), [(8, 10, False), (9, 10, True), (4, 5, False), (5, 5, True)])
def test_a_tag_is_asked_about_on_more_than_four_pictures_in_five(with_it: int, of: int, asked: bool) -> None:
    lines = {number: "hat, cape" if number < with_it else "cape" for number in range(of)}
    assert ("hat" in [row.tag for row in advise(lines).fold]) is asked


def test_neither_the_trigger_word_nor_what_it_is_a_kind_of_is_asked_about() -> None:
    lines = dict.fromkeys(range(5), "sks dog, dog, corgi")
    assert [row.tag for row in advise(lines, "sks dog").fold] == ["corgi"]
    assert [row.tag for row in advise(lines, "").fold] == ["sks dog", "dog", "corgi"]


def test_two_pictures_are_too_few_to_advise_on() -> None:
    advice = advise({1: "hat, cape", 2: "hat"})
    assert not advice.fold and not advice.kept and not advice.one_offs
    assert not advise({}).fold


@pytest.mark.parametrize(
    "tag",
    [
        *("2girls", "multiple boys", "male_focus", "blue sky", "gradient background", "from above", "cowboy_shot"),
        *("sitting", "holding_sword", "hand on own hip", "light smile", ":d", ">_<", "chibi", "masterpiece"),
        *("signature", "english text", "night", "upper_body", "one eye closed"),
    ],
)
def test_about_the_picture(tag: str) -> None:
    assert [row.tag for row in advise(dict.fromkeys(range(5), tag)).kept] == [tag]


@pytest.mark.parametrize(
    "tag",
    [
        *(
            "long hair",
            "blue eyes",
            "mole under mouth",
            "arm warmers",
            "leg ribbon",
            "hair between eyes",
            "animal ears",
        ),
        *("standing collar", "red monster", "hand fan", "blush stickers", "backless dress", "mask", "黒髪", "目"),
    ],
)
def test_about_the_subject(tag: str) -> None:
    assert [row.tag for row in advise(dict.fromkeys(range(5), tag)).fold] == [tag]


def test_counts_are_of_captions_in_the_commonest_spelling() -> None:
    rows = count_tags(["green hair, a, green_hair", "green hair", "Green_Hair, b", "a", "green hair"])
    assert [(row.tag, row.count) for row in rows] == [("green hair", 4), ("a", 2), ("b", 1)]
    assert count_tags([]) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1girl, 1boy, solo", ("solo", "1girl", "1boy")),
        ("1boy, smile, 1girl", ("1girl", "1boy")),
        ("2girls, solo", ("solo", "2girls")),
        ("multiple_boys, solo", ("solo", "multiple_boys")),
        ("1girl, 2girls", ("1girl", "2girls")),
        ("no humans, 1girl", ("no humans", "1girl")),
        ("1girl, blue_eyes, hat, red eyes", ("blue_eyes", "red eyes")),
        ("green hair, light blue hair", ("green hair", "light blue hair")),
        ("1girl, long hair, short hair", ("long hair", "short hair")),
        ("open mouth, closed mouth", ("open mouth", "closed mouth")),
        ("indoors, outdoors, 2girls", ("indoors", "outdoors")),
        ("day, night", ("day", "night")),
        ("1girl, full body, upper body", ("full body", "upper body")),
    ],
)
def test_contradictions(line: str, said: tuple[str, ...]) -> None:
    (found,) = advise({"a.png": line}).contradictions
    assert found.picture == "a.png" and set(found.tags) == set(said)
    assert all(tag in found.why for tag in said)


@pytest.mark.parametrize(
    "line",
    [
        "1girl, solo, blue eyes, green hair, long hair, very long hair",
        "1girl, 1boy, couple, blue eyes, red eyes, black hair, brown hair, open mouth, closed mouth",
        "1girl, heterochromia, blue eyes, red eyes",
        "1girl, multicolored_hair, blue hair, pink hair",
        "1girl, streaked hair, blue hair, pink hair",
        "1girl, solo, multiple views, full body, upper body",
        "6+girls, multiple girls",
        "light blue hair, blue hair, grey eyes, gray eyes",
        "closed eyes, blue eyes, blue hairband, red hair ribbon",
        "",
    ],
)
def test_no_contradiction(line: str) -> None:
    assert not advise({"a.png": line}).contradictions


def test_contradictions_of_two_captions_do_not_meet() -> None:
    assert not advise({1: "blue eyes", 2: "red eyes"}).contradictions
