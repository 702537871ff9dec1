"""Crops on their way to where views of them are rendered."""

from __future__ import annotations

import torch
from torch import Tensor


def upload(images_N3HW: Tensor, masks_N1HW: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Both on a device, in one copy; to a GPU from pinned memory, on the stream at hand.

    Args:
        images_N3HW, masks_N1HW: uint8 on the CPU.
    """
    pixels = images_N3HW.permute(0, 2, 3, 1)  # as they lie in memory
    size = pixels.numel()
    both = torch.empty(
        size + masks_N1HW.numel(), dtype=torch.uint8, pin_memory=device.type == "cuda"
    )
    both[:size].view(pixels.shape).copy_(pixels)
    both[size:].view(masks_N1HW.shape).copy_(masks_N1HW)
    there = both.to(device, non_blocking=True)
    images = there[:size].view(pixels.shape).permute(0, 3, 1, 2)
    return images, there[size:].view(masks_N1HW.shape)
