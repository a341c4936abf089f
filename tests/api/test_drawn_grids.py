"""Grids that the host draws, by the API: what is drawn, what is kept of it, and what is refused."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from lora_trainer.api import mount
from lora_trainer.api.tasks import TASKS
from lora_trainer.config import Config, Subset, as_dict
from lora_trainer.hosts.host import Drawing, HostProblem
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.supervisor import NotFreed
from lora_trainer.jobs.work import Work
from tests.api.conftest import CHECKPOINT, OPEN, V1, Client, FakeHost
from tests.flux_files import make_flux
from tests.jobs.made import lora, train
from tests.jobs.patience import until

GRIDS = f"{V1}/grids"
EPOCHS = ["zdm-000001.safetensors", "zdm.safetensors"]


@dataclass(frozen=True)
class DrawingHost(FakeHost):
    """Its pictures are as red as the LoRA is strong; it draws while `free`, and fails where there is a `fault`."""

    drawn: list[Drawing] = field(default_factory=list)
    free: threading.Event = field(default_factory=threading.Event)
    fault: list[str] = field(default_factory=list)

    @property
    def draws(self) -> bool:
        return True

    def stop_drawing(self) -> None:
        self.fault.append("It was interrupted.")
        self.free.set()

    def draw(self, drawing: Drawing, target: Path) -> None:
        assert self.free.wait(10)
        if self.fault:
            raise HostProblem(self.fault[0])
        self.drawn.append(drawing)
        strength = sum(weight for _, weight in drawing.loras)
        Image.new("RGB", (drawing.width, drawing.height), (int(100 * strength), 0, 0)).save(target)


class Lender:
    """A supervisor as far as grids know it: how often, and to whom, the GPU was lent."""

    def __init__(self) -> None:
        self.current, self.watching, self.trouble = None, "", ""
        self.lent = self.now = 0

    @contextmanager
    def gpu_for_host(self, timeout: float) -> Iterator[int]:
        if self.watching:
            raise NotFreed(self.watching)
        self.lent, self.now = self.lent + 1, self.now + 1
        yield 0
        self.now -= 1


@pytest.fixture
def host(tmp_path: Path) -> DrawingHost:
    (tmp_path / "base.safetensors").write_bytes(b"weights")
    (tmp_path / "Lora" / "styles").mkdir(parents=True)
    host = DrawingHost(home=tmp_path)
    host.free.set()
    return host


@pytest.fixture
def lender() -> Lender:
    return Lender()


@pytest.fixture
def app(queue: Queue, host: DrawingHost, lender: Any, tmp_path: Path) -> Iterator[FastAPI]:
    app = FastAPI()
    mount(app, queue, lender, host, OPEN, tmp_path / "datasets")
    yield app
    host.free.set()
    for task in TASKS.all():
        task.cancel()
        until(task.over.is_set)


@pytest.fixture
def job(queue: Queue, host: DrawingHost, dataset: Path) -> int:
    """One that has trained two epochs."""
    config = Config(
        base_model=str(host.home / "base.safetensors"), dataset_name="zdm", output_name="zdm", trigger_word="zdm",
        preview_size=(64, 96), preview_steps=9, preview_cfg=6.5, preview_sampler="DDIM", negative_prompt="blurred",
        clip_skip=2, subsets=(Subset(folder=str(dataset)),), output_folder=str(host.home / "Lora"),
    )  # fmt: skip
    id = queue.add(Work(config)).id
    train(queue.job_folder(id))
    return id


def drawn(answer: Any) -> dict[str, Any]:
    """The grid's answer once all of it is drawn, or its task has ended otherwise."""
    assert answer.status_code == 202, answer.text
    task = TASKS.get(str(answer.json()["task"]["id"]))
    until(task.over.is_set)
    return task.facts()


def cell(grid: dict[str, Any], *numbers: int) -> Any:
    """A cell's picture by its prompt, or by prompt, LoRA and weight."""
    wanted = (numbers + (None, None))[:3]
    return next(c["picture"] for c in grid["cells"] if (c["prompt"], c["lora"], c["weight"]) == wanted)


