"""TOML in and out with nothing lost, and every mistake in a file reported at once."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from lora_trainer.config import SETTINGS, SUBSET_SETTINGS, BadInput, Config, Setting, Subset, dump_toml, load_toml

NASTY = ["", "\"quoted\" 'and' #not a comment", "C:\\Users\\絵\\new", "改行\nあり\r\n", "😀👩‍🎨", "[a:0.5], {trigger}",
         "'''", '"""', "\x00\x1b\x7f\u2028", "\\u0041", "\ufeff", " spaces ", "key = 1", "nan"]  # fmt: skip
TEXTS = st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)

COMPLETE = Config(base_model="base.safetensors", dataset_name="zdm", subsets=(Subset(folder="pictures"),))


def of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a setting's type, within its bounds or not."""
    if get_origin(kind) is tuple:
        first, second = get_args(kind)
        return (
            st.lists(of_type(first), max_size=4).map(tuple) if second is Ellipsis else st.tuples(*[of_type(first)] * 2)
        )
    simple: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(-(2**62), 2**62),
        float: st.floats(allow_nan=False),
        str: TEXTS,
    }
    return tables(Subset, SUBSET_SETTINGS) if kind is Subset else simple[kind]


def tables(table: Any, rows: dict[str, Setting]) -> st.SearchStrategy[Any]:
    """A Config or Subset with some settings given and the others left at their defaults."""
    optional = {row.name: st.one_of([of_type(kind) for kind in row.types]) for row in rows.values()}
    return st.fixed_dictionaries({}, optional=optional).map(lambda values: table(**values))


def without_numbers_as_text(config: Config) -> Config:
    """The one exception: block_lr_weights as text may also be numbers with commas, and comes back as numbers."""
    return replace(config, block_lr_weights="cosine") if isinstance(config.block_lr_weights, str) else config


CONFIGS = tables(Config, SETTINGS).map(without_numbers_as_text)


@runs(max_examples=80, deadline=None)
@given(CONFIGS)
def test_any_config_survives(config: Config) -> None:
    assert load_toml(dump_toml(config)) == config


