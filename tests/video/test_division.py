from __future__ import annotations

from fractions import Fraction

import pytest

from tests.video.conftest import RATES, TWELVE, line
from wav2clip_gen.audio.timeline import exact_fps
from wav2clip_gen.video.division import Chunk, divide


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("frames", [1, 5, 47, 1000])
def test_a_film_is_divided_into_chunks_of_about_two_seconds(frames: int, fps: float) -> None:
    rate = exact_fps(fps)
    made = divide(range(frames), range(frames), rate)
    assert [chunk.number for chunk in made] == [*range(len(made))]
    assert [made[0].start, *(chunk.stop for chunk in made)] == [*(chunk.start for chunk in made), frames]
    lengths = [chunk.stop - chunk.start for chunk in made]
    assert len(made) == 1 or min(lengths) >= 4
    assert max(lengths) <= max(8, 2 * float(rate) + 1)
    assert len(made) == 1 or min(lengths) >= float(rate) / 2


@pytest.mark.parametrize("painted_fps", [0.3, 1, 5, 7, 24])
def test_each_chunk_ends_with_an_optimised_frame(painted_fps: float) -> None:
    whole = line(500, Fraction(24))
    painted = whole.painted_frames(painted_fps).tolist()
    made = divide(range(500), painted, whole.fps)
    assert {chunk.stop - 1 for chunk in made} <= set(painted)
    assert (made[0].start, made[-1].stop) == (0, 500)
    assert len(made) > 3


def test_a_later_segment_has_the_numbers_that_follow() -> None:
    first, second = divide(range(100, 146), range(90, 170), TWELVE, segment=3, number=7)
    assert (first, second.number) == (Chunk(number=7, start=100, stop=123, segment=3), 8)
    assert second.stop == 146
