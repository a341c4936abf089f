"""Launch lines: continuations, quotes, variables, lists and conditions of three shells."""

from __future__ import annotations

from typing import Any

import pytest

from lora_trainer.config import BadInput
from lora_trainer.config.interchange.launch_file import launches_of
from tests.config.interchange.conftest import Import

BATCH = r"""
@echo off
REM a comment with --network_dim=1 ^
set "MODEL=D:\models\my model.safetensors"
set RANK=16
if "%EXTRA%"=="" set EXTRA=--flip_aug
if "%RANK%"=="8" (
  set ALPHA=4
) else if "%RANK%"=="16" (
  set ALPHA=8
) else (
  set ALPHA=1
)
call venv\Scripts\activate
accelerate launch --num_cpu_threads_per_process 4 ^
  "%SD_SCRIPTS%\sdxl_train_network.py" ^
  --pretrained_model_name_or_path="%MODEL%" %EXTRA% ^
  --network_module=networks.lora --network_dim=%RANK% --network_alpha=%ALPHA% ^
  --network_args "conv_dim=4" "conv_alpha=2"^
  --output_dir=D:\out\
pause
"""
POWERSHELL = r"""
$model = "D:\models\m.safetensors" # the base
$flag = 0
$name = "zunda"
$full = "$name" + "_v2"
$ext_args = [System.Collections.ArrayList]::new()
if ($model -eq "sdxl") {
  [void]$ext_args.Add("--v2")
}
elseif ($name -eq "zunda") {
  [void]$ext_args.Add("--clip_skip=2")
}
else { [void]$ext_args.Add("--flip_aug") }
if ($flag) { [void]$ext_args.Add("--color_aug") }
if ($name) {
  [void]$ext_args.Add("--network_args")
  [void]$ext_args.Add("algo=loha")
  if ($flag -ne 0) { [void]$ext_args.Add("conv_dim=4") }
}
accelerate launch --num_cpu_threads_per_process=8 "./train_network.py" `
  --pretrained_model_name_or_path=$model `
  --output_name=$full `
  --network_module=lycoris.kohya --shuffle_caption $ext_args
"""
SHELL = r"""#!/bin/bash
export HF_HOME="cache"
RANK=${RANK:-16}
model="./base.safetensors" # the base
type="sdxl"
ARGS=(
  --enable_bucket
  --output_name "my lora"
)
trainer="./train_network.py"
if [[ $type == "sdxl" ]]; then trainer="./sdxl_train_network.py"; fi
if [ "$RANK" -gt 32 ]; then
  ARGS+=(--flip_aug)
else
  ARGS+=(--shuffle_caption)
fi
if [[ $empty ]]; then ARGS+=("--color_aug"); fi
CUDA_VISIBLE_DEVICES=0 python -m accelerate.commands.launch --mixed_precision bf16 $trainer \
  --pretrained_model_name_or_path=$model \
  --network_dim=$RANK --optimizer_args weight_decay=0.1 betas=0.9,0.99 \
  "${ARGS[@]}"
"""


def only(text: str, ending: str) -> dict[str, Any]:
    (launch,) = launches_of(text, ending)
    return launch.arguments


@pytest.mark.parametrize("ending", [".bat", ""])
def test_batch(ending: str) -> None:
    assert only(BATCH, ending) == {
        "pretrained_model_name_or_path": "D:\\models\\my model.safetensors",
        "flip_aug": True,
        "network_module": "networks.lora",
        "network_dim": "16",
        "network_alpha": "8",
        "network_args": ["conv_dim=4", "conv_alpha=2"],
        "output_dir": "D:\\out\\",
    }
    (launch,) = launches_of(BATCH, ending)
    assert (launch.script, launch.before) == ("sdxl_train_network.py", ("num_cpu_threads_per_process",))


@pytest.mark.parametrize("ending", [".ps1", ""])
def test_powershell(ending: str) -> None:
    assert only(POWERSHELL, ending) == {
        "pretrained_model_name_or_path": "D:\\models\\m.safetensors",
        "output_name": "zunda_v2",
        "network_module": "lycoris.kohya",
        "shuffle_caption": True,
        "clip_skip": "2",
        "network_args": ["algo=loha"],
    }


@pytest.mark.parametrize("ending", [".sh", ""])
def test_shell(ending: str) -> None:
    (launch,) = launches_of(SHELL, ending)
    assert (launch.script, launch.before) == ("sdxl_train_network.py", ("mixed_precision",))
    assert launch.arguments == {
        "pretrained_model_name_or_path": "./base.safetensors",
        "network_dim": "16",
        "optimizer_args": ["weight_decay=0.1", "betas=0.9,0.99"],
        "enable_bucket": True,
        "output_name": "my lora",
        "shuffle_caption": True,
    }


def test_a_shell_file_with_the_continuations_of_batch() -> None:
    assert only("accelerate launch ^\n train_network.py ^\n--network_dim 8 ^\n--flip_aug", ".sh")["flip_aug"] is True


def test_a_line_that_was_pasted() -> None:
    text = 'accelerate launch --num_cpu_threads_per_process=2 "train_network.py" --resolution="512,512" --unet_lr 1e-4'
    assert only(text, ".txt") == {"resolution": "512,512", "unet_lr": "1e-4"}
    assert only("--network_dim 8 --train_data_dir=img", ".txt") == {"network_dim": "8", "train_data_dir": "img"}


def test_other_commands_are_passed_over() -> None:
    text = "pip install --upgrade pip\ngit clone --depth 1 x\npython train_network.py --network_dim 8\n"
    assert only(text, ".sh") == {"network_dim": "8"}


def test_several_launches_are_presets(imported: Import) -> None:
    text = "".join(f"python train_network.py --network_dim {rank} --output_name r{rank}\n" for rank in (4, 8))
    with pytest.raises(BadInput, match="--preset: r4, r8"):
        imported(a_sh=text)
    assert imported("r8", a_sh=text).config.rank == 8


def test_what_the_launch_says_of_the_family(imported: Import) -> None:
    assert imported(a_bat=BATCH).config.family == "sdxl"
    assert imported(b_sh="python train_network.py --v2 --network_dim 8").config.family == "sd2"


def test_a_variable_that_is_not_set_is_said(imported: Import) -> None:
    result = imported(a_sh="python train_network.py --network_dim 8 --pretrained_model_name_or_path $BASE")
    assert any("does not set" in line.reason for line in result.report.unsupported)


def test_the_command_line_takes_the_beginning_of_a_name(imported: Import) -> None:
    assert imported(a_sh="python train_network.py --network_dim 8 --max_train_epoch 7").config.epochs == 7


def test_a_config_file_comes_before_the_command_line(imported: Import) -> None:
    toml = "network_module = 'networks.lora'\nnetwork_dim = 8\nmin_snr_gamma = 5\n"
    config = imported(c_toml=toml, a_sh="python train_network.py --config_file=c --network_dim 16").config
    assert (config.rank, config.min_snr_gamma) == (16, 5.0)


def test_another_script_is_said(imported: Import) -> None:
    result = imported(a_bat="python train_db.py --learning_rate 1e-6 --train_data_dir=img")
    assert any(line.source == "train_db.py" for line in result.report.unsupported)
