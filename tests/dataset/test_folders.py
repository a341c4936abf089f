from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lora_trainer.config import BadInput, Config, Subset
from lora_trainer.dataset import listing
from lora_trainer.dataset.folders import find_pictures
from lora_trainer.files import digest

Configure = Callable[..., Config]
Draw = Callable[..., Path]


def names(config: Config) -> list[str]:
    return [picture.path.name for picture in find_pictures(config).pictures]


def test_pictures_come_with_captions_sizes_and_places(draw: Draw, configure: Configure) -> None:
    draw("cats/b.png", (80, 64), "a cat, sitting")
    draw("cats/a.JPG", (64, 96), "a dog")
    found = find_pictures(configure("cats"))
    assert [(p.path.name, p.size, p.caption, p.index) for p in found.pictures] == [
        ("a.JPG", (64, 96), "a dog", 0),
        ("b.png", (80, 64), "a cat, sitting", 1),
    ]
    assert found.left_out == found.notices == ()


def test_names_with_spaces_emoji_and_japanese(draw: Draw, configure: Configure) -> None:
    for name in ("a b (1)", "🐈‍⬛ cat", "黒猫 ポーズ", "[x] {y} %20 #1", "it's"):
        draw(f"my 猫 🐈/{name}.png", caption=f"caption of {name}")
    found = find_pictures(configure("my 猫 🐈"))
    assert len(found.pictures) == 5
    assert all(picture.caption == f"caption of {picture.path.stem}" for picture in found.pictures)


def test_caption_is_found_whatever_unicode_form_its_name_has(draw: Draw, configure: Configure, tmp_path: Path) -> None:
    draw("f/\u30d7.png")  # one letter here, a letter and a mark in the caption file's name
    (tmp_path / "f" / "\u30d5\u309a.txt").write_text("pu", encoding="utf-8")
    assert [picture.caption for picture in find_pictures(configure("f")).pictures] == ["pu"]


def test_order_is_natural_and_not_the_file_systems(
    draw: Draw, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("10", "9", "1", "B2", "b10", "a"):
        draw(f"f/{name}.png")
    config = configure("f")
    whole = Path.iterdir
    shuffled = lambda path: random.Random(4).sample(entries := list(whole(path)), len(entries))  # noqa: E731
    monkeypatch.setattr(Path, "iterdir", shuffled)
    assert names(config) == ["1.png", "9.png", "10.png", "a.png", "B2.png", "b10.png"]


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1), unique=True, max_size=8), st.randoms())
def test_any_names_have_one_order(texts: list[str], rng: random.Random) -> None:
    paths = [Path(text) for text in texts]
    ordered = sorted(paths, key=listing.natural)
    rng.shuffle(paths)
    assert sorted(paths, key=listing.natural) == ordered


def test_hidden_files_and_other_kinds_are_passed_over(draw: Draw, configure: Configure, tmp_path: Path) -> None:
    draw("f/a.png")
    for name in (".hidden.png", "._a.png", "a.npz", "Thumbs.db", "notes.md"):
        (tmp_path / "f" / name).write_bytes(b"x")
    draw("f/__MACOSX/b.png")
    (tmp_path / "f" / "folder.png").mkdir()
    found = find_pictures(configure("f"))
    assert [picture.path.name for picture in found.pictures] == ["a.png"]
    assert found.left_out == ()


def test_sd_scripts_folders_give_repeats_and_class_tokens(draw: Draw, configure: Configure) -> None:
    draw("data/3_sks dog/a.png")
    draw("data/10_a_b/a.png", caption="own caption")
    found = find_pictures(configure("data", repeats=7))
    assert [(p.subset.repeats, p.subset.class_tokens, p.caption) for p in found.pictures] == [
        (3, "sks dog", "sks dog"),
        (10, "a_b", "own caption"),
    ]
    assert found.notices == ('3_sks dog: 1 of 1 pictures have no caption file; their caption is "sks dog".',)
    assert Path(found.pictures[0].subset.folder).name == "3_sks dog"


def test_a_caption_of_a_megabyte_is_told_and_not_trained(draw: Draw, configure: Configure) -> None:
    draw("f/a.png", caption="x")
    draw("f/b.png", caption="b, " * (1 << 20))
    found = find_pictures(configure("f"))
    assert [picture.path.name for picture in found.pictures] == ["a.png"]
    assert [(problem.value, problem.problem) for problem in found.left_out] == [
        ("f/b.txt", "is larger than 64 KiB, which is no caption")
    ]


