from __future__ import annotations

import pytest

from lora_trainer.config import SETTINGS, Config, Subset, dump_toml
from lora_trainer.config.toml_lines import LONGEST_STATEMENT, line_of, lines_of

TEXT = """# a comment, rank = 1
[model]
base_model = "a" # family = "sd15"
[previews]
preview_prompts = [
  "rank = 3",
  "b",
]
negative_prompt = '''
alpha = 4
'''
"rank" = 8

[[dataset.subsets]]
folder = "x"

[[dataset.subsets]]  # the second
repeats = 3
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_line_of_each_setting(end):
    assert lines_of(TEXT.replace("\n", end)) == {
        "model": 2,
        "base_model": 3,
        "previews": 4,
        "preview_prompts": 5,
        "negative_prompt": 9,
        "rank": 12,
        "subsets": 14,
        "subsets.1": 14,
        "subsets.1.folder": 15,
        "subsets.2": 17,
        "subsets.2.repeats": 18,
    }


def test_every_setting_of_a_written_config_is_on_the_line_that_begins_with_it():
    text = dump_toml(Config(subsets=(Subset("a"), Subset("b", repeats=2)), preview_prompts=("x\ny", "z")))
    lines, written = lines_of(text), text.split("\n")

    named = {name: number for name, number in lines.items() if name in SETTINGS and name != "subsets"}
    assert named.keys() == {name for name in SETTINGS if f"\n{name} = " in text}
    assert all(written[number - 1].startswith(f"{name} = ") for name, number in named.items())
    assert written[lines["subsets.2.folder"] - 1] == 'folder = "b"'


def test_what_stands_twice_is_found_where_it_stands_last():
    assert lines_of("rank = 1\n[network]\nrank = 2\n")["rank"] == 3


@pytest.mark.parametrize(
    ("setting", "line"),
    [("subsets.2.folder", 17), ("subsets.1.folder", 15), ("subsets.9.folder", 14), ("alpha", None), ("", None)],
)
def test_a_missing_setting_is_shown_where_its_table_begins(setting, line):
    assert line_of(setting, lines_of(TEXT)) == line


def test_an_inline_table_and_dotted_names():
    inside = {"subsets": 1, "subsets.1": 1, "subsets.1.x": 2, "subsets.1.y": 3}
    assert lines_of("[[subsets]]\nx = {}\ny = 1\n") == inside
    assert lines_of('x = {}\na.b = 1\nsubsets = [{folder = "a"}]\n') == {"x": 1, "a": 2, "subsets": 3}


def test_behind_an_endless_value_no_line_is_told():
    text = "rank = 1\nx = [\n" + "1,\n" * LONGEST_STATEMENT + "]\nalpha = 2\n"

    assert lines_of(text) == {"rank": 1}
