"""Comparisons by the API: their jobs are held against the queue, their sheet against the pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image, ImageColor

from lora_trainer.api import mount
from lora_trainer.config import SETTINGS, from_dict
from lora_trainer.jobs.comparisons import MOST_JOBS
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import OPEN, V1, Client, ConfigOf, FakeHost
from tests.jobs.made import COLOURS, draw

COMPARISONS = f"{V1}/comparisons"
TWO = [{"setting": "optimizer", "values": ["AdamW", "Lion"]}, {"setting": "rank", "values": ["16", "128"]}]


def axis(setting: str, *values: Any) -> list[dict[str, Any]]:
    return [{"setting": setting, "values": list(values)}]


def test_each_combination_becomes_a_job(client: Client, queue: Queue, config_of: ConfigOf) -> None:
    answer = client.post(COMPARISONS, json={"config": config_of(epochs=3), "axes": TWO})
    assert answer.status_code == 201, answer.text
    told = answer.json()
    jobs = [queue.job(cell["job"]["id"]) for cell in told["cells"]]
    assert [cell["values"] for cell in told["cells"]] == [
        ["AdamW", "16"],
        ["AdamW", "128"],
        ["Lion", "16"],
        ["Lion", "128"],
    ]
    assert [job.name for job in jobs] == ["zdm-AdamW-16", "zdm-AdamW-128", "zdm-Lion-16", "zdm-Lion-128"]
    configs = [queue.work(job.id).config for job in jobs]
    assert [(config.optimizer, config.rank) for config in configs] == [
        ("AdamW", 16),
        ("AdamW", 128),
        ("Lion", 16),
        ("Lion", 128),
    ]
    assert {config.epochs for config in configs} == {3}
    assert len({config.seed for config in configs}) == 1 and configs[0].seed >= 0, "they differ in nothing else"
    assert [axis["label"] for axis in told["axes"]] == ["Optimizer", "Network size (rank)"]
    assert [job.id for job in queue.line()] == [job.id for job in jobs]


def test_a_form_is_as_good_as_a_config(client: Client, queue: Queue, dataset: Path) -> None:
    form = {
        "base_model": "base.safetensors",
        "dataset_name": "zdm",
        "resolution": "64x64",
        "buckets": False,
        "optimizer": "automatic",
    }
    answer = client.post(COMPARISONS, json={"form": form, "axes": axis("alpha", "automatic", 8, "1e1")})
    assert answer.status_code == 201, answer.text
    assert [cell["values"] for cell in answer.json()["cells"]] == [["automatic"], ["8.0"], ["10.0"]]
    assert [queue.work(id).config.alpha for id in (1, 2, 3)] == [None, 8.0, 10.0]


@pytest.mark.parametrize(
    ("setting", "values", "read", "names"),
    [
        ("resolution", ["64x64", "128"], [[64, 64], [128, 128]], ["zdm-64x64", "zdm-128x128"]),
        ("learning_rate", ["1e-4", 5e-5], [1e-4, 5e-5], ["zdm-0.0001", "zdm-5e-5"]),
        ("flip", ["on", False], [True, False], ["zdm-on", "zdm-off"]),
        ("train", ["automatic", "unet"], [None, "unet"], ["zdm-automatic", "zdm-unet"]),
        ("optimizer_args", [["a=1", "b=2"], ""], [["a=1", "b=2"], []], ["zdm-a=1_b=2", "zdm-empty"]),
    ],
)
def test_values_of_every_kind_are_read(
    client: Client,
    queue: Queue,
    config_of: ConfigOf,
    setting: str,
    values: list[Any],
    read: list[Any],
    names: list[str],
) -> None:
    answer = client.post(COMPARISONS, json={"config": config_of(), "axes": axis(setting, *values)})
    assert answer.status_code == 201, answer.text
    assert [queue.job(cell["job"]["id"]).name for cell in answer.json()["cells"]] == names
    expected = [getattr(from_dict({setting: value}), setting) for value in read]
    assert [getattr(queue.work(number).config, setting) for number in (1, 2)] == expected


def test_an_optimizer_that_finds_its_rate_gets_the_one_it_needs(
    client: Client, queue: Queue, config_of: ConfigOf
) -> None:
    axes = axis("optimizer", "Prodigy", "AdamW")
    for id, config in ((1, config_of()), (3, config_of(optimizer="Prodigy", output_name="other"))):
        assert client.post(COMPARISONS, json={"config": config, "axes": axes}).status_code == 201
        assert [queue.work(number).config.learning_rate for number in (id, id + 1)] == [1.0, 1e-4]


MISTAKES: list[tuple[Any, str]] = [
    ([], "axes"),
    ([1], "axes"),
    ([{}], "axes"),
    (axis("rank", 16) * 3, "axes"),
    ([*axis("rank", 16), *axis("rank", 32)], "axes"),
    (axis("nothing", 16), "axes"),
    (axis("output_name", "a"), "axes"),
    (axis("subsets", "a"), "axes"),
    ([{"setting": ["rank"], "values": [1]}], "axes"),
    (axis("rank"), "rank"),
    ([{"setting": "rank", "values": "16"}], "rank"),
    (axis("rank", 0), "rank"),
    (axis("rank", "many"), "rank"),
    (axis("rank", {"a": 1}), "rank"),
    (axis("rank", 16, "16"), "rank"),
    (axis("optimizer", "Adam"), "optimizer"),
    (axis("rank", *range(1, MOST_JOBS + 2)), "axes"),
]


@pytest.mark.parametrize(("axes", "setting"), MISTAKES)
def test_axes_that_make_no_comparison_are_refused(
    client: Client, queue: Queue, config_of: ConfigOf, axes: Any, setting: str
) -> None:
    answer = client.post(COMPARISONS, json={"config": config_of(), "axes": axes})
    assert answer.status_code == 422 and setting in {each["setting"] for each in answer.json()["problems"]}
    assert queue.jobs() == [] and client.get(COMPARISONS).json() == {"comparisons": []}


def test_everything_that_is_wrong_is_told_at_once_and_nothing_is_queued(
    client: Client, queue: Queue, host: FakeHost, config_of: ConfigOf
) -> None:
    (host.home / "Lora" / "zdm-128.safetensors").write_bytes(b"another")
    config = config_of(batch_size=1, preview_every_epochs=0, base_model="nowhere")
    wrong = client.post(COMPARISONS, json={"config": config, "axes": axis("rank", 16, 128)})
    told = [problem["setting"] for problem in wrong.json()["problems"]]
    assert wrong.status_code == 422 and sorted(told) == ["base_model", "output_name", "preview_every_epochs"]
    unread = client.post(COMPARISONS, json={"config": {"epochs": "x"}, "axes": axis("rank", 0)})
    assert {"rank", "epochs"} <= {problem["setting"] for problem in unread.json()["problems"]}
    assert client.post(COMPARISONS, json={"axes": TWO}).status_code == 422
    assert queue.jobs() == [] and client.get(COMPARISONS).json() == {"comparisons": []}


def test_where_one_cannot_be_queued_none_is(
    client: Client, queue: Queue, config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, count = Queue.add, []

    def full(self: Queue, *arguments: Any) -> Any:
        count.append(1)
        if len(count) == 3:
            raise OSError(28, "No space left on device")
        return add(self, *arguments)

    monkeypatch.setattr(Queue, "add", full)
    assert client.post(COMPARISONS, json={"config": config_of(), "axes": TWO}).status_code == 507
    assert queue.jobs() == [] and client.get(COMPARISONS).json() == {"comparisons": []}


def colours_of(sheet: bytes) -> list[str]:
    """The colours of a sheet's pictures, row by row and from left to right."""
    pixels = np.asarray(Image.open(io.BytesIO(sheet)))
    places = []
    for colour in ("cyan", "magenta", *COLOURS):
        rows, columns = np.nonzero((pixels == ImageColor.getrgb(colour)).all(-1))
        if len(rows):
            places.append((rows.min(), columns.min(), colour))
    return [colour for *_, colour in sorted(places)]


