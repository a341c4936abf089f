"""Files of other trainers, told apart by what is in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_trainer.config.conversion import read_table
from lora_trainer.config.interchange.command_line import Launch
from lora_trainer.config.interchange.facts import IDLE, MISSING, NO_EFFECT, SCRIPTS
from lora_trainer.config.interchange.given import is_number
from lora_trainer.config.interchange.importing import CountSteps, Imported, from_sd_scripts
from lora_trainer.config.interchange.launch_file import launches_of
from lora_trainer.config.interchange.refill import from_metadata, read_lora
from lora_trainer.config.interchange.report import Line, Report, written
from lora_trainer.config.interchange.source import Source
from lora_trainer.config.interchange.spelling import FIELDS, RENAMED
from lora_trainer.config.problems import BadInput, Problem
from lora_trainer.config.settings import SETTINGS, SUBSET_SETTINGS, Config
from lora_trainer.config.toml_file import parse_toml

ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
OPTION = re.compile(r"(?:^|\s)--[a-z]\w+", re.MULTILINE)
NOT_UTF8 = re.compile("[\udc80-\udcff]")
VARIABLE = re.compile(r"%~?\w+%?|\$\{?\w+|!\w+!")
PROMPT_OPTIONS = {
    "negative_prompt": "n", "width": "w", "height": "h", "seed": "d", "sample_steps": "s", "scale": "l",
    "guidance_scale": "g",
}  # fmt: skip
LORA_CONFIG = "lora_trainer.config"
KNOWN = frozenset(
    {name.partition(".")[0] for row in (*SETTINGS.values(), *SUBSET_SETTINGS.values()) for name in row.kohya}
    | {*IDLE, *MISSING, *NO_EFFECT, *FIELDS, *RENAMED, "batch_size", "sdxl", "LoRA_type", "datasets", "general"}
)


def import_files(
    paths: Sequence[Path],
    preset: str | None = None,
    count_steps: CountSteps = lambda config: None,
    anywhere: bool = True,
) -> Imported:
    """The config that files of another trainer describe together, such as a training and a dataset config.

    Each may be TOML, JSON, a launch line or file (.bat, .ps1, .sh), or a LoRA; what a later file says comes first.
    `preset`: which one of those in a file. A file that they name is read, too; unless `anywhere`, only where it lies
    in the folder of the one that names it. Raises BadInput for what cannot be read or says nothing of a training,
    and with the names of the presets where one has to be chosen.
    """
    if len(paths) == 1 and (own := _own_lora(paths[0])):
        return own
    read = [_read(path, anywhere) for path in paths]
    if preset is not None and all("" in presets for presets in read):
        raise _bad(paths[0], "holds no presets to choose from", "Leave --preset out.")
    whole = _together([_chosen(presets, path, preset) for presets, path in zip(read, paths)])
    _refuse_unreadable(whole, paths)
    return from_sd_scripts(whole, count_steps)


def _together(sources: Sequence[Source]) -> Source:
    """All of them as one; a later one's arguments come before an earlier one's."""
    first = sources[0]
    for source in sources[1:]:
        first = replace(
            source,
            arguments={**first.arguments, **source.arguments},
            dataset=source.dataset or first.dataset,
            family=first.family if source.family == "auto" else source.family,
            changed=(*first.changed, *source.changed),
            unsupported=(*first.unsupported, *source.unsupported),
            left=(*first.left, *source.left),
        )
    if first.arguments.get("dataset_config") and first.dataset is None:
        first = replace(first, unsupported=(*first.unsupported, _missing("dataset_config", first.arguments)))
    return first


def _chosen(presets: Mapping[str, Source], path: Path, preset: str | None) -> Source:
    if "" in presets:
        return presets[""]
    found = [name for name in presets if preset in (name, name.rpartition("/")[2])]
    if len(found) == 1:
        return presets[found[0]]
    problem = "holds several presets" if preset is None or len(found) > 1 else f"has no preset {preset!r}"
    raise _bad(path, problem, f"Choose one with --preset: {', '.join(presets)}.")


def presets_in(path: Path) -> list[str]:
    """The names of the presets that a file holds; none where it holds but one config. BadInput as `import_files`."""
    return sorted(_read(path, anywhere=False).keys() - {""})


def _read(path: Path, anywhere: bool) -> dict[str, Source]:
    """What a file says, by the name of the preset; "" where there is but one."""
    return {name: _with_files(source, path, anywhere) for name, source in _alone(path).items()}


def _alone(path: Path) -> dict[str, Source]:
    """The same without what is in the files that it names."""
    if path.is_dir():
        return {"": Source({"train_data_dir": str(path)}, whole=False)}
    data = _bytes(path)
    if data[8:9] == b"{" and not data.lstrip().startswith(b"{"):
        metadata, tensors = read_lora(path)
        return {"": from_metadata(metadata, tensors, path.name)}
    text = _text(path, data)
    table = _table(path, text)
    if table is None:
        return _launched(path, text)
    if len(presets := _presets(table)) > 1:
        return {name: _source(_flat(preset)) for name, preset in presets.items()}
    return {"": _source(_flat(table))}


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise _bad(path, "there is no such file", "Check the path.") from None
    except OSError as error:
        raise _bad(path, f"cannot be read ({error.strerror})", "Check that it is a file.") from error
    if not data.strip():
        raise _bad(path, "is empty", "Choose a file with arguments in it.")
    return data


def _text(path: Path, data: bytes) -> str:
    """UTF-8 or UTF-16; other letters are kept apart, for they may stand in comments only."""
    text = data.decode(
        ENCODINGS.get(data[:2], "utf-8-sig"), "surrogateescape" if data[:2] not in ENCODINGS else "replace"
    )
    if "\0" in text:
        raise _bad(path, "is not text", "Choose a TOML, JSON or launch file, or a LoRA (.safetensors).")
    return text


def _table(path: Path, text: str) -> dict[str, Any] | None:
    """The table of a TOML or JSON file; None for what must be a launch line."""
    ending, start = path.suffix.lower(), text.lstrip()[:1]
    if ending == ".json" or start == "{":
        return _json(path, text)
    if ending != ".toml" and OPTION.search(text):
        return None
    try:
        return parse_toml(text)
    except BadInput as error:
        if ending != ".toml" and not re.search(r"^\s*(\[\w+\]|\w+\s*=)", text, re.MULTILINE):
            raise _bad(path, "is neither TOML nor JSON nor a launch line", "Choose another file.") from None
        raise _bad(path, error.problems[0].problem, error.problems[0].remedy) from None


def _json(path: Path, text: str) -> dict[str, Any]:
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno} is not JSON ({error.msg})"
        raise _bad(path, place, "Correct it in a text editor.") from None
    except RecursionError:
        raise _bad(path, "is nested too deeply", "Choose another file.") from None
    if not isinstance(table, dict):
        raise _bad(path, "holds no table of arguments", "Choose a file that is one {...}.")
    return table


# ---- tables


def _presets(table: Mapping[str, Any], name: str = "") -> dict[str, dict[str, Any]]:
    """The tables of arguments by the names of the tables they lie in; sections of one config are one preset."""
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    if not inner or (len(table) > 1 and not _several(inner)):
        return {name: dict(table)}
    found: dict[str, dict[str, Any]] = {}
    for key, value in inner.items():
        found |= _presets(value, f"{name}/{key}".strip("/"))
    return found


def _several(tables: Mapping[str, dict[str, Any]]) -> bool:
    """Whether tables are configs of their own: they hold tables, or name mostly the same arguments."""
    deep = any(
        isinstance(value, dict) and KNOWN & value.keys() for table in tables.values() for value in table.values()
    )
    shared = [KNOWN & table.keys() for table in tables.values()]
    alike = any(len(a & b) * 2 > min(len(a), len(b)) > 1 for i, a in enumerate(shared) for b in shared[:i])
    return deep or alike


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """All sections in one, a later one's values over an earlier one's; `general` belongs to the dataset."""
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key == "metadata" and isinstance(value, dict):  # of a preset of lora-scripts: its name, author ...
            values |= {"model_train_type": value["train_type"]} if "train_type" in value else {}
        else:
            values |= value if isinstance(value, dict) and key != "general" else {key: value}
    return values


def _source(values: dict[str, Any]) -> Source:
    if any(isinstance(values.get(key), dict) for key in ("params", "config_params", "training_params")):
        return aws_source(values)
    dataset: dict[str, Any] = {key: values.pop(key) for key in ("general", "datasets") if key in values}
    return Source(values, dataset or None)


def _with_files(source: Source, path: Path, anywhere: bool) -> Source:
    """With what the files hold that it names: a config, a dataset config, preview prompts."""
    values = dict(source.arguments)
    if found := _named(values, "config_file", path, anywhere):
        inner = _chosen(_alone(found), found, None)
        of_its_own = {name: value for name, value in inner.arguments.items() if name != "config_file"}
        read = _with_files(replace(inner, arguments=of_its_own), found, anywhere)
        values, source = {**read.arguments, **values}, replace(source, dataset=source.dataset or read.dataset)
    elif values.get("config_file"):
        source = replace(source, unsupported=(*source.unsupported, _missing("config_file", values)))
    if source.dataset is None and (found := _named(values, "dataset_config", path, anywhere)):
        source = replace(source, dataset=_chosen(_alone(found), found, None).dataset)
    prompts = values.get("sample_prompts")
    if isinstance(prompts, str) and prompts.strip():
        values["sample_prompts"] = _prompts(prompts, _named(values, "sample_prompts", path, anywhere))
    return replace(source, arguments=values)


def _missing(argument: str, values: Mapping[str, Any]) -> Line:
    return Line(written({argument: values[argument]}), "", "is not here; give that file together with this one")


def _named(values: Mapping[str, Any], argument: str, path: Path, anywhere: bool) -> Path | None:
    """The file that an argument names, as it is or beside the file that names it; unless `anywhere`, only there."""
    text = str(values.get(argument) or "").strip()
    name = re.split(r"[\\/]", text)[-1]
    fit = name not in ("", "..") and "\n" not in text and len(text) < 1000
    places = ((Path(text), path.parent / text) * anywhere + (path.parent / name,)) if fit else ()
    names = [*places, *(place.with_name(f"{place.name}.toml") for place in places if argument == "config_file")]
    return next((place for place in names if place != path and _is_file(place)), None)


def _is_file(path: Path) -> bool:
    """Also of what is no path at all, such as a long prompt."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _prompts(text: str, file: Path | None) -> Any:
    """The lines of a prompt file, or prompts that stand for themselves; a file's name where there is no such file."""
    if file is None:
        return text if re.search(r"\.(txt|toml|json)\s*$", text) else text.splitlines()
    content, ending = _text(file, _bytes(file)), file.suffix.lower()
    if ending not in (".toml", ".json"):
        return content.splitlines()
    try:
        table = json.loads(content) if ending == ".json" else parse_toml(content).get("prompt")
    except (ValueError, BadInput) as error:
        raise _bad(file, f"holds no prompts ({error})", "Correct it in a text editor.") from None
    shared = {name: value for name, value in _dict(table).items() if name != "subset"}
    prompts = _dict(table).get("subset", [{}]) if isinstance(table, dict) else table
    lines = prompts if isinstance(prompts, list) else []
    return [_prompt_line({**shared, **each}) if isinstance(each, dict) else str(each) for each in lines]


def _prompt_line(values: Mapping[str, Any]) -> str:
    words = [f"--{option} {values[name]}" for name, option in PROMPT_OPTIONS.items() if name in values]
    return " ".join([str(values.get("prompt", "")), *words])


def aws_source(values: dict[str, Any]) -> Source:
    """The request that AWS's extension sends to train: https://github.com/awslabs/stable-diffusion-aws-extension."""
    body = _dict(values.get("params", values))
    training, config = _dict(body.get("training_params")), _dict(body.get("config_params"))
    parameters = _flat({name: value for name, value in config.items() if name != "wd14_tagger_params"})
    tagging = {**body, **config, **parameters}
    settings: dict[str, Any] = {}
    if tagging.get("enable_wd14_tagger"):
        thresholds = _dict(tagging.get("wd14_tagger_params"))
        settings = {"tagger": "wd-v3", **_threshold(thresholds, "general"), **_threshold(thresholds, "character")}
    own = ("enable_wd14_tagger", "wd14_tagger_params")
    arguments = {name: value for name, value in parameters.items() if name not in own}
    arguments.setdefault("pretrained_model_name_or_path", training.get("model") or training.get("s3_model_path"))
    arguments.setdefault("train_data_dir", training.get("dataset") or training.get("s3_data_path"))
    family = {"sd_1_5": "sd15", "sd_xl": "sdxl"}.get(str(training.get("fm_type")), "auto")
    left = tuple(name for name in ("training_instance_type", "lora_train_type") if name in {**training, **values})
    by = f"fm_type = {training.get('fm_type')}"
    return Source(arguments, None, family, by, whole=False, left=left, settings=settings)


