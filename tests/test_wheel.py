"""What users install: a wheel that carries weights and presets, and renders outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], check=True, cwd=ROOT, capture_output=True, text=True
    )
    return folder / done.stdout.split()[-1]


def test_the_wheel_carries_weights_presets_and_architectures(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for part in ("vqgan", "clip", "wav2clip", "prior"):
        assert f"wav2clip_gen/weights/mini/{part}.safetensors" in names
    assert "wav2clip_gen/weights/mini/words.txt.gz" in names
    assert "wav2clip_gen/weights/manifest.yaml" in names
    assert "wav2clip_gen/presets/draft.yaml" in names
    assert {
        f"wav2clip_gen/templates/{name}" for name in ("index.html", "report.css", "report.html", "report.js")
    } <= names
    assert "wav2clip_gen/models/architectures/w2c-mini.json" in names
    assert not [name for name in names if name.startswith(("tests/", "samples/"))]


def test_the_installed_wheel_renders_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)  # a pure wheel installs by being unpacked
    soundfile.write(tmp_path / "song.wav", 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    environment = {name: value for name, value in os.environ.items() if name != "W2C_WEIGHTS"}
    done = subprocess.run(
        [sys.executable, "-m", "wav2clip_gen", "song.wav", "--size", "64x64", "--fps", "2", "--first-steps", "2"],
        cwd=tmp_path, env={**environment, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "song.mp4\n"
    assert str(site) in subprocess.run(
        [sys.executable, "-c", "import wav2clip_gen; print(wav2clip_gen.__file__)"],
        cwd=tmp_path, env={**environment, "PYTHONPATH": str(site)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
