"""Pictures that do not fit into memory are refused before anything is read, or explained where an allocation fails."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Write
from wav2clip_gen import memory
from wav2clip_gen.cli.console import _explain
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import OutOfMemoryError
from wav2clip_gen.job import prepare
from wav2clip_gen.memory import available_ram, check_memory, encoder_bytes, fit, step_bytes, usual_bytes
from wav2clip_gen.models import manifest
from wav2clip_gen.models.registry import Models, ModelSelection, select_models
from wav2clip_gen.pipeline import render
from wav2clip_gen.preview import estimate, make_storyboard
from wav2clip_gen.progress import Progress
from wav2clip_gen.record import read
from wav2clip_gen.synthesis.optimizer import FrameOptimizer

MIB, GIB = 2**20, 2**30
MINI = {"ch": 32, "ch_mult": [1, 2, 2, 4], "num_res_blocks": 1}
FULL = {"ch": 128, "ch_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2}


@pytest.mark.parametrize(
    ("vqgan", "side", "cuts", "half", "measured"),
    [  # MiB, by the peak memory of a process that takes one step
        (MINI, 256, 8, False, 458),
        (MINI, 256, 8, True, 266),
        (MINI, 512, 8, False, 1503),
        (MINI, 512, 8, True, 891),
        (MINI, 1024, 8, False, 6664),
        (MINI, 1024, 8, True, 3553),
        (MINI, 512, 128, False, 2996),
        (FULL, 256, 4, False, 1631),
        (FULL, 512, 4, False, 5869),
    ],
)
def test_the_estimate_is_a_little_below_what_was_measured(
    vqgan: dict[str, Any], side: int, cuts: int, half: bool, measured: int
) -> None:
    found = step_bytes((side, side), cuts, vqgan, half=half) / MIB
    assert 0.6 * measured < found < 1.02 * measured


def large(width: int = 4096, height: int = 4096, **run: Any) -> Settings:
    return Settings().merged({"picture": {"width": width, "height": height}, "run": {"device": "cpu", **run}})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the machine some memory."""
    return lambda size: monkeypatch.setattr(memory, "available_ram", lambda: size)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_picture_that_is_too_large_is_refused_before_the_song_is_read(
    device: str, machine: Any, mini: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    machine(8 * GIB)
    with pytest.raises(OutOfMemoryError) as caught:
        prepare("no-song.wav", None, large(device=device), selection=mini.selection)
    assert caught.value.what == (
        "out of memory: a picture of 4096x4096 with 8 cuts is too large: it needs 225.2 GiB, and 8.0 GiB are free"
    )
    assert caught.value.hint == "--size 1024x1024 fits, and --upscale enlarges finished pictures; or lower --cuts"
    for settings in large(1024, 1024, device=device), Settings():
        check_memory(settings, mini.selection)


@pytest.mark.parametrize("size", [(4096, 1024), (1024, 4096), (2048, 2048)])
def test_the_proposed_size_has_the_same_shape_and_fits(size: tuple[int, int], machine: Any, mini: Models) -> None:
    machine(4 * GIB)
    with pytest.raises(OutOfMemoryError) as caught:
        check_memory(large(*size), mini.selection)
    width, height = map(int, caught.value.hint.split()[1].split("x"))
    assert width / height == pytest.approx(size[0] / size[1], rel=0.1)
    assert 1 * GIB < step_bytes((width, height), 8, MINI, half=False) < 4 * GIB
    check_memory(large(width, height), mini.selection)


def test_a_machine_with_next_to_nothing_gets_no_proposal(machine: Any, mini: Models) -> None:
    machine(1 * MIB)
    with pytest.raises(OutOfMemoryError) as caught:
        check_memory(large(64, 64), mini.selection)
    assert caught.value.hint == "lower --size or --cuts, or close other programs"


def test_the_memory_of_a_gpu_counts_where_it_is_used(
    machine: Any, mini: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = SimpleNamespace(type="cuda")
    monkeypatch.setattr(memory, "choose_device", lambda name: gpu)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * GIB, 80 * GIB))
    machine(2 * GIB)
    check_memory(large(1280, 1280, device="cuda"), mini.selection)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * GIB, 80 * GIB))
    machine(64 * GIB)
    with pytest.raises(OutOfMemoryError, match=r"and 3.0 GiB are free"):
        check_memory(large(1280, 1280, device="cuda"), mini.selection, gpu)  # type: ignore[arg-type]


