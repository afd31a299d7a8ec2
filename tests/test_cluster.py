"""Films painted on a Ray cluster: the same as those painted here, whatever becomes of its machines."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.films import DIVIDED, make_films, paint_with, write_song
from tests.test_workers import Failing
from wav2clip_gen import cluster
from wav2clip_gen.config import Settings, View
from wav2clip_gen.errors import OutputError, SettingsError
from wav2clip_gen.job import prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.render_queue import RenderQueue
from wav2clip_gen.synthesis.modulation import ParameterCurves

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SCHEDULER_EVENTS": "0", "PYTHONPATH": str(ROOT)}
ray = pytest.importorskip("ray")

pytestmark = pytest.mark.usefixtures("short_chunks")
CONNECT = socket.socket.connect
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}


@dataclass(frozen=True, eq=False)
class Waiting(ParameterCurves):
    """Curves that wait where frame 20 is decoded for the first time; the marker tells the machine."""

    marker: Path = Path()

    def view(self, frame: int) -> View:
        """See above."""
        if frame == 20 and not self.marker.exists():
            self.marker.write_text(ray.get_runtime_context().get_node_id())
            time.sleep(600)
        return super().view(frame)


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """A head that generates nothing, and two machines with a core each, of which one pretends to have GPUs."""
    from ray.cluster_utils import Cluster

    machines: Any = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    try:
        machines.add_node(**NODE)
        machines.add_node(**NODE, num_gpus=2)
        machines.wait_for_nodes()
        yield machines
    finally:
        ray.shutdown()
        machines.shutdown()


@pytest.fixture
def address(machines: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of the cluster, reached as other machines would: not through loopback."""
    monkeypatch.setattr(socket.socket, "connect", CONNECT)
    return str(machines.address)


@pytest.fixture(scope="module")
def settings(small: Settings) -> Settings:
    return small.merged(DIVIDED).merged({"run": {"device": "cpu"}})


@pytest.mark.slow
def test_the_film_of_a_cluster_is_that_of_one_process(
    address: str, tmp_path: Path, settings: Settings, mini: Models
) -> None:
    picture = tmp_path / "start.png"
    Image.new("RGB", (32, 32), (200, 40, 40)).save(picture)  # it is sent along
    settings, song = settings.merged({"painting": {"init_image": str(picture)}}), write_song(tmp_path)
    made = make_films(song, settings, mini, cluster=address)
    whole = make_films(song, settings, mini, out=tmp_path / "here.mp4")
    assert made.content == whole.content
    assert made.painted[-1] == 28


@pytest.mark.slow
def test_other_versions_there_are_refused(
    address: str, tmp_path: Path, settings: Settings, mini: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "__version__", "0.0.1")
    with pytest.raises(OutputError, match=r"w2c-gen is .*, here 0\.0\.1 on "):
        make_films(write_song(tmp_path), settings, mini, cluster=address)


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


def test_a_cluster_that_does_not_answer_is_refused_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: time.sleep(5))
    monkeypatch.setattr(cluster, "INIT", 0.1)
    job: Any = type("Job", (), {"cluster": "auto", "frames_dir": None})()
    with pytest.raises(OutputError, match="cannot connect to the cluster auto: no answer within"):
        cluster.connect(job)


@pytest.mark.slow
@pytest.mark.more
def test_an_interrupted_film_is_resumed(address: str, tmp_path: Path, settings: Settings, mini: Models) -> None:
    song = write_song(tmp_path)
    with pytest.raises(KeyboardInterrupt, match="are finished in"):
        make_films(song, settings, mini, stop_at=10, cluster=address)
    made = make_films(song, settings, mini, cluster=address)
    assert made.painted[0] > 1
    assert made.content == make_films(song, settings, mini, out=tmp_path / "here.mp4").content


@pytest.mark.slow
@pytest.mark.more
def test_songs_that_share_a_cluster_have_the_films_that_they_have_alone(
    address: str, tmp_path: Path, settings: Settings, mini: Models
) -> None:
    jobs, alone = [], []
    for seed in (7, 8):
        (tmp_path / str(seed)).mkdir()
        song, seeded = write_song(tmp_path / str(seed)), settings.merged({"run": {"seed": seed}})
        alone.append(make_films(song, seeded, mini, out=song.with_name("alone.mp4")).content)
        jobs.append(prepare(song, song.with_name("film.mp4"), seeded, selection=mini.selection, cluster=address))
    follow: dict[str, Any] = {"stop": lambda: False, "on_progress": lambda _: None, "on_picture": lambda _: None}
    with RenderQueue(jobs, lambda *_, **__: mini) as queue:
        (first,) = queue.render(jobs[0], **follow)
        begun = queue.is_finished(jobs[1]) or jobs[1].out.with_suffix(".w2c").exists()
        (second,) = queue.render(jobs[1], **follow)
    assert begun  # the second song, before its turn
    assert [first.path.read_bytes(), second.path.read_bytes()] == alone
    assert alone[0] != alone[1]


@pytest.mark.slow
@pytest.mark.more
def test_what_a_dead_worker_did_is_done_again(
    address: str, tmp_path: Path, settings: Settings, mini: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    song = write_song(tmp_path)
    whole = make_films(song, settings, mini, out=tmp_path / "here.mp4")
    paint_with(monkeypatch, Failing, marker=tmp_path / "marker")
    assert make_films(song, settings, mini, cluster=address).content == whole.content
    assert (tmp_path / "marker").read_text() == "x"


def test_a_cluster_without_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 0.5}}, {"Alive": False, "Resources": {"CPU": 8.0}}]
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    job: Any = type("Job", (), {"cluster": "auto", "frames_dir": None})()
    with pytest.raises(OutputError, match="the cluster auto has no CPU or GPU for a task"):
        cluster.connect(job)


@pytest.mark.slow
@pytest.mark.more
def test_what_a_lost_machine_did_is_done_again(
    address: str, machines: Any, tmp_path: Path, settings: Settings, mini: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove() -> None:
        while not (marker.exists() and marker.read_text()):
            time.sleep(0.1)
        (node,) = (one for one in machines.worker_nodes if one.node_id == marker.read_text())
        machines.remove_node(node, allow_graceful=False)

    song, marker = write_song(tmp_path), tmp_path / "waits"
    whole = make_films(song, settings, mini, out=tmp_path / "here.mp4")
    paint_with(monkeypatch, Waiting, marker=marker)
    remover = Thread(target=remove)
    remover.start()
    made = make_films(song, settings, mini, cluster=address)
    remover.join()
    assert made.content == whole.content
    assert len(machines.worker_nodes) == 1  # the machine was lost; Ray itself notices it only after a while
