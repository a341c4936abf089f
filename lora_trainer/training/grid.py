"""What a finished LoRA does to its base: the same pictures at several strengths, on one sheet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from PIL import Image

from lora_trainer.config import BadInput, Config, Problem
from lora_trainer.files import written_whole
from lora_trainer.inspecting.describe_lora import describe_lora
from lora_trainer.inspecting.header import Header, read_header
from lora_trainer.inspecting.identify import identify
from lora_trainer.jobs.events import Report, silent
from lora_trainer.jobs.stops import Control
from lora_trainer.sheets.contact_sheet import cell_for, contact_sheet
from lora_trainer.training.boundary import Boundary, Stopped
from lora_trainer.training.device import precision_of
from lora_trainer.training.models import Models, load_models
from lora_trainer.training.plan import Plan, draw_seed, effective, fitted
from lora_trainer.training.previews import Preview, previews_of, save_preview

SHEET = "grid.png"


def draw_grid(
    config: Config, weights: Sequence[float], folder: Path, report: Report = silent, control: Control | None = None
) -> Path | None:
    """Draws `config.preview_prompts` with the LoRA `config.start_lora` at each weight, after a row without it.

    Returns the sheet in `folder`, a row for each weight and a column for each prompt; None where it was stopped. Cells
    that lie there already are kept, so that a stopped grid goes on. BadInput where base or LoRA can't be used, or the
    two do not fit.
    """
    accelerator = Accelerator()
    plan = plan_for(config)
    report("started", name=lora_of(plan).stem, base=plan.base.path.name, family=plan.base.family, step=0, steps=0)
    boundary = Boundary(control, accelerator, report)
    rows = (0.0, *weights)
    try:
        drawn = _draw_cells(plan, rows, folder, report, boundary, accelerator)
    except Stopped:
        report("stopped", step=0, steps=0)
        return None
    sheet = folder / SHEET
    _write_sheet(sheet, [preview.prompt for preview in previews_of(plan)], rows, drawn)
    report("sample", path=str(sheet), prompt="", number=0)
    report("finished", picture=str(sheet))
    return sheet


def plan_for(config: Config) -> Plan:
    """A run without pictures, whose network has room for the whole of `config.start_lora`."""
    config = replace(config, **network_settings(read_header(Path(config.start_lora or ""))))
    base, config, faults = fitted(config, identify(Path(config.base_model)))
    if faults:
        raise BadInput(faults)
    return Plan(effective(config), base, (), (), (), (), draw_seed(config), 0, 0, 0, 0)


def network_settings(lora: Header) -> dict[str, Any]:
    """The settings of the network that the LoRA is. BadInput where it is none that can be made here."""
    going_on = describe_lora(lora)["continue"]
    if not going_on["possible"]:
        raise BadInput(Problem("start_lora", lora.file.name, f"can't be drawn with: {going_on['why']}", "Use another."))
    factor = _arguments(lora).get("factor")
    return {**going_on["settings"], **({"lokr_factor": int(factor)} if factor else {})}


def lora_of(plan: Plan) -> Path:
    return Path(plan.config.start_lora or "")


def _arguments(lora: Header) -> dict[str, Any]:
    """What LyCORIS was told besides ranks and alphas, of which the file's shapes don't say all."""
    try:
        arguments = json.loads(lora.metadata.get("ss_network_args", "{}"))
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}


def _draw_cells(
    plan: Plan, rows: Sequence[float], folder: Path, report: Report, boundary: Boundary, accelerator: Accelerator
) -> list[list[Path]]:
    """The pictures' paths, row by row. Raises Stopped."""
    precision = precision_of(plan, accelerator.device)
    models = load_models(plan, precision, accelerator.device, report, boundary.between_pictures)
    for remark in models.initialise_network():
        report("warning", message=remark)
    folder.mkdir(parents=True, exist_ok=True)
    drawn, count = [], len(rows) * len(models.previews)
    for row, weight in enumerate(rows):
        models.network.set_multiplier(weight)
        drawn.append([folder / f"cell-{row:02d}-{number:02d}.png" for number in range(len(models.previews))])
        for number, (preview, path) in enumerate(zip(models.previews, drawn[-1])):
            boundary.between_pictures(models)
            report("phase", name="grid", done=row * len(models.previews) + number, of=count)
            if not path.is_file():
                _draw(models, preview, plan, weight, path)
            told = {"row": row, "number": number, "weight": weight, "prompt": preview.prompt}
            report("sample", path=str(path), **told)
    return drawn


def _draw(models: Models, preview: Preview, plan: Plan, weight: float, path: Path) -> None:
    pixels = models.draw(preview)
    said = f"{preview.prompt} <lora:{lora_of(plan).stem}:{weight:g}>" if weight else preview.prompt
    save_preview(path, pixels, replace(preview, prompt=said).infotext({"Model": plan.base.path.stem}))


def _write_sheet(path: Path, prompts: Sequence[str], weights: Sequence[float], drawn: Sequence[Sequence[Path]]) -> None:
    pictures = [[_opened(cell) for cell in row] for row in drawn]
    labels = [f"{weight:g}" if weight else "without" for weight in weights]
    count = len(labels) * len(prompts)
    sheet = contact_sheet(prompts, list(zip(labels, pictures)), cell_for(pictures[0][0].size, count))
    with written_whole(path) as temporary:
        sheet.save(temporary, format="PNG")


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")