def drawn(queue: Queue, id: int, epoch: int, *colours: str) -> None:
    for number, colour in enumerate(colours):
        facts: dict[str, Any] = {"step": 7 * epoch, "prompt": f"prompt {number}", "number": number}
        draw(queue.job_folder(id), f"epoch{epoch:06d}-{number:02d}-42.png", colour, epoch=epoch, **facts)


def test_pictures_are_shown_as_they_come(client: Client, queue: Queue, config_of: ConfigOf) -> None:
    client.post(COMPARISONS, json={"config": config_of(), "axes": TWO})
    place = f"{COMPARISONS}/1"
    assert client.get(f"{place}/sheet").status_code == 404
    for id in (1, 2):
        drawn(queue, id, 0, "yellow")
    drawn(queue, 1, 1, "red")
    drawn(queue, 4, 1, "blue")
    cells = client.get(place).json()["cells"]
    assert [(cell["epoch"], cell["pictures"]) for cell in cells] == [
        (1, ["epoch000001-00-42.png"]),
        (None, [None]),
        (None, [None]),
        (1, ["epoch000001-00-42.png"]),
    ]
    drawn(queue, 2, 1, "lime")
    drawn(queue, 3, 1, "cyan")
    sheet = client.get(f"{place}/sheet")
    assert sheet.headers["content-type"] == "image/png"
    assert colours_of(sheet.content) == ["red", "lime", "cyan", "blue"]