def red(client: Client, picture: str) -> int:
    with Image.open(io.BytesIO(client.get(f"{V1}/{picture}").content)) as image:
        pixel = image.convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return int(pixel[0])


def test_a_jobs_epochs_are_drawn_at_each_weight(client: Client, host: DrawingHost, lender: Lender, job: int) -> None:
    suggested = client.get(f"{GRIDS}/suggestion", params={"job": job}).json()
    assert suggested == {
        "name": "zdm", "base_model": CHECKPOINT, "weights": [0.7, 0.8, 1.0], "prompts": ["zdm", "zdm, red"],
        "loras": [{"file": EPOCHS[0], "epoch": 1, "step": 70}, {"file": EPOCHS[1], "epoch": 2, "step": 140}],
    }  # fmt: skip
    answer = client.post(GRIDS, json={"job": job, "weights": [0.5, 1], "prompts": ["zdm"]})
    assert drawn(answer)["state"] == "finished"
    grid = client.get(f"{GRIDS}/{answer.json()['grid']['id']}").json()
    assert (grid["drawn"], len(grid["cells"]), grid["task"]) == (5, 5, None)
    assert [red(client, cell(grid, *place)) for place in ((0,), (0, 0, 0), (0, 1, 1))] == [0, 50, 100]
    first, last = host.drawn[0], host.drawn[-1]
    assert first == Drawing(CHECKPOINT, "zdm", "blurred", 9, 6.5, "DDIM", 64, 96, 42, clip_skip=2)
    assert last == replace(first, loras=((host.home / "jobs" / str(job) / "models" / EPOCHS[1], 1.0),))
    assert (lender.lent, lender.now) == (1, 0)


def test_chosen_epochs_alone_are_drawn(client: Client, job: int) -> None:
    answer = client.post(GRIDS, json={"job": job, "files": [EPOCHS[1]], "weights": [0.8, 0, 0.8], "prompts": ["zdm"]})
    drawn(answer)
    grid = answer.json()["grid"]
    assert ([each["file"] for each in grid["loras"]], grid["weights"], len(grid["cells"])) == ([EPOCHS[1]], [0.8], 2)


@pytest.fixture
def own(host: DrawingHost) -> Path:
    """A LoRA in the host's folder, of our own making."""
    trained = Config(base_model="base.safetensors", trigger_word="zdm", preview_prompts=("{trigger}, red", "{trigger}"))
    says = {"lora_trainer.config": json.dumps(as_dict(trained, whole_paths=False))}
    file = host.home / "Lora" / "styles" / "zdm.safetensors"
    file.write_bytes(lora(**says, ss_sd_model_name="base.safetensors"))
    return file


def test_a_lora_of_the_folder_is_drawn_by_each_prompt(client: Client, host: DrawingHost, own: Path) -> None:
    answer = client.post(GRIDS, json={"lora": "styles/zdm.safetensors", "weights": [0.7]})
    drawn(answer)
    assert [each.prompt for each in host.drawn] == ["zdm, red", "zdm"] * 2
    assert host.drawn[-1].loras == ((own, 0.7),) and host.drawn[-1].clip_skip is None
    (listed,) = client.get(GRIDS, params={"lora": "styles/zdm.safetensors"}).json()["grids"]
    assert (listed["id"], listed["drawn"]) == (answer.json()["grid"]["id"], 4)
    assert client.get(GRIDS, params={"lora": "other.safetensors"}).json()["grids"] == []
    assert client.get(GRIDS, params={"job": "1"}).json()["grids"] == []


def test_a_lora_of_a_flux_is_drawn_by_its_guidance(client: Client, host: DrawingHost, own: Path) -> None:
    make_flux(host.home / "made").transformer.replace(host.home / "base.safetensors")
    trained = Config(base_model="base.safetensors", preview_guidance=2.5, negative_prompt="blurred")
    says = {"lora_trainer.config": json.dumps(as_dict(trained, whole_paths=False))}
    own.write_bytes(lora(**says, ss_sd_model_name="base.safetensors"))
    drawn(client.post(GRIDS, json={"lora": "styles/zdm.safetensors", "weights": [0.7], "prompts": ["zdm"]}))
    first = host.drawn[0]
    assert (first.guidance, first.cfg_scale, first.negative_prompt, first.sampler) == (2.5, 1.0, "", "Euler Simple")


