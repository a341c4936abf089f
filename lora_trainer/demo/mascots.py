"""Two mascots that the demo base has never seen: the demo's own, and another as the control of its score.

`python -m lora_trainer.demo.mascots FOLDER` draws the demo's seven pictures with their captions.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lora_trainer.demo.sprites import CREAM, GOLD, RED, WHITE, Fur, Traits, draw, scene_tags
from lora_trainer.files import write_text

REPEATS = 10


@dataclass(frozen=True)
class Mascot:
    """A creature with a form and colours that no tag of the base names; its trigger word stands for all of it."""

    trigger: str
    fur: Fur
    ears: str
    mark: str

    @property
    def folder(self) -> Path:
        """The seven training pictures, in a folder named as sd-scripts wants it."""
        return Path(__file__).parent / "mascot" / f"{REPEATS}_{self.trigger}"


@dataclass(frozen=True)
class Scene:
    """What a mascot wears and does, and where. `outfit` is a colour and a garment, or empty."""

    outfit: str
    headwear: str
    eyewear: str
    background: str
    pose: str
    expression: str


MASCOT = Mascot("zorble", Fur((32, 178, 170), belly=GOLD, muzzle=CREAM), "horns", "")
CONTROL = Mascot("quimby", Fur((150, 80, 200), belly=WHITE, horns=RED, right=(160, 220, 60)), "antennae", "spot")

TRAINING_SCENES = (
    Scene("", "", "", "white background", "arms down", "smile"),
    Scene("red scarf", "", "", "meadow", "waving", "smile"),
    Scene("", "crown", "", "night", "arms up", "open mouth"),
    Scene("blue overalls", "", "glasses", "beach", "arms spread", "closed eyes"),
    Scene("purple dress", "bow", "", "pink background", "arms down", "smile"),
    Scene("", "", "", "snow", "waving", "frown"),
    Scene("yellow shirt", "witch hat", "", "forest", "arms up", "open mouth"),
)
HELD_BACK_SCENES = (
    Scene("", "", "", "meadow", "arms up", "smile"),
    Scene("", "", "", "beach", "waving", "open mouth"),
    Scene("", "crown", "", "sunset", "arms spread", "smile"),
    Scene("", "", "glasses", "forest", "arms down", "smile"),
    Scene("", "bow", "", "yellow background", "waving", "closed eyes"),
    Scene("", "top hat", "", "white background", "arms up", "smile"),
    Scene("green scarf", "", "", "snow", "arms down", "smile"),
    Scene("blue scarf", "", "", "night", "arms spread", "open mouth"),
    Scene("yellow scarf", "beanie", "", "pink background", "arms up", "closed eyes"),
    Scene("red shirt", "", "", "white background", "waving", "smile"),
    Scene("blue shirt", "", "", "sunset", "arms down", "frown"),
    Scene("white dress", "", "", "meadow", "arms spread", "smile"),
    Scene("red dress", "witch hat", "", "night", "arms down", "open mouth"),
    Scene("green overalls", "", "", "yellow background", "arms up", "open mouth"),
    Scene("red overalls", "", "glasses", "snow", "waving", "smile"),
    Scene("", "", "sunglasses", "beach", "arms down", "smile"),
)


def traits(mascot: Mascot, scene: Scene) -> Traits:
    colour, _, outfit = scene.outfit.partition(" ")
    return Traits(
        fur=mascot.fur,
        ears=mascot.ears,
        mark=mascot.mark,
        eyes="black eyes",
        expression=scene.expression,
        outfit=outfit,
        outfit_colour=colour,
        headwear=scene.headwear,
        eyewear=scene.eyewear,
        background=scene.background,
        pose=scene.pose,
    )


def picture(mascot: Mascot, scene: Scene) -> Image.Image:
    """RGB, 64 x 64 px; one scene stands the same way in every mascot's picture of it."""
    return draw(traits(mascot, scene), random.Random(repr(scene)))


def caption(mascot: Mascot, scene: Scene) -> str:
    """The trigger word, then the tags of the scene, and of nothing that is the mascot itself."""
    return ", ".join([mascot.trigger, *scene_tags(traits(mascot, scene))])


def write_training_set(mascot: Mascot, folder: Path) -> None:
    """Pictures `01.png` to `07.png` and a caption beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(TRAINING_SCENES, start=1):
        picture(mascot, scene).save(folder / f"{number:02}.png")
        write_text(folder / f"{number:02}.txt", caption(mascot, scene) + "\n")


if __name__ == "__main__":
    write_training_set(MASCOT, Path(sys.argv[1]) if len(sys.argv) > 1 else MASCOT.folder)
