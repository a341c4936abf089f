"""Loss curves as a picture, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

WIDTH, HEIGHT, MARGIN = 360, 240, 36
INK, GRID, POINTS, TREND = (40, 40, 48), (224, 224, 230), (170, 200, 240), (30, 90, 200)

Curve = Sequence[Sequence[float]]


def draw_curves(curves: Mapping[str, Curve]) -> Image.Image:
    """One panel per curve, side by side: steps to the right, loss upwards on a logarithmic scale."""
    image = Image.new("RGB", (WIDTH * max(1, len(curves)), HEIGHT), (255, 255, 255))
    for place, (title, curve) in enumerate(curves.items()):
        if len(curve) > 1:
            image.paste(_panel(title, curve), (place * WIDTH, 0))
    return image


def _panel(title: str, curve: Curve) -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    steps, losses = [point[0] for point in curve], [point[1] for point in curve]
    low, high = math.log(min(losses)), math.log(max(losses))

    def at(step: float, loss: float) -> tuple[float, float]:
        x = (step - steps[0]) / (steps[-1] - steps[0])
        y = (math.log(loss) - low) / (high - low or 1)
        return MARGIN + x * (WIDTH - 1.5 * MARGIN), HEIGHT - MARGIN - y * (HEIGHT - 2 * MARGIN)

    for fraction in (0, 0.25, 0.5, 0.75, 1):
        loss = math.exp(low + fraction * (high - low))
        x, y = at(steps[0], loss)
        draw.line((x, y, WIDTH - MARGIN / 2, y), fill=GRID)
        draw.text((2, y - 6), f"{loss:.3f}", fill=INK)
    draw.line([at(step, loss) for step, loss in curve], fill=POINTS)
    draw.line([at(step, loss) for step, loss in zip(steps, _smooth(losses), strict=True)], fill=TREND, width=2)
    draw.text((MARGIN, 10), f"{title}: loss over {steps[-1]:.0f} steps, {losses[0]:.3f} to {losses[-1]:.3f}", fill=INK)
    return image


def _smooth(values: Sequence[float]) -> list[float]:
    """The mean of a window of a twentieth of the values around each."""
    reach = max(1, len(values) // 40)
    windows = [values[max(0, place - reach) : place + reach + 1] for place in range(len(values))]
    return [sum(window) / len(window) for window in windows]