def test_a_cancelled_grid_goes_on_where_it_was(client: Client, host: DrawingHost, job: int) -> None:
    host.free.clear()
    answer = client.post(GRIDS, json={"job": job, "weights": [1], "prompts": ["zdm"]})
    task, here = answer.json()["task"]["id"], f"{GRIDS}/{answer.json()['grid']['id']}"
    assert client.get(here).json()["task"] == task
    assert client.delete(here).status_code == 409
    assert client.post(f"{here}/draw").status_code == 409
    assert "being drawn" in client.post(GRIDS, json={"job": job}).json()["detail"]
    client.delete(f"{V1}/tasks/{task}")
    assert drawn(answer)["state"] == "cancelled" and client.get(here).json()["drawn"] == 0
    host.fault.clear()
    assert drawn(client.post(f"{here}/draw"))["state"] == "finished"
    assert client.get(here).json()["drawn"] == 3 == len(host.drawn)


def test_what_is_drawn_already_is_not_drawn_again(client: Client, host: DrawingHost, job: int) -> None:
    answer = client.post(GRIDS, json={"job": job, "weights": [1], "prompts": ["zdm"]})
    drawn(answer)
    id = answer.json()["grid"]["id"]
    (host.home / "jobs" / "grids" / str(id) / "00-01-00.png").unlink()
    assert drawn(client.post(f"{GRIDS}/{id}/draw"))["state"] == "finished"
    assert [len(host.drawn), host.drawn[-1]] == [4, host.drawn[2]]


def test_a_host_that_can_not_draw_says_so(client: Client, host: DrawingHost, job: int) -> None:
    host.fault.append("The WebUI has no base model.")
    answer = client.post(GRIDS, json={"job": job, "weights": [1], "prompts": ["zdm"]})
    task = drawn(answer)
    assert (task["state"], task["detail"]) == ("failed", "The WebUI has no base model.")
    assert client.get(f"{GRIDS}/{answer.json()['grid']['id']}").json()["drawn"] == 0


def test_where_another_program_runs_the_queue_it_is_drawn_all_the_same(
    client: Client, host: DrawingHost, lender: Lender, job: int
) -> None:
    lender.watching = "The queue is run by another program."
    assert drawn(client.post(GRIDS, json={"job": job, "weights": [1], "prompts": ["zdm"]}))["state"] == "finished"
    assert lender.lent == 0


def test_a_host_without_pictures_of_its_own_draws_none(app: FastAPI, queue: Queue, host: DrawingHost, job: int) -> None:
    mount(app, queue, None, FakeHost(home=host.home), OPEN, host.home / "datasets")
    client = Client(app)
    assert client.get(GRIDS).json() == {"draws": False, "grids": []}
    answer = client.post(GRIDS, json={"job": job})
    assert answer.status_code == 503 and "as a job" in answer.json()["detail"]
    assert client.get(GRIDS).json()["grids"] == []


def test_a_lora_that_is_another_since_is_not_mixed_in(client: Client, host: DrawingHost, own: Path) -> None:
    host.fault.append("no")
    answer = client.post(GRIDS, json={"lora": "zdm", "weights": [1]})
    drawn(answer)
    here = f"{GRIDS}/{answer.json()['grid']['id']}/draw"
    own.write_bytes(lora(rank=8))
    assert "changed since" in client.post(here).json()["detail"]
    own.unlink()
    assert client.post(here).status_code == 404


