"""Estimates: as measured where the settings were the same, else scaled and called a guess."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.config import Config
from lora_trainer.jobs.estimates import Measurement, estimate, read_measurement

CONFIG = Config(
    base_model="models/anime.safetensors", family="sd15", batch_size=2, rank=16, mixed_precision="bf16",
    gradient_checkpointing="off", optimizer="AdamW",
)  # fmt: skip
RUN = Measurement(
    1.0, "GPU", "anime.safetensors", "sd15", 512 * 512 * 2, 16, "both", "bf16", False, "AdamW", 2.0, 30.0, 6000.0
)
XL = replace(RUN, base="xl.safetensors", family="sdxl", pixels=1024 * 1024 * 2, train="unet", seconds_per_step=9.0)


def run(**changes: Any) -> Measurement:
    return replace(RUN, **changes)


def test_of_nothing_nothing_is_known() -> None:
    found = estimate(CONFIG, 100, [])
    assert (found.seconds, found.peak_mb, found.guess) == (None, None, True)
    assert "Nothing was measured" in found.why


def test_of_flux_nothing_is_known_from_other_families() -> None:
    flux = replace(CONFIG, family="flux")
    found = estimate(flux, 100, [RUN, XL])
    assert (found.seconds, found.peak_mb) == (None, None)
    assert "with such a model" in found.why
    measured = run(base="flux1-dev.safetensors", family="flux", pixels=1024 * 1024 * 2, train="unet", peak_mb=9000.0)
    assert estimate(flux, 100, [measured, XL]).peak_mb == 9000.0
    assert estimate(CONFIG, 100, [RUN, measured]).peak_mb == RUN.peak_mb


def test_the_same_settings_are_no_guess() -> None:
    found = estimate(CONFIG, 100, [run(rank=64, seconds_per_step=7.0), RUN, XL])
    assert (found.seconds, found.peak_mb, found.guess) == (30 + 200, 6000.0, False)
    assert found.why == "As measured on GPU."


def test_of_the_latest_runs_the_middle_one_counts() -> None:
    history = [run(seconds_per_step=99.0)] * 6 + [
        run(seconds_per_step=seconds) for seconds in (1.0, 50.0, 3.0, 2.0, 4.0)
    ]
    found = estimate(CONFIG, 10, [*history, run(rank=1, seconds_per_step=77.0)])
    assert found.seconds == 30 + 10 * 3.0


def test_the_most_memory_of_them_counts() -> None:
    assert estimate(CONFIG, 10, [run(peak_mb=7000.0), RUN]).peak_mb == 7000.0


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({"rank": 64}, 1.0),
        ({"batch_size": 4}, 2.0),
        ({"resolution": (256, 512)}, 0.5),
        ({"gradient_accumulation": 3}, 3.0),
        ({"optimizer": "Lion"}, 1.0),
        ({"train": "unet"}, 1.0),
        ({"gradient_checkpointing": "on"}, 1.0),
        ({"micro_batch": 1}, 1.0),
        ({"base_precision": "fp8"}, 1.0),
    ],
)
def test_other_settings_are_a_guess(changes: dict[str, Any], scale: float) -> None:
    found = estimate(replace(CONFIG, **changes), 100, [XL, RUN])
    assert found.guess and found.seconds == pytest.approx(30 + 200 * scale)
    assert found.peak_mb == 6000 * max(1, scale if "gradient_accumulation" not in changes else 1)
    assert found.why.startswith("A guess from another run on GPU: sd15, rank 16") and found.why.endswith(".")


def test_the_nearest_run_is_taken() -> None:
    history = [
        XL,
        run(pixels=512 * 512 * 4, seconds_per_step=4.4),
        run(pixels=512 * 512 * 3, seconds_per_step=3.0, checkpointing=True),
        run(pixels=512 * 512 * 8, seconds_per_step=8.0),
    ]
    found = estimate(CONFIG, 100, history)
    assert found.seconds == pytest.approx(30 + 220)


def test_the_batches_of_a_step_count() -> None:
    found = estimate(CONFIG, 100, [run(accumulation=4, seconds_per_step=8.0)])
    assert found.guess and found.seconds == pytest.approx(30 + 200)


def test_what_is_automatic_is_as_it_was() -> None:
    automatic = replace(CONFIG, mixed_precision="auto", gradient_checkpointing="auto", optimizer=None)
    assert not estimate(automatic, 1, [RUN]).guess
    assert estimate(replace(CONFIG, mixed_precision="fp16"), 1, [RUN]).guess


def test_the_family_of_a_base_is_known_from_its_runs() -> None:
    """Resolution and what is trained follow from it, too."""
    unsaid = replace(CONFIG, family="auto", base_model="elsewhere/xl.safetensors")
    found = estimate(unsaid, 10, [XL, RUN])
    assert (found.seconds, found.guess) == (30 + 90, False)
    assert estimate(replace(unsaid, base_model="another.safetensors"), 10, [RUN, XL]).guess


def test_only_the_device_that_was_measured_last_counts() -> None:
    history = [run(device="old GPU", seconds_per_step=20.0)] * 3 + [RUN]
    assert estimate(CONFIG, 10, history).seconds == 50.0
    assert estimate(CONFIG, 10, history[::-1]).seconds == 230.0


def test_without_steps_memory_is_known() -> None:
    found = estimate(CONFIG, None, [RUN])
    assert (found.seconds, found.peak_mb, found.guess) == (None, 6000.0, False)
    assert "how long it takes depends on the pictures" in found.why


@given(
    st.lists(
        st.builds(
            run,
            pixels=st.integers(1, 10**8),
            rank=st.integers(1, 1024),
            family=st.sampled_from(["sd15", "sdxl"]),
            precision=st.sampled_from(["no", "bf16"]),
            accumulation=st.integers(1, 8),
        ),
        min_size=1,
    ),
    st.integers(1, 8),
    st.integers(1, 10**6),
)
def test_more_pictures_never_take_less(history: list[Measurement], batch_size: int, steps: int) -> None:
    """From the same runs, as far as neither is an exact one."""
    config = replace(CONFIG, rank=1000, batch_size=batch_size)
    found, longer = estimate(config, steps, history), estimate(config, steps + 1, history)
    assert found.seconds and longer.seconds and longer.seconds > found.seconds > 0


@pytest.mark.parametrize("name", [name for name in asdict(RUN) if name not in ("accumulation", "spared")])
@pytest.mark.parametrize("value", [None, "many", float("nan"), -1])
def test_what_is_no_measurement_is_passed_over(name: str, value: Any) -> None:
    facts = asdict(RUN)
    assert read_measurement({**facts, "more": 1}) == RUN
    del facts["accumulation"], facts["spared"]
    assert read_measurement(facts) == RUN
    assert read_measurement({**facts, name: 1 if value == "many" and isinstance(facts[name], str) else value}) is None
    del facts[name]
    assert read_measurement(facts) is None
