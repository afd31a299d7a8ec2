"""Retrieval: sounds by texts, and sounds and pictures by each other, ranked by cosine in the shared space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen import ffmpeg
from wav2clip_gen.benchmark.clips import Clip, Dataset, spoken
from wav2clip_gen.benchmark.encoders import SoundEncoder
from wav2clip_gen.benchmark.features import Features
from wav2clip_gen.benchmark.results import Figure, Result
from wav2clip_gen.errors import W2CError

VIDEOS = (".mp4", ".webm", ".mkv")
SIZE = 224  # px of a video's picture
DRAWS = 200  # random rankings behind the figures of chance


def retrieve(dataset: Dataset, features: Features, encoder: SoundEncoder, *, template: str = "{}") -> Result:
    """Rank sounds by texts; where the clips are videos, also pictures by sounds and sounds by pictures.

    The texts are the captions, each of which seeks its own sound, or else the names of the classes, each of which
    seeks any sound of the class.

    Raises:
        SettingsError: The encoder has no text side.
        W2CError: The set has neither captions nor labels.
    """
    clips, sounds = features.clips, F.normalize(features.vectors, dim=1)
    texts, relevant = queries(clips, template)
    similarity = encoder.encode_texts(texts) @ sounds.T
    directions = {"text to sound": (similarity, relevant)}
    predictions = [
        {"query": text, "ranked": [clips[index].key for index in row.topk(min(10, len(clips))).indices.tolist()]}
        for text, row in zip(texts, similarity, strict=True)
    ]
    if all(clip.path.suffix.lower() in VIDEOS for clip in clips):
        pictures = encoder.encode_images(torch.stack([middle_picture(clip) for clip in clips]))
        own = torch.eye(len(clips), dtype=torch.bool)
        directions |= {"sound to picture": (sounds @ pictures.T, own), "picture to sound": (pictures @ sounds.T, own)}
    figures: dict[str, Figure] = {}
    chance: dict[str, float] = {}
    for direction, (scores, right) in directions.items():
        figures |= {f"{direction}: {name}": value for name, value in measures(scores, right).items()}
        chance |= {f"{direction}: {name}": value for name, value in random_measures(right).items()}
    what = "captions" if any(clip.captions for clip in clips) else "names of classes"
    return Result(
        task="retrieval", dataset=dataset.name, encoder=encoder.name, identity=encoder.identity, figures=figures,
        chance=chance, settings={"template": template}, predictions=predictions,
        notes=[*dataset.notes, *features.notes, f"{len(clips)} sounds, {len(texts)} {what}."],
    )  # fmt: skip


def queries(clips: list[Clip], template: str) -> tuple[list[str], Tensor]:
    """The texts, and which sounds each seeks (Q, N).

    Raises:
        W2CError: The clips have neither captions nor labels.
    """
    captioned = [(caption, index) for index, clip in enumerate(clips) for caption in clip.captions]
    labels = sorted({label for clip in clips for label in clip.labels})
    texts = [caption for caption, _ in captioned] or [template.replace("{}", spoken(label)) for label in labels]
    if not texts:
        raise W2CError("the clips have neither captions nor labels", hint="retrieval needs texts to search by")
    relevant = torch.zeros(len(texts), len(clips), dtype=torch.bool)
    for query, (_, index) in enumerate(captioned):
        relevant[query, index] = True
    if not captioned:
        relevant = torch.tensor([[label in clip.labels for clip in clips] for label in labels])
    return texts, relevant


def measures(similarity: Tensor, relevant: Tensor) -> dict[str, float]:
    """MRR, recall at 1, 5 and 10, and the median rank, of the first right one in each row (Q, N).

    A tie counts as if the wrong one came first, so that equal vectors gain nothing.
    """
    best = similarity.masked_fill(~relevant, -torch.inf).amax(dim=1, keepdim=True)
    rank = 1 + ((similarity >= best) & ~relevant).sum(dim=1).float()
    recall = {f"R@{count}": (rank <= count).float().mean().item() for count in (1, 5, 10)}
    return {"MRR": (1 / rank).mean().item(), **recall, "median rank": rank.quantile(0.5).item()}


def random_measures(relevant: Tensor) -> dict[str, float]:
    """The same of random rankings, a mean over many."""
    generator = torch.Generator().manual_seed(0)
    drawn = [measures(torch.rand(relevant.shape, generator=generator), relevant) for _ in range(DRAWS)]
    return {name: sum(one[name] for one in drawn) / DRAWS for name in drawn[0]}


def middle_picture(clip: Clip) -> Tensor:
    """The picture (3, 224, 224) in [0, 1] in the middle of a video, its longer side cut.

    Raises:
        W2CError: The video has no picture.
    """
    square = f"scale={SIZE}:{SIZE}:force_original_aspect_ratio=increase,crop={SIZE}:{SIZE}"
    url, wanted = ffmpeg.file_url(clip.path), ["-frames:v", "1", "-vf", square, "-pix_fmt", "rgb24", "-f", "rawvideo"]
    try:
        stream = ffmpeg.read_streams(clip.path, ["-map", "0:v:0", "-c", "copy"], purpose="read a video's picture")[0]
        middle = float(stream.start + stream.ticks * stream.time_base / 2)
        content = ffmpeg.run(["-ss", f"{middle:.3f}", "-i", url, *wanted, "pipe:1"], purpose="read a video's picture")
    except ffmpeg.FFmpegError as error:
        raise W2CError(f"{clip.path}: {error.what}", hint="fetch the video again") from None
    if len(content) != 3 * SIZE * SIZE:
        raise W2CError(f"{clip.path}: has no picture", hint="fetch the video again")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(SIZE, SIZE, 3).permute(2, 0, 1).float() / 255
