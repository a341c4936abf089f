"""Pictures made by the WebUI itself, as its Generate makes them, with LoRAs that need not lie in its own folder."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from lora_trainer.files import written_whole
from lora_trainer.hosts.host import Drawing, HostProblem

JOB = "lora_trainer_grid"  # as the WebUI's progress calls it
LONGEST = 300  # letters of an error that are told

_changed: dict[str, int] = {}  # the times of the LoRAs that were drawn with


class NotFound(HostProblem):
    """The WebUI has read its list of LoRAs again, just before it looked for ours in it."""


class Entry:
    """A LoRA as the WebUI's extension for LoRAs knows those of its folder; it asks for no more to use one."""

    metadata: dict[str, str] = {}
    hash = shorthash = ""  # with one, it would be told among a picture's settings under a name of ours

    def __init__(self, name: str, file: Path) -> None:
        self.name = self.alias = name
        self.filename = str(file)

    def read_hash(self) -> None:
        """It would be kept for good in the WebUI's cache."""

    def get_alias(self) -> str:
        return self.alias


def draw(drawing: Drawing, target: Path) -> None:
    """Waits for what the WebUI is busy with, then makes the picture: a PNG with the WebUI's own words to it.

    Nothing comes into the user's output folders or prompt history. HostProblem where there is no such base model, or a
    LoRA does nothing to it, or the WebUI fails.
    """
    from modules.call_queue import queue_lock

    with queue_lock:
        try:
            _in_its_thread(lambda: _draw(drawing, target))
        except NotFound:
            _in_its_thread(lambda: _draw(drawing, target))


def stop() -> None:
    """As the WebUI's own Interrupt does, but for pictures of ours only."""
    from modules import shared

    if shared.state.job == JOB:
        shared.state.interrupt()


def _in_its_thread(act: Callable[[], None]) -> None:
    """Forge makes its pictures in its main thread, which prints what goes wrong there and tells nobody."""
    main_thread = sys.modules.get("modules_forge.main_thread")
    if main_thread is None:
        return act()
    problem: Exception | None = HostProblem("The WebUI made no picture. Its console shows why.")

    def run() -> None:
        nonlocal problem
        try:
            act()
            problem = None
        except (HostProblem, OSError) as error:
            problem = error

    main_thread.run_and_wait_result(run)
    if problem:
        raise problem
    return None


def _draw(drawing: Drawing, target: Path) -> None:
    from modules import images, sd_models, shared

    if drawing.checkpoint not in sd_models.checkpoint_aliases:
        raise HostProblem(f"The WebUI has no base model {drawing.checkpoint}. Choose one from its list.")
    arguments = {**_sampler(drawing.sampler), **_guidance(drawing.guidance)}
    with _known(drawing.loras) as names, _without_history():
        shared.state.begin(job=JOB)
        try:
            picture, words = _made(drawing, arguments, names)
        except HostProblem:
            raise
        except Exception as error:  # the WebUI raises plain ones, too, and so may any of its extensions
            raise HostProblem(_told(error)) from error
        finally:
            shared.state.end()
            shared.total_tqdm.clear()
    with written_whole(target) as temporary:
        images.save_image_with_geninfo(picture, words, str(temporary), extension=".png")


def _made(drawing: Drawing, arguments: dict[str, Any], names: Sequence[str]) -> tuple[Any, str]:
    """The picture, and the WebUI's words to it; `arguments` are those that WebUIs call differently."""
    from modules import processing, shared

    overridden: dict[str, Any] = {"sd_model_checkpoint": drawing.checkpoint}
    if drawing.clip_skip is not None:
        overridden["CLIP_stop_at_last_layers"] = drawing.clip_skip
    with closing(
        processing.StableDiffusionProcessingTxt2Img(
            prompt=_with_tags(drawing, names),
            negative_prompt=drawing.negative_prompt,
            steps=drawing.steps,
            cfg_scale=drawing.cfg_scale,
            width=drawing.width,
            height=drawing.height,
            seed=drawing.seed,
            do_not_save_samples=True,
            do_not_save_grid=True,
            override_settings=overridden,
            **arguments,
        )
    ) as asked:
        made = processing.process_images(asked)
        if shared.state.interrupted or shared.state.skipped or not made.images:
            raise HostProblem("The picture was interrupted in the WebUI. Draw what is missing once it is free.")
        _check(drawing, names, asked.comments)
        said = _with_tags(drawing, [file.stem for file, _ in drawing.loras])
        return made.images[0], processing.create_infotext(asked, [said], asked.all_seeds, asked.all_subseeds)


def _with_tags(drawing: Drawing, names: Sequence[str]) -> str:
    tags = (f"<lora:{name}:{weight:g}>" for name, (_, weight) in zip(names, drawing.loras))
    return " ".join((drawing.prompt, *tags))


def _sampler(name: str) -> dict[str, str]:
    """The WebUI's arguments for a sampler of its own; from 1.9 on it has the schedule apart."""
    from modules import sd_samplers

    split = getattr(sd_samplers, "get_sampler_and_scheduler", None)
    sampler, schedule = split(name, None) if split else (name, "")
    if sampler not in sd_samplers.all_samplers_map or not f"{name} ".startswith(f"{sampler} "):
        raise HostProblem(f"The WebUI has no sampler {name}.")
    return {"sampler_name": sampler, "scheduler": schedule} if schedule else {"sampler_name": sampler}