def test_such_a_folder_may_be_named_itself(draw: Draw, configure: Configure) -> None:
    draw("data/3_sks dog/a.png")
    subset = find_pictures(configure("data/3_sks dog")).pictures[0].subset
    assert (subset.repeats, subset.class_tokens) == (3, "sks dog")


def test_what_a_subset_states_itself_comes_first(draw: Draw, configure: Configure, tmp_path: Path) -> None:
    draw("3_sks dog/a.png")
    stated = Subset(str(tmp_path / "3_sks dog"), repeats=5, class_tokens="cat", flip=True, tag_dropout=0.5)
    subset = find_pictures(configure(stated, flip=False, tag_dropout=0.1, caption_dropout=0.2)).pictures[0].subset
    assert (subset.repeats, subset.class_tokens, subset.flip) == (5, "cat", True)
    assert (subset.tag_dropout, subset.caption_dropout) == (0.5, 0.2)


def test_nothing_in_a_subset_stays_undecided(draw: Draw, configure: Configure) -> None:
    draw("f/a.png", caption="x")
    subset = find_pictures(configure("f", repeats=7)).pictures[0].subset
    assert None not in vars(subset).values()
    assert subset.repeats == 7


def test_what_lies_beside_such_folders_is_not_used_and_said(draw: Draw, configure: Configure) -> None:
    for name in ("2_a/a.png", "0_off/a.png", "spare/a.png", "b.png", "originals/a.png", "left_out/2_a/c.png"):
        draw(f"data/{name}", caption="x")
    found = find_pictures(configure("data"))
    assert [picture.path.parent.name for picture in found.pictures] == ["2_a"]
    assert found.notices == ("data: only the folders named like 2_a are used; not 0_off, b.png, spare.",)


def test_regularisation_pictures_have_no_trigger_word(draw: Draw, configure: Configure, tmp_path: Path) -> None:
    draw("train/a.png", caption="dog, mat")
    draw("1_dog/b.png")
    regularisation = Subset(str(tmp_path / "1_dog"), is_regularisation=True)
    found = find_pictures(configure("train", regularisation, trigger_word="sks"))
    assert [picture.caption for picture in found.pictures] == ["sks, dog, mat", "dog"]
    assert [picture.subset.is_regularisation for picture in found.pictures] == [False, True]


def test_tags_are_shuffled_and_sentences_are_not(draw: Draw, configure: Configure) -> None:
    draw("tags/a.png", caption="1girl, solo, long hair, smile")
    draw("texts/a.png", caption="A girl with long hair stands in the rain and smiles")
    found = find_pictures(configure("tags", "texts", trigger_word="kuro, red hat"))
    assert [picture.subset.shuffle_tags for picture in found.pictures] == [True, False]
    found = find_pictures(configure("tags", "texts", shuffle_tags=False))
    assert [picture.subset.shuffle_tags for picture in found.pictures] == [False, False]


@pytest.mark.parametrize(("wanted", "other"), [(".txt", ".caption"), (".caption", ".txt")])
def test_the_other_caption_ending_serves_with_a_notice(
    draw: Draw, configure: Configure, tmp_path: Path, wanted: str, other: str
) -> None:
    for name in "ab":
        draw(f"f/{name}.png")
        (tmp_path / "f" / f"{name}{other.upper()}").write_text(f"other {name}", encoding="utf-8")
    (tmp_path / "f" / f"b{wanted}").write_text("wanted b", encoding="utf-8")
    found = find_pictures(configure("f", caption_extension=wanted))
    assert [picture.caption for picture in found.pictures] == ["other a", "wanted b"]
    assert found.notices == (f"f: captions are also taken from a{other.upper()}.",)


def test_damaged_picture_is_named_and_left_out(draw: Draw, configure: Configure) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        draw(f"f/{name}", caption="x")
    broken = draw("f/b.jpg")
    broken.write_bytes(broken.read_bytes()[:-500])
    draw("f/tiny.png", (1, 1))
    found = find_pictures(configure("f"))
    assert [(picture.path.name, picture.index) for picture in found.pictures] == [("a.jpg", 0), ("c.jpg", 1)]
    assert [problem.value for problem in found.left_out] == ["f/b.jpg", "f/tiny.png"]
    assert "cannot be read to its end" in str(found.left_out[0])
    assert "too small (1 x 1 pixels)" in str(found.left_out[1])


