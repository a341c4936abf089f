"""The private package folders, filled by the real pip from wheels that the tests write: no network is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from lora_trainer import packages
from lora_trainer.locks import Lock

LISTED = "# a comment\ntorch>=2.1,<=2.13.0\nbitsandbytes==0.50.2\ntiny-trainer==1.0\n"
# Without the site folder, a Python has no torch, as a fresh one; the pip it starts is an ordinary Python again.
BARE = (sys.executable, "-S", "-c")
ENSURE = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from lora_trainer import packages
packages.LIST = Path({listed!r})
{body}
"""


def write_wheel(folder: Path, name: str, version: str, module: str) -> None:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{module}/__init__.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)


class Place:
    """A folder for packages, and an index of wheels, for processes that have no other packages."""

    def __init__(self, folder: Path):
        self.index, self.parent, self.listed = folder / "index", folder / "packages", folder / "list.txt"
        self.index.mkdir()
        self.listed.write_text(LISTED, encoding="utf-8")
        for name, version in (("torch", "2.3.1"), ("bitsandbytes", "0.49.2"), ("tiny_trainer", "1.0")):
            write_wheel(self.index, name, version, name)

    def start(self, body: str, python: tuple[str, ...] = BARE) -> subprocess.Popen[str]:
        environment = packages.environment_for_child() | {
            packages.PARENT_VARIABLE: str(self.parent),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.index),
            "PIP_EXTRA_INDEX_URL": "",
        }
        del environment["PYTHONPATH"]
        code = ENSURE.format(root=str(packages.ROOT), listed=str(self.listed), body=body)
        pipe = subprocess.PIPE
        return subprocess.Popen([*python, code], env=environment, encoding="utf-8", stdout=pipe, stderr=pipe)

    def run(self, body: str, python: tuple[str, ...] = BARE) -> tuple[int, str, str]:
        with self.start(body, python) as process:
            out, err = process.communicate()
        return process.returncode, out, err

    def names(self) -> list[str]:
        """What lies in the folder, the hashes left out."""
        return sorted(path.name.rsplit("-", 1)[0] for path in self.parent.iterdir() if path.name != "lock")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


PYTHON = f"py{sys.version_info.major}{sys.version_info.minor}"
WHOLE = [f"{PYTHON}-foundation", f"{PYTHON}-torch2.3"]
USE = """
packages.ensure(lambda line, share: print(line) if line.startswith("Installing ") else None)
packages.activate()
import bitsandbytes, tiny_trainer, torch
print(torch.version, bitsandbytes.version, tiny_trainer.version)
"""


def test_a_bare_python_gets_torch_and_the_packages_that_fit_it(place: Place) -> None:
    code, out, err = place.run(USE)
    assert (code, out.splitlines()[-1]) == (0, "2.3.1 0.49.2 1.0"), err
    assert place.names() == WHOLE


def test_a_finished_folder_is_used_as_it_is(place: Place) -> None:
    place.run(USE)
    for wheel in place.index.iterdir():
        wheel.unlink()
    code, out, err = place.run(USE)
    assert (code, out) == (0, "2.3.1 0.49.2 1.0\n"), err


def test_a_changed_list_is_installed_anew(place: Place) -> None:
    place.run(USE)
    write_wheel(place.index, "tiny_trainer", "2.0", "tiny_trainer")
    place.listed.write_text(LISTED.replace("tiny-trainer==1.0", "tiny-trainer==2.0"), encoding="utf-8")
    assert place.run(USE)[1].splitlines()[-1] == "2.3.1 0.49.2 2.0"


def test_an_interrupted_installation_is_done_again(place: Place) -> None:
    place.run(USE)
    (place.parent / ".part-0123").mkdir()
    trained = next(place.parent.glob(f"{PYTHON}-torch*"))
    (trained / packages.STAMP).unlink()
    (trained / "tiny_trainer" / "__init__.py").unlink()
    code, out, err = place.run(USE)
    assert (code, out.splitlines()[-1]) == (0, "2.3.1 0.49.2 1.0"), err
    assert place.names() == WHOLE


