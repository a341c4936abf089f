"""The button "Generate"."""

from __future__ import annotations

import html

from modules import processing, shared


def _make(prompt, negative_prompt, steps, cfg_scale, width, height, seed):
    p = processing.StableDiffusionProcessingTxt2Img(
        **({} if shared.is_forge else {"sd_model": shared.sd_model}),
        outpath_samples=shared.opts.outdir_txt2img_samples,
        prompt=prompt,
        negative_prompt=negative_prompt,
        steps=int(steps),
        cfg_scale=cfg_scale,
        width=int(width),
        height=int(height),
        seed=int(seed),
    )
    return processing.process_images(p)


def txt2img(*args):
    if shared.is_forge:
        from modules_forge import main_thread

        processed = main_thread.run_and_wait_result(_make, *args)
    else:
        processed = _make(*args)
    return processed.images, processed.js(), f"<p>{html.escape(processed.info)}</p>"