def test_picture_with_an_unreadable_caption_is_left_out(draw: Draw, configure: Configure) -> None:
    draw("f/a.png", caption="x")
    draw("f/b.png").with_suffix(".txt").write_bytes("髪".encode("cp932"))
    found = find_pictures(configure("f"))
    assert len(found.pictures) == 1
    assert "f/b.txt" in str(found.left_out[0])


def test_when_none_is_left_all_reasons_are_given(draw: Draw, configure: Configure) -> None:
    draw("f/a.png", (1, 1))
    draw("f/b.png").write_bytes(b"")
    with pytest.raises(BadInput) as caught:
        find_pictures(configure("f"))
    assert "no picture to train on is left" in str(caught.value)
    assert ["f/a.png" in str(caught.value), "f/b.png" in str(caught.value)] == [True, True]


def test_problems_of_all_folders_come_at_once(draw: Draw, configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    for name in "ab":
        (tmp_path / "texts" / f"{name}.txt").write_text("x", encoding="utf-8")
    draw("good/a.png")
    draw("outer/inner/a.png")
    draw("data/2_a/a.png")
    (tmp_path / "data" / "3_b").mkdir()
    (tmp_path / "data" / "3_b" / "a.md").write_text("x", encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        find_pictures(configure("empty", "texts", "good", "missing", "good/a.png", "outer", "data"))
    assert [(Path(str(p.value)).name, p.problem) for p in caught.value.problems] == [
        ("empty", "is an empty folder"),
        ("texts", "has no pictures, only 2 text files"),
        ("missing", "there is no such folder"),
        ("a.png", "is no folder"),
        ("outer", "has pictures only in folders inside it"),
        ("3_b", "has no pictures among its 1 files and folders"),
    ]
    assert all(problem.remedy for problem in caught.value.problems)


def test_locked_folder_is_said(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", locked)
    with pytest.raises(BadInput, match=r"cannot be opened \(Permission denied\)"):
        find_pictures(configure("f"))


def test_regularisation_alone_is_not_enough(draw: Draw, configure: Configure, tmp_path: Path) -> None:
    draw("f/a.png")
    with pytest.raises(BadInput, match="no folder of pictures to train on"):
        find_pictures(configure(Subset(str(tmp_path / "f"), is_regularisation=True)))


def test_small_pictures_are_left_out_where_nothing_is_enlarged(draw: Draw, configure: Configure) -> None:
    draw("f/a.png", (70, 70))
    draw("f/b.png", (70, 40))
    found = find_pictures(configure("f", bucket_no_upscale=True))
    assert [picture.path.name for picture in found.pictures] == ["a.png"]
    assert "70 x 40 fills no bucket" in str(found.left_out[0])
    assert "f/b.png" in str(found.left_out[0])


def test_masks_are_found_by_name(draw: Draw, configure: Configure, tmp_path: Path) -> None:
    draw("f/a.jpg")
    draw("f/b.png")
    mask = draw("masks/a.png")
    found = find_pictures(configure("f", masked_loss="folder", mask_folder=str(tmp_path / "masks")))
    assert [(picture.path.name, picture.mask) for picture in found.pictures] == [("a.jpg", mask)]
    assert "f/b.png" in str(found.left_out[0])
    assert "has no mask" in str(found.left_out[0])


@pytest.mark.parametrize("folder", [None, "missing"])
def test_missing_mask_folder_is_said(draw: Draw, configure: Configure, tmp_path: Path, folder: str | None) -> None:
    draw("f/a.png")
    masks = str(tmp_path / folder) if folder else None
    with pytest.raises(BadInput) as caught:
        find_pictures(configure("f", masked_loss="folder", mask_folder=masks))
    assert [problem.setting for problem in caught.value.problems] == ["mask_folder"]


def test_a_changed_picture_has_another_stamp_and_digest(draw: Draw, configure: Configure) -> None:
    path = draw("f/a.png")
    before, known = find_pictures(configure("f")).pictures[0].stamp, digest(path)
    assert (before, known) == (find_pictures(configure("f")).pictures[0].stamp, digest(path))
    Image.new("RGB", (90, 90)).save(path)
    assert find_pictures(configure("f")).pictures[0].stamp != before
    assert digest(path) != known


def test_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_nothing_is_written(draw: Draw, configure: Configure, tmp_path: Path) -> None:
    draw("f/a.png", caption="b, c")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    find_pictures(configure("f", trigger_word="x"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