def test_where_memory_or_network_are_unknown_nothing_is_refused(machine: Any, mini: Models, tmp_path: Path) -> None:
    machine(None)
    check_memory(large(), mini.selection)
    machine(GIB)
    missing = replace(mini.selection.components["vqgan"], path=tmp_path / "none.safetensors")
    check_memory(large(), replace(mini.selection, components={**mini.selection.components, "vqgan": missing}))


def test_this_machine_has_memory() -> None:
    assert (available_ram() or GIB) > 100 * MIB


def test_the_sizes_are_those_of_the_families(mini: Models) -> None:
    (full,) = (part.config for part in manifest.expand("full") if part.role == "vqgan")
    config = vars(mini.vqgan.config)
    for sizes, network in ((FULL, full), (MINI, config | {"ch_mult": list(config["ch_mult"])})):
        assert {name: network[name] for name in sizes} == sizes


FAILURES = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1234 bytes."),
    RuntimeError("could not create a primitive"),
    RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype(float)),  # type: ignore[attr-defined]
    OSError(12, "Cannot allocate memory"),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: str(error)[:30])
def test_a_failed_allocation_is_explained(error: Exception, small: Settings, mini: Models) -> None:
    assert _explain(error) == ("out of memory", "lower --size or --cuts, or close other programs", 1)
    settings = small.merged({"picture": {"width": 64, "height": 64}})
    expected = pytest.raises(OutOfMemoryError, match="a picture of 64x64 with 2 cuts is too large")
    with expected as caught, memory.shortage_explained(settings, mini.selection):
        raise error
    assert caught.value.hint.startswith("--size 32x32 fits")


def test_films_storyboards_and_estimates_explain_it(
    write_sound: Write, tone: Any, small: Settings, mini: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise FAILURES[0]

    monkeypatch.setattr(FrameOptimizer, "optimize", failing)
    song = write_sound(tone[:8_000])
    sheet = prepare(song, tmp_path / "a.png", small, selection=mini.selection, storyboard=True)
    for run in (
        lambda: render(song, tmp_path / "film.mp4", small, family=mini),
        lambda: make_storyboard(sheet, load=lambda *_, **__: mini),
        lambda: estimate(sheet),
    ):
        with pytest.raises(OutOfMemoryError, match="a picture of 32x32 with 2 cuts is too large"):
            run()
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]


def test_other_errors_pass(small: Settings, mini: Models) -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory.shortage_explained(small, mini.selection):
        raise RuntimeError("shapes do not fit")
    assert _explain(RuntimeError("shapes do not fit"))[0] == "this should not happen: RuntimeError: shapes do not fit"


# The memory that the settings allow


def fitted(
    selection: ModelSelection, memory: str, size: str = "512x256", *, recompute: bool = False, **painting: int
) -> tuple[Settings, str]:
    """Settings and note for a film of 64 cutouts."""
    width, height = map(int, size.split("x"))
    changes = {"picture": {"width": width, "height": height}, "painting": {"cuts": 64, **painting}}
    run = {"max_memory": memory, "device": "cpu", "precision": "fp32", "recompute": recompute}
    used, note = fit(Settings().merged({**changes, "run": run}), selection)
    return used, note or ""


def size_of(settings: Settings) -> str:
    return f"{settings.picture.width}x{settings.picture.height}"


def test_where_memory_is_short_batches_are_lowered_and_then_the_size(mini: Models) -> None:
    used, note = fitted(mini.selection, "4GB")
    assert (size_of(used), used.painting.cut_batch, note) == ("512x256", 0, "")
    used, note = fitted(mini.selection, "2.6GB")
    batch = used.painting.cut_batch
    assert size_of(used) == "512x256"
    assert 1 <= batch < 64
    assert note == f"to fit into 2.6GB: --cut-batch {batch}"
    used, note = fitted(mini.selection, "1.5GiB")
    assert 32 < used.picture.height < 256
    assert 1.5 < used.picture.width / used.picture.height < 2.5
    lowered = [f"--size {size_of(used)} instead of 512x256 (--upscale enlarges finished pictures)"]
    lowered += ["--recompute"] * used.run.recompute
    lowered += [f"--cut-batch {used.painting.cut_batch}"] * bool(used.painting.cut_batch)
    assert note == f"to fit into 1.5GiB: {' and '.join(lowered)}"
    recompute, batch = used.run.recompute, used.painting.cut_batch
    again = fitted(mini.selection, "1.5GiB", size_of(used), recompute=recompute, cut_batch=batch)
    assert again == (used, "")  # as a replayed film has it


