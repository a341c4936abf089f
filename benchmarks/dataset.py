"""What preparing a large set costs: `python -m benchmarks.dataset --pictures 10000 --json OUT`.

Each part runs in a process of its own, as its user would meet it after a restart:

import_rss_growth_mb  how far memory rises from the first tenth of the import to its highest
caption_op_s          the slowest edit of all captions: read, change, commit; their files follow (caption_files_s)
undo_s                the slowest undo of these edits
first_thumbnails_s    opening the set, its list, and the first page of thumbnails, once these have been made
tagging_ratio         wall time of tagging files / time of the model alone on the same pictures, already decoded
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.sample_pictures import TAGS, draw
from lora_trainer.files import write_text
from lora_trainer.packages import environment_for_child

PAGE = 100  # thumbnails that the gallery shows at once
CAPTION_TAGS = 30
SIDE = 512
TAGGED, LAYERS = 60, 20
MIB = 1 << 20


def make_pictures(folder: Path, count: int) -> None:
    """JPEGs of SIDE pixels, each another one."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        draw((SIDE, SIDE), rng, transparent=False).save(folder / f"{number}.jpg", quality=85)


def time_import(work: Path) -> dict[str, float]:
    from lora_trainer.dataset.store import Dataset
    from lora_trainer.dataset.store.importing import import_pictures

    process, levels = psutil.Process(), []

    def watch(kind: str, /, **facts: Any) -> None:
        levels.append(process.memory_info().rss / MIB)

    start = time.perf_counter()
    imported = import_pictures(work / "set", [work / "pictures"], folder_name="10_set", report=watch)
    seconds = time.perf_counter() - start
    with Dataset.open(work / "set") as dataset:
        count = len(dataset.entries())
    return {
        "pictures": count,
        "import_s": seconds,
        "import_pictures_per_s": imported.added / seconds,
        "import_rss_growth_mb": max(levels) - levels[len(levels) // 10],
        "open_first_s": time.perf_counter() - start - seconds,
    }


def time_captions(work: Path) -> dict[str, Any]:
    from lora_trainer.dataset import edits
    from lora_trainer.dataset.store import Dataset

    rng = np.random.default_rng(0)
    words = [*TAGS, *(f"tag {number}" for number in range(200))]
    chosen: dict[str, edits.Edit] = {
        "remove": edits.remove([TAGS[0]]),
        "replace": edits.replace(TAGS[1], "blue sea"),
        "add": edits.add(["masterpiece"]),
        "trigger": edits.put_first("zdm"),
        "sort": edits.sort(["zdm"]),
        "dedupe": edits.dedupe(),
    }
    with Dataset.open(work / "set") as dataset:
        texts = {
            entry.id: ", ".join([*TAGS[:2], *rng.choice(words, CAPTION_TAGS - 3), TAGS[0]])
            for entry in dataset.entries()
        }
        dataset.change_captions("written", texts)
        taken = {what: _timed(partial(_edit, dataset, what, edit)) for what, edit in chosen.items()}
        undone = {what: _timed(dataset.undo) for what in reversed(chosen)}
        files = _timed(dataset.flush)
    return {
        "caption_op_s": max(taken.values()),
        "undo_s": max(undone.values()),
        "caption_files_s": files,
        "caption_ops": taken,
        "undos": undone,
    }


def _edit(dataset: Any, what: str, edit: Callable[[str], str]) -> None:
    from lora_trainer.dataset.edits import edited

    dataset.change_captions(what, edited(dataset.captions(), edit))


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def time_thumbnails(work: Path) -> dict[str, float]:
    from lora_trainer.dataset.store import Dataset
    from lora_trainer.dataset.store.thumbnails import Thumbnails

    start = time.perf_counter()
    with Dataset.open(work / "set") as dataset, Thumbnails(work / "set") as thumbnails:
        paths = [dataset.picture(entry) for entry in dataset.entries()[:PAGE]]
        page = thumbnails.page(paths)
        seconds = time.perf_counter() - start
    assert all(page)
    return {"first_thumbnails_s": seconds}


def time_tagging(work: Path) -> dict[str, float]:
    """Three rounds, each of the model alone and then of files; the medians."""
    from lora_trainer.dataset.pictures import read_picture
    from lora_trainer.jobs.events import silent
    from lora_trainer.tagging.captioning import TagOptions, caption_all, load_tagger

    make_tagger(work / "models" / "taggers" / "wd-v3")
    tagger = load_tagger("wd-v3", TagOptions(), work / "models", silent)
    paths = sorted((work / "pictures").iterdir())[:TAGGED]
    ready = [tagger.prepare(read_picture(path)) for path in paths]
    starts = range(0, len(ready), tagger.batch_size)
    alone, whole = [], []
    for _ in range(3):
        alone.append(_timed(lambda: [tagger.caption(ready[at : at + tagger.batch_size]) for at in starts]))
        whole.append(_timed(lambda: list(caption_all(tagger, enumerate(paths)))))
    model, files = statistics.median(alone), statistics.median(whole)
    return {"model_s_per_picture": model / len(paths), "tagging_ratio": files / model}


def make_tagger(folder: Path) -> None:
    """A model with wd-v3's signature, random weights and about 18 GFLOP a picture, a fraction of the real one's."""
    import onnx
    from onnx import helper

    from tests.tagging.onnx_files import save, selected_tags

    folder.mkdir(parents=True)
    shutil.copyfile(selected_tags(), folder / "selected_tags.csv")
    tags = len(selected_tags().read_text(encoding="utf-8").splitlines()) - 1
    rng = np.random.default_rng(0)
    constants = {"stem": rng.normal(0, 0.01, (64, 3, 4, 4)), "head": rng.normal(0, 0.1, (64, tags))}
    nodes: list[onnx.NodeProto] = [
        helper.make_node("Transpose", ["input"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "stem"], ["x0"], strides=[4, 4]),
    ]
    for layer in range(LAYERS):
        constants[f"w{layer}"] = rng.normal(0, 0.04, (64, 64, 3, 3))
        nodes += [
            helper.make_node("Conv", [f"x{layer}", f"w{layer}"], [f"y{layer}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"y{layer}"], [f"x{layer + 1}"]),
        ]
    nodes += [
        helper.make_node("GlobalAveragePool", [f"x{LAYERS}"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["output"]),
    ]
    weights = {name: value.astype(np.float32) for name, value in constants.items()}
    save(folder / "model.onnx", nodes, {"input": ["batch", 448, 448, 3]}, {"output": ["batch", tags]}, weights)


PARTS = {
    "import": time_import,
    "captions": time_captions,
    "thumbnails": time_thumbnails,
    "tagging": time_tagging,
}


def run_part(name: str, work: Path) -> dict[str, Any]:
    """The figures of one part, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.dataset", "--part", name, "--work", str(work)]
    child = subprocess.run(command, stdout=subprocess.PIPE, check=True, encoding="utf-8", env=environment_for_child())
    figures: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return figures


def measure(work: Path, pictures: int) -> dict[str, Any]:
    make_pictures(work / "pictures", pictures)
    figures = run_part("import", work) | run_part("captions", work)
    figures["thumbnails_first_time_s"] = run_part("thumbnails", work)["first_thumbnails_s"]
    return figures | run_part("thumbnails", work) | run_part("tagging", work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER", help="where the set is made, and stays; else a temporary one"
    )
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments.work)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(arguments.work or Path(temporary), arguments.pictures)
    for name, value in figures.items():
        print(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")
    if arguments.json:
        write_text(arguments.json, json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
