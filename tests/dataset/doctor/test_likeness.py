from __future__ import annotations

import io
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from lora_trainer.dataset.buckets import Buckets
from lora_trainer.dataset.doctor.likeness import MOST_BITS, _proposed, alike
from lora_trainer.dataset.doctor.looks import Look, look_at
from lora_trainer.demo.mascots import MASCOT
from lora_trainer.packages import environment_for_child
from tests.dataset.doctor.scenes import cartoon, scene

AT_256 = Buckets((256, 256), ((256, 256),), 64)


def saved(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((200, 200)),
    "larger": lambda image: image.resize((700, 700), Image.Resampling.BICUBIC),
    "saved badly": lambda image: saved(image, 15),
    "smaller and saved badly": lambda image: saved(image.resize((230, 230)), 40),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.85),
    "cropped by 2 %": lambda image: cropped(image, 0.02, 0.02, 0.02, 0.02),
    "cropped by 3 % on the left": lambda image: cropped(image, 0.03, 0, 0, 0),
}


@pytest.fixture
def look(tmp_path: Path) -> Callable[[Image.Image], Look]:
    def at(image: Image.Image) -> Look:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        image.save(path)
        return look_at(path, AT_256)

    return at


@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_alike_and_other_pictures_are_not(copy: str, look: Callable[[Image.Image], Look]) -> None:
    pictures = [scene(1), cartoon(0.2), scene(2), scene(3)]
    originals = [look(picture) for picture in pictures]
    copies = [look(COPIES[copy](picture)) for picture in pictures]
    assert alike([*originals, *copies]) == [list(pair) for pair in zip(originals, copies)]


def test_poses_of_one_figure_are_different_pictures(look: Callable[[Image.Image], Look]) -> None:
    assert alike([look(cartoon(arm)) for arm in (0, 0.25, 0.5, 0.75, 1)]) == []
    assert alike([look(Image.open(path)) for path in sorted(MASCOT.folder.glob("*.png"))]) == []


def test_groups_go_through_their_pairs(look: Callable[[Image.Image], Look]) -> None:
    picture, other = scene(4), look(scene(5))
    steps = [look(cropped(picture, share, 0, 0, 0)) for share in (0, 0.03, 0.06, 0.09)]
    assert alike([steps[0], steps[3]]) == []
    assert alike([steps[0], other, *steps[1:]]) == [steps]


def test_the_same_picture_many_times_is_one_group(look: Callable[[Image.Image], Look]) -> None:
    first, other = look(cartoon(0)), look(cartoon(1))
    assert alike([first, other, *[first] * 50]) == [[first] * 51]
    assert alike([]) == [] and alike([first]) == []


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 70))
def test_pairs_are_those_whose_hashes_differ_in_few_bits(seed: int, count: int) -> None:
    rng = random.Random(seed)
    codes = [rng.getrandbits(64)]
    for _ in range(count):  # each differs from one before it in up to 20 bits
        codes.append(rng.choice(codes) ^ sum(1 << bit for bit in rng.sample(range(64), rng.randint(0, 20))))
    hashes = np.array([[bool(code >> bit & 1) for bit in range(64)] for code in codes])
    found = {pair for firsts, seconds in _proposed(hashes) for pair in zip(firsts.tolist(), seconds.tolist())}
    expected = {
        (first, second)
        for first, second in combinations(range(len(codes)), 2)
        if bin(codes[first] ^ codes[second]).count("1") <= MOST_BITS
    }
    assert found == expected


def test_no_scipy_is_loaded(tmp_path: Path) -> None:
    """It would cost a second, and is in no list of packages."""
    scene(1, 64).save(tmp_path / "a.png")
    code = (
        "import sys; from pathlib import Path; from lora_trainer.dataset.buckets import Buckets;"
        "from lora_trainer.dataset.doctor.looks import look_at;"
        "look_at(Path(sys.argv[1]), Buckets((64, 64), ((64, 64),), 64));"
        "print(*{'scipy', 'pywt', 'torch'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    run = subprocess.run(command, env=environment_for_child(), capture_output=True, encoding="utf-8")
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr
