"""What finds and starts sd-scripts, without sd-scripts: a stand-in script that writes what the driver would."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from transformers import CLIPTokenizer, T5TokenizerFast

from benchmarks import peer
from lora_trainer.training.families.flux.tokenizer import read_tokenizer
from lora_trainer.training.families.tokenizer import clip_tokenizer
from tests.flux_files import write_tokenizer

WORDS = "1girl, Größe 3.5, it's (red:1.2) 猫 <tag>"
STAND_IN = """
import json, os, sys, time
orders = json.load(open(sys.argv[1], encoding="utf-8"))
print("said", os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"] == "", os.environ["HF_HUB_OFFLINE"])
if "--fail" in orders["arguments"]:
    sys.exit("no such base")
events = [
    {"event": "begin", "at": time.monotonic()},
    {"event": "step", "seconds": 2.5, "cpu": 2.25, "loss": 0.5},
    {"event": "step", "seconds": 1.5, "cpu": 1.25, "loss": 0.25},
    {"event": "finished", "lora": orders["folder"] + "/x.safetensors", "peak_rss_mb": 100.0},
]
with open(orders["record"], "w", encoding="utf-8") as file:
    file.writelines(json.dumps(event) + "\\n" for event in events)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "parent" / "sd-scripts"
    folder.mkdir(parents=True)
    needs = "accelerate==1.6.0\n# albumentations==1.3.0\nopencv-python==4.10.0.84\nnumpy\n\n# <=2.0\n-e .\n"
    (folder / "requirements.txt").write_text(needs, encoding="utf-8")
    return folder


def program(place: Path) -> Path:
    path = place / peer.PROGRAMS[0]
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_the_given_python_comes_first_then_the_named_one_then_a_venv(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(peer.PYTHON_VARIABLE, raising=False)
    given, named = program(tmp_path / "given"), program(tmp_path / "named")
    beside = program(checkout.parent / "venv")
    assert peer.find_python(checkout) == beside
    within = program(checkout / ".venv")
    assert peer.find_python(checkout) == within
    monkeypatch.setenv(peer.PYTHON_VARIABLE, str(named))
    assert peer.find_python(checkout) == named
    assert peer.find_python(checkout, given) == given
    with pytest.raises(peer.PeerFailed, match="no Python at"):
        peer.find_python(checkout, tmp_path / "nowhere")


def test_without_a_venv_the_running_python_serves_if_it_has_all_else_one_is_installed(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(peer.PYTHON_VARIABLE, raising=False)
    monkeypatch.setattr(peer, "NEEDS", ("json", "pathlib"))
    assert peer.find_python(checkout) == Path(sys.executable)
    monkeypatch.setattr(peer, "NEEDS", ("json", "no_such_package"))
    monkeypatch.setattr(peer, "installed_python", lambda needs: Path("installed", *needs))
    assert peer.find_python(checkout) == Path("installed", *peer.requirements(checkout))


def test_requirements_are_sd_scripts_own_beside_our_torch(checkout: Path) -> None:
    torch, *others = peer.requirements(checkout)
    assert torch.startswith("torch==")
    assert others == ["opencv-python-headless<5", "accelerate==1.6.0", "numpy"]


def test_an_environment_is_made_once_and_again_if_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "ENVIRONMENTS", tmp_path)
    ran: list[list[str]] = []

    def run(command: list[str]) -> None:
        ran.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(exist_ok=True)
        elif "torch==2.1+cpu" in command and len(ran) > 2:
            raise peer.PeerFailed("not found")

    monkeypatch.setattr(peer, "_run", run)
    python = peer.installed_python(["torch==2.1+cpu", "x"])
    assert [command[-1] for command in ran] == [str(python.parents[1]), "x"]
    assert peer.installed_python(["torch==2.1+cpu", "x"]) == python
    assert len(ran) == 2
    (python.parents[1] / "installed.txt").unlink()
    peer.installed_python(["torch==2.1+cpu", "x"])
    assert ran[-1][-2:] == ["torch==2.1", "x"]


def test_a_run_is_read_from_its_record(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(STAND_IN, encoding="utf-8")
    monkeypatch.setattr(peer, "DRIVER", driver)
    monkeypatch.setattr(peer, "write_tokenizers", lambda folder, t5_tokenizer: folder)
    run = peer.run_peer(Path(sys.executable), checkout, "train_network", ["--seed", "1"], tmp_path, threads=3, cpu=True)
    assert run.steps == ((2.5, 0.5), (1.5, 0.25))
    assert run.cpu_s == (2.25, 1.25)
    assert 0 < run.start_s <= run.job_s
    assert (run.peak_rss_mb, run.peak_gpu_mb) == (100.0, None)
    assert run.lora.name == "x.safetensors"
    assert (tmp_path / "peer.log").read_text(encoding="utf-8").split() == ["said", "3", "True", "1"]
    arguments = json.loads((tmp_path / "peer.json").read_text(encoding="utf-8"))["arguments"]
    assert arguments == ["--seed", "1", "--tokenizer_cache_dir", str((tmp_path / "tokenizers").resolve())]
    with pytest.raises(peer.PeerFailed, match="no such base"):
        peer.run_peer(Path(sys.executable), checkout, "train_network", ["--fail"], tmp_path)


@pytest.mark.parametrize("name", peer.TOKENIZERS)
def test_the_tokenizers_written_read_as_ours(name: str, tmp_path: Path) -> None:
    folder = peer.write_tokenizers(tmp_path) / name.replace("/", "_")
    theirs = CLIPTokenizer.from_pretrained(folder)
    assert theirs(WORDS).input_ids == clip_tokenizer()(WORDS).input_ids
    assert theirs.pad_token == peer.TOKENIZERS[name]
    assert theirs.model_max_length == 77


def test_t5s_tokenizer_reads_as_ours(tmp_path: Path) -> None:
    file = write_tokenizer(tmp_path / "tokenizer.json")
    folder = peer.write_tokenizers(tmp_path, file) / peer.T5_TOKENIZER.replace("/", "_")
    texts = ["a photo of a cat", WORDS, "", "one, " * 40]
    theirs = T5TokenizerFast.from_pretrained(folder)(texts, max_length=32, padding="max_length", truncation=True)
    ids, seen = read_tokenizer(file)(texts, 32)
    assert theirs.input_ids == ids.tolist()
    assert theirs.attention_mask == seen.int().tolist()
