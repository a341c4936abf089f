"""Rules that hold for the whole repository: which room may import what, and what no file may hold."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from lora_trainer import packages
from lora_trainer.commands.serve import LIST as WEB_LIST
from lora_trainer.config import check, load_toml

ROOT = packages.ROOT
WEB = {"gradio", "fastapi", "modules"}
TORCH = {"torch", "diffusers", "transformers", "accelerate", "peft"}
PICTURES = {"numpy", "PIL"}
MODELS = {"onnxruntime", "retinaface"}
ABOVE_DATASET = {f"lora_trainer.{room}" for room in ("tagging", "preparing", "training", "demo")}
ROOMS = {  # what a room must not load, neither itself nor through what it imports
    "packages": WEB | TORCH | PICTURES | {"toml", "lora_trainer.config"},
    "installing": WEB | TORCH | PICTURES | {"lora_trainer.training", "lora_trainer.demo"},
    "locks": WEB | TORCH | PICTURES | {"lora_trainer.config"},
    "databases": WEB | TORCH | PICTURES | {"lora_trainer.config"},
    "imports": WEB | TORCH | PICTURES | {"lora_trainer.config"},
    "config": WEB | TORCH | PICTURES | {"lora_trainer.dataset", "lora_trainer.training", "lora_trainer.demo"},
    "jobs": WEB | TORCH | PICTURES | {"lora_trainer.training", "lora_trainer.demo"},
    "dataset": WEB | TORCH | MODELS | ABOVE_DATASET,
    "inspecting": WEB | TORCH | MODELS | PICTURES | {"lora_trainer.dataset", *ABOVE_DATASET},
    "sheets": WEB | TORCH | MODELS | {"lora_trainer.config", "lora_trainer.dataset", *ABOVE_DATASET},
    "tagging": WEB | {"lora_trainer.preparing", "lora_trainer.training", "lora_trainer.demo", "lora_trainer.commands"},
    "preparing": WEB | {"lora_trainer.training", "lora_trainer.demo", "lora_trainer.commands"},
    "hosts": WEB | TORCH | PICTURES | {"lora_trainer.training", "lora_trainer.demo"},
    "api": {"gradio", "modules"} | TORCH | MODELS | ABOVE_DATASET,
    "worker": WEB | {"lora_trainer.api", "lora_trainer.commands"},
    "training": WEB | MODELS | {"lora_trainer.tagging", "lora_trainer.preparing", "lora_trainer.demo"},
    "demo": WEB | {"lora_trainer.commands"},
    "commands": WEB,
    "ui": {"modules"} | TORCH | MODELS | {"lora_trainer.api", "lora_trainer.dataset", *ABOVE_DATASET},
    "serving": {"modules"} | TORCH | MODELS | {"lora_trainer.demo", "lora_trainer.commands"},
}
WITH_GRADIO = ("ui", "serving")  # loaded in the packages that `serve` has
OF_THE_WEBUI = "lora_trainer.hosts.webui"  # the package that alone may know the WebUI's `modules`
TEXT = {".py", ".md", ".toml", ".txt", ".ini", ".js", ".css", ".json", ".yml", ".yaml", ".cfg"}
NOT_OURS = [line for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split() if line.endswith("/")]


def ours(*suffixes: str) -> Iterator[Path]:
    """The repository's text files, or those with these suffixes."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") for part in parts)
        ignored = any(
            fnmatch(part, pattern.strip("/"))
            for pattern in NOT_OURS
            for part in (parts[:1] if pattern.startswith("/") else parts)
        )
        if not (hidden or ignored) and path.suffix in (suffixes or TEXT) and path.is_file():
            yield path


def is_of_the_webui(module: str) -> bool:
    return f"{module}.".startswith(f"{OF_THE_WEBUI}.")


def modules_of(room: str) -> list[str]:
    files = [*(ROOT / "lora_trainer" / room).rglob("*.py"), *(ROOT / "lora_trainer").glob(f"{room}.py")]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files)
    return sorted(name for name in names if not name.endswith("__main__"))


def loaded_by(modules: list[str], with_gradio: bool = False) -> set[str]:
    """What a fresh Python has loaded once it has imported these."""
    code = f"import sys, {', '.join(modules)}\nprint(*sys.modules, sep='\\n')"
    environment = packages.environment_for_child()
    if with_gradio:
        web = packages.Folder(packages.WEB, packages.read_list(WEB_LIST), with_dependencies=True)
        packages.install(web)
        environment["PYTHONPATH"] = os.pathsep.join((str(web.path), str(ROOT)))
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_loads_only_what_it_may(room: str) -> None:
    assert not ROOMS[room] & loaded_by(modules_of(room), with_gradio=room in WITH_GRADIO)


def test_the_command_line_starts_where_nothing_is_installed() -> None:
    assert not (TORCH | PICTURES | MODELS) & loaded_by(["lora_trainer.__main__"])


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, inside functions too, with the packages it lies in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: count + 1]) for count in range(len(parts)))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_names_only_what_it_may(room: str) -> None:
    for module in modules_of(room):
        path = ROOT.joinpath(*module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert not (ROOMS[room] - ({"modules"} if is_of_the_webui(module) else set())) & set(imports_of(file)), module


def test_one_package_imports_the_webuis_modules() -> None:
    files = sorted((ROOT / "lora_trainer").rglob("*.py"))
    importing = [path for path in files if "modules" in set(imports_of(path))]
    assert {path.parent for path in importing} == {ROOT.joinpath(*OF_THE_WEBUI.split("."))}


def test_every_module_has_a_room() -> None:
    entries = {path.stem for path in (ROOT / "lora_trainer").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert entries - {"__init__", "__main__", "__pycache__", "files"} <= ROOMS.keys()


def test_every_text_file_is_utf8_without_a_byte_order_mark() -> None:
    files = list(ours())
    assert files
    for path in files:
        assert not path.read_text(encoding="utf-8").startswith("\ufeff"), path


def test_no_file_holds_a_path_of_a_machine() -> None:
    of_a_machine = re.compile(
        r"(?<![\w.])/(?:root|work|mnt|opt|(?:home|Users)/(?!someone)\w+)/\w|\b[A-Za-z]:[\\/]+Users[\\/]+(?!someone)[A-Za-z]"
    )
    for path in ours():
        assert not of_a_machine.findall(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("words", [("ruff", "check", "--quiet", "."), ("mypy",)])
def test_the_code_passes(words: tuple[str, ...]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=packages.environment_for_child(),
        capture_output=True,
        encoding="utf-8",
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_python_versions_are_said_alike() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    install = (ROOT / "install.py").read_text(encoding="utf-8")
    oldest, beyond = map(int, re.findall(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', project)[0])
    said = set(re.findall(r"Python 3\.(\d+) to 3\.(\d+)", readme + install))
    assert said == {(str(oldest), str(beyond - 1))}
    assert f"(3, {oldest}), (3, {beyond - 1})" in install


def test_the_readme_says_what_each_package_is_for() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").lower().replace("_", "-")
    missing = [name for name in map(packages.name_of, packages.read_list(packages.LIST)) if f"`{name}`" not in readme]
    assert not missing


def test_the_readmes_config_can_be_trained() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    check(load_toml(blocks[0]))
