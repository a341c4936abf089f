from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.config import BadInput, Config
from lora_trainer.dataset.buckets import Buckets, buckets_for, make_buckets, place, size_condition

sides = st.integers(1, 30000)
steps = st.sampled_from([8, 16, 32, 64])


@st.composite
def bucket_rules(draw: st.DrawFn) -> tuple[tuple[int, int], int, int, int]:
    """A resolution, least and most bucket side, and step that belong together."""
    step = draw(steps)
    resolution = draw(st.tuples(st.integers(step, 1536), st.integers(step, 1536)))
    return resolution, draw(st.integers(1, min(resolution))), draw(st.integers(max(resolution), 3000)), step


# Written down from a run of sd-scripts' make_bucket_resolutions and BucketManager.select_bucket.
SIZES_512 = [
    *[(256, 832), (256, 896), (256, 960), (256, 1024), (320, 704), (320, 768), (384, 640), (448, 576), (512, 512)],
    *[(576, 448), (640, 384), (704, 320), (768, 320), (832, 256), (896, 256), (960, 256), (1024, 256)],
]
SIZES_96 = [
    *[(32, 128), (40, 128), (48, 128), (56, 128), (64, 128), (72, 120), (72, 128), (80, 112), (88, 104), (96, 96)],
    *[(104, 88), (112, 80), (120, 72), (128, 32), (128, 40), (128, 48), (128, 56), (128, 64), (128, 72)],
]
PLACED = {
    ((512, 512), 256, 1024, False): [
        ((512, 512), (512, 512), (512, 512)),
        ((640, 480), (576, 448), (597, 448)),
        ((1920, 1080), (640, 384), (683, 384)),
        ((1080, 1920), (384, 640), (384, 683)),
        ((3000, 2000), (640, 384), (640, 427)),
        ((333, 517), (384, 640), (412, 640)),
        ((100, 1000), (256, 1024), (256, 2560)),
        ((20000, 300), (1024, 256), (17067, 256)),
        ((513, 511), (512, 512), (514, 512)),
        ((700, 300), (768, 320), (768, 329)),
        ((448, 640), (448, 576), (448, 640)),
        ((1, 3), (256, 832), (277, 832)),
    ],
    ((512, 512), 256, 1024, True): [
        ((640, 480), (512, 384), (512, 384)),
        ((1920, 1080), (640, 384), (683, 384)),
        ((1080, 1920), (384, 640), (384, 683)),
        ((3000, 2000), (576, 384), (576, 384)),
        ((333, 517), (320, 512), (333, 517)),
        ((100, 1000), (64, 960), (100, 1000)),
        ((513, 511), (512, 448), (513, 511)),
        ((700, 300), (640, 256), (700, 300)),
        ((448, 640), (384, 576), (403, 576)),
        ((64, 64), (64, 64), (64, 64)),
    ],
    ((1024, 1024), 256, 2048, False): [
        ((640, 480), (1152, 896), (1195, 896)),
        ((1080, 1920), (768, 1344), (768, 1365)),
        ((333, 517), (832, 1216), (832, 1292)),
        ((1, 3), (576, 1728), (576, 1728)),
        ((20000, 300), (2048, 256), (17067, 256)),
    ],
    ((1024, 1024), 256, 2048, True): [
        ((640, 480), (640, 448), (640, 480)),
        ((4032, 3024), (1088, 832), (1109, 832)),
        ((20000, 300), (4224, 64), (4267, 64)),
    ],
    ((512, 768), 320, 960, False): [
        ((512, 512), (576, 576), (576, 576)),
        ((4032, 3024), (704, 512), (704, 528)),
        ((100, 1000), (320, 960), (320, 3200)),
    ],
    ((512, 768), 320, 960, True): [
        ((1920, 1080), (768, 448), (796, 448)),
        ((3000, 2000), (768, 512), (768, 512)),
    ],
}  # fmt: skip
ONE_SIZE = [
    ((640, 480), (683, 512)),
    ((1080, 1920), (512, 910)),
    ((333, 517), (512, 795)),
    ((20000, 300), (34133, 512)),
    ((64, 64), (512, 512)),
]
CONDITIONS = [
    *[((640, 480), (576, 448), (0, 8)), ((1080, 1920), (384, 640), (12, 0)), ((3000, 2000), (640, 384), (32, 0))],
    *[((333, 517), (384, 640), (0, 21)), ((20000, 300), (1024, 256), (0, 120)), ((448, 640), (448, 576), (22, 0))],
]


@pytest.mark.parametrize(
    ("rules", "sizes"), [(((512, 512), 256, 1024, 64), SIZES_512), (((96, 96), 32, 128, 8), SIZES_96)]
)
def test_sizes_are_those_of_sd_scripts(
    rules: tuple[tuple[int, int], int, int, int], sizes: list[tuple[int, int]]
) -> None:
    assert list(make_buckets(*rules)) == sizes


