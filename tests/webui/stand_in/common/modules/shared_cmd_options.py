"""The command line, as far as the extension has to do with it."""

from __future__ import annotations

import argparse
from pathlib import Path

from modules.paths import data_path, models_path

parser = argparse.ArgumentParser()
for flag in ("listen", "share", "api", "skip-install", "skip-load-model-at-start", "no-half", "skip-torch-cuda-test"):
    parser.add_argument(f"--{flag}", action="store_true")
parser.add_argument("--no-prompt-history", action="store_true")
for word in ("ngrok", "gradio-auth", "gradio-auth-path", "api-auth", "ckpt-dir", "server-name", "subpath", "data-dir"):
    parser.add_argument(f"--{word}")
parser.add_argument("--lora-dir", default=str(Path(models_path, "Lora")))
parser.add_argument("--port", type=int)
parser.add_argument("--gradio-allowed-path", action="append", default=[data_path])
cmd_opts = parser.parse_args()
