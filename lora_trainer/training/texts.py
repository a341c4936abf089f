"""What the text encoders say of each caption: computed once where captions and encoders stay as they are."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from lora_trainer.config import BadInput, Config, Problem
from lora_trainer.inspecting.catalogue import stamp_of
from lora_trainer.training.batches import caption_at, captions_vary
from lora_trainer.training.families.text import Conditioning
from lora_trainer.training.latents import CACHE_FOLDER, module_digest, write_cache
from lora_trainer.training.plan import Plan, filled

Text = tuple[str, bool]  # a text, and whether weights such as (a:1.2) in it are read


def can_be_cached(plan: Plan) -> bool:
    """Whether captions are encoded alike whenever they are shown; where Flux's CLIP is trained, by its T5 at least."""
    return (plan.config.train == "unet" or plan.base.family == "flux") and not captions_vary(plan)


class Texts:
    """Captions and prompts as conditionings: from memory where they stay as they are, else by the encoders.

    `complete`: everything the run will ask for is encoded by `fill`, so that the encoders can go. `halved`: all that
    T5 is asked for is, and CLIP, which is trained, goes on alone. `prompts`: the previews'.
    """

    def __init__(self, plan: Plan, encoders: Any, prompts: Sequence[str], device: torch.device):
        config = plan.config
        self._device = device
        self.trained = config.train != "unet"
        if config.cache_text in ("memory", "disk") and not can_be_cached(plan):
            problem = "captions change from one showing to the next, or the text encoder is trained"
            raise BadInput(Problem("cache_text", config.cache_text, problem, "Use auto, which caches where it can be."))
        self._plan, self._prompts = plan, prompts
        self._encoders = encoders
        self._flux, self._options = config.family == "flux", _options(config)
        self._weighted = config.weighted_captions
        self._captions_stay = _captions_stay(plan)
        self._cache = TextCache(self._encode_one, self._cache_key(config), _text_folder(plan))

    @property
    def complete(self) -> bool:
        return self._captions_stay and not self.trained

    @property
    def halved(self) -> bool:
        return self._captions_stay and self.trained

    @property
    def encoders(self) -> Any:
        """The family's that are left, or None."""
        return self._encoders

    def fill(self, progress: Callable[[int, int], None]) -> None:
        """Encodes what stays as it is: the captions, and the prompts."""
        wanted: dict[Text, None] = {}
        if self._captions_stay:
            captions = (caption_at(self._plan, index, (0, 0, 0)) for index in range(len(self._plan.pictures)))
            wanted.update(dict.fromkeys((caption, self._weighted) for caption in captions))
        if self._captions_stay or not self.trained:
            wanted.update(dict.fromkeys(map(self._as_prompt, self._prompts)))
        for done, text in enumerate(wanted):
            progress(done, len(wanted))
            self._cache.fill(text)

    def lighten(self, plan: Plan) -> None:
        """Encodes the captions after all, and lets the encoders go, where the plan's settings have come to that."""
        if not self._captions_stay and _captions_stay(plan):
            self._captions_stay = True
            self.fill(lambda done, of: None)
            self.release_encoders()

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        """The conditioning of B captions, with gradients where the text encoder is trained."""
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            if self._captions_stay:
                return self._kept([(caption, self._weighted) for caption in captions])
            return self._encode(captions, self._weighted)

    @torch.no_grad()
    def of_preview(self, prompt: str) -> Conditioning:
        """The prompt's weights such as `(a:1.2)` are always read, as the WebUI does, but by Flux, which reads none."""
        text = self._as_prompt(prompt)
        return self._kept([text]) if self._captions_stay or not self.trained else self._encode([prompt], text[1])

    def release_encoders(self) -> None:
        """Lets go those that will not be asked any more."""
        if self.complete:
            self._encoders = None
        elif self.halved:
            self._encoders = self._encoders.without_t5()
        gc.collect()

    def _as_prompt(self, prompt: str) -> Text:
        return prompt, not self._flux

    def _kept(self, texts: Sequence[Text]) -> Conditioning:
        """From memory; what is trained is computed."""
        kept = stack([self._cache.get(text) for text in texts], self._device)
        return replace(kept, pooled=self._encoders.pooled([text for text, _ in texts])) if self.halved else kept

    def _encode(self, texts: Sequence[str], weighted: bool) -> Conditioning:
        assert self._encoders is not None, "every text that is asked for was encoded before the encoders went"
        return self._encoders.encode(texts, **self._options, **({} if self._flux else {"weighted": weighted}))

    def _encode_one(self, text: str, weighted: bool) -> Conditioning:
        with torch.no_grad():
            return self._encoders.contexts([text], **self._options) if self.halved else self._encode([text], weighted)

    def _cache_key(self, config: Config) -> str:
        """Changes with everything besides the text that changes an encoding."""
        if config.cache_text != "disk":
            return ""
        return "/".join(map(str, (*self._encoders_key(), *self._options.values())))

    def _encoders_key(self) -> Sequence[object]:
        encoders = self._encoders.encoders
        if not self._flux:
            return ([module_digest(encoder) for encoder in encoders],)
        # T5-XXL is too large to be read through for a digest.
        files = [stamp_of(self._plan.base.parts[part]) for part in ("clip_l", "t5xxl", "t5_tokenizer")]
        return files, next(encoders[0].parameters()).dtype, self.halved


def _captions_stay(plan: Plan) -> bool:
    return can_be_cached(plan) and plan.config.cache_text != "off"


def _options(config: Config) -> dict[str, Any]:
    """What the family's text encoders are told besides the texts."""
    if config.family == "flux":
        return {"t5_length": filled(config.t5_length), "t5_mask": config.t5_mask}
    return {"max_token_length": config.max_token_length, "clip_skip": config.clip_skip or 1}


def _text_folder(plan: Plan) -> Path | None:
    if plan.config.cache_text != "disk":
        return None
    return Path(plan.pictures[0].subset.folder) / CACHE_FOLDER / "texts"


class TextCache:
    """Conditionings of single texts, in the host's memory, and in `folder` where there is one.

    `key` must change with everything besides the text that changes an encoding: encoders, clip skip, token length.
    """

    def __init__(self, encode: Callable[[str, bool], Conditioning], key: str, folder: Path | None = None):
        self._encode, self._key, self._folder = encode, key, folder
        self._memory: dict[Text, Conditioning] = {}

    def fill(self, text: Text) -> None:
        found = self._stored(text, self._folder) if self._folder else self._encode(*text)
        self._memory[text] = stack([found], torch.device("cpu"))  # T5's of one text take 4 MiB

    def get(self, text: Text) -> Conditioning:
        """Of a text that was filled in."""
        return self._memory[text]

    def _stored(self, text: Text, folder: Path) -> Conditioning:
        name = hashlib.sha256(f"{self._key}/{text}".encode()).hexdigest()[:32]
        path = folder / f"{name}.safetensors"
        if path.is_file():
            return Conditioning(**safetensors.torch.load_file(path))
        found = self._encode(*text)
        write_cache(path, {name: tensor for name, tensor in vars(found).items() if tensor is not None})
        return found


def stack(conditionings: Sequence[Conditioning], device: torch.device) -> Conditioning:
    """Conditionings of one text each as that of a batch, on `device`."""
    columns = {name: [vars(found)[name] for found in conditionings] for name in vars(conditionings[0])}
    whole: dict[str, Any] = {
        name: None if column[0] is None else torch.cat(column).to(device) for name, column in columns.items()
    }
    return Conditioning(**whole)