@pytest.mark.parametrize("rules", PLACED)
def test_pictures_are_placed_as_by_sd_scripts(rules: tuple[tuple[int, int], int, int, bool]) -> None:
    resolution, minimum, maximum, no_upscale = rules
    sizes = () if no_upscale else make_buckets(resolution, minimum, maximum, 64)
    placed = [place(size, Buckets(resolution, sizes, 64)) for size, _, _ in PLACED[rules]]
    assert [(at.bucket, at.resized) for at in placed] == [(bucket, resized) for _, bucket, resized in PLACED[rules]]


@pytest.mark.parametrize(("size", "resized"), ONE_SIZE)
def test_without_buckets_all_are_cut_to_one_size(size: tuple[int, int], resized: tuple[int, int]) -> None:
    config = Config(resolution=(512, 512), buckets=False).for_family("sd15")
    placement = place(size, buckets_for(config))
    assert (placement.bucket, placement.resized) == ((512, 512), resized)


@pytest.mark.parametrize(("size", "bucket", "corner"), CONDITIONS)
def test_crop_is_told_to_sdxl_as_by_sd_scripts(
    size: tuple[int, int], bucket: tuple[int, int], corner: tuple[int, int]
) -> None:
    assert size_condition(size, bucket) == corner


@given(st.tuples(sides, sides), st.sampled_from(SIZES_512))
def test_mirrored_crop_leaves_the_same_margins(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    left, top = size_condition(size, bucket)
    mirrored_left, mirrored_top = size_condition(size, bucket, flip=True)
    assert mirrored_top == top
    assert 0 <= mirrored_left - left <= 1


@given(bucket_rules())
def test_sizes_keep_their_bounds(rules: tuple[tuple[int, int], int, int, int]) -> None:
    resolution, minimum, maximum, step = rules
    sizes = make_buckets(resolution, minimum, maximum, step)
    assert sizes == tuple(sorted(set(sizes)))
    assert {(height, width) for width, height in sizes} == set(sizes)
    for width, height in sizes:
        assert width * height <= resolution[0] * resolution[1]
        assert width % step == height % step == 0
        assert min(width, height) >= max(minimum // step * step, step)
        assert max(width, height) < maximum + step


@given(st.tuples(sides, sides), bucket_rules(), st.none() | st.integers(0, 99).map(random.Random))
def test_resized_picture_covers_its_bucket(
    size: tuple[int, int], rules: tuple[tuple[int, int], int, int, int], rng: random.Random | None
) -> None:
    placement = place(size, Buckets(rules[0], make_buckets(*rules), rules[3]), rng)
    left, top, right, bottom = placement.crop
    assert (right - left, bottom - top) == placement.bucket
    assert 0 <= left <= right <= placement.resized[0]
    assert 0 <= top <= bottom <= placement.resized[1]
    assert placement.bucket[0] == placement.resized[0] or placement.bucket[1] == placement.resized[1]


@given(st.tuples(st.integers(64, 5000), st.integers(64, 5000)), st.sampled_from([(512, 512), (768, 512)]))
def test_nothing_is_enlarged_with_no_upscale(size: tuple[int, int], resolution: tuple[int, int]) -> None:
    try:
        placement = place(size, Buckets(resolution, (), 64))
    except BadInput:
        assert max(size) / min(size) > 5
        return
    assert all(new <= old for new, old in zip(placement.resized, size, strict=True))
    assert all(
        side % 64 == 0 and new - side >= 0 for side, new in zip(placement.bucket, placement.resized, strict=True)
    )


def test_centre_crop_leaves_the_odd_pixel_right_and_below() -> None:
    placement = place((683, 512), Buckets((512, 512), ((512, 512),), 64))
    assert placement.crop == (85, 0, 597, 512)


def test_random_crop_moves_over_the_whole_picture() -> None:
    rng = random.Random(0)
    lefts = {place((20, 16), Buckets((16, 16), ((16, 16),), 8), rng).crop[0] for _ in range(100)}
    assert lefts == {0, 1, 2, 3, 4}


def test_picture_smaller_than_a_step_needs_enlarging() -> None:
    with pytest.raises(BadInput, match="40 x 40 fills no bucket in steps of 64"):
        place((40, 40), Buckets((512, 512), (), 64))


def test_config_without_a_family_is_a_mistake_of_the_program() -> None:
    with pytest.raises(ValueError, match="for_family"):
        buckets_for(Config())


def test_resolution_outside_the_bounds_is_refused() -> None:
    with pytest.raises(BadInput) as caught:
        make_buckets((128, 2000), 256, 1024, 64)
    assert [problem.setting for problem in caught.value.problems] == ["min_bucket", "max_bucket"]
