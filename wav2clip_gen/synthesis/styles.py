"""What the perceptor sees in a picture that shall pull as words do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.pictures import Picture
from wav2clip_gen.synthesis.cutouts import random_views

VIEWS = 32


@torch.no_grad()
def embed_style(picture: Picture, clip: Perceptor) -> Tensor:
    """Map a picture (H, W, 3) uint8 to a unit vector (D,): the mean over views like those that a painter is judged by.

    The views are the same whenever the picture is: they are no part of what a film's seed decides.
    """
    whole = torch.from_numpy(picture).to(clip.device).permute(2, 0, 1).unsqueeze(0) / 255  # (1, 3, H, W)
    views = random_views(whole, clip.size, VIEWS, generator=torch.Generator(clip.device).manual_seed(0))
    return F.normalize(clip.encode_images(views).mean(dim=0), dim=0)
