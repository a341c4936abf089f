"""sd-scripts' arguments as a config that trains the same: what is left out is what sd-scripts does then."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PureWindowsPath
from typing import Any

from lora_trainer.config.conversion import as_dict, plain
from lora_trainer.config.file_name import file_name_fault
from lora_trainer.config.folder_name import repeats_and_class
from lora_trainer.config.interchange.conversion import Changed, Unsupported
from lora_trainer.config.interchange.facts import DATASET_ARGUMENTS, IDLE, MISSING, NO_EFFECT
from lora_trainer.config.interchange.given import Given, given, is_number
from lora_trainer.config.interchange.previews import preview_settings
from lora_trainer.config.interchange.readers import ALSO, READERS, fitted, value_of, warmup_percent
from lora_trainer.config.interchange.report import Line, Report, written
from lora_trainer.config.interchange.source import Source
from lora_trainer.config.interchange.spelling import respelled
from lora_trainer.config.problems import Problem
from lora_trainer.config.setting import Setting
from lora_trainer.config.settings import SETTINGS, SUBSET_SETTINGS, Config, Subset
from lora_trainer.config.validation import problems

TELLING = ("network_module", "network_dim", "learning_rate", "unet_lr", "text_encoder_lr", "optimizer_type")
CountSteps = Callable[[Config], "int | None"]
LEFT_TO_CHECK = ("base_model", "subsets", "output_name")


@dataclass(frozen=True)
class Imported:
    config: Config
    report: Report


def from_sd_scripts(source: Source, count_steps: CountSteps = lambda config: None) -> Imported:
    """The config that trains as sd-scripts would with these arguments and this dataset config.

    `count_steps`: how many optimizer steps a config has, or None where its pictures are not there; a warm-up is a
    share of them here. Values that ours refuses are reported and left at their default; nothing is raised.
    """
    source = respelled(source)
    report = Report(changed=list(source.changed), unsupported=list(source.unsupported), left=list(source.left))
    arguments, entries = merged(source.arguments, source.dataset, report)
    spelled = {"num_repeats": "dataset_repeats"} if "dataset_repeats" in source.arguments else {}
    spelled |= {"train_batch_size": "batch_size"} if "train_batch_size" not in source.arguments else {}
    values = given(arguments, _family(arguments, source.family), {**spelled, **source.spelled})
    report.left += values.empty
    _without_words(values, report)
    whole = any(name in values.values for name in TELLING) if source.whole is None else source.whole
    if not whole:
        report.changed.append(Line("", "what is not named", "is as here by default"))
    config = _assembled(values, whole, source.whole is None and source.dataset is not None, report)
    config = replace(config, subsets=tuple(_subsets(values, config, entries, report)))
    config = _with_family(values, config, source, report)
    config = _with_previews(values, config, report)
    config = _own(config, source.settings, report)
    config = _with_warmup(values, config, source.total_steps, count_steps, report)
    config = _sound(_without_effect(config, report), report)
    _leftovers(values, report)
    if whole and values.family == "flux" and "model_prediction_type" not in values:
        scaled = "the model's output is taken as it is (raw), which sd-scripts does only where it is told so"
        report.unsupported.append(Line("no model_prediction_type", "", scaled))
    if whole and "network_module" not in values:
        missing = "a LoRA is trained; a config for whole models wants a higher learning rate here"
        report.unsupported.append(Line("no network_module", "", missing))
    report.left = list(dict.fromkeys(report.left))
    return Imported(config, report)


def _family(arguments: Mapping[str, Any], family: str) -> str:
    if family == "auto" and str(arguments.get("v2")).lower() in ("true", "1"):
        return "sd2"
    return "flux" if family == "auto" and any(arguments.get(name) for name in ("clip_l", "t5xxl", "ae")) else family


# ---- the settings


def _without_words(source: Given, report: Report) -> None:
    """Takes out what should be a number and is none, so that nothing is worked out from it."""
    for row in SETTINGS.values():
        name = row.kohya[0] if row.kohya else ""
        value = source.values.get(name, 0)
        if name == "lr_warmup_steps":
            value = str(value).rstrip("%")
        if set(row.types) <= {int, float} and value is False:
            report.left.append(source.spelled.get(name, name))
            del source.values[name]
        elif set(row.types) <= {int, float} and not is_number(value):
            wrong = {source.spelled.get(name, name): source.values.pop(name)}
            report.unsupported.append(Line(written(wrong), "", "is not a number"))


def _assembled(source: Given, whole: bool, whole_dataset: bool, report: Report) -> Config:
    """`whole`: what is left out is as sd-scripts has it; `whole_dataset`: at least what a dataset config leaves out."""
    config = Config()
    for name, row in SETTINGS.items():
        names = (*row.kohya, *ALSO.get(name, ()))
        said = any(argument in source.values for argument in names)
        said = said or (whole_dataset and not DATASET_ARGUMENTS.isdisjoint(names))
        elsewhere = name in ("family", "subsets", "warmup_percent", "preview_prompts")
        if (said or whole) and not elsewhere and (row.kohya or name in READERS):
            value = _value(source, row, READERS.get(name, partial(value_of, row=row)), report)
            if value is not None:
                config = replace(config, **{name: value})
    return config


def _with_family(values: Given, config: Config, source: Source, report: Report) -> Config:
    if "v2" in values and values.family != "sd2":
        report.left.append("v2")
    if values.family != "auto":
        by = "v2 = true" if values.family == "sd2" and not source.family_by else source.family_by
        report.taken.insert(0, Line(by or "clip_l, t5xxl or ae", written({"family": values.family})))
    return replace(config, family=values.family)


def _with_previews(source: Given, config: Config, report: Report) -> Config:
    prompts = source.get("sample_prompts")
    if not (config.preview_every_epochs or config.preview_at_start):
        report.left += ["sample_prompts"] if prompts else []
        return config
    if not isinstance(prompts, list):
        if prompts:
            reason = "there is no such file here; previews use the first picture's caption"
            report.unsupported.append(Line(written({"sample_prompts": prompts}), "", reason))
        return config
    values, unknown = preview_settings(prompts)
    if source.family == "flux" and str(values.pop("preview_cfg", 1)) not in ("1", "1.0"):
        alone = "previews of Flux follow their guidance (--g) alone"
        report.unsupported.append(Line("--l in sample_prompts", "", alone))
    kept: dict[str, Any] = {}
    for name, value in values.items():
        try:
            kept[name], _ = _within(fitted(value, SETTINGS[name]), SETTINGS[name])
        except Unsupported as missing:
            report.unsupported.append(Line(written({name: value}), "", str(missing)))
    report.taken += [Line("sample_prompts", written({name: plain(value)})) for name, value in kept.items()]
    report.unsupported += [
        Line(f"--{name} in sample_prompts", "", "previews share one value") for name in sorted(unknown)
    ]
    return replace(config, **kept)


def _own(config: Config, settings: Mapping[str, Any], report: Report) -> Config:
    """With values of settings that sd-scripts has no word for."""
    report.taken += [Line("", written({name: value})) for name, value in settings.items()]
    return replace(config, **settings)


def _with_warmup(
    source: Given, config: Config, total_steps: int | None, count_steps: CountSteps, report: Report
) -> Config:
    """Last of all, as it depends on how many steps there are."""
    if "lr_warmup_steps" not in source:
        return config
    steps = total_steps or config.max_steps or (count_steps(config) if source.number("lr_warmup_steps") >= 1 else None)
    read = partial(warmup_percent, total_steps=steps)
    value = _value(source, SETTINGS["warmup_percent"], read, report)
    return replace(config, warmup_percent=value or 0.0)


def _value(source: Given, row: Setting, read: Callable[[Given], Any], report: Report) -> Any:
    """The setting's value, or None where it stays at its default; the report says which and why."""
    texts = _texts(source, row)
    try:
        value = read(source)
        reason, value = (value.reason, value.value) if isinstance(value, Changed) else ("", value)
        value, clamped = _within(value, row)
    except Unsupported as missing:
        report.unsupported.append(Line(written(texts), "", str(missing)))
        return None
    kept = row.default if value is None else value
    _say(texts, row, kept, reason or clamped, report)
    return value


