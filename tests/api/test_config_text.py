"""The form as TOML and back, and configs of other programs, as the tab's config panel asks for them."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from lora_trainer.api import Access, mount
from lora_trainer.config import PRESETS, SETTINGS, Config, Subset, as_dict, dump_toml, load_toml
from lora_trainer.config.form import as_form, from_form
from lora_trainer.config.toml_file import parse_toml
from lora_trainer.dataset.steps import count_steps
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import CHECKPOINT, V1, Client, ConfigOf, FakeHost
from tests.config.interchange.conftest import lora

SD_SCRIPTS = """pretrained_model_name_or_path = "D:/models/base.safetensors"
network_module = "networks.lora"
network_dim = 12
optimizer_type = "Lion"
nonsense = 3
"""


def post(client: Client, route: str, **body: Any) -> Any:
    answer = client.post(f"{V1}/config/{route}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def file(name: str, content: str | bytes) -> dict[str, str]:
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    return {"name": name, "base64": base64.b64encode(data).decode("ascii")}


def form_of(**changes: Any) -> dict[str, Any]:
    """As the tab sends it: a raw value for each widget."""
    form = {**as_form(Config()), "base_model": CHECKPOINT, "output_name": "zdm", "dataset_name": "zdm"}
    return {**form, "output_folder": "", "resolution": "64x64", "buckets": False, **changes}


def test_a_form_is_shown_as_it_was_typed(client: Client, dataset: Path) -> None:
    text = post(client, "text", form=form_of(rank=24))["text"]
    config = load_toml(text)

    assert (config.rank, config.base_model, config.dataset_name, config.subsets) == (24, CHECKPOINT, "zdm", ())


def test_the_whole_of_it_is_what_the_command_line_trains(client: Client, dataset: Path, host: FakeHost) -> None:
    config = load_toml(post(client, "text", form=form_of(), whole=True)["text"])

    assert Path(config.base_model) == host.home / "base.safetensors"
    assert [Path(part.folder) for part in config.subsets] == [dataset]
    assert Path(config.output_folder) == host.home / "Lora"


def test_a_form_that_cannot_be_read_is_refused_with_its_problems(client: Client) -> None:
    answer = client.post(f"{V1}/config/text", json={"form": form_of(learning_rate="much", rank="")})

    assert answer.status_code == 422
    assert {each["setting"] for each in answer.json()["problems"]} >= {"learning_rate", "rank"}


def test_a_text_is_put_in_order_and_becomes_a_form(client: Client, dataset: Path) -> None:
    text = f"rank=24\nbase_model='{CHECKPOINT}'\n[dataset]\ndataset_name = 'zdm'\nresolution = [64, 64]\nbuckets=false"
    found = post(client, "format", text=text)

    assert found["problems"] == []
    assert found["text"] == dump_toml(load_toml(text))
    assert found["form"] == {**as_form(load_toml(text)), "output_folder": found["form"]["output_folder"]}
    assert post(client, "format", text=found["text"])["text"] == found["text"]


def test_where_a_text_names_no_pictures_the_chosen_ones_are_trained(client: Client, dataset: Path) -> None:
    text = dump_toml(from_form(form_of(dataset_name="")))

    assert [each["setting"] for each in post(client, "format", text=text)["problems"]] == ["subsets"]
    found = post(client, "format", text=text, dataset="zdm")
    assert found["problems"] == [] and "dataset_name" not in found["form"]


def test_every_problem_has_its_line(client: Client, dataset: Path) -> None:
    text = f"base_model = '{CHECKPOINT}'\nrank = 0\n[training]\noptimiser = 'Lion'\nbatch_size = 'two'\nalpha = -1"
    found = post(client, "format", text=text)

    assert (found["text"], found["form"]) == (text, None)
    assert {(each["line"], each["setting"]) for each in found["problems"]} >= {
        (2, "rank"), (4, "optimiser"), (5, "batch_size"), (6, "alpha"),
    }  # fmt: skip
    lines = [each["line"] or 0 for each in found["problems"]]
    assert lines == sorted(lines)


def test_a_text_that_can_be_read_is_put_in_order_with_its_problems_on_the_new_lines(client: Client) -> None:
    found = post(client, "format", text="rank = 0\n[[dataset.subsets]]\nfolder = 'gone'\nrepeats = 0")
    lines = found["text"].split("\n")

    shown = {each["setting"]: lines[each["line"] - 1] for each in found["problems"] if each["line"]}
    assert shown["rank"] == "rank = 0" and shown["subsets.1.repeats"] == "repeats = 0"
    assert shown["base_model"] == 'base_model = ""'


def test_what_is_no_toml_is_told_by_its_line(client: Client) -> None:
    (problem,) = post(client, "format", text="rank = 16\nalpha = = 3\n")["problems"]

    assert problem["line"] == 2 and problem["remedy"]


def test_notices_have_lines_too_and_comments_are_said_to_be_lost(client: Client, dataset: Path) -> None:
    text = dump_toml(from_form(form_of(rank=8, alpha="16")))
    found = post(client, "format", text=f"# mine\n{text}")

    told = {each["setting"]: each["line"] for each in found["notices"]}
    assert told[""] is None and "# mine" not in found["text"]
    assert found["text"].split("\n")[told["alpha"] - 1] == "alpha = 16.0"


@pytest.mark.parametrize("folder", ["10_zdm", "7_zdm"])
def test_a_jobs_config_as_a_form_names_what_the_host_knows(
    client: Client, config_of: ConfigOf, queue: Queue, dataset: Path, folder: str
) -> None:
    (dataset / "10_zdm").rename(dataset / folder)
    job = client.post(f"{V1}/jobs", json={"config": config_of(rank=24)}).json()
    form = post(client, "form", job=job["id"])["form"]

    assert (form["base_model"], form["dataset_name"], form["rank"]) == (CHECKPOINT, "zdm", 24)
    assert (form["subsets"], form["output_folder"]) == ([], "")
    again = client.post(f"{V1}/jobs", json={"form": {**form, "output_name": "again"}})
    before, after = (queue.work(each["id"]).config for each in (job, again.json()))
    assert count_steps(before) == count_steps(after)
    alike = replace(after, output_name="zdm", dataset_name="", subsets=before.subsets, repeats=before.repeats)
    assert alike == before


@pytest.mark.parametrize(
    "subsets",
    [
        [{"folder": "elsewhere"}],
        [{"folder": "zdm"}, {"folder": "zdm"}],
        [{"folder": "zdm", "flip": True}],
    ],
)
def test_folders_that_are_no_dataset_as_it_is_stay_folders(client: Client, dataset: Path, subsets: list[Any]) -> None:
    form = post(client, "form", config={"subsets": subsets})["form"]

    assert len(form["subsets"]) == len(subsets) and "dataset_name" not in form


def test_repeats_of_a_dataset_come_back_into_their_field(client: Client, dataset: Path) -> None:
    form = post(client, "form", config={"subsets": [{"folder": "zdm", "repeats": 7}]})["form"]

    assert (form["dataset_name"], form["subsets"], form["repeats"]) == ("zdm", [], "7")


def test_each_preset_fills_a_form_with_a_reason_for_each_value(client: Client) -> None:
    presets = client.get(f"{V1}/config/presets").json()["presets"]

    assert [each["name"] for each in presets] == list(PRESETS)
    for each in presets:
        assert each["form"].keys() == each["reasons"].keys() == each["labels"].keys()
        assert each["labels"] == {name: SETTINGS[name].label for name in each["form"]}
        config, values = from_form(each["form"]), PRESETS[each["name"]].values
        assert {"family": values["family"], **{name: getattr(config, name) for name in each["form"]}} == dict(values)


def test_a_config_of_sd_scripts_is_imported_with_a_report(client: Client) -> None:
    found = post(client, "import", files=[file("train.toml", SD_SCRIPTS)])

    assert (found["form"]["rank"], found["form"]["optimizer"]) == (12, "Lion")
    assert found["form"]["base_model"] == CHECKPOINT  # the host's name of a file that is called so
    assert post(client, "format", text=found["text"])["form"]["rank"] == 12
    assert any("nonsense" in line["source"] for line in found["report"]["unsupported"])


def test_files_that_belong_together(client: Client) -> None:
    training = f'{SD_SCRIPTS}dataset_config = "sets/pictures.toml"\n'
    pictures = "[[datasets]]\nbatch_size = 3\n[[datasets.subsets]]\nimage_dir = 'x'\n"
    found = post(client, "import", files=[file("train.toml", training), file("pictures.toml", pictures)])

    assert found["form"]["batch_size"] == 3 and found["form"]["subsets"][0]["folder"] == "x"


def test_a_lora_tells_how_it_was_trained(client: Client) -> None:
    metadata = {"ss_network_dim": "4", "ss_learning_rate": "0.0002", "lora_trainer.config": json.dumps({"rank": 4})}
    content = lora({**metadata}, "lora_unet_x.lora_down.weight")

    assert post(client, "import", files=[file("ずんだもん.safetensors", content)])["form"]["rank"] == 4


def test_one_of_several_presets_is_chosen(client: Client) -> None:
    presets = {name: {"config": {"network_dim": rank, "lr_scheduler": "cosine"}} for name, rank in (("a", 4), ("b", 5))}
    both = file("presets.json", json.dumps(presets))
    names = post(client, "import", files=[both])["presets"]

    assert len(names) == 2
    assert [post(client, "import", files=[both], preset=name)["form"]["rank"] for name in names] == [4, 5]


def test_a_config_that_names_a_file_of_this_machine_is_not_told_what_is_in_it(client: Client, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("a secret", encoding="utf-8")
    for argument in ("sample_prompts", "dataset_config", "config_file"):
        text = f"{SD_SCRIPTS}{argument} = '{(tmp_path / 'secret.txt').as_posix()}'\nsample_every_n_epochs = 1\n"
        assert "a secret" not in json.dumps(post(client, "import", files=[file("train.toml", text)]))


def test_two_files_that_name_each_other(client: Client) -> None:
    files = [file(f"{one}.toml", f"{SD_SCRIPTS}config_file = '{other}.toml'\n") for one, other in ("ab", "ba")]

    assert post(client, "import", files=files)["form"]["rank"] == 12


@pytest.mark.parametrize(
    "files",
    [
        [],
        [3],
        [{"name": "a.toml"}],
        [{"name": "a.toml", "base64": "%"}],
        [{"name": "a.toml", "base64": 3}],
        [{"name": "../a.toml", "base64": ""}],
        [file("a.toml", "")],
        [file("a.toml", "rank = ")],
        [file("a.png", b"\x89PNG\0")],
    ],
)
def test_files_that_cannot_be_imported(client: Client, files: list[Any]) -> None:
    answer = client.post(f"{V1}/config/import", json={"files": files})

    assert answer.status_code == 422 and answer.json()["problems"][0]["remedy"]


def test_an_export_is_what_sd_scripts_is_started_with(client: Client, dataset: Path) -> None:
    (dataset / "10_zdm" / "a.txt").write_text("zdm, green, smile, 1girl, solo", encoding="utf-8")
    found = post(client, "export", form=form_of(rank=24, warmup_percent=50, preview_prompts="a cat\na dog"))
    training = parse_toml(found["files"]["zdm.toml"])

    assert list(found["files"]) == ["zdm.toml", "zdm_dataset.toml", "zdm_prompts.txt"]
    assert (training["network_dim"], training["dataset_config"]) == (24, "zdm_dataset.toml")
    assert training["shuffle_caption"]  # for the captions are tags
    assert training["lr_warmup_steps"] == 25  # half of 1 picture x 10 repeats x 10 epochs / a batch of 2
    (part,) = parse_toml(found["files"]["zdm_dataset.toml"])["datasets"][0]["subsets"]
    assert Path(part["image_dir"]).parent == dataset and '"zdm.toml"' in found["command"]


def test_an_export_comes_back_as_it_was(client: Client, dataset: Path) -> None:
    sent = form_of(rank=24, alpha="3", optimizer="Lion", warmup_percent=50)
    files = post(client, "export", form=sent)["files"]
    back = post(client, "import", files=[file(name, text) for name, text in files.items() if name.endswith(".toml")])

    assert {name: back["form"][name] for name in ("rank", "optimizer", "base_model")} == {
        "rank": 24, "optimizer": "Lion", "base_model": CHECKPOINT,
    }  # fmt: skip
    assert float(back["form"]["alpha"]) == 3


def test_an_export_of_a_config_with_problems_is_refused(client: Client, dataset: Path) -> None:
    answer = client.post(f"{V1}/config/export", json={"form": form_of(rank=0)})

    assert answer.status_code == 422 and answer.json()["problems"][0]["setting"] == "rank"


def test_other_machines_name_no_folder_outside_the_hosts(queue: Queue, host: FakeHost, dataset: Path) -> None:
    app = FastAPI()
    access = Access({"user": "password"}, None, listening_remotely=True, allowed_remotely=False)
    mount(app, queue, None, host, access, dataset.parent)
    form = form_of(subsets=[{"folder": str(Path(__file__).parent)}])
    answer = Client(app).post(f"{V1}/config/export", json={"form": form}, auth=("user", "password"))

    assert answer.status_code == 422 and "outside" in answer.json()["problems"][0]["problem"]


def test_a_subset_that_says_nothing_but_its_folder_is_the_dataset() -> None:
    """What `_as_dataset` takes for defaults are the settings' own."""
    assert set(as_dict(Subset())) <= set(as_dict(Subset(folder="x", repeats=3)))