def test_with_one_setting_each_prompt_has_a_column(client: Client, queue: Queue, config_of: ConfigOf) -> None:
    client.post(COMPARISONS, json={"config": config_of(), "axes": axis("rank", 16, 128)})
    drawn(queue, 1, 1, "red", "lime")
    drawn(queue, 2, 1, "blue", "cyan")
    assert client.get(f"{COMPARISONS}/1").json()["prompts"] == ["prompt 0", "prompt 1"]
    assert colours_of(client.get(f"{COMPARISONS}/1/sheet").content) == ["red", "lime", "blue", "cyan"]


def test_with_two_settings_each_prompt_has_rows_of_its_own(client: Client, queue: Queue, config_of: ConfigOf) -> None:
    axes = [*axis("optimizer", "AdamW"), *axis("rank", 16, 128)]
    client.post(COMPARISONS, json={"config": config_of(), "axes": axes})
    drawn(queue, 1, 1, "red", "lime")
    drawn(queue, 2, 1, "blue", "cyan")
    assert colours_of(client.get(f"{COMPARISONS}/1/sheet").content) == ["red", "blue", "lime", "cyan"]


def test_it_survives_a_restart_and_the_loss_of_a_job(
    client: Client, queue: Queue, host: FakeHost, config_of: ConfigOf, tmp_path: Path
) -> None:
    for rank in (16, 32):
        body = {"config": config_of(output_name=f"zdm{rank}"), "axes": axis("rank", rank, 128)}
        assert client.post(COMPARISONS, json=body).status_code == 201
    queue.delete(2)
    (queue.folder / "comparisons" / "9.json").write_text("{", encoding="utf-8")
    app, again = FastAPI(), Queue(queue.folder)
    mount(app, again, None, host, OPEN, tmp_path / "datasets")
    newest, oldest = Client(app).get(COMPARISONS).json()["comparisons"]
    again.close()
    assert (newest["id"], oldest["id"], oldest["name"]) == (2, 1, "zdm16")
    assert [cell["job"] and cell["job"]["id"] for cell in oldest["cells"]] == [1, None]
    assert client.get(f"{COMPARISONS}/9").status_code == 404


def test_a_comparison_is_forgotten_and_its_jobs_stay(client: Client, queue: Queue, config_of: ConfigOf) -> None:
    client.post(COMPARISONS, json={"config": config_of(), "axes": TWO})
    assert client.delete(f"{COMPARISONS}/1").status_code == 204
    assert client.delete(f"{COMPARISONS}/1").status_code == 404
    assert client.get(COMPARISONS).json() == {"comparisons": []} and len(queue.jobs()) == 4


@pytest.mark.parametrize("id", ["2", "x", "-1", "../1", "1.json", "9" * 40])
def test_a_comparison_that_is_not_there_is_not_found(client: Client, config_of: ConfigOf, id: str) -> None:
    client.post(COMPARISONS, json={"config": config_of(), "axes": TWO})
    assert client.get(f"{COMPARISONS}/{id}").status_code == 404
    assert client.get(f"{COMPARISONS}/{id}/sheet").status_code == 404


def test_what_can_be_compared_is_told(client: Client) -> None:
    told = client.get(f"{V1}/comparisons/settings").json()
    assert told["most"] == 36 and {"optimizer", "rank", "schedule"} <= set(told["settings"]) <= set(SETTINGS)
    assert not {"dataset_name", "subsets", "output_name", "preview_prompts"} & set(told["settings"])