def _texts(source: Given, row: Setting) -> dict[str, Any]:
    """What stands in the file about a setting; without what is off, where something is on."""
    names = [name for name in (*row.kohya, *ALSO.get(row.name, ())) if name in source.values]
    names = ["LoRA_type"] if "LoRA_type" in names else names
    telling = [name for name in names if _says_something(source.values[name])]
    return {source.spelled.get(name, name): source.values[name] for name in telling or names}


def _say(texts: Mapping[str, Any], row: Setting, value: Any, reason: str, report: Report) -> None:
    line = Line(written(texts), written({row.name: plain(value)}), reason)
    if reason:
        report.changed.append(line)
    elif texts and (value != row.default or any(_says_something(text) for text in texts.values())):
        report.taken.append(line)
    elif texts:
        report.left.extend(texts)
    elif value != row.default:
        report.changed.append(Line("", line.result, "not given, and this is what sd-scripts does then"))


def _says_something(value: Any) -> bool:
    return str(value).strip().lower() not in ("", "false", "0", "0.0", "-0.0", "[]")


def _within(value: Any, row: Setting) -> tuple[Any, str]:
    """A number at the nearest of its bounds, and what was done to it."""
    if isinstance(value, tuple) and value and all(isinstance(item, (int, float)) for item in value):
        results = [_within(item, row) for item in value]
        return tuple(item for item, _ in results), next((reason for _, reason in results if reason), "")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value, ""
    if row.minimum is not None and value < row.minimum:
        return type(value)(row.minimum), f"must be at least {row.minimum}"
    if row.maximum is not None and value > row.maximum:
        return type(value)(row.maximum), f"must be at most {row.maximum}"
    if (row.above is not None and value <= row.above) or (row.below is not None and value >= row.below):
        raise Unsupported(f"must be {f'above {row.above}' if row.above is not None else f'below {row.below}'}")
    if row.multiple_of and value % row.multiple_of:
        step = row.multiple_of
        return max(step, round(value / step) * step), f"must be a multiple of {step}"
    return value, ""