def test_the_sheet_has_a_cell_for_each_picture(client: Client, job: int, own: Path) -> None:
    of_job = client.post(GRIDS, json={"job": job, "weights": [0.5, 1]})
    drawn(of_job)
    of_lora = client.post(GRIDS, json={"lora": "zdm", "weights": [0.5, 1]})
    drawn(of_lora)
    sizes = []
    for answer in (of_job, of_lora):
        sheet = client.get(f"{GRIDS}/{answer.json()['grid']['id']}/sheet")
        assert sheet.headers["content-disposition"].endswith("zdm-grid.png")
        with Image.open(io.BytesIO(sheet.content)) as image:
            colours = set(map(tuple, np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()))
            sizes.append(image.size)
        assert {(0, 0, 0), (50, 0, 0), (100, 0, 0)} <= colours
    (_, of_rows), (of_columns, _) = sizes
    assert of_rows > 4 * 160 and of_columns > 2 * 512  # two epochs by two prompts, and a column for each prompt


def test_a_deleted_grid_is_gone(client: Client, host: DrawingHost, job: int) -> None:
    answer = client.post(GRIDS, json={"job": job, "weights": [1], "prompts": ["zdm"]})
    drawn(answer)
    here = f"{GRIDS}/{answer.json()['grid']['id']}"
    picture = cell(client.get(here).json(), 0)
    assert client.delete(here).status_code == 204
    assert client.get(f"{V1}/{picture}").status_code == client.get(here).status_code == 404
    assert not any((host.home / "jobs" / "grids").iterdir())


def test_a_deleted_jobs_grids_go_with_it(client: Client, job: int, own: Path) -> None:
    for body in ({"job": job}, {"lora": "zdm"}):
        drawn(client.post(GRIDS, json={**body, "weights": [1], "prompts": ["zdm"]}))
    assert client.delete(f"{V1}/jobs/{job}").status_code == 204
    assert [grid["lora"] for grid in client.get(GRIDS).json()["grids"]] == ["styles/zdm.safetensors"]


@pytest.mark.parametrize(
    "changes, settings",
    [
        ({"weights": []}, ["weights"]),
        ({"weights": [9]}, ["weights"]),
        ({"weights": [0]}, ["weights"]),
        ({"weights": ["0.8"], "prompts": [], "files": ["x"]}, ["prompts", "weights", "files"]),
        ({"weights": list(range(10))}, ["weights"]),
        ({"prompts": ["a"] * 10}, ["prompts"]),
        ({"files": []}, ["files"]),
        ({"files": [{}]}, ["files"]),
        ({"files": ["../../base.safetensors"]}, ["files"]),
        ({"base_model": "gone.ckpt"}, ["base_model"]),
        ({"lora": "zdm"}, ["lora"]),
        ({"rank": 4}, ["rank"]),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(
    client: Client, host: DrawingHost, job: int, changes: dict[str, Any], settings: list[str]
) -> None:
    answer = client.post(GRIDS, json={"job": job, **changes})
    assert answer.status_code == 422, answer.text
    assert [each["setting"] for each in answer.json()["problems"]] == settings
    assert all(each["remedy"] for each in answer.json()["problems"])
    assert host.drawn == [] and client.get(GRIDS).json()["grids"] == []


@pytest.mark.parametrize("id", ["7", "x", "-1", "9" * 30, "..", "%2e%2e"])
def test_what_is_not_there_is_not_found(client: Client, job: int, id: str) -> None:
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/draw"),
        ("GET", "/sheet"),
        ("GET", "/pictures/00.png"),
    ):
        assert client(method, f"{GRIDS}/{id}{path}").status_code in (404, 405)
    assert client.post(GRIDS, json={"job": 99}).status_code == 404
    assert client.post(GRIDS, json={"lora": "../base"}).status_code == 404
    assert client.get(f"{GRIDS}/suggestion", params={"lora": "gone"}).status_code == 404
    assert client.get(f"{GRIDS}/suggestion").status_code == 422


@pytest.mark.parametrize("name", ["grid.json", "..%2fgrid.json", "..%2f..%2f..%2fbase.safetensors", "01.png", "00.PNG"])
def test_no_other_file_is_served(client: Client, job: int, name: str) -> None:
    answer = client.post(GRIDS, json={"job": job, "weights": [1], "prompts": ["zdm"]})
    drawn(answer)
    pictures = f"{GRIDS}/{answer.json()['grid']['id']}/pictures"
    assert client.get(f"{pictures}/00.png").status_code == 200
    assert client.get(f"{pictures}/{name}").status_code == 404
