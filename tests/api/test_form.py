"""What the tab sends: the form's raw values in place of a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI

from lora_trainer.api import Access, mount
from lora_trainer.config import Config
from lora_trainer.config.form import as_form, from_form
from lora_trainer.dataset.steps import count_steps
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import V1, Client, FakeHost, png


def filled(**values: Any) -> dict[str, Any]:
    return {**as_form(Config()), "output_folder": "", "base_model": "base.safetensors", "dataset_name": "zdm", **values}


def fill(folder: Path, sizes: dict[str, tuple[int, int]]) -> None:
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(size=size))


def test_a_form_becomes_a_job_whose_lora_goes_to_the_hosts_folder(client: Client, queue: Queue, tmp_path: Path) -> None:
    fill(tmp_path / "datasets" / "zdm" / "10_zdm", {f"{number}.png": (64, 64) for number in range(7)})
    answer = client.post(f"{V1}/jobs", json={"form": filled(repeats="3", output_name="zdm")})
    assert answer.status_code == 201, answer.text
    config = queue.work(answer.json()["id"]).config
    assert Path(config.output_folder) == tmp_path / "Lora" and config.output_name == "zdm"
    assert [(Path(part.folder), part.repeats) for part in config.subsets] == [(tmp_path / "datasets" / "zdm", 3)]


def test_of_several_folders_each_ones_name_says_its_repeats(client: Client, queue: Queue, tmp_path: Path) -> None:
    fill(tmp_path / "datasets" / "zdm", {"10_zdm/a.png": (64, 64), "3_other/b.png": (64, 64)})
    answer = client.post(f"{V1}/config/check", json={"form": filled(batch_size=1, epochs="2"), "quick": True})
    assert answer.json()["problems"] == [] and answer.json()["steps"] == (10 + 3) * 2


def test_mistakes_are_told_at_once_each_one_time_and_nothing_is_queued(
    client: Client, queue: Queue, tmp_path: Path
) -> None:
    fill(tmp_path / "datasets" / "zdm" / "10_zdm", {"a.png": (64, 64)})
    wrong = filled(
        repeats="0", rank=None, epochs="ten", learning_rate="", schedule="constant", warmup_percent=5, output_name="a/b"
    )
    answer = client.post(f"{V1}/jobs", json={"form": {**wrong, "base_model": ""}})
    assert answer.status_code == 422
    named = [problem["setting"] for problem in answer.json()["problems"]]
    assert sorted(named) == sorted(
        {"repeats", "rank", "epochs", "learning_rate", "base_model", "output_name", "warmup_percent"}
    )
    assert queue.jobs() == []


def test_steps_are_counted_without_a_look_at_the_files_as_training_counts_them(client: Client, tmp_path: Path) -> None:
    sizes = {"a.png": (640, 360), "b.png": (360, 640), "c.png": (512, 512), "d.jpg": (500, 500), "e.png": (300, 900)}
    fill(tmp_path / "datasets" / "zdm" / "4_zdm", sizes)
    form = filled(batch_size=3, gradient_accumulation=2, epochs="5", repeats="4")
    answer = client.post(f"{V1}/config/check", json={"form": form, "quick": True}).json()
    config = from_form({**form, "subsets": [{"folder": str(tmp_path / "datasets" / "zdm")}]})
    assert answer["steps"] == count_steps(config)
    (tmp_path / "datasets" / "zdm" / "4_zdm" / "a.png").write_bytes(b"no picture")
    again = client.post(f"{V1}/config/check", json={"form": form, "quick": True}).json()
    assert again["problems"] == [] and again["steps"]


def test_a_missing_file_is_told_together_with_what_cannot_be_read(client: Client, tmp_path: Path) -> None:
    fill(tmp_path / "datasets" / "zdm" / "10_zdm", {"a.png": (64, 64)})
    answer = client.post(f"{V1}/jobs", json={"form": filled(epochs="ten", base_model="gone.safetensors", vae="no")})
    assert {problem["setting"] for problem in answer.json()["problems"]} == {"epochs", "base_model", "vae"}


def test_from_other_machines_nothing_is_told_of_files_elsewhere(queue: Queue, host: FakeHost, tmp_path: Path) -> None:
    app, open_to_all = FastAPI(), Access(None, None, listening_remotely=True, allowed_remotely=True)
    mount(app, queue, None, host, open_to_all, tmp_path / "datasets")
    secret = tmp_path.with_name(f"{tmp_path.name}-secret.safetensors")  # beside the host's folders
    told = []
    for make in (secret.touch, secret.unlink):
        answer = Client(app).post(f"{V1}/config/check", json={"form": filled(epochs="ten", vae=str(secret))})
        told.append([problem for problem in answer.json()["problems"] if problem["setting"] == "vae"])
        make()
    assert told[0] == told[1] and "lies outside" in told[0][0]["problem"]


def test_the_form_is_asked_for_by_name(client: Client) -> None:
    assert client.post(f"{V1}/jobs", json={}).json()["problems"][0]["setting"] == "config"
    assert client.post(f"{V1}/jobs", json={"form": []}).status_code == 422
    assert client.post(f"{V1}/jobs", json={"form": {"unknown": 1}}).status_code == 422
