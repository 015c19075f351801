"""The loader for small images: the whole set as uint8 on the device, whole batches augmented there.

Crop, flip and erasing of a sample are functions of (seed, epoch, sample, repetition), by a counter-based hash on
the device; which batch or process the sample is in plays no part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.hashing import AUGMENT, extend_tensor, key, uniforms
from bench.data.mixing import Mixer
from bench.data.order import BatchPlan
from bench.method import Batch

_DRAWS = 3  # numbers a sample draws: crop, flip, whether to erase; the tries of erasing follow
_ERASE_TRIES = 10
_ERASE_AREA = (0.02, 0.33)
_ERASE_LOG_RATIO = (math.log(0.3), math.log(3.3))


class Normaliser:
    """uint8 [B, 3, H, W] -> float, (x / 255 - mean) / std, with the very operations of torchvision v2."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        self.mean = torch.tensor(mean, device=device).view(-1, 1, 1)
        self.std = torch.tensor(std, device=device).view(-1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mul_(1.0 / 255).sub_(self.mean).div_(self.std)


class ResidentTrainLoader:
    """Training batches from resident images.

    pixels: uint8 [N, 3, H, W] and labels: int64 [N], on the device. indices: int64 [n], the samples trained on;
    the plan's positions count in them. padding: of the random crop, 0 for none. Yields ``bench.method.Batch``.
    """

    def __init__(
        self, pixels: Tensor, labels: Tensor, indices: Tensor, plan: BatchPlan, normalise: Normaliser, mixer: Mixer,
        *, padding: int, hflip_prob: float, random_erase: float,
    ) -> None:  # fmt: skip
        self.pixels, self.labels, self.indices = pixels, labels, indices
        self.plan, self.normalise, self.mixer = plan, normalise, mixer
        self.steps_per_epoch = plan.steps
        self.padding, self.hflip_prob, self.random_erase = padding, hflip_prob, random_erase

    def global_size(self, step: int) -> int:
        """Samples of a step over all processes."""
        return self.plan.global_size(step)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from ``start`` on, the same ones whatever ``start``."""
        positions, repetition = self.plan.epoch(epoch)
        samples = self.indices[torch.from_numpy(positions).to(self.indices.device)]
        keys = extend_tensor(key(self.plan.seed, epoch, AUGMENT), samples)
        keys = extend_tensor(keys, torch.from_numpy(repetition).to(samples.device))
        draws = uniforms(keys, _DRAWS + (4 * _ERASE_TRIES if self.random_erase > 0 else 0))
        boxes = None
        if self.random_erase > 0:
            boxes = erase_boxes(draws[:, 2], draws[:, _DRAWS:], self.random_erase, *self.pixels.shape[2:])
        for step in range(start, self.plan.steps):
            share = self.plan.share(step)
            chosen = samples[share]
            images = self.normalise(crop_and_flip(self.pixels[chosen], draws[share], self.padding, self.hflip_prob))
            if boxes is not None:
                images = erase(images, boxes[share])
            yield self.mixer(images, self.labels[chosen], epoch, step)


def crop_and_flip(images: Tensor, draws: Tensor, padding: int, hflip_prob: float) -> Tensor:
    """Zero-pad by ``padding``, cut a random window of the old size, flip it. draws: [B, D] in [0, 1).

    The first draw says where the window lies (row and column together), the second whether it is flipped. One gather
    does both; padding is with black pixels, before normalisation, as torchvision pads pictures.
    """
    if padding == 0 and hflip_prob == 0:
        return images
    batch, channels, height, width = images.shape
    offsets = 2 * padding + 1
    place = (draws[:, 0] * offsets**2).long()
    flipped = (draws[:, 1] < hflip_prob)[:, None]
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    y = (place // offsets)[:, None] + rows
    x = (place % offsets)[:, None] + torch.where(flipped, columns.flip(0), columns)
    flat = (y[:, :, None] * (width + 2 * padding) + x[:, None, :]).view(batch, 1, -1)
    padded = F.pad(images, (padding,) * 4).view(batch, channels, -1)
    return padded.gather(2, flat.expand(-1, channels, -1)).view(batch, channels, height, width)


def erase_boxes(whether: Tensor, draws: Tensor, probability: float, height: int, width: int) -> Tensor:
    """Random erasing (Zhong et al., 2017) with torchvision's numbers: area 0.02 to 0.33, aspect 0.3 to 3.3.

    whether: [B] and draws: [B, 4 * tries], in [0, 1). Returns int64 [B, 4], top, bottom, left, right; empty boxes where
    nothing is erased. The first try whose box fits is taken; if none fits there is no box.
    """
    tries = draws.view(len(draws), -1, 4)
    area = height * width * (_ERASE_AREA[0] + tries[:, :, 0] * (_ERASE_AREA[1] - _ERASE_AREA[0]))
    ratio = torch.exp(_ERASE_LOG_RATIO[0] + tries[:, :, 1] * (_ERASE_LOG_RATIO[1] - _ERASE_LOG_RATIO[0]))
    box_h, box_w = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (box_h < height) & (box_w < width)
    first = fits.float().argmax(1, keepdim=True)
    box_h, box_w = box_h.gather(1, first), box_w.gather(1, first)
    top = (tries[:, :, 2].gather(1, first) * (height - box_h + 1)).long()
    left = (tries[:, :, 3].gather(1, first) * (width - box_w + 1)).long()
    boxes = torch.cat([top, top + box_h, left, left + box_w], 1)
    return boxes.masked_fill_(~((whether < probability)[:, None] & fits.any(1, keepdim=True)), 0)


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Fill a box of each image with 0, in place. images: [B, C, H, W]; boxes: as ``erase_boxes`` makes them."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    top, bottom, left, right = boxes[:, :, None].unbind(1)
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return images.masked_fill_((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0.0)


class ResidentEvalLoader:
    """Clean batches in the order of ``indices``: (images, labels, indices), all on the device."""

    def __init__(
        self, pixels: Tensor, labels: Tensor, indices: Tensor, normalise: Normaliser, batch_size: int
    ) -> None:
        self.pixels, self.labels, self.indices = pixels, labels, indices
        self.normalise, self.batch_size = normalise, batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for step in range(len(self)):
            chosen = self.indices[step * self.batch_size : (step + 1) * self.batch_size]
            yield self.normalise(self.pixels[chosen]), self.labels[chosen], chosen
