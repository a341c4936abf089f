"""The parity benchmark's own parts: its cases are configs that train, and its measure is the one it says."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from benchmarks import parity, parity_run
from benchmarks.parity_cases import CASES, Case
from benchmarks.peer import PeerFailed
from benchmarks.sample_pictures import FOLDERS, make_pictures
from benchmarks.small_base import SIZES, make_small_base
from lora_trainer.config import problems
from lora_trainer.inspecting import identify
from lora_trainer.training.plan import make_plan

WANTED: dict[str, object] = {"base": None, "family": None, "cases": None, "set": [], "resolution": 128, "steps": 20}


def arguments(**changes: object) -> argparse.Namespace:
    return argparse.Namespace(**(WANTED | changes))


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {family: make_small_base(family, folder / f"{family}.safetensors") for family in SIZES}


@pytest.mark.parametrize("family", SIZES)
def test_a_small_base_is_of_its_family(family: str, bases: dict[str, Path]) -> None:
    assert identify(bases[family]).family == family


@pytest.mark.parametrize("name", CASES)
def test_every_case_can_be_trained(name: str, bases: dict[str, Path], tmp_path: Path) -> None:
    case = CASES[name]
    config = parity_run.config_of(case, bases[case.family], tmp_path, arguments(), tmp_path)
    assert problems(config.for_family(case.family)) == ()


def test_the_peer_gets_our_config_and_our_draws(bases: dict[str, Path], tmp_path: Path) -> None:
    case = Case("sd15", "min_snr_gamma=5 batch_size=2 cache_latents=off prediction_type=v")
    pictures = make_pictures(tmp_path, "fitting")
    plan = make_plan(parity_run.config_of(case, bases["sd15"], pictures, arguments(), tmp_path))
    script, given = parity_run.peer_arguments(plan, tmp_path)
    assert script == "train_network"
    training = Path(given[given.index("--config_file") + 1]).read_text(encoding="utf-8").splitlines()
    for said in ("min_snr_gamma = 5.0", "train_batch_size = 2", "v_parameterization = true", "max_train_steps = 20"):
        assert said in training
    dataset = json.loads(Path(given[given.index("--dataset_config") + 1]).read_text(encoding="utf-8"))
    assert [part["image_dir"] for part in dataset["datasets"][0]["subsets"]] == [str(pictures)]
    draws = parity_run.draws_of(plan, None)  # type: ignore[arg-type]  # no latents are cached
    assert len(draws["epochs"]) == plan.epochs
    shown = sorted(path for batch in draws["epochs"][0] for path in batch)
    assert shown == sorted(str(path.resolve()) for path in pictures.glob("*.png"))


def test_differences_are_relative_to_theirs() -> None:
    start = {"a.lora_up.weight": torch.zeros(2), "a.alpha": torch.tensor(1.0)}
    theirs, ours = ({"a.lora_up.weight": torch.tensor(pair), "a.alpha": torch.tensor(1.0)}
                    for pair in ([3.0, 4.0], [3.0, 4.5]))  # fmt: skip
    start["a.lora_up.weight"] = torch.tensor([3.0, 3.0])
    found = parity_run.compare([1.0, 2.0], [1.0, 2.5], ours, theirs, start)
    assert found["loss_rel"] == pytest.approx(0.2)
    assert found["weights_rel"] == pytest.approx(0.1)
    assert found["change_rel"] == pytest.approx(0.5)
    with pytest.raises(PeerFailed, match="1 steps, theirs 2"):
        parity_run.compare([1.0], [1.0, 2.5], ours, theirs, start)
    with pytest.raises(PeerFailed, match="b.lora_up"):
        parity_run.compare([1.0], [1.0], ours | {"b.lora_up.weight": torch.zeros(1)}, theirs, start)


def test_a_case_that_fails_is_a_result_too(bases: dict[str, Path], tmp_path: Path) -> None:
    wanted = arguments(base=bases["sd15"], pictures=tmp_path / "nowhere", sd_scripts=tmp_path, threads=1)
    result = parity_run.measured("x", Case("sd15"), wanted, Path("python"), tmp_path)
    assert result["loss_rel"] is None and "nowhere" in result["error"]
    assert parity.verdict(result) == "differs"
    assert "| x | | | | | failed |" in parity.markdown({"x": result}, 1.0)


def test_results_within_the_bars_are_equal_and_others_want_a_reason() -> None:
    good = {"loss_rel": 1e-5, "weights_rel": 1e-4, "change_rel": 1e-3, "exception": "", "changes": "rank=2"}
    assert parity.verdict(good) == "equal"
    assert parity.verdict(good | {"loss_rel": 2e-4}) == "differs"
    assert parity.verdict(good | {"weights_rel": 2e-3, "exception": "on purpose"}) == "explained"
    assert "| x | rank=2 | 1.0e-05 | 1.0e-04 | 1.0e-03 |  |" in parity.markdown({"x": good}, 1.0)


def test_cases_are_chosen_by_name_by_family_and_by_settings(bases: dict[str, Path]) -> None:
    assert parity.chosen_cases(arguments()) == CASES
    assert list(parity.chosen_cases(arguments(cases=["sd15-v"]))) == ["sd15-v"]
    assert {case.family for case in parity.chosen_cases(arguments(base=bases["sdxl"])).values()} == {"sdxl"}
    own = parity.chosen_cases(arguments(set=["rank=2", "caption_prefix=a b"]))
    assert {case.family: case.changes for case in own.values()} == dict.fromkeys(SIZES, "rank=2 'caption_prefix=a b'")
    more = parity.chosen_cases(arguments(cases=["sd15-v"], set=["rank=2"]))
    assert more["sd15-v"].changes == "prediction_type=v rank=2"
    with pytest.raises(SystemExit, match="No such case: sd15-w"):
        parity.chosen_cases(arguments(cases=["sd15-w"]))


@pytest.mark.parametrize("name", FOLDERS)
def test_pictures_are_drawn_alike_each_time(name: str, tmp_path: Path) -> None:
    first, again = (make_pictures(tmp_path / place, name) for place in ("first", "again"))
    files = sorted(path.name for path in first.iterdir())
    assert len(files) == 2 * len(FOLDERS[name].sizes)
    assert all((first / file).read_bytes() == (again / file).read_bytes() for file in files)
