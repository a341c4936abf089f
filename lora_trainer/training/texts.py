"""What the text encoders say of each caption: computed once where captions stay as they are."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors.torch
import torch

from lora_trainer.config import BadInput, Config, Problem
from lora_trainer.training.batches import caption_at, captions_vary
from lora_trainer.training.families.text import Conditioning, TextEncoders
from lora_trainer.training.latents import CACHE_FOLDER, module_digest, write_cache
from lora_trainer.training.plan import Plan

Text = tuple[str, bool]  # a text, and whether weights such as (a:1.2) in it are read


def can_be_cached(plan: Plan) -> bool:
    """Whether captions are encoded alike whenever they are shown."""
    return plan.config.train == "unet" and not captions_vary(plan)


class Texts:
    """Captions and prompts as conditionings: from memory where they stay as they are, else by the encoders.

    `complete`: everything the run will ask for is encoded by `fill`, so that the encoders can go. `prompts`: the
    previews'.
    """

    def __init__(self, plan: Plan, encoders: TextEncoders, prompts: Sequence[str], device: torch.device):
        config = plan.config
        self._device = device
        self.trained = config.train != "unet"
        if config.cache_text in ("memory", "disk") and not can_be_cached(plan):
            problem = "captions change from one showing to the next, or the text encoder is trained"
            raise BadInput(Problem("cache_text", config.cache_text, problem, "Use auto, which caches where it can be."))
        self.complete = _complete(plan)
        self._plan, self._prompts = plan, prompts
        self._encoders: TextEncoders | None = encoders
        self._length, self._clip_skip = config.max_token_length, config.clip_skip or 1
        self._weighted = config.weighted_captions
        self._cache = TextCache(self._encode_one, self._cache_key(config), _text_folder(plan))

    def fill(self, progress: Callable[[int, int], None]) -> None:
        """Encodes what stays as it is: the prompts, and the captions where they are `complete`."""
        wanted: dict[Text, None] = {}
        if self.complete:
            captions = (caption_at(self._plan, index, (0, 0, 0)) for index in range(len(self._plan.pictures)))
            wanted.update(dict.fromkeys((caption, self._weighted) for caption in captions))
        if not self.trained:
            wanted.update(dict.fromkeys((prompt, True) for prompt in self._prompts))
        for done, text in enumerate(wanted):
            progress(done, len(wanted))
            self._cache.fill(text)

    def lighten(self, plan: Plan) -> None:
        """Encodes the captions after all, and lets the encoders go, where the plan's settings have come to that."""
        if not self.complete and _complete(plan):
            self.complete = True
            self.fill(lambda done, of: None)
            self.release_encoders()

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        """The conditioning of B captions, with gradients where the text encoder is trained."""
        if self.complete:
            return stack([self._cache.get((caption, self._weighted)) for caption in captions], self._device)
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            return self._encode(captions, self._weighted)

    @torch.no_grad()
    def of_preview(self, prompt: str) -> Conditioning:
        """The prompt's weights such as `(a:1.2)` are always read, as the WebUI does."""
        return self._encode([prompt], True) if self.trained else stack([self._cache.get((prompt, True))], self._device)

    def release_encoders(self) -> None:
        self._encoders = None
        gc.collect()

    def _encode(self, texts: Sequence[str], weighted: bool) -> Conditioning:
        assert self._encoders is not None, "every text that is asked for was encoded before the encoders went"
        return self._encoders.encode(texts, max_token_length=self._length, clip_skip=self._clip_skip, weighted=weighted)

    def _encode_one(self, text: str, weighted: bool) -> Conditioning:
        with torch.no_grad():
            return self._encode([text], weighted)

    def _cache_key(self, config: Config) -> str:
        """Changes with everything besides the text that changes an encoding."""
        if config.cache_text != "disk" or self._encoders is None:
            return ""
        digests = [module_digest(encoder) for encoder in self._encoders.encoders]
        return f"{digests}/{self._length}/{self._clip_skip}"


def _complete(plan: Plan) -> bool:
    return can_be_cached(plan) and plan.config.cache_text != "off"


def _text_folder(plan: Plan) -> Path | None:
    if plan.config.cache_text != "disk":
        return None
    return Path(plan.pictures[0].subset.folder) / CACHE_FOLDER / "texts"


class TextCache:
    """Conditionings of single texts, in memory, and in `folder` where there is one.

    `key` must change with everything besides the text that changes an encoding: encoders, clip skip, token length.
    """

    def __init__(self, encode: Callable[[str, bool], Conditioning], key: str, folder: Path | None = None):
        self._encode, self._key, self._folder = encode, key, folder
        self._memory: dict[Text, Conditioning] = {}

    def fill(self, text: Text) -> None:
        self._memory[text] = self._stored(text, self._folder) if self._folder else self._encode(*text)

    def get(self, text: Text) -> Conditioning:
        """Of a text that was filled in."""
        return self._memory[text]

    def _stored(self, text: Text, folder: Path) -> Conditioning:
        name = hashlib.sha256(f"{self._key}/{text}".encode()).hexdigest()[:32]
        path = folder / f"{name}.safetensors"
        if path.is_file():
            tensors = safetensors.torch.load_file(path)
            return Conditioning(tensors["context"], tensors.get("pooled"))
        found = self._encode(*text)
        tensors = {"context": found.context} | ({} if found.pooled is None else {"pooled": found.pooled})
        write_cache(path, tensors)
        return found


def stack(conditionings: Sequence[Conditioning], device: torch.device) -> Conditioning:
    """Conditionings of one text each as that of a batch, on `device`."""
    pooled = [found.pooled for found in conditionings if found.pooled is not None]
    context = torch.cat([found.context for found in conditionings])
    return Conditioning(context.to(device), torch.cat(pooled).to(device) if pooled else None)