def test_two_processes_install_once(place: Place) -> None:
    with place.start(USE) as first, place.start(USE) as second:
        outs = [process.communicate()[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert "".join(outs).count("Installing") == len(WHOLE)
    assert place.names() == WHOLE


ONE_LINE = """
try:
    {call}
except packages.PackageProblem as problem:
    sys.exit(str(problem))
"""


def test_a_package_that_is_not_to_be_had(place: Place) -> None:
    next(place.index.glob("tiny*")).unlink()
    code, _, err = place.run(ONE_LINE.format(call="packages.ensure()"))
    assert code == 1
    assert "tiny-trainer==1.0" in err and err.count("\n") == 1
    assert place.names() == WHOLE[:1]


def test_a_python_without_pip(place: Place, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    python = next(path for path in (tmp_path / "bare").glob("*/python*") if path.stem == "python")
    code, _, err = place.run(ONE_LINE.format(call="packages.ensure()"), (str(python), "-c"))
    assert (code, err) == (1, packages.why(["No module named pip"]) + "\n")


def test_a_folder_that_cannot_be_made(place: Place) -> None:
    place.parent.write_text("in the way", encoding="utf-8")
    code, _, err = place.run(ONE_LINE.format(call="packages.ensure()"))
    assert code == 1
    assert str(place.parent) in err and packages.PARENT_VARIABLE in err and err.count("\n") == 1


def test_a_disk_without_room_is_not_filled_up(place: Place) -> None:
    full = "import shutil\nshutil.disk_usage = lambda path: shutil._ntuple_diskusage(9 << 30, 9 << 30, 9 << 20)\n"
    code, _, err = place.run(full + ONE_LINE.format(call="packages.ensure()"))
    assert (code, err) == (1, packages.why(["No space left on device"]) + "\n")
    assert place.names() == []


HELD = """
renames = []
rename = Path.rename
def held_at_first(path, target):
    renames.append(path)
    if len(renames) < 3:
        raise PermissionError(13, "Access is denied")
    return rename(path, target)
Path.rename = held_at_first
packages.RENAME_PAUSE_SECONDS = 0
"""


def test_files_that_a_scanner_holds_for_a_while_are_no_failure(place: Place) -> None:
    code, out, err = place.run(HELD + USE)
    assert (code, out.splitlines()[-1]) == (0, "2.3.1 0.49.2 1.0"), err
    assert place.names() == WHOLE


def test_what_lacks_is_said_until_all_is_there(place: Place) -> None:
    def lacking() -> str:
        code, out, err = place.run("print(packages.lacking())")
        assert code == 0, err
        return out.strip()

    assert lacking() == packages.NOT_INSTALLED
    assert not place.parent.exists()
    (place.parent / ".part-0123").mkdir(parents=True)
    assert lacking() == packages.INTERRUPTED
    place.run(USE)
    assert lacking() == ""


SETUP = """
from argparse import Namespace
from lora_trainer.commands import setup
sys.exit(setup.run(Namespace(look={look}, again={again}, json=True)))
"""


def setup_of(place: Place, look: bool = False, again: bool = False) -> tuple[int, list[dict[str, object]]]:
    """The exit code of `setup --json`, and the objects that it prints."""
    code, out, err = place.run(SETUP.format(look=look, again=again))
    assert err == ""
    return code, list(map(json.loads, out.splitlines()))


def test_setup_tells_line_by_line_how_far_it_is(place: Place) -> None:
    assert setup_of(place, look=True) == (1, [{"state": "missing", "line": packages.NOT_INSTALLED}])
    code, told = setup_of(place)
    assert (code, told[-1]["state"]) == (0, "ready")
    shares = [float(str(each["share"])) for each in told[:-1]]
    begins = [at for at, each in enumerate(told) if str(each["line"]).startswith("Installing") and "into" in str(each)]
    training = shares[begins[-1] :]
    assert training[0] == 0 and training == sorted(training) and 0.8 < max(training) < 1
    assert any("tiny_trainer-1.0" in str(each["line"]) for each in told)
    assert setup_of(place, look=True) == (0, [told[-1]])
    assert setup_of(place) == (0, [told[-1]])


def test_setup_tells_what_went_wrong(place: Place) -> None:
    next(place.index.glob("tiny*")).unlink()
    code, told = setup_of(place)
    assert (code, told[-1]["state"]) == (1, "failed")
    assert "tiny-trainer==1.0" in str(told[-1]["line"])


def test_damaged_packages_are_installed_again_where_that_is_asked(place: Place) -> None:
    setup_of(place)
    module = next(place.parent.glob(f"{PYTHON}-torch*")) / "tiny_trainer" / "__init__.py"
    module.unlink()
    setup_of(place)
    assert not module.exists()
    assert setup_of(place, again=True)[0] == 0
    assert module.exists()


def test_whoever_looks_while_another_installs_waits_for_it(place: Place) -> None:
    place.parent.mkdir()
    with Lock(place.parent / "lock") as lock, place.start(SETUP.format(look=True, again=False)) as looking:
        first = json.loads(looking.stdout.readline()) if looking.stdout else {}
        lock.release()
        out, err = looking.communicate()
    assert first["line"].startswith("Another process is installing"), err
    assert json.loads(out.splitlines()[-1])["state"] == "ready"


EMBEDDED = (sys.executable, "-I", "-S", "-c")  # finds nothing by itself and looks at no variable


def test_an_embedded_python_does_without_what_it_cannot_build(place: Place) -> None:
    ensured = "packages.SOURCE_ONLY = ('tiny-trainer',)\npackages.ensure()\npackages.activate()\n"
    code, out, err = place.run(f"{ensured}import bitsandbytes, torch\nprint(torch.version)", EMBEDDED)
    assert (code, out.splitlines()[-1]) == (0, "2.3.1"), err
    assert place.names() == WHOLE
    assert not list(place.parent.glob("*/tiny_trainer"))
    tools = "sys.path.append({!r})\n".format(str(place.index / "tools"))
    for name in packages.BUILD_TOOLS:
        (place.index / "tools" / name).mkdir(parents=True)
    code, _, err = place.run(f"{tools}{ensured}import tiny_trainer", EMBEDDED)
    assert code == 0, err


def test_use_before_installation_says_how_to_install(place: Place) -> None:
    code, _, err = place.run(ONE_LINE.format(call="packages.activate()"))
    assert code == 1
    assert f"{sys.executable} -m lora_trainer setup" in err and err.count("\n") == 1


class Host:
    """The site folder of a WebUI's Python; every package in it but torch is broken, or pretends to be another one."""

    def __init__(self, folder: Path, index: Path) -> None:
        self.site = folder / "lib" / "site-packages"
        self.site.mkdir(parents=True)
        with zipfile.ZipFile(index / "torch-2.3.1-py3-none-any.whl") as torch:
            torch.extractall(self.site)
        described = self.site / "torch-2.3.1.dist-info" / "METADATA"
        needs = ("sympy", "rocm[libraries]", 'opt-einsum>=3.3; extra == "opt-einsum"')
        lines = "".join(f"Requires-Dist: {need}\n" for need in needs)
        described.write_text(described.read_text(encoding="utf-8") + lines, encoding="utf-8")

    def add(self, name: str, code: str = "raise RuntimeError('broken')", needs: str = "") -> None:
        (self.site / f"{name}.py").write_text(code, encoding="utf-8")
        described = self.site / f"{name}-0.1.dist-info" / "METADATA"
        described.parent.mkdir()
        described.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n{needs}", encoding="utf-8")
        (described.parent / "RECORD").write_text(f"{name}.py,,\n", encoding="utf-8")


LOOK = """
sys.path += [{site!r}]
packages.ensure()
packages.activate()
from importlib.util import find_spec
print(*(name for name in {names!r} if find_spec(name)))
import tiny_trainer, torch
print(tiny_trainer.version)
"""


def test_of_the_host_nothing_is_seen_but_torch_and_what_that_needs(place: Place, tmp_path: Path) -> None:
    host = Host(tmp_path / "host", place.index)
    for name in ("sympy", "rocm_sdk", "onnxruntime_gpu"):
        host.add(name, "")
    host.add("rocm", "", 'Requires-Dist: rocm-sdk; extra == "libraries"\n')
    broken = ("xformers", "kornia", "bitsandbytes", "tiny_trainer", "opt_einsum", "torchvision", "brotli")
    for name in broken:
        host.add(name)
    names = ("torch", "sympy", "rocm", "rocm_sdk", "onnxruntime_gpu", *broken, "json")
    code, out, err = place.run(LOOK.format(site=str(host.site), names=names))
    seen = "torch sympy rocm rocm_sdk onnxruntime_gpu bitsandbytes tiny_trainer json"  # two of them are our own
    assert (code, out.splitlines()[-2:]) == (0, [seen, "1.0"]), err
    assert place.names() == WHOLE[1:]


# What training, tagging and previews import, with everything of the host's that these libraries know broken beside it.
STACK = """
import importlib, pkgutil
for room in ("training", "worker", "preparing", "tagging", "demo"):
    package = importlib.import_module(f"lora_trainer.{room}")
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, FluxTransformer2DModel, UNet2DConditionModel
from transformers import CLIPTextModel, T5EncoderModel, Adafactor
import accelerate, lycoris, peft, pytorch_optimizer
"""
TAKEN_UP = (  # by diffusers, transformers, accelerate, peft, lycoris or what those import, where it is there
    "xformers", "kornia", "torchvision", "torchaudio", "torchao", "flash_attn", "apex", "deepspeed", "optimum", "scipy",
    "cv2", "tensorflow", "jax", "flax", "wandb", "sentencepiece", "ftfy", "brotli", "brotlicffi", "simplejson", "boto3",
    "torch_xla", "torch_mlu", "torch_musa", "torch_sdaa", "k_diffusion", "gguf", "hqq", "librosa", "matplotlib",
    "pandas", "rich", "sklearn", "timm", "tabulate",
)  # fmt: skip
BESIDE = """
import sys
sys.path.append({site!r})
from lora_trainer import packages
packages.SITE_FOLDERS = ("host-packages",)  # the running Python's own may hold our libraries
packages._hide_the_hosts()
{stack}
"""


def test_our_libraries_load_beside_a_hosts_broken_ones(tmp_path: Path) -> None:
    site = tmp_path / "host-packages"
    site.mkdir()
    for name in TAKEN_UP:
        (site / f"{name}.py").write_text("raise RuntimeError('broken')", encoding="utf-8")
        (site / f"{name}-99.0.dist-info").mkdir()
        described = f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n"
        (site / f"{name}-99.0.dist-info" / "METADATA").write_text(described, encoding="utf-8")
    code = BESIDE.format(site=str(site), stack=STACK)
    environment = packages.environment_for_child()
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr


def test_a_child_process_finds_the_same_packages(place: Place) -> None:
    body = USE + "import subprocess\ncode = 'import lora_trainer, tiny_trainer; print(tiny_trainer.__file__)'\n"
    body += "subprocess.run([sys.executable, '-c', code], env=packages.environment_for_child(), cwd='/', check=True)"
    code, out, err = place.run(body)
    assert code == 0, err
    assert Path(out.splitlines()[-1]).is_relative_to(place.parent.resolve())


def test_a_child_process_gets_nothing_of_what_shows_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(packages.PARENT_VARIABLE, str(tmp_path))
    training, web = (packages.Folder(kind, ("tiny==1",), True).path for kind in ("torch2.3", packages.WEB))
    monkeypatch.setattr(sys, "path", [str(web), str(training), *sys.path])
    inherited = packages.environment_for_child()["PYTHONPATH"].split(os.pathsep)
    assert str(training) in inherited and str(web) not in inherited


@pytest.mark.parametrize(
    ("torch_version", "pin"),
    [("2.1.2+cu121", "0.45.5"), ("2.2.0", "0.45.5"), ("2.3.1", "0.49.2"), ("2.4.1", "0.50.2"), ("2.13.0", "0.50.2")],
)
def test_bitsandbytes_fits_torch(torch_version: str, pin: str) -> None:
    found = [line for line in packages.for_torch(torch_version) if packages.name_of(line) == "bitsandbytes"]
    assert [line.partition(";")[0] for line in found] == [f"bitsandbytes=={pin}"]


def test_a_pythons_own_onnxruntime_for_cuda_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tagging() -> list[str]:
        return [line for line in packages._training(()).requirements if line.startswith("onnxruntime")]

    assert tagging()
    described = tmp_path / "onnxruntime_gpu-1.23.2.dist-info" / "METADATA"
    described.parent.mkdir()
    described.write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.23.2\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert not tagging()


def test_a_torch_that_is_too_old_is_named() -> None:
    with pytest.raises(packages.PackageProblem, match=r"torch 2\.0\.1.* 2\.1 or newer"):
        packages.for_torch("2.0.1+cu118")


# Lines as pip 23.2 printed them.
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        (
            "WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection"
            " broken by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f>: Failed to"
            " establish a new connection: [Errno -3] Temporary failure in name resolution')': /simple/toml/",
            "index cannot be reached",
        ),
        ("ERROR: No matching distribution found for toml==9", "No matching distribution found for toml==9"),
        ("Killed", "Killed"),
    ],
)
def test_a_failure_of_pip_is_told_in_two_sentences(line: str, said: str) -> None:
    message = packages.why(["Collecting toml", line])
    assert said in message and message.endswith("start again.") and "\n" not in message


def test_every_package_but_the_foundation_is_pinned() -> None:
    listed = packages.read_list(packages.LIST)
    assert {packages.name_of(line) for line in listed if "==" not in line} == set(packages.FOUNDATION)
    assert len({packages.name_of(line) for line in listed}) == len(listed)
