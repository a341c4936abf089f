"""install.py as a WebUI runs it: in the WebUI's Python, from the WebUI's folder, at every start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from lora_trainer.packages import PARENT_VARIABLE, ROOT
from tests.test_packages import write_wheel

OURS = "# a comment\ntorch>=2.1,<=2.13.0\nbitsandbytes==0.50.2\ntransformers==4.55.4\n"
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_EXTRA_INDEX_URL": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
MISSING = "LoRA trainer: The training packages are not installed yet. The tab installs them.\n"


class WebUI:
    """Its folder with the extension in it, and its Python, which has a torch and an old transformers."""

    def __init__(self, folder: Path) -> None:
        self.root, self.index = folder / "webui", folder / "index"
        self.extension = self.root / "extensions" / "trainer"
        self.packages = self.extension / "packages"
        left_out = shutil.ignore_patterns("__pycache__", "demo")
        shutil.copytree(ROOT / "lora_trainer", self.extension / "lora_trainer", ignore=left_out)
        shutil.copyfile(ROOT / "install.py", self.extension / "install.py")
        (self.extension / "lora_trainer" / "packages.txt").write_text(OURS, encoding="utf-8")
        self.index.mkdir()
        for name, version in (("torch", "2.3.1"), ("transformers", "4.30.2"), ("transformers", "4.55.4")):
            write_wheel(self.index, name, version, name)
        write_wheel(self.index, "bitsandbytes", "0.49.2", "bitsandbytes")
        venv.create(folder / "venv", with_pip=True)
        self.python = next(path for path in (folder / "venv").glob("*/python*") if path.stem == "python")
        self.environment = {**os.environ, **OFFLINE, "PIP_FIND_LINKS": str(self.index), "PYTHONPATH": str(self.root)}
        for name in (PARENT_VARIABLE, "LORA_TRAINER_INSTALL"):
            self.environment.pop(name, None)
        self.run("-m", "pip", "install", "--quiet", "torch==2.3.1", "transformers==4.30.2")

    def run(self, *words: str, **variables: str) -> str:
        """What the WebUI's Python prints."""
        environment = {**self.environment, **variables}
        run = subprocess.run(
            [str(self.python), *words], cwd=self.root, env=environment, capture_output=True, encoding="utf-8"
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    def install(self, **variables: str) -> str:
        return self.run(str(self.extension / "install.py"), **variables)

    def freeze(self) -> str:
        return self.run("-m", "pip", "freeze", "--all")

    def set_option(self, text: str) -> None:
        (self.root / "config.json").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> WebUI:
    return WebUI(tmp_path_factory.mktemp("host"))


@pytest.fixture
def webui(made: WebUI) -> WebUI:
    """As it is after the extension was put in: nothing installed, nothing set."""
    shutil.rmtree(made.packages, ignore_errors=True)
    (made.root / "config.json").unlink(missing_ok=True)
    return made


def installed(webui: WebUI) -> bool:
    return any(webui.packages.glob("*/installed.txt"))


def test_nothing_is_installed_where_nobody_has_asked(webui: WebUI) -> None:
    assert webui.install() == MISSING
    assert webui.install(LORA_TRAINER_INSTALL="0") == MISSING
    for options in ("{}", '{"lora_trainer_install_at_start": false}', "[]", "{"):
        webui.set_option(options)
        assert webui.install() == MISSING
    assert not webui.packages.exists()


def test_what_is_asked_for_is_installed_once_and_no_package_of_the_webui_changes(webui: WebUI) -> None:
    before = webui.freeze()
    assert "transformers==4.30.2" in before and "torch==2.3.1" in before
    assert "Installing 2 packages" in webui.install(LORA_TRAINER_INSTALL="1")
    assert installed(webui)
    assert webui.install(LORA_TRAINER_INSTALL="1", PIP_FIND_LINKS="") == webui.install() == ""
    shutil.rmtree(webui.packages)
    words = ("-c", f"import sys; sys.path.insert(0, {str(webui.extension)!r}); from lora_trainer.__main__ import main")
    assert "Installing" in webui.run(*words[:1], f"{words[1]}; sys.exit(main(['setup']))")
    assert webui.freeze() == before
    look = f"{words[1]}; from lora_trainer.packages import activate; activate(); import transformers"
    assert webui.run("-c", f"{look}; print(transformers.version)") == "4.55.4\n"
    assert webui.run("-c", "import transformers; print(transformers.version)") == "4.30.2\n"


def test_the_webuis_settings_may_ask_for_it(webui: WebUI) -> None:
    webui.set_option(json.dumps({"lora_trainer_install_at_start": True, "samples_save": True}))
    webui.install()
    assert installed(webui)


def test_it_tells_what_went_wrong_and_lets_the_webui_start(webui: WebUI) -> None:
    said = webui.install(LORA_TRAINER_INSTALL="1", PIP_FIND_LINKS="")
    assert "LoRA trainer: The packages could not be installed: " in said
    assert not installed(webui)
    shutil.rmtree(webui.packages)
    webui.packages.write_text("in the way", encoding="utf-8")
    try:
        assert str(webui.packages) in webui.install(LORA_TRAINER_INSTALL="1")
    finally:
        webui.packages.unlink()


def test_it_loads_nothing_that_takes_time(webui: WebUI) -> None:
    code = f"import runpy, sys; runpy.run_path({str(webui.extension / 'install.py')!r}); print(*sys.modules)"
    loaded = webui.run("-c", code).splitlines()[-1].split()
    ours = {name for name in loaded if name.startswith("lora_trainer")}
    assert ours == {"lora_trainer", "lora_trainer.packages", "lora_trainer.locks"}
    assert not {"torch", "numpy", "PIL", "gradio", "fastapi", "modules", "transformers"} & set(loaded)


@pytest.mark.skipif(sys.platform == "win32", reason="on Windows an administrator may write everywhere")
@pytest.mark.skipif(sys.platform != "win32" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_named(webui: WebUI) -> None:
    webui.extension.chmod(0o555)
    try:
        said = webui.install(LORA_TRAINER_INSTALL="1")
    finally:
        webui.extension.chmod(0o755)
    assert str(webui.packages) in said and PARENT_VARIABLE in said