@runs(max_examples=20, deadline=None)
@given(CONFIGS, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_any_config_survives_a_file(config: Config, encoding: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "設定 😀.toml"
        path.write_bytes(dump_toml(config).encode(encoding))
        assert load_toml(path) == config


@pytest.mark.parametrize("text", NASTY)
def test_nasty_text_survives_everywhere(text: str) -> None:
    subset = Subset(folder=text, class_tokens=text, caption_prefix=text)
    config = Config(comment=text, vae=text, preview_prompts=(text, "b", text), subsets=(subset, subset))
    assert load_toml(dump_toml(config)) == config


def test_what_is_none_is_left_out_and_the_rest_written_in_sections() -> None:
    text = dump_toml(replace(COMPLETE, learning_rate=2e-4, resolution=(512, 768)))
    assert "vae" not in text and "resolution = [512, 768]" in text
    assert text.index("[model]") < text.index("[dataset]") < text.index('[[dataset.subsets]]\nfolder = "pictures"')
    assert text.index("[learning]") < text.index("learning_rate = 0.0002") < text.index("[network]")


def test_a_file_written_by_hand() -> None:
    config = load_toml("""
        rank = 16.0                       # a whole float for an int, outside its section
        resolution = "512x768"
        crop_size = 640
        optimizer_args = "weight_decay=0.1"
        [network]
        learning_rate = 1                 # in a wrong section, an int for a float
        [learning]
        text_encoder_lr = [1e-5, 2e-5]
        block_lr_weights = [1, 0.5, 0]
        [dataset]
        base_model = 'C:\\models\\a.safetensors'
        [[dataset.subsets]]
        folder = "絵"
        repeats = 3
    """)
    assert (config.rank, config.resolution, config.crop_size) == (16, (512, 768), (640, 640))
    assert isinstance(config.rank, int) and isinstance(config.learning_rate, float)
    assert config.optimizer_args == ("weight_decay=0.1",)
    assert (config.text_encoder_lr, config.block_lr_weights) == ((1e-5, 2e-5), (1.0, 0.5, 0.0))
    assert config.base_model == "C:\\models\\a.safetensors"
    assert config.subsets == (Subset(folder="絵", repeats=3),)


def test_six_mistakes_give_six_messages() -> None:
    with pytest.raises(BadInput) as caught:
        load_toml("""
            base_model = "base.safetensors"
            dataset_name = "zdm"
            output_name = "../zdm"
            [dataset]
            epochs = "ten"
            repeets = 3
            [[dataset.subsets]]
            folder = "pictures"
            [learning]
            schedule = "constant"
            warmup_percent = 5
            optimizer = "AdamZ"
            [network]
            rank = 0
        """)
    found = {problem.setting: problem for problem in caught.value.problems}
    assert set(found) == {"output_name", "epochs", "repeets", "warmup_percent", "optimizer", "rank"}
    assert len(caught.value.problems) == len(str(caught.value).splitlines()) == 6
    assert str(found["epochs"]).startswith(
        'epochs = "ten": must be a whole number, not text. Use a whole number from 1'
    )
    assert str(found["rank"]) == "rank = 0: must be at least 1. Use a whole number from 1 to 1024."
    assert '"repeats"' in found["repeets"].remedy
    assert "constant_with_warmup" in found["warmup_percent"].remedy
    assert "AdamW8bit" in found["optimizer"].remedy


@pytest.mark.parametrize(
    ("key", "meant"),
    [("ranc", "rank"), ("Rank", "rank"), ("network_dim", "rank"), ("lr_scheduler", "schedule"),
     ("color_aug", "colour_jitter"), ("subset", "subsets"), ("learning_rates", "learning_rate"),
     ("batchsize", "batch_size")],
)  # fmt: skip
def test_an_unknown_key_gets_the_nearest_known_one(key: str, meant: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_toml(dump_toml(COMPLETE) + f'\n[other]\n{key} = "x"\n')
    (problem,) = caught.value.problems
    assert (problem.setting, problem.remedy) == (key, f'Did you mean "{meant}"?')


def test_an_unknown_key_like_no_other() -> None:
    with pytest.raises(BadInput, match="qqqq = 1: is not a setting. Remove it."):
        load_toml("qqqq = 1\n" + dump_toml(COMPLETE))


def test_a_misspelt_key_is_not_also_missing() -> None:
    text = dump_toml(COMPLETE).replace("base_model", "base_modell").replace("folder", "foldr", 1)
    with pytest.raises(BadInput) as caught:
        load_toml(text)
    assert [problem.setting for problem in caught.value.problems] == ["base_modell", "subsets.1.foldr"]


def test_an_unknown_key_hides_no_other_mistake() -> None:
    with pytest.raises(BadInput) as caught:
        load_toml(dump_toml(replace(COMPLETE, rank=0)) + "network_dim = 3")
    assert [problem.setting for problem in caught.value.problems] == ["network_dim", "rank"]


def test_a_setting_given_twice() -> None:
    with pytest.raises(BadInput, match="rank = 8: is given twice"):
        load_toml("rank = 16\n" + dump_toml(replace(COMPLETE, rank=8)))


@pytest.mark.parametrize(
    ("line", "problem"),
    [('rank = "16"', "must be a whole number, not text"), ("rank = true", "must be a whole number, not true"),
     ("rank = 1.5", "must be a whole number, not a number with a fraction"), ("flip = 1", "must be true or false"),
     ('learning_rate = "1e-4"', "must be a number, not text"), ("comment = 3", "must be text, not a number"),
     ("resolution = [512]", "must be a width and a height"), ('resolution = "big"', "must be a width and a height"),
     ("preview_prompts = [1]", "must be a list of texts"), ("subsets = 3", "must be a list of tables"),
     ("block_ranks = [1.5]", "must be a list of whole numbers"), ("rank = {}", "must be a whole number, not a table"),
         ("[subsets]", "must be a list of tables, not a table"), ("subsets = [1]", "must be a list of tables")],
)  # fmt: skip
def test_a_value_of_the_wrong_type(line: str, problem: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_toml(line)
    assert any(problem in found.problem for found in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a = 1\nb = = 2\n", "line 2, column 5"),
        ('[model]\nbase_model = "C:\\models"\n', "line 2, column"),
        ("a = 1\nb = ", "line 2, column 5"),
    ],
)
def test_broken_toml_names_the_place(text: str, place: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_toml(text)
    assert place in str(caught.value) and len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [(None, "no such file"), (b"\x81\x8d\xff", "not text in UTF-8"), (b"\xff\xfe\x00", "not text in UTF-8")],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, data: bytes | None, said: str) -> None:
    path = tmp_path / "config.toml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BadInput, match=said):
        load_toml(path)


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load_toml(tmp_path)


def test_changes_override_the_file_and_complete_it() -> None:
    config = load_toml("rank = 8", ["rank=16", "base_model=b.safetensors"])
    assert (config.rank, config.base_model) == (16, "b.safetensors")
    with pytest.raises(BadInput) as caught:
        load_toml("ranc = 8", ["epochs=x", "base_model=b", "output_name=o", 'subsets=[{"folder": "a"}]'])
    assert [problem.setting for problem in caught.value.problems] == ["ranc", "epochs"]
