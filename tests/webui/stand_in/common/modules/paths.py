"""Where things lie: the program, and by --data-dir somewhere else extensions, models and settings."""

from __future__ import annotations

import argparse
from pathlib import Path

_parser = argparse.ArgumentParser(add_help=False)
_parser.add_argument("--data-dir")

script_path = str(Path(__file__).resolve().parent.parent)
data_path = _parser.parse_known_args()[0].data_dir or script_path
models_path = str(Path(data_path, "models"))
extensions_dir = str(Path(data_path, "extensions"))