def _guidance(guidance: float | None) -> dict[str, float]:
    """Forge's argument for it; A1111 knows no Flux."""
    from modules import processing

    if guidance is None:
        return {}
    if not hasattr(processing.StableDiffusionProcessingTxt2Img, "distilled_cfg_scale"):
        raise HostProblem("This WebUI makes no pictures with a Flux. Draw the grid as a job.")
    return {"distilled_cfg_scale": guidance}


# ---- LoRAs


@contextmanager
def _known(loras: Sequence[tuple[Path, float]]) -> Iterator[list[str]]:
    """For the block, the WebUI's prompts know these files by the names that it yields, and no card shows them."""
    if not loras:
        yield []
        return
    networks = _networks()
    entries = [_entry(networks, file) for file, _ in loras]
    names = [entry.name for entry in entries]
    networks.available_network_aliases.update(zip(names, entries))
    try:
        yield names
    finally:
        for name in names:
            networks.available_network_aliases.pop(name, None)
            getattr(networks, "networks_in_memory", {}).pop(name, None)


def _networks() -> Any:
    """The WebUI's own extension for LoRAs."""
    networks = sys.modules.get("networks")
    if not hasattr(networks, "available_network_aliases"):
        raise HostProblem("The WebUI's own extension for LoRAs is off. Turn it on in its Extensions tab.")
    return networks


def _entry(networks: Any, file: Path) -> Entry:
    """Its name is that of this very content, as the WebUI keeps by their names those that it has loaded."""
    try:
        changed = file.stat().st_mtime_ns
    except FileNotFoundError:
        raise HostProblem(f"The LoRA {file.name} is not there any more.") from None
    if _changed.get(str(file)) != changed:
        forget_kept(networks)
        _changed[str(file)] = changed
    return Entry(f"lora_trainer_{hashlib.sha256(f'{file} {changed}'.encode()).hexdigest()[:16]}", file)


def forget_kept(networks: Any) -> None:
    """Has the next picture put its LoRAs into the model anew, whatever is in their files since."""
    from modules import sd_models

    _forget_words()
    model = sd_models.model_data.sd_model  # asking for it by a method would load one in A1111
    if clear := getattr(getattr(networks, "load_lora_state_dict", None), "cache_clear", None):
        clear()
        _forget_in_forge(model)
    else:
        _forget_in_a1111(model)


def _forget_in_forge(model: Any) -> None:
    """It keeps the lists of what is wanted in the model, and of what is in its parts, as text of names and weights.

    "" equals none of them, so that even a picture without LoRAs puts the model right.
    """
    if model is not None:
        model.current_lora_hash = ""
    parts = getattr(model, "forge_objects_original", None)
    for patcher in (getattr(parts, "unet", None), getattr(getattr(parts, "clip", None), "patcher", None)):
        if loader := getattr(patcher, "lora_loader", None):
            loader.loaded_hash = ""


def _forget_in_a1111(model: Any) -> None:
    """It keeps at each layer what is in it, names and weights: any other list has the layer's own weights put back."""
    for layer in getattr(model, "modules", tuple)():
        if getattr(layer, "network_current_names", ()):
            layer.network_current_names = (("", 0.0, 0.0, None),)


def _forget_words() -> None:
    """The WebUI keeps what the text encoders made of the last prompt, by the names of the LoRAs that were in them."""
    processing = sys.modules.get("modules.processing")
    for kind in ("StableDiffusionProcessing", "StableDiffusionProcessingTxt2Img"):
        found = getattr(processing, kind, None)
        for name in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc"):
            if name in getattr(found, "__dict__", {}):
                setattr(found, name, [None] * len(getattr(found, name)))


def _check(drawing: Drawing, names: Sequence[str], comments: Collection[str]) -> None:
    """Whether the picture is one of this base with these LoRAs: the WebUI passes over what it can't do.

    `comments`: what it says of that to the picture.
    """
    from modules import shared

    if shared.sd_model.sd_checkpoint_info.name != drawing.checkpoint:
        raise HostProblem(f"The WebUI did not change to the base model {drawing.checkpoint}. Choose it there first.")
    for name, (file, _) in zip(names, drawing.loras):
        loaded = next((each for each in sys.modules["networks"].loaded_networks if each.name == name), None)
        if loaded is None:
            raise NotFound(f"The WebUI did not find the LoRA {file.name}. Draw what is missing.")
        if any(name in comment for comment in comments) or not _fits(shared.sd_model, loaded):
            raise HostProblem(
                f"The LoRA {file.name} does not fit {drawing.checkpoint}. Choose the base that it was made for."
            )


def _fits(model: Any, loaded: Any) -> bool:
    """Whether the WebUI has found any layer for it; Forge gives the model's parts that it patches a copy."""
    patched = getattr(model, "forge_objects_after_applying_lora", None)
    if patched is None:
        return bool(loaded.modules)
    plain = model.forge_objects_original
    return patched.unet is not plain.unet or patched.clip is not plain.clip


@contextmanager
def _without_history() -> Iterator[None]:
    """The WebUI does not keep what is drawn in the block as its user's last prompt."""
    from modules import shared

    before = shared.cmd_opts.no_prompt_history
    shared.cmd_opts.no_prompt_history = True
    try:
        yield
    finally:
        shared.cmd_opts.no_prompt_history = before


def _told(error: Exception) -> str:
    said = next(iter(str(error).strip().splitlines()), "")[:LONGEST].rstrip(".") or type(error).__name__
    return f"The WebUI could not make the picture ({said}). Try the same in its txt2img tab; its console tells more."
