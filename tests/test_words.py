"""Every word that the tab shows has a translation, and every translation is of a word that it shows."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lora_trainer.config import SETTINGS
from lora_trainer.config.form import choices
from lora_trainer.config.setting import Setting
from lora_trainer.config.settings import SUBSET_SETTINGS
from lora_trainer.config.values import described
from lora_trainer.packages import ROOT

LANGUAGES = ("ja_JP", "zh_CN")
FACT = re.compile(r"\{(\w+)\}")
SAID = re.compile(r'\bsay\(\s*"((?:[^"\\]|\\.)*)"')
STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
TITLED = ("folded", "sub_tab", "Markdown", "Button")  # the calls whose first argument the page shows
SHOWN = [row for row in SETTINGS.values() if row.name not in ("dataset_name", "subsets")]  # those with a widget
OF_NAMES = {  # settings whose choices are names, the same in every language
    "tagger", "schedule", "optimizer", "kind", "preview_sampler", "attention", "loss", "huber_schedule",
    "save_precision", "mixed_precision", "base_precision", "caption_extension", "max_token_length", "t5_length",
    "timestep_sampling", "prediction_type", "family",
}  # fmt: skip
NAMES = {"fp8"}
OWN_LABEL = {"output_name", "train"}  # the guide has one label for two settings, and two for one


def words(language: str) -> dict[str, str]:
    table: dict[str, str] = json.loads((ROOT / "localizations" / f"{language}.json").read_text(encoding="utf-8"))
    return table


def info(row: Setting) -> str:
    """What stands below a setting's label."""
    return f"{row.help} {row.applies.sentence}" if row.applies else row.help


def scripts() -> Iterator[Path]:
    yield from sorted((ROOT / "javascript").glob("*.js"))


def literals(kind: re.Pattern[str], path: Path) -> Iterator[str]:
    """The texts between quotes in a script, without what escapes a quote or a backslash."""
    for literal in kind.findall(path.read_text(encoding="utf-8")):
        yield re.sub(r"\\(.)", r"\1", literal)


def titles() -> set[str]:
    """The titles in lora_trainer/ui: of folds, of sub-tabs, of groups of settings."""
    found: list[ast.expr | None] = []
    for path in (ROOT / "lora_trainer" / "ui").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in TITLED:
                found += node.args[:1]
            elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "GROUPS":
                assert isinstance(node.value, ast.Dict)
                found += node.value.keys
    return {str(title.value).strip("# ") for title in found if isinstance(title, ast.Constant)} - {""}


def of_settings() -> set[str]:
    rows = [row for row in SHOWN if (row.choices or bool in row.types) and row.name not in OF_NAMES]
    chosen = {word for row in rows for word in choices(row)} - NAMES
    return {row.label for row in SHOWN} | {info(row) for row in SHOWN} | chosen


def said() -> set[str]:
    """The literal texts that the scripts hand to `lt.say`."""
    return {text for path in scripts() for text in literals(SAID, path)}


def without_names(text: str) -> str:
    return FACT.sub("{}", text)


def pattern(text: str) -> re.Pattern[str]:
    """What a message made of the text looks like, with anything for its facts."""
    return re.compile("(.+)".join(map(re.escape, without_names(text).split("{}"))), re.DOTALL)


def strings_of(path: Path) -> Iterator[str]:
    """Every literal text of a Python file; where values are put into it there stands "{}"."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)


def shown_somewhere() -> set[str]:
    """All texts that could be shown: of the scripts, of the settings, and whatever a message may be made of."""
    texts = {text for path in (ROOT / "lora_trainer").rglob("*.py") for text in strings_of(path)}
    texts |= {text for path in scripts() for text in literals(STRING, path)}
    texts |= {info(row) for row in (*SETTINGS.values(), *SUBSET_SETTINGS.values())}
    return {without_names(text.strip("# ")) for text in texts}


def remedies() -> set[str]:
    """What is said where a setting does not take a value."""
    return {f"{'Give' if row.required else 'Use'} {described(row)}." for row in SETTINGS.values()}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("shown", [titles, of_settings, said])
def test_nothing_that_is_shown_lacks_a_translation(language: str, shown: Callable[[], set[str]]) -> None:
    texts = shown()
    assert len(texts) > 10
    missing = sorted(texts - words(language).keys())
    assert not missing


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_a_setting_takes_is_said_in_every_language(language: str) -> None:
    known = list(map(pattern, words(language)))
    missing = [remedy for remedy in remedies() if not any(each.fullmatch(remedy) for each in known)]
    assert not missing


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_translation_is_of_something_shown(language: str) -> None:
    shown, advised = shown_somewhere(), remedies()
    strange = [text for text in words(language) if without_names(text) not in shown]
    unused = [text for text in strange if not any(map(pattern(text).fullmatch, advised))]
    assert not unused


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_says_the_same_facts(language: str) -> None:
    for text, translation in words(language).items():
        facts = FACT.findall(text)
        assert set(FACT.findall(translation)) == set(facts), text
        assert len(facts) == len(set(facts)), text  # the page reads the facts out of a message by their names
        assert translation == translation.strip() != "", text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_file_names_each_text_once(language: str) -> None:
    pairs: list[tuple[str, str]] = []
    text = (ROOT / "localizations" / f"{language}.json").read_text(encoding="utf-8")
    json.loads(text, object_pairs_hook=pairs.extend)
    assert len(pairs) == len({key for key, _ in pairs})


def test_all_languages_say_the_same_texts() -> None:
    first, *others = (words(language).keys() for language in LANGUAGES)
    assert all(not first ^ other for other in others)


def test_the_japanese_labels_are_those_of_the_guide() -> None:
    japanese = words("ja_JP")
    told = {row.label: row.seaart for row in SHOWN if row.seaart and row.name not in OWN_LABEL}
    assert {label: japanese[label] for label in told} == told


def test_scripts_say_whole_sentences() -> None:
    """A text put together of parts cannot be translated: what is said is one literal, or a variable."""
    for path in scripts():
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r'\bsay\(\s*(?:"(?:[^"\\]|\\.)*"\s*\+|`)', text), path.name