def _without_effect(config: Config, report: Report) -> Config:
    """Settings that mean nothing here go back to their defaults, so that nobody wonders about them."""
    known = replace(config, family="sd15") if config.family == "auto" else config
    for name, row in SETTINGS.items():
        if row.applies and getattr(config, name) != row.default and not row.applies.test(known):
            sources = _taken_back(report, name)
            report.left += [
                part.partition(" = ")[0] for source in sources for part in source.split(", ") if " = " in part
            ]
            config = replace(config, **{name: row.default})
    return config


def _sound(config: Config, report: Report) -> Config:
    """The config without what ours refuses; what only the user can give is left for `check` to say."""
    seen: set[str] = set()
    while wrong := next((fault for fault in _refused(config) if fault.setting not in seen), None):
        seen.add(wrong.setting)
        default = SETTINGS[wrong.setting].default
        usual = written({wrong.setting: plain(getattr(config, wrong.setting))})
        sources = _taken_back(report, wrong.setting)
        result = written({wrong.setting: plain(default)})
        report.changed.append(Line(next(filter(None, sources), usual), result, wrong.problem))
        config = replace(config, **{wrong.setting: default})
    return config


def _taken_back(report: Report, name: str) -> list[str]:
    """Removes a setting's lines from the report; what stood in them of the file."""
    sources = []
    for lines in (report.taken, report.changed):
        for line in [line for line in lines if line.result.startswith(f"{name} = ")]:
            lines.remove(line)
            sources.append(line.source)
    return sources


def _refused(config: Config) -> Iterator[Problem]:
    for problem in problems(config):
        if problem.setting in SETTINGS and (problem.setting not in LEFT_TO_CHECK or _bad_name(problem)):
            yield problem


def _bad_name(problem: Problem) -> bool:
    return problem.setting == "output_name" and bool(file_name_fault(str(problem.value or "a")))


def _leftovers(source: Given, report: Report) -> None:
    """What no setting has read."""
    for name, value in source.unread():
        shown = source.spelled.get(name, name)
        if any(line.source.startswith(f"{shown} = ") for line in report.unsupported):
            continue
        if name in NO_EFFECT or str(value).strip() == str(IDLE.get(name)) or not _says_something(value):
            report.left.append(shown)
        else:
            report.unsupported.append(Line(written({shown: value}), "", MISSING.get(name) or _unknown(name)))


def _unknown(name: str) -> str:
    arguments = [argument for row in SETTINGS.values() for argument in row.kohya]
    meant = difflib.get_close_matches(name, [*arguments, *MISSING], n=1, cutoff=0.8)
    return "is not an argument of sd-scripts that is known here" + (f'; "{meant[0]}" is' if meant else "")


# ---- the dataset