def test_activations_are_recomputed_before_the_size_is_lowered(mini: Models) -> None:
    films = [fitted(mini.selection, f"{size}MB")[0] for size in range(2600, 1500, -50)]
    ways = [*dict.fromkeys((size_of(one) != "512x256", one.run.recompute) for one in films)]
    assert ways[:2] == [(False, False), (False, True)]
    assert all(smaller for smaller, _ in ways[2:])


@pytest.mark.parametrize(("free", "recompute"), [(8, False), (5, True), (2, None)])
def test_a_picture_that_would_be_refused_is_recomputed_if_that_helps(
    free: int, recompute: bool | None, machine: Any, mini: Models
) -> None:
    machine(free * GIB)
    settings = large(1024, 1024, precision="fp32")
    used, note = fit(settings, mini.selection)
    assert used.run.recompute == bool(recompute)
    assert (note is not None) == bool(recompute)
    if recompute is None:
        with pytest.raises(OutOfMemoryError):
            check_memory(used, mini.selection)
    else:
        check_memory(used, mini.selection)


@pytest.mark.parametrize(("device", "listed"), [("cuda", False), ("auto", True), ("auto", False)])
def test_so_is_one_that_only_a_gpu_has_no_room_for(
    device: str, listed: bool, machine: Any, mini: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(64 * GIB)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if listed else None)
    monkeypatch.setattr(memory, "choose_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 * GIB, 6 * GIB))
    used, note = fit(large(1024, 1024, precision="fp32", device=device), mini.selection)
    seen = device == "cuda" or listed
    assert used.run.recompute == seen
    assert (note == "to fit into the memory that is free: --recompute, which takes longer") == seen


def test_what_fits_does_so_by_a_high_estimate(mini: Models) -> None:
    for allowed, most in (("2.6GB", 2.6e9), ("1500MB", 1.5e9), ("1.3GiB", 1.3 * GIB)):
        settings, _ = fitted(mini.selection, allowed)
        assert 0.7 * most < (usual_bytes(settings, mini.selection, torch.device("cpu")) or 0) < most


def test_batches_that_were_asked_for_are_not_raised(mini: Models) -> None:
    used, note = fitted(mini.selection, "4GB", cut_batch=3)
    assert (size_of(used), used.painting.cut_batch, note) == ("512x256", 3, "")
    assert fitted(mini.selection, "1.6GB", cut_batch=3)[0].painting.cut_batch in (1, 2, 3)


def test_where_no_picture_fits_the_least_is_told(mini: Models) -> None:
    with pytest.raises(
        OutOfMemoryError, match=r"no picture fits into 800MB: even the smallest needs 1\.\d GiB"
    ) as caught:
        fitted(mini.selection, "800MB")
    assert caught.value.hint == "raise --max-memory; the libraries and the networks take most of that"


def test_a_gpu_needs_less_of_its_memory(mini: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(memory, "choose_device", lambda name: torch.device("cuda", 0))
    settings = large(256, 256, max_memory="950MB")
    assert fit(settings, mini.selection) == (settings, None)


@pytest.mark.parametrize(
    ("side", "allowed", "lowered"), [(512, "6GB", "--recompute and --cut-batch 16"), (1024, "16GB", "--recompute")]
)
def test_the_published_models_fit_into_usual_gpus(
    side: int, allowed: str, lowered: str, full_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(memory, "choose_device", lambda name: torch.device("cuda", 0))
    changes = {"picture": {"width": side, "height": side}, "painting": {"cuts": 32}}
    settings = Settings().merged({**changes, "run": {"models": "full", "max_memory": allowed}})
    used, note = fit(settings, select_models(settings.run, full_weights))
    assert (used.picture, note) == (settings.picture, f"to fit into {allowed}: {lowered}")


@pytest.mark.parametrize(("side", "measured"), [(256, 4.1), (512, 8.2), (768, 15.0)])
def test_the_estimate_for_a_gpu(
    side: int, measured: float, full_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # GiB that PyTorch allocated on an H200 for steps of the common recipe, which has the same networks
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    changes = {"picture": {"width": side, "height": side}, "painting": {"cuts": 32}}
    settings = Settings().merged({**changes, "run": {"models": "full", "precision": "fp32"}})
    selection = select_models(settings.run, full_weights)
    bfloat16 = sum(path.stat().st_size for path in selection.files.values())  # they were held there too
    whole = memory._run_bytes(settings, selection, torch.device("cuda", 0))
    assert ((whole or 0) - memory.PROGRAM + bfloat16) / GIB == pytest.approx(measured, rel=0.1)


def test_a_film_is_made_with_what_was_lowered_and_its_record_has_it(
    write_sound: Write, tone: Any, small: Settings, mini: Models, tmp_path: Path
) -> None:
    changes = {"painting": {"cuts": 128}, "run": {"max_memory": "1.35GB", "precision": "fp32", "device": "cpu"}}
    song, settings = write_sound(tone[:8_000]), small.merged(changes)
    job = prepare(song, tmp_path / "film.mp4", settings, selection=mini.selection)
    batch = job.settings.painting.cut_batch
    assert (job.settings.picture, job.notes[0]) == (small.picture, f"to fit into 1.35GB: --cut-batch {batch}")
    record = json.loads(render(song, tmp_path / "film.mp4", settings, family=mini).record.read_text())
    assert record["settings"]["painting"]["cut_batch"] == batch
    assert record["cut_batch"] == {"0": batch}


def test_the_activations_of_published_perceptors_are_known(full_weights: Path, mini: Models, tmp_path: Path) -> None:
    measured = {"vit-b-32": 38, "mini": 2.4}  # MiB, by the peak memory of steps with batches of different sizes
    clip = memory._cutout_bytes(full_weights / "vit-b-32" / "clip.safetensors") / MIB
    assert clip == pytest.approx(measured["vit-b-32"], rel=0.1)
    assert memory._cutout_bytes(mini.files["clip"]) / MIB == pytest.approx(measured["mini"], rel=0.1)
    assert memory._cutout_bytes(tmp_path / "none.safetensors") / MIB == pytest.approx(clip)


@pytest.mark.parametrize(("side", "upscale", "measured"), [(128, 1, 43), (512, 1, 108), (512, 2, 308), (512, 4, 1020)])
def test_the_memory_of_the_encoder(side: int, upscale: int, measured: int) -> None:  # MiB, by its own peak
    settings = Settings().merged({"picture": {"width": side, "height": side, "upscale": upscale}})
    assert encoder_bytes(settings) / MIB == pytest.approx(measured, rel=0.1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell the peak")
def test_the_peak_is_that_of_this_process_alone() -> None:
    """A child's peak, as `getrusage` tells it, begins with that of the process it is started by."""
    code = (
        "import subprocess, sys; from types import SimpleNamespace; from wav2clip_gen.memory import peak_bytes\n"
        "x = bytearray(300 * 2**20); subprocess.run([sys.executable, '-c', ''])\n"
        "print(peak_bytes(SimpleNamespace(type='cpu')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 300 < int(done.stdout) / MIB < 450


def test_the_frame_at_which_memory_ran_out_is_told_and_recorded(
    write_sound: Write, tone: Any, small: Settings, mini: Models, tmp_path: Path
) -> None:
    class Short:
        """In place of a perceptor: from the fourth step on, memory runs out with more than 2 cutouts at a time."""

        steps = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(mini.clip, name)

        def in_bf16(self) -> Short:
            return self

        def encode_images(self, images: torch.Tensor) -> torch.Tensor:
            self.steps += 1
            if self.steps > 3 and len(images) > 2:
                raise FAILURES[0]
            return mini.clip.encode_images(images)

    told = list[Progress]()
    models = replace(mini, clip=Short())  # type: ignore[arg-type]
    song, settings = write_sound(tone), small.merged({"painting": {"cuts": 6}})  # 2 steps, then 1 for each frame
    film = render(song, tmp_path / "film.mp4", settings, family=models, on_progress=told.append)
    assert film.frames == 6
    notes = [one.message for one in told if "memory ran out" in one.message]
    assert notes == [
        "note: memory ran out at frame 2: from here on CLIP takes 2 cutouts at a time, as with --cut-batch 2"
    ]
    assert json.loads(film.record.read_text())["cut_batch"] == {"0": 6, "2": 2}
    assert [line for line in read(film.record).differences if "memory" in line] == [
        "memory ran out at frame 2 of film.json, and --cut-batch was 2 from there on: rounding differs"
    ]
