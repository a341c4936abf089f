"""What each command prints, writes and returns when nothing is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.__main__ import main
from lora_trainer.config import SETTINGS, Config, Subset
from lora_trainer.packages import environment_for_child
from tests.commands.conftest import Command, contents, write_config
from tests.flux_files import make_flux

ConfigOf = Callable[..., Config]
OPTIONS = {
    "demo": ("--out DIR", "--json"),
    "prepare": (
        *("FOLDER", "--name", "--crop", "--size", "--never-enlarge", "--background", "--tagger", "--threshold"),
        *("--character-threshold", "--exclude", "--underscores", "--trigger", "--existing", "--repeats"),
        *("--remove TAG,TAG", "--preview FILE.png", "--models FOLDER", "--datasets FOLDER", "--json"),
    ),
    "tags": (
        *("NAME", "--datasets FOLDER", "--remove TAG,TAG", "--replace OLD NEW", "--add TAG,TAG", "--at {start,end}"),
        *("--dedupe", "--sort", "--trigger WORD", "--picture FILE", "--undo", "--redo", "--history", "--advice"),
    ),
    "doctor": ("NAME", "--datasets FOLDER", "--resolution WxH", "--set KEY=VALUE", "--leave-out KIND", "--json"),
    "train": ("CONFIG.toml", "--set KEY=VALUE", "--preset NAME", "--fresh", "--json"),
    "queue": (
        *("add", "list", "start", "pause", "resume", "stop", "save", "sample", "show", "move", "copy", "retry"),
        *("delete", "--jobs FOLDER", "--json"),
    ),
    "jobs": ("--jobs FOLDER", "--status", "--limit N", "show", "config", "keep", "log", "events", "--json"),
    "worker": ("FOLDER",),
    "check": ("CONFIG.toml", "--set KEY=VALUE", "--preset NAME", "--json"),
    "import": ("FILE", "--output CONFIG.toml", "--preset NAME", "--force", "--json"),
    "export": ("CONFIG.toml", "--output PLACE", "--force", "--json"),
    "inspect": ("FILE", "--json"),
    "settings": ("--json",),
    "setup": (),
}


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    said = help_of(capsys)
    assert all(re.search(rf"^ +{name} +[A-Z]", said, re.MULTILINE) for name in OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_help_names_every_option(capsys: pytest.CaptureFixture[str], name: str) -> None:
    said = help_of(capsys, name)
    assert f"python -m lora_trainer {name}" in said
    assert all(option in said for option in OPTIONS[name])


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["train"], ["check", "a.toml", "--colour"]])
def test_arguments_that_are_wrong_are_bad_input(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "usage: " in capsys.readouterr().err


@pytest.fixture
def seven(config_of: ConfigOf, tmp_path: Path) -> Config:
    """Seven pictures, 10 repeats, 10 epochs, as the demo has them."""
    folder = tmp_path / "10_mascot"
    folder.mkdir()
    for number in range(7):
        Image.new("RGB", (64, 64), (number * 30, 0, 90)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("mascot, blob", encoding="utf-8")
    return replace(config_of(epochs=10, batch_size=1), subsets=(Subset(folder=str(folder)),))


def test_check_does_the_arithmetic_and_writes_nothing(command: Command, seven: Config, tmp_path: Path) -> None:
    file = write_config(seven, tmp_path)
    before = contents(tmp_path)
    said = command("check", file)
    assert (said.code, said.errors) == (0, []) and contents(tmp_path) == before
    facts = dict(line.split(": ", 1) for line in said.out if ": " in line)
    assert facts["pictures"] == "7" and facts["batches per epoch"] == "70" and facts["epochs"] == "10"
    assert facts["steps"] == "700" and facts["family"] == "sd15" and facts["prediction type"] == "epsilon"
    assert said.out[-1] == "Nothing to put right."


def test_check_as_json_with_changes_and_remarks(
    command: Command, seven: Config, pictures: Path, tmp_path: Path
) -> None:
    (Path(seven.subsets[0].folder) / "3.txt").unlink()
    (Path(seven.subsets[0].folder) / "8.jpg").write_bytes(b"no picture")
    said = command("check", write_config(seven, tmp_path), "--json", "--set", "batch_size=4", "alpha=99")
    facts = json.loads("\n".join(said.out))
    assert said.code == 0 and facts["steps"] == 180  # 70 shown pictures are 18 batches of up to 4
    assert len(facts["notices"]) == 3
    for words in ("8.jpg", "alpha", '2 of 8 pictures have no caption file; their caption is "mascot"'):
        assert any(words in notice for notice in facts["notices"]), (words, facts["notices"])


def test_train_warns_of_what_check_remarks(
    command: Command, config_of: ConfigOf, tmp_path: Path, pictures: Path
) -> None:
    (pictures / "3.txt").unlink()
    file = write_config(config_of(max_steps=1, alpha=99.0), tmp_path)
    remarks = json.loads(command("check", file, "--json").out[0])["notices"]
    warned = [line.removeprefix("warning: ") for line in command("train", file).errors if line.startswith("warning")]
    assert len(remarks) == 2 and warned == remarks


def test_inspect_a_base(command: Command, base: Path) -> None:
    said = command("inspect", base)
    assert said.code == 0
    assert {"kind: base model", "family: sd15", "layout: original", "prediction_type: epsilon"} <= set(said.out)
    facts = json.loads(command("inspect", base, "--json").out[0])
    assert facts["kind"] == "base model" and facts["reasons"]
    assert 0 < facts["size_bytes"] - 2 * facts["parameters"] < 500_000  # fp16, and the header


def test_inspect_a_flux_base_tells_which_files_it_would_use(command: Command, tmp_path: Path) -> None:
    files = make_flux(tmp_path)
    files.t5xxl.unlink()

    facts = json.loads(command("inspect", files.transformer, "--json").out[0])
    found = {part: str(path) for part, path in files.parts.items()}
    assert (facts["variant"], facts["parts"]) == ("dev", found | {"t5xxl": "missing"})
    assert "  t5xxl: missing" in command("inspect", files.transformer).out


def test_set_replaces_settings_and_inspect_tells_the_lora(
    command: Command, config_of: ConfigOf, tmp_path: Path
) -> None:
    file = write_config(config_of(epochs=1), tmp_path)
    assert command("train", file, "--set", "rank=3", "output_name=other", "comment=a = b").code == 0
    path = tmp_path / "out" / "other.safetensors"
    facts = json.loads(command("inspect", path, "--json").out[0])
    assert facts["kind"] == "LoRA" and facts["ranks"] == {"3": 192 + 18}
    assert facts["metadata"]["ss_training_comment"] == "a = b"
    said = command("inspect", path)
    assert said.code == 0 and said.out[0] == "kind: LoRA" and "  ss_output_name: other" in said.out


def test_json_tells_the_run_event_by_event(command: Command, config_of: ConfigOf, tmp_path: Path) -> None:
    previews = {"preview_every_epochs": 1, "preview_at_start": True, "preview_steps": 2, "preview_prompts": ("a", "b")}
    said = command("train", write_config(config_of(**previews), tmp_path), "--json")
    assert said.code == 0
    events = [json.loads(line) for line in said.out]
    kinds = [event["event"] for event in events if event["event"] not in ("phase", "measured")]
    epoch = ["progress", "progress", "saved", "sample", "sample"]
    assert kinds == ["started", "sample", "sample", *epoch * 3, "finished"]
    started, finished = events[0], events[-1]
    assert started == {
        "event": "started", "name": "blob", "base": "small.safetensors", "family": "sd15", "pictures": 4,
        "steps": 6, "epochs": 3, "step": 0, "seed": 7,
    }  # fmt: skip
    progress = [event for event in events if event["event"] == "progress"]
    assert [event["step"] for event in progress] == [1, 2, 3, 4, 5, 6]
    assert [event["epoch"] for event in progress] == [1, 1, 2, 2, 3, 3]
    assert all(event["loss"] > 0 and event["seconds"] >= 0 for event in progress)
    written = [event["path"] for event in events if event["event"] in ("saved", "sample")]
    assert len(set(written)) == 3 + 8 and all(Path(path).is_file() for path in written)
    assert finished["lora"] == str(tmp_path / "out" / "blob.safetensors") and finished["steps"] == 6
    assert finished["peak_rss_mb"] > 100 and finished["seconds"] > 0


def test_the_bar_shows_step_loss_speed_and_time_left(
    config_of: ConfigOf, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a stream that is no terminal, drawn as often as there is something to draw."""
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    assert main(["train", str(write_config(config_of(), tmp_path))]) == 0
    said = capsys.readouterr()
    drawn = re.split(r"[\r\n]+", said.err)
    assert said.out == ""
    bar = r"epoch 2/3: +\d+%\|.*\| [34]/6 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+(step/s|s/step), loss=\d\.\d{4}\]"
    assert any(re.fullmatch(bar, line) for line in drawn), drawn
    assert any(
        line.startswith("blob: 4 pictures, 3 epochs, 6 steps on small.safetensors (sd15), seed 7") for line in drawn
    )
    assert f"saved {tmp_path / 'out' / 'blob-000001.safetensors'}" in drawn
    assert any(re.fullmatch(r"Finished in \d+ s, peak memory \d+ MiB: .*blob\.safetensors", line) for line in drawn)


