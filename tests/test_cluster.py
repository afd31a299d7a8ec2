"""Films painted on a Ray cluster: the same as those painted here, whatever becomes of its machines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.films import DIVIDED, make_films, write_song
from wav2clip_gen import cluster
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import OutputError, SettingsError
from wav2clip_gen.models.registry import Models

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SCHEDULER_EVENTS": "0", "PYTHONPATH": str(ROOT)}
ray = pytest.importorskip("ray")

pytestmark = pytest.mark.usefixtures("short_chunks")
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000, "node_ip_address": "127.0.0.1"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of two machines with a core each."""
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        machines.add_node(**NODE)
        yield machines.address
    finally:
        ray.shutdown()
        machines.shutdown()


@pytest.mark.slow
def test_the_film_of_a_cluster_is_that_of_one_process(
    address: str, tmp_path: Path, small: Settings, mini: Models
) -> None:
    settings, song = small.merged(DIVIDED), write_song(tmp_path)
    made = make_films(song, settings, mini, cluster=address)
    whole = make_films(song, settings, mini, out=tmp_path / "here.mp4")
    assert made.content == whole.content
    assert made.painted[-1] == 28


@pytest.mark.slow
def test_other_versions_there_are_refused(
    address: str, tmp_path: Path, small: Settings, mini: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "__version__", "0.0.1")
    with pytest.raises(OutputError, match=r"w2c-gen is .*, here 0\.0\.1 on "):
        make_films(write_song(tmp_path), small.merged(DIVIDED), mini, cluster=address)


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("127.0.0.1:1", OutputError, "does not answer"),
        ("nowhere", SettingsError, "cluster cannot be 'nowhere'"),
    ],
)
def test_what_cannot_be_reached_is_refused(
    where: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    job: Any = type("Job", (), {"cluster": where, "frames_dir": None})()
    with pytest.raises(error, match=message):
        cluster.connect(job)
