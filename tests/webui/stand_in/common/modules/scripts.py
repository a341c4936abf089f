"""The files of the extensions, and their scripts, run again at each reload of the page.

A1111 has an extension's folder in sys.path only while its script is loaded; Forge keeps all of them there.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import namedtuple
from pathlib import Path

from modules import errors, script_callbacks, shared, timer
from modules.paths import extensions_dir, script_path

ScriptFile = namedtuple("ScriptFile", ["basedir", "filename", "path"])


def extensions():
    folders = [*Path(script_path, "extensions-builtin").iterdir(), *Path(extensions_dir).iterdir()]
    off = set(shared.opts.disabled_extensions)
    return [
        path for path in sorted(folders, key=lambda path: path.name.lower()) if path.is_dir() and path.name not in off
    ]


def list_scripts(folder, ending):
    roots = [Path(script_path), *extensions()]
    found = [(root, path) for root in roots for path in sorted((root / folder).glob(f"*{ending}"))]
    return [ScriptFile(str(root), path.name, str(path)) for root, path in found]


def list_files_with_name(name):
    return [str(root / name) for root in (Path(script_path), *extensions()) if (root / name).is_file()]


def load_scripts():
    script_callbacks.clear_callbacks()
    kept = list(sys.path)
    for file in list_scripts("scripts", ".py"):
        if file.basedir not in sys.path:
            sys.path.insert(0, file.basedir)
        try:
            spec = importlib.util.spec_from_file_location(file.filename, file.path)
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        except Exception:  # noqa: BLE001
            errors.report(f"Error loading script: {file.filename}", exc_info=True)
        finally:
            if not shared.is_forge:
                sys.path[:] = kept
            timer.startup_timer.record(file.filename)
