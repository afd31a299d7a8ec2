"""Check a GPU and measure it; writes results-gpu.md and results-gpu.json. With `--tiny`, a quick run on any device."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from tests.conftest import ROOT
from tests.gpu_check import checks, measure
from tests.gpu_check.checks import Check
from tests.gpu_check.report import write_report
from wav2clip_gen import __version__
from wav2clip_gen.devices import choose_device
from wav2clip_gen.errors import W2CError
from wav2clip_gen.models import checkpoints, manifest
from wav2clip_gen.models.registry import Models, load_family


class Run:
    """What is found, section by section: one that fails does not stop the others."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {"checks": [], "steps": [], "flop": [], "failures": {}, "seconds": {}}

    def section(self, name: str, work: Callable[[], Any]) -> Any:
        """Do one; returns its result, or None where it failed."""
        began = time.perf_counter()
        sys.stderr.write(f"{name} ...\n")
        sys.stderr.flush()
        try:
            return work()
        except Exception as error:  # reported, and told by the exit status
            self.found["failures"][name] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
            return None
        finally:
            self.found["seconds"][name] = round(time.perf_counter() - began, 1)

    def compare(self, name: str, work: Callable[[], Iterable[Check]]) -> None:
        """A section of checks."""
        self.section(name, lambda: self.found["checks"].extend(map(_as_row, work())))

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.found["failures"] and all(one["passed"] for one in self.found["checks"])


def _as_row(check: Check) -> dict[str, Any]:
    return {**asdict(check), "passed": check.passed}


def write_random_weights(folder: Path) -> Path:
    """The family `full` at its published size with random weights: speed does not depend on them."""
    for part in manifest.expand("full"):
        checkpoints.write_random(folder / part.name / f"{part.role}.safetensors", role=part.role, config=part.config)
    return folder


def describe(device: torch.device) -> dict[str, Any]:
    """The machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name,
        "torch": torch.__version__,
        "w2c-gen": __version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def check(device: torch.device, folder: Path, *, tiny: bool) -> Run:
    """All sections."""
    run = Run()
    run.found |= describe(device)
    mini_side, cuts = (64, 4) if tiny else (128, 32)
    mini = load_family("mini", device=device)
    run.compare("networks of mini", lambda: checks.networks(mini, load_family("mini")))
    run.compare("graphs of mini", lambda: checks.graphs(mini, mini_side, 8))
    run.compare("a film of mini", lambda: [checks.film(folder, str(device), mini_side)])
    budget = 0.2 if tiny else 0.8
    measure_steps(run, mini, [mini_side], 2 if tiny else 8, budget)
    weights = None if tiny else run.section("writing random weights", lambda: write_random_weights(folder / "weights"))
    if weights:
        measure_full(run, device, weights, cuts, budget)
    run.found["matmul"] = run.section(
        "matrix product", lambda: measure.matmul_speed(device, 256 if tiny else 8192, budget / 3)
    )
    run.found["encoder"] = run.section("sound encoder", lambda: measure.measure_encoder(mini, 0.1 if tiny else 60))
    films = run.found.setdefault("films", {})
    arguments = ["--device", str(device), "--models", "mini"]
    small = ["--size", "64x64", "--cuts", "2", "--steps", "1", "--first-steps", "2"] if tiny else []
    films["mini"] = run.section(
        "film of mini", lambda: measure.measure_film([*arguments, *small], folder / "a.mp4", 1 if tiny else 10)
    )
    if weights:
        full = ["--device", str(device), "--models", "full", "--weights-dir", str(weights), "--size", "256x256"]
        full += ["--cuts", "32", "--fps", "24", "--painted-fps", "12", "--steps", "4"]
        films["full"] = run.section("film of full", lambda: measure.measure_film(full, folder / "b.mp4", 10))
    return run


def measure_full(run: Run, device: torch.device, weights: Path, cuts: int, budget: float) -> None:
    """The published sizes."""
    full = run.section("loading full", lambda: load_family("full", device=device, weights_dir=weights))
    if full is None:
        return
    here = load_family("full", weights_dir=weights)
    run.compare("networks of full", lambda: checks.networks(full, here))
    run.compare("graphs of full", lambda: checks.graphs(full, 256, cuts))
    measure_steps(run, full, [256, 512, 768], cuts, budget)
    run.found["profile"] = run.section("profile", lambda: measure.profiled(full, 256, cuts))
    run.found["decode"] = run.section("a shown frame", lambda: measure.measure_decode(full, 256, budget))


def measure_steps(run: Run, models: Models, sides: list[int], cuts: int, budget: float) -> None:
    """Steps of all kinds, and the common recipe."""
    ways = (True, False) if models.device.type == "cuda" else (False,)
    for side in sides:
        what = f"{models.name} {side} px"
        flop = run.section(f"{what}, operations", partial(measure.count_flop, models, side, cuts))
        run.found["flop"].append({"models": models.name, "side": side, "flop": flop})
        for precision, graph in product(("bf16", "fp32"), ways):
            chosen: dict[str, Any] = {"precision": precision, "graph": graph, "cuts": cuts, "budget": budget}
            name = f"{what}, {precision}, {'graph' if graph else 'eager'}"
            run.found["steps"].append(run.section(name, partial(measure.measure_step, models, side, **chosen)))
        work = partial(measure.measure_recipe, models, side, cuts=cuts, budget=budget)
        run.found["steps"].append(run.section(f"{what}, common recipe", work))
    run.found["steps"] = [one for one in run.found["steps"] if one]


def main() -> int:
    """Run it; 0 if everything is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "films", help="folder of the two files")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    parser.add_argument("--tiny", action="store_true", help="small sizes and the small family alone")
    chosen = parser.parse_args()
    try:
        device = choose_device(chosen.device)
    except W2CError as error:
        sys.stderr.write(f"{error}\n{error.hint}\n")
        return 2
    chosen.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run = check(device, Path(folder), tiny=chosen.tiny)
    profile = run.found.pop("profile", None)
    if profile:
        (chosen.out / "profile.txt").write_text(profile)
    (chosen.out / "results-gpu.json").write_text(json.dumps(run.found, indent=1, default=str))
    sys.stdout.write(write_report(run.found, chosen.out / "results-gpu.md"))
    return 0 if run.passed else 1


if __name__ == "__main__":
    sys.exit(main())
