"""Bases of Flux with random weights and three blocks: of the real widths, or small, for a step in a tenth of a second.

sd-scripts reads the number of blocks from the file; the widths that it holds as constants `peer_flux.py` sets to these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.flux_files import HEAD, REAL, VOCABULARY, Sizes, make_flux

LAYERS = 2  # of CLIP-L and of T5, as `flux_files` makes them
AE_WIDTH = 32  # at each of its levels
SMALL = Sizes(hidden=256, mlp=1024, context=128, pooled=64)


@dataclass(frozen=True)
class Base:
    """`activation`: of CLIP-L in sd-scripts, which takes it for open_clip's where it is not told: see `flux.md`."""

    sizes: Sizes
    variant: str = "dev"
    activation: str = "quick_gelu"

    def peer_sizes(self) -> dict[str, Any]:
        """The arguments of sd-scripts' modules that are not what they are in FLUX.1."""
        sizes = self.sizes
        return {
            "transformer": {
                "hidden_size": sizes.hidden,
                "num_heads": sizes.hidden // HEAD,
                "mlp_ratio": sizes.mlp / sizes.hidden,
                "context_in_dim": sizes.context,
                "vec_in_dim": sizes.pooled,
            },
            "ae": {"ch": AE_WIDTH, "ch_mult": [1, 1, 1, 1]},
            "t5xxl": {
                "d_model": sizes.context,
                "d_ff": 2 * sizes.context,
                "num_heads": sizes.context // 64,
                "num_layers": LAYERS,
                "vocab_size": VOCABULARY,
            },
            "clip_l": {
                "hidden_size": sizes.pooled,
                "intermediate_size": 4 * sizes.pooled,
                "num_attention_heads": sizes.pooled // 64,
                "num_hidden_layers": LAYERS,
                "projection_dim": sizes.pooled,
                "hidden_act": self.activation,
            },
        }


BASES = {
    "real": Base(replace(REAL, double=1, single=2)),
    "dev": Base(SMALL),
    "schnell": Base(SMALL, "schnell"),
    "gelu": Base(SMALL, activation="gelu"),
}


def flux_base(name: str, parent: Path) -> Path:
    """The transformer's file of the base `name` of BASES, in a folder of its own with its parts; made where missing."""
    base, folder = BASES[name], parent / f"flux-{name}"
    if not (folder / "flux.safetensors").exists():
        return make_flux(folder, base.variant, sizes=base.sizes, clip_dtype="fp32").transformer
    return folder / "flux.safetensors"