def merged(
    arguments: Mapping[str, Any], dataset: Mapping[str, Any] | None, report: Report
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The arguments with those of the dataset config over them, and what each folder says itself.

    The first dataset's own values hold for all; what another one says otherwise is reported where a folder cannot.
    """
    values = dict(arguments)
    if "dataset_repeats" in values:
        values.setdefault("num_repeats", values.pop("dataset_repeats"))
    if dataset is None:
        return values, []
    general = dataset.get("general")
    shared = dict(general) if isinstance(general, Mapping) else {}
    own = [{**shared, **table} for table in _tables(dataset.get("datasets"))] or [shared]
    base = {name: value for name, value in own[0].items() if name != "subsets"}
    entries: list[dict[str, Any]] = []
    for number, table in enumerate(own):
        others = {name: each for name, each in table.items() if name != "subsets" and base.get(name) != each}
        for name in [name for name in others if name not in FOLDER_ARGUMENTS]:
            reason = f"there is one dataset, and the first one's {name} holds for dataset {number + 1} too"
            report.unsupported.append(Line(written({name: others.pop(name)}), "", reason))
        entries += [{**others, **entry} for entry in _tables(table.get("subsets"))]
    _share(entries, base)
    _lift(entries, base, report)
    if "batch_size" in base:
        base["train_batch_size"] = base.pop("batch_size")
    return {**values, **base}, entries


def _tables(value: Any) -> list[Mapping[str, Any]]:
    return [table for table in value if isinstance(table, Mapping)] if isinstance(value, list) else []


FOLDER_ARGUMENTS = {row.kohya[0]: row.name for row in SUBSET_SETTINGS.values()}


def _share(entries: list[dict[str, Any]], base: dict[str, Any]) -> None:
    """What every folder says alike is said for all of them."""
    for name in FOLDER_ARGUMENTS.keys() - {"image_dir", "class_tokens", "is_reg"}:
        values = [entry.get(name) for entry in entries]
        if values and values[0] is not None and all(value == values[0] for value in values):
            base[name] = values[0]
            for entry in entries:
                del entry[name]


def _lift(entries: list[dict[str, Any]], base: dict[str, Any], report: Report) -> None:
    """What a folder cannot say here is said for all; where folders differ in it, the first one's holds."""
    for entry in entries:
        for name in [name for name in entry if name not in FOLDER_ARGUMENTS]:
            value = entry.pop(name)
            if base.setdefault(name, value) != value:
                reason = "folders cannot differ in it here, and another value holds for all"
                report.unsupported.append(Line(written({name: value}), "", reason))


def _subsets(source: Given, config: Config, entries: list[dict[str, Any]], report: Report) -> Iterator[Subset]:
    for argument, regularisation in (("train_data_dir", False), ("reg_data_dir", True)):
        if argument in source and not entries:
            folder = str(source.get(argument))
            report.taken.append(Line(written({argument: folder}), written({"folder": folder})))
            yield Subset(folder, is_regularisation=regularisation)
        elif argument in source:
            report.left.append(argument)
    for entry in entries:
        yield from _subset(given(entry), config, report)


def _subset(entry: Given, config: Config, report: Report) -> Iterator[Subset]:
    """The folder with what it says otherwise than the config; none where captions come from a metadata file."""
    if "image_dir" not in entry:
        report.unsupported.append(Line(written(entry.values), "", "a dataset without image_dir is not read"))
        return
    values: dict[str, Any] = {}
    for name, row in SUBSET_SETTINGS.items():
        argument = row.kohya[0]
        if argument in entry:
            try:
                values[name], _ = _within(value_of(entry, row), row)
            except Unsupported as missing:
                report.unsupported.append(Line(written({argument: entry.get(argument)}), "", str(missing)))
    if repeats_and_class(PureWindowsPath(str(entry.get("image_dir"))).name)[0]:
        values.setdefault("repeats", config.repeats)  # sd-scripts does not read them from the name here
    else:
        values = {name: value for name, value in values.items() if name != "repeats" or value != config.repeats}
    own = {name: value for name, value in values.items() if name == "repeats" or value != getattr(config, name, None)}
    subset = Subset(**own)
    said = {name: value for name, value in as_dict(subset).items() if value != SUBSET_SETTINGS[name].default}
    report.taken.append(Line(written(entry.values), written(said)))
    yield subset