def _threshold(values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    name = {"general": "tag_threshold", "character": "character_threshold"}[kind]
    value = values.get(f"{kind}_threshold")
    return {name: float(str(value))} if is_number(value) else {}


def _dict(value: Any) -> dict[str, Any]:
    """A table, or an empty one in place of something else."""
    return value if isinstance(value, dict) else {}


# ---- launch lines


def _launched(path: Path, text: str) -> dict[str, Source]:
    found = [launch for launch in launches_of(text, path.suffix) if launch.arguments]
    if not found:
        raise _bad(path, "has no arguments of sd-scripts in it", "Choose the file that starts the training.")
    names = [str(launch.arguments.get("output_name", number)) for number, launch in enumerate(found, 1)]
    unique = len(set(names)) == len(names)
    keys = names if unique else [str(number) for number in range(1, len(found) + 1)]
    return {key if len(found) > 1 else "": _launch(launch) for key, launch in zip(keys, found)}


def _launch(launch: Launch) -> Source:
    family = {"sdxl_train_network.py": "sdxl", "flux_train_network.py": "flux"}.get(launch.script, "auto")
    arguments = {_in_full(name): value for name, value in launch.arguments.items()}
    unset = "holds a variable that the file does not set; write its value into the config"
    variables = {name: value for name, value in arguments.items() if VARIABLE.search(str(value))}
    unsupported = tuple(Line(written({name: value}), "", unset) for name, value in variables.items())
    if launch.script and launch.script not in SCRIPTS.values():
        other = "trains something else than a LoRA of these families; a LoRA is trained"
        unsupported += (Line(launch.script, "", other),)
    return Source(arguments, None, family, launch.script, unsupported=unsupported, left=launch.before)


def _in_full(name: str) -> str:
    """An argument's whole name, for the command line takes its beginning where that is enough."""
    begun = [known for known in KNOWN if known.startswith(name)]
    return begun[0] if name not in KNOWN and len(begun) == 1 else name


# ---- LoRAs of our own


def _own_lora(path: Path) -> Imported | None:
    """The config that our own LoRA holds whole; None for every other file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] != b"{" or start.lstrip().startswith(b"{"):
        return None
    metadata, _ = read_lora(path)
    try:
        table = json.loads(metadata.get(LORA_CONFIG, ""))
    except ValueError:
        return None
    if not isinstance(table, dict):
        return None
    values, faults = read_table(table)
    own = {name: value for name, value in table.items() if name in values and values[name] != getattr(Config, name)}
    report = Report(taken=[Line(LORA_CONFIG, written({name: value})) for name, value in own.items()])
    report.left = [name for name in values if name not in own]
    report.changed.append(Line("", "folders and files", "a LoRA holds their names only; put the paths before them"))
    report.unsupported += [Line(str(fault)) for fault in faults]
    return Imported(replace(Config(), **values), report)


def _refuse_unreadable(source: Source, paths: Sequence[Path]) -> None:
    """What says nothing of a training, and values in an encoding that cannot be known."""
    if source.dataset is None and not KNOWN & source.arguments.keys():
        ours = SETTINGS.keys() & source.arguments.keys()
        problem = "is a config of this trainer already" if ours else "has no argument of sd-scripts in it"
        raise _bad(
            paths[0], problem, "Use it as it is." if ours else "Choose a file of sd-scripts or a program around it."
        )
    foreign = [name for name, value in source.arguments.items() if NOT_UTF8.search(str(value))]
    if foreign or NOT_UTF8.search(str(source.dataset)):
        remedy = "Open it in a text editor and save it as UTF-8."
        raise _bad(paths[0], f"is not in UTF-8, so that {', '.join(foreign) or 'its folders'} cannot be read", remedy)


def _bad(path: Path, problem: str, remedy: str) -> BadInput:
    return BadInput(Problem("file", path.name, problem, remedy))
