"""The weights of prompts and images over time: those of thousands of cues cost little memory."""

from __future__ import annotations

import subprocess
import sys

import torch

from tests.synthesis.test_conditioning import timeline, unit
from wav2clip_gen.config import Prompt
from wav2clip_gen.synthesis.conditioning import GuidanceEmbedding, WeightSchedule, weight_schedule
from wav2clip_gen.synthesis.modulation import PromptWeight


def test_many_cues_are_weighted_as_if_all_weights_were_one_matrix() -> None:
    line = timeline(300, 10)  # several blocks of frames
    times = line.frame_times()
    cues = [Prompt(text="a sea", start=0.3703 * at, end=0.3703 * at + 1.1003, weight=(-1) ** at) for at in range(700)]
    cues += [Prompt(text="all the time", weight=0.1), Prompt(text="then", start=100.0)]
    prompts = unit(len(cues), 16, seed=9)
    for crossfade in (0.0, 1.0, 7.0):
        guidance = GuidanceEmbedding(
            prompts, tuple(WeightSchedule(cue, PromptWeight(cue.weight), times, crossfade) for cue in cues)
        )
        dense = torch.stack(
            [weight_schedule(cue.weight, times, start=cue.start, end=cue.end, crossfade=crossfade) for cue in cues]
        )
        for cue, schedule, row in zip(cues, guidance.schedules, dense, strict=True):
            active = (row.abs() > 1e-9).nonzero().flatten()
            assert torch.equal(schedule.at(slice(50, 70)), row[50:70])
            assert cue.frames(times, crossfade) == slice(int(active[0]), int(active[-1]) + 1)
        targets = torch.ones(line.frames, 16)
        guidance.add_to_(targets)
        torch.testing.assert_close(targets, 1 + dense.T @ prompts, atol=1e-5, rtol=0)


def test_a_prompt_outside_the_frames_has_none() -> None:
    times = timeline(10, 10).frame_times() + 5.0  # a film from second 5 to 15
    for span in ({"end": 4.5}, {"start": 15.5}, {"start": 6.01, "end": 6.09}):
        frames = Prompt(text="a sea", **span).frames(times, 1.0 if len(span) == 1 else 0.0)
        assert frames.start == frames.stop
    assert Prompt(text="a sea", end=4.6).frames(times, 1.0) == slice(0, 1)


MEMORY = """
import resource, torch
from wav2clip_gen.config import Prompt, Settings
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.synthesis.conditioning import GuidanceEmbedding, WeightSchedule
from wav2clip_gen.synthesis.modulation import modulate

line = Timeline(samples=20_000 * 100, sample_rate=1_000, fps=10)
times = line.frame_times()
def peak(count, end):
    cues = tuple(Prompt(text="a sea", start=0.5 * at, end=0.5 * at + 0.5 if end else None) for at in range(count))
    parameters = modulate(Settings(prompts=cues, maps=()), {}, line)
    schedules = (WeightSchedule(*both, times, 1.0) for both in zip(cues, parameters.prompts))
    GuidanceEmbedding(torch.ones(count, 8), tuple(schedules)).add_to_(torch.zeros(line.frames, 8))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
few = peak(10, True)
print(peak(3000, True) - few, peak(1000, False) - few)
"""


def test_three_thousand_cues_need_little_memory() -> None:
    """One matrix of their weights is 240 MB; takes 3 s, as only a fresh process knows its own peak."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    with_ends, without = map(float, done.stdout.split())  # MiB
    assert with_ends < 40
    assert without < 80