def start(file: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lora_trainer", "train", str(file), "--json", *arguments],
        env={**environment_for_child(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_stops_and_saves_and_the_same_command_goes_on(config_of: ConfigOf, tmp_path: Path) -> None:
    """Exit code 0: the run did as it was told."""
    file = write_config(config_of(epochs=1000), tmp_path)
    events: list[dict[str, Any]] = []
    with start(file) as process:
        for line in process.stdout or ():
            events.append(json.loads(line))
            if events[-1]["event"] == "progress" and events[-1]["step"] == 1:
                process.send_signal(signal.SIGINT)
        errors = process.stderr.read() if process.stderr else ""
    assert process.returncode == 0 and errors == ""
    stopped = events[-1]
    assert stopped["event"] == "stopped" and stopped["steps"] == 2000
    assert (tmp_path / "out" / "blob-run" / "state.bin").is_file()
    with start(file) as process:
        first = next(event for line in process.stdout or () if (event := json.loads(line))["event"] == "progress")
        process.kill()
    assert first["step"] == stopped["step"] + 1


def test_a_finished_name_is_taken_and_an_interrupted_one_starts_again_when_fresh(
    command: Command, config_of: ConfigOf, tmp_path: Path
) -> None:
    """`--fresh` is about an interrupted run only: it does not write over a finished LoRA."""
    file = write_config(config_of(max_steps=1), tmp_path)
    assert command("train", file).code == 0
    before = contents(tmp_path)
    assert command("train", file, "--fresh").code == 2 and contents(tmp_path) == before


def test_settings_lists_every_one_and_its_schema(command: Command) -> None:
    said = command("settings")
    assert said.code == 0 and all(f"`{name}`" in "\n".join(said.out) for name in SETTINGS)
    said = command("settings", "--json")
    assert said.code == 0 and json.loads("\n".join(said.out))["properties"].keys() >= SETTINGS.keys()
