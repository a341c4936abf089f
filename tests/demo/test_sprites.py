from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lora_trainer.demo import sprites


def traits(seed: int) -> sprites.Traits:
    return sprites.random_traits(random.Random(seed))


def difference(left: Image.Image, right: Image.Image) -> float:
    """Mean absolute difference of pixel values, 0 to 255."""
    return float(np.abs(np.asarray(left, dtype=float) - np.asarray(right, dtype=float)).mean())


def test_a_sprite_is_a_64_px_rgb_picture() -> None:
    picture = sprites.draw(traits(1), random.Random(1))
    assert (picture.mode, picture.size) == ("RGB", (64, 64))


@pytest.mark.parametrize("seed", range(5))
def test_the_same_seed_draws_the_same_picture_and_caption(seed: int) -> None:
    assert traits(seed) == traits(seed)
    one, two = (sprites.draw(traits(seed), random.Random(seed)) for _ in range(2))
    assert one.tobytes() == two.tobytes()
    assert sprites.caption(traits(seed), random.Random(7)) == sprites.caption(traits(seed), random.Random(7))


def test_a_caption_names_what_is_drawn() -> None:
    shown = sprites.Traits(
        fur="orange fur",
        ears="cat ears",
        eyes="blue eyes",
        expression="smile",
        outfit="dress",
        outfit_colour="red",
        headwear="crown",
        eyewear="",
        background="night",
        pose="waving",
    )
    tags = {"orange fur", "cat ears", "blue eyes", "smile", "red dress", "crown", "night", "waving"}
    assert set(sprites.caption(shown, random.Random(0)).split(", ")) == tags


@pytest.mark.parametrize("change", [{"expression": "closed eyes"}, {"eyewear": "sunglasses"}])
def test_eyes_that_are_not_seen_have_no_tag(change: dict[str, str]) -> None:
    seen = replace(traits(3), eyewear="", expression="smile", eyes="red eyes")
    assert "red eyes" in sprites.tags(seen)
    hidden = replace(seen, **change)
    assert "red eyes" not in sprites.tags(hidden)
    assert (
        difference(*(sprites.draw(replace(hidden, eyes=eyes), random.Random(0)) for eyes in ("red eyes", "blue eyes")))
        == 0
    )


def test_a_bare_mascot_has_no_outfit_tag() -> None:
    bare = replace(traits(3), outfit="", outfit_colour="purple")
    assert not [tag for tag in sprites.tags(bare) if "purple" in tag]


def test_captions_vary_in_order_only() -> None:
    orders = {sprites.caption(traits(4), random.Random(seed)) for seed in range(10)}
    assert len(orders) > 1
    assert {frozenset(order.split(", ")) for order in orders} == {frozenset(sprites.tags(traits(4)))}


def test_every_tag_of_many_sprites_is_listed() -> None:
    used = {tag for seed in range(600) for tag in sprites.tags(traits(seed))}
    assert used == set(sprites.all_tags())


TABLES = {
    "fur": sprites.FURS,
    "ears": sprites.EARS,
    "eyes": sprites.EYES,
    "expression": sprites.EXPRESSIONS,
    "outfit": sprites.OUTFITS,
    "outfit_colour": sprites.OUTFIT_COLOURS,
    "headwear": sprites.HEADWEAR,
    "eyewear": sprites.EYEWEAR,
    "background": sprites.BACKGROUNDS,
    "pose": sprites.POSES,
}


@pytest.mark.parametrize("name", TABLES)
def test_each_value_of_a_trait_looks_different(name: str) -> None:
    plain = replace(traits(5), eyewear="", expression="smile", outfit="shirt", outfit_colour="red", headwear="")
    values = list(dict.fromkeys(TABLES[name]))
    pictures = [sprites.draw(replace(plain, **{name: value}), random.Random(0)) for value in values]
    for place, picture in enumerate(pictures):
        for other in pictures[:place]:
            assert difference(picture, other) > 0.2


def test_doodles_are_64_px_and_vary() -> None:
    one, two = (sprites.doodle(random.Random(seed)) for seed in (1, 2))
    assert one.size == two.size == (64, 64)
    assert difference(one, two) > 10


def test_no_coat_of_the_vae_pictures_has_a_tag() -> None:
    wild = sprites.wild_traits(random.Random(2))
    assert not [tag for tag in sprites.tags(wild) if tag.endswith("fur")]
