"""Triton kernels of group norm and SiLU over (N, cells, channels), in float32 whatever the values are.

Each program goes through `TILES` tiles of `ROWS` cells of one picture. `moments` is (N, 2, groups): sums of the values
and of their squares. The gradient is that of equation 9 of "Layer Normalization" (arXiv 1607.06450) for groups.
"""

# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _tile(tile, cells, CHANNELS: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr):
    rows = (tl.program_id(0) * TILES + tile) * ROWS + tl.arange(0, ROWS)
    places = (tl.program_id(1) * cells + rows)[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    return places, (rows < cells)[:, None]


@triton.jit
def _add_per_group(sums, one, other, CHANNELS: tl.constexpr, GROUPS: tl.constexpr):
    place = sums + tl.program_id(1) * 2 * GROUPS + tl.arange(0, GROUPS)
    tl.atomic_add(place, tl.sum(tl.reshape(one, (GROUPS, CHANNELS // GROUPS)), axis=1))
    tl.atomic_add(place + GROUPS, tl.sum(tl.reshape(other, (GROUPS, CHANNELS // GROUPS)), axis=1))


@triton.jit
def _statistics(moments, cells, eps, CHANNELS: tl.constexpr, GROUPS: tl.constexpr):
    group = tl.arange(0, CHANNELS) // (CHANNELS // GROUPS)
    count = cells * (CHANNELS // GROUPS)
    first = moments + tl.program_id(1) * 2 * GROUPS
    mean = tl.load(first + group) / count
    variance = tl.load(first + GROUPS + group) / count - mean * mean
    return mean, 1 / tl.sqrt(tl.maximum(variance, 0.0) + eps)


@triton.jit
def moments(
    values, moments, cells,
    CHANNELS: tl.constexpr, GROUPS: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    total = tl.zeros((CHANNELS,), dtype=tl.float32)
    squares = tl.zeros((CHANNELS,), dtype=tl.float32)
    for tile in range(TILES):
        places, inside = _tile(tile, cells, CHANNELS, ROWS, TILES)
        x = tl.load(values + places, mask=inside, other=0.0).to(tl.float32)
        total += tl.sum(x, axis=0)
        squares += tl.sum(x * x, axis=0)
    _add_per_group(moments, total, squares, CHANNELS, GROUPS)


@triton.jit
def apply(
    values, moments, weight, bias, out, eps, cells,
    CHANNELS: tl.constexpr, GROUPS: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    mean, scale = _statistics(moments, cells, eps, CHANNELS, GROUPS)
    slope = scale * tl.load(weight + tl.arange(0, CHANNELS)).to(tl.float32)
    shift = tl.load(bias + tl.arange(0, CHANNELS)).to(tl.float32) - mean * slope
    for tile in range(TILES):
        places, inside = _tile(tile, cells, CHANNELS, ROWS, TILES)
        x = tl.load(values + places, mask=inside, other=0.0).to(tl.float32)
        normed = x * slope[None, :] + shift[None, :]
        tl.store(out + places, (normed * tl.sigmoid(normed)).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _normed_gradient(x, mean, scale, gamma, beta, gradient):
    unit = (x - mean[None, :]) * scale[None, :]
    normed = unit * gamma[None, :] + beta[None, :]
    share = tl.sigmoid(normed)
    return unit, gradient * share * (1 + normed * (1 - share)) * gamma[None, :]


@triton.jit
def gradient_sums(
    values, moments, weight, bias, gradient, sums, eps, cells,
    CHANNELS: tl.constexpr, GROUPS: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    mean, scale = _statistics(moments, cells, eps, CHANNELS, GROUPS)
    gamma = tl.load(weight + tl.arange(0, CHANNELS)).to(tl.float32)
    beta = tl.load(bias + tl.arange(0, CHANNELS)).to(tl.float32)
    total = tl.zeros((CHANNELS,), dtype=tl.float32)
    along = tl.zeros((CHANNELS,), dtype=tl.float32)
    for tile in range(TILES):
        places, inside = _tile(tile, cells, CHANNELS, ROWS, TILES)
        x = tl.load(values + places, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(gradient + places, mask=inside, other=0.0).to(tl.float32)
        unit, g = _normed_gradient(x, mean, scale, gamma, beta, g)
        total += tl.sum(g, axis=0)
        along += tl.sum(g * unit, axis=0)
    _add_per_group(sums, total, along, CHANNELS, GROUPS)


@triton.jit
def gradient(
    values, moments, weight, bias, gradient, sums, out, eps, cells,
    CHANNELS: tl.constexpr, GROUPS: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    mean, scale = _statistics(moments, cells, eps, CHANNELS, GROUPS)
    gamma = tl.load(weight + tl.arange(0, CHANNELS)).to(tl.float32)
    beta = tl.load(bias + tl.arange(0, CHANNELS)).to(tl.float32)
    group = tl.arange(0, CHANNELS) // (CHANNELS // GROUPS)
    first, count = sums + tl.program_id(1) * 2 * GROUPS, cells * (CHANNELS // GROUPS)
    total, along = tl.load(first + group) / count, tl.load(first + GROUPS + group) / count
    for tile in range(TILES):
        places, inside = _tile(tile, cells, CHANNELS, ROWS, TILES)
        x = tl.load(values + places, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(gradient + places, mask=inside, other=0.0).to(tl.float32)
        unit, g = _normed_gradient(x, mean, scale, gamma, beta, g)
        change = scale[None, :] * (g - total[None, :] - unit * along[None, :])
        tl.store(out + places, change.to(out.dtype.element_ty), mask=inside)
