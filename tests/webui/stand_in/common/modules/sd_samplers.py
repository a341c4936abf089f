"""The names that Drawing and API know samplers by."""

from __future__ import annotations

from collections import namedtuple

SamplerData = namedtuple("SamplerData", ["name"])
all_samplers = [SamplerData(name) for name in ("DPM++ 2M", "Euler a", "Euler", "LMS", "Heun", "DDIM", "UniPC", "LCM")]
samplers = all_samplers
all_samplers_map = {sampler.name: sampler for sampler in all_samplers}
samplers_map = {sampler.name.lower(): sampler.name for sampler in all_samplers}


def visible_sampler_names():
    return [sampler.name for sampler in all_samplers]


def get_sampler_and_scheduler(sampler_name, scheduler_name, *, convert_automatic=True):
    """A schedule at the end of the name counts; what is not known becomes the first sampler."""
    name, karras, _ = sampler_name.partition(" Karras")
    return find_sampler_config(name).name, "Karras" if karras else scheduler_name or "Automatic"


def find_sampler_config(name):
    return next((sampler for sampler in all_samplers if sampler.name == name), all_samplers[0])
