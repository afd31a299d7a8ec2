"""`w2c-gen weights ...`, from the command to the files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from tests.cli.refusals import assert_refused
from tests.conftest import ROOT
from tests.models.fetching import first_hash
from tests.models.server import Answer, Server
from tests.models.tiny import place, write_weights
from wav2clip_gen.cli.weights import app
from wav2clip_gen.models import fetch, manifest, registry, store
from wav2clip_gen.models.download import Progress
from wav2clip_gen.models.store import read_header

BODY = b"PK" + bytes(range(256)) * 100
MINI = """
  mini-wav2clip: {role: wav2clip, shipped: true, file: mini/wav2clip.safetensors, licence: L, citation: C, config: {}}
  mini-clip: {role: clip, shipped: true, file: mini/clip.safetensors, licence: L, citation: C, config: {}}
  mini-vqgan: {role: vqgan, shipped: true, file: mini/vqgan.safetensors, licence: L, citation: C, config: {}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "weights"
    monkeypatch.setenv("W2C_WEIGHTS", str(path))
    return path


@pytest.fixture
def tiny(server: Server, converter: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A family of three small files on a server of this machine, in place of the published one."""
    names = {"wav2clip": "ears", "clip": "eyes", "vqgan": "hands"}
    parts = "\n".join(
        f"  {name}: {{role: {role}, file: {name}.pt, licence: MIT, citation: C, config: {{a: 1}},"
        f" sources: [{server.plan(f'/{name}.pt', Answer(body=BODY))}]}}"
        for role, name in names.items()
    )
    families = {"full": names, "mini": {role: f"mini-{role}" for role in names}}
    path = tmp_path / "manifest.yaml"
    path.write_text(f"families: {json.dumps(families)}\nparts:\n{parts}\n{MINI}")
    monkeypatch.setattr(manifest, "MANIFEST", path)
    return server


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_list_shows_every_part(folder: Path) -> None:
    write_weights(place("full", "clip"))
    write_weights(place("full", "vqgan"), training={"random": 0})
    broken = folder / "coco" / "coco.ckpt.part"
    broken.parent.mkdir()
    broken.write_bytes(bytes(2**20))
    done = run("list")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert set(manifest.published().parts) <= set(lines)
    assert lines["full:"] == "full: wav2clip, vit-b-32, imagenet-16384"
    for name, words in {
        "vit-b-32": "clip ready MIT", "imagenet-16384": "vqgan RANDOM", "vit-b-16": "334.6 MiB missing",
        "mini-clip": "shipped", "coco": "missing (1.0 MiB)", "sflckr": "3.97 GiB",
    }.items():  # fmt: skip
        shown = run("list").stdout.splitlines()
        assert all(word in next(line for line in shown if line.startswith(f"{name} ")) for word in words.split())


def test_the_list_for_programs() -> None:
    done = run("list", "--json")
    content = json.loads(done.stdout)
    assert content["families"]["full"]["vqgan"] == "imagenet-16384"
    part = next(part for part in content["parts"] if part["name"] == "vit-b-32")
    assert (part["state"], part["bytes"], part["licence"]) == ("missing", 353976522, "MIT")
    assert part["path"].endswith("clip.safetensors")


@pytest.fixture
def extras(folder: Path) -> dict[str, Path]:
    """Weights outside the manifest: of a user's checkpoint, of open_clip, and of a conversion that was cut off."""
    kept = {
        "own/mine-0123456789ab": folder / "own" / "mine-0123456789ab",
        "ViT-B-16/some--tag": folder / "open_clip" / "ViT-B-16--some--tag",
        "own/torn-0123456789ab": folder / "own" / "torn-0123456789ab",
    }
    write_weights(kept["own/mine-0123456789ab"] / "vqgan.safetensors", made_of="mine.ckpt")
    write_weights(kept["ViT-B-16/some--tag"] / "clip.safetensors", made_of="ViT-B-16/some--tag")
    kept["own/torn-0123456789ab"].mkdir()
    (kept["own/torn-0123456789ab"] / ".w2c-00.safetensors").write_bytes(bytes(3 * 2**20))
    return kept


def test_the_list_shows_what_is_no_part_too(extras: dict[str, Path]) -> None:
    shown = {line.split()[0]: line.split()[1:] for line in run("list").stdout.splitlines() if "/" in line.split(" ")[0]}
    assert shown.keys() == extras.keys()
    assert shown["own/mine-0123456789ab"] == ["vqgan", "0.0", "MiB", "from", "mine.ckpt"]
    assert shown["ViT-B-16/some--tag"] == ["clip", "0.0", "MiB", "from", "open_clip"]
    assert shown["own/torn-0123456789ab"] == ["?", "3.0", "MiB", "damaged"]
    listed = {extra["name"]: extra for extra in json.loads(run("list", "--json").stdout)["extras"]}
    assert {name: extra["path"] for name, extra in listed.items()} == {name: str(path) for name, path in extras.items()}
    assert (listed["own/torn-0123456789ab"]["bytes"], listed["own/torn-0123456789ab"]["made_of"]) == (3 * 2**20, None)


def test_what_is_no_part_is_removed_by_the_name_it_is_listed_by(extras: dict[str, Path]) -> None:
    first, second, third = extras
    done = run("remove", first, "vit-b-16", third)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        "vit-b-16: nothing there", f"{first}: 0.0 MiB freed", f"{third}: 3.0 MiB freed",
    ]  # fmt: skip
    assert [path.exists() for path in extras.values()] == [False, True, False]
    gone = run("remove", second, first)
    assert (gone.exit_code, f"no part is called '{first}'" in gone.stderr) == (1, True)
    assert extras[second].exists()  # where one name is wrong, nothing is deleted


def test_a_family_is_fetched_in_one_command(tiny: Server, converter: Any) -> None:
    done = run("fetch", "full")
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    for words in ("ears: from 127.0.0.1", "ears: checking", "eyes: converting", "0.0 of 0.0 MiB", "0:00 left"):
        assert words in done.stderr
    assert registry.resolve_family("auto") == "full"
    assert [given[1] for given in converter.given] == ["wav2clip", "clip", "vqgan"]
    again = run("fetch", "full", "eyes")
    assert again.exit_code == 0
    assert again.stderr.count("in place") == 3


def test_one_part_that_fails_does_not_stop_the_others(tiny: Server) -> None:
    tiny.plan("/ears.pt", Answer(status=404))
    done = run("fetch", "full")
    assert done.exit_code == 1
    assert "error: ears cannot be fetched: 127.0.0.1: has no such file (404)" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert [store.status(part).state for part in manifest.expand("full")] == ["missing", "ready", "ready"]


def test_an_interrupted_fetch_prints_how_to_resume(tiny: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> Any:
        yield Progress("from 127.0.0.1")
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "fetch", interrupted)
    done = run("fetch", "full")
    assert done.exit_code == 130
    assert done.stderr.splitlines() == [
        "ears: from 127.0.0.1",
        "interrupted: the same command resumes where it stopped",
    ]


def test_offline_is_obeyed(tiny: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("fetch", "eyes", "--offline")
    assert (done.exit_code, "stay offline" in done.stderr, tiny.asked) == (1, True, [])


def test_a_bar_is_shown_in_a_terminal(tiny: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from wav2clip_gen.cli import console

    monkeypatch.setattr(console, "stderr", Console(stderr=True, force_terminal=True, width=100))
    done = run("fetch", "eyes")
    assert done.exit_code == 0, done.stderr
    assert "25.6/25.6 kB" in done.stderr


def test_verify_reads_what_is_there(tiny: Server, folder: Path) -> None:
    run("fetch", "full", "--keep-original")
    tiny_mini = folder / "mini"  # hides the family that ships, which takes long to load
    tiny_mini.mkdir()
    done = run("verify")
    assert done.exit_code == 0, done.stdout
    assert done.stdout.splitlines() == [
        f"ok  {name}: {name}.pt is what was published, unchanged since it was converted"
        for name in ("ears", "eyes", "hands")
    ]
    path = place("full", "clip")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    store.locate_original(manifest.part("ears")).write_bytes(BODY[:-1])
    done = run("verify", "full")
    assert done.exit_code == 1
    first, second, third = done.stdout.splitlines()
    assert first.startswith("!!  ")
    assert "ears.pt: its sha256 is" in first
    assert "clip.safetensors: its sha256 is" in second
    assert "`w2c-gen weights remove eyes`, then fetch it again" in second
    assert third.startswith("ok  hands")


def test_verify_builds_what_has_no_recorded_hash(folder: Path) -> None:
    assert run("verify", "mini-wav2clip").stdout == "ok  mini-wav2clip: builds its network\n"
    write_weights(place("full", "clip"))
    done = run("verify", "vit-b-32")
    assert (done.exit_code, "configuration builds no clip" in done.stdout) == (1, True)
    done = run("verify", "coco")
    assert (done.exit_code, "no such weights file" in done.stdout) == (1, True)


def test_paths(tiny: Server, folder: Path) -> None:
    assert run("path").stdout == f"{folder}\n"
    assert run("path", "--weights-dir", folder / "other").stdout == f"{folder / 'other'}\n"
    missing = run("path", "eyes")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "run `w2c-gen weights fetch eyes`" in missing.stderr
    run("fetch", "full")
    assert run("path", "eyes").stdout == f"{folder / 'eyes' / 'clip.safetensors'}\n"
    assert len(run("path", "full").stdout.splitlines()) == 3


def test_a_users_checkpoint_is_converted(tiny: Server, folder: Path, tmp_path: Path, converter: Any) -> None:
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"PK mine")
    done = run("convert", mine, "--as", "eyes", "--precision", "bf16")
    assert done.stdout == f"{folder / 'eyes' / 'clip.safetensors'}\n"
    assert converter.given == [(b"PK mine", "clip", {"a": 1}, "bf16")]
    assert first_hash(folder) is None  # it is not what is published
    assert mine.exists()
    refused = run("convert", mine, "--as", "eyes")
    assert (refused.exit_code, "--overwrite" in refused.stderr) == (1, True)
    assert run("convert", mine, "--as", "eyes", "--overwrite").exit_code == 0
    out = tmp_path / "out.safetensors"
    assert run("convert", mine, "--as", "hands", "--out", out).stdout == f"{out}\n"
    assert read_header(out)
    assert run("convert", mine, "--as", "hands", "--out", out).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("fetch", "nothing"), "no part is called 'nothing'"),
        (("convert", "nowhere.pt", "--as", "eyes"), "nowhere.pt: no such file"),
        (("convert", "nowhere.pt", "--as", "mini-clip"), "comes with w2c-gen"),
        (("remove", "mini-clip"), "comes with w2c-gen"),
        (("remove", "nothing"), "no part is called 'nothing'"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(tiny: Server, arguments: tuple[str, ...], expected: str) -> None:
    done = run(*arguments)
    assert_refused(done, expected)
    assert done.stderr.count("\n") == 2


def test_a_file_that_cannot_be_converted_leaves_nothing(
    tiny: Server, tmp_path: Path, folder: Path, converter: Any
) -> None:
    converter.refuses = True
    mine = tmp_path / "mine.pt"
    mine.write_bytes(b"PK")
    done = run("convert", mine, "--as", "eyes")
    assert (done.exit_code, "holds no clip" in done.stderr) == (1, True)
    assert list((folder / "eyes").iterdir()) == []


def test_what_was_fetched_is_removed(tiny: Server, folder: Path) -> None:
    run("fetch", "full")
    done = run("remove", "full")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.count("freed") == 3
    assert {store.status(part).state for part in manifest.expand("full")} == {"missing"}
    assert first_hash(folder) is not None
    assert "nothing there" in run("remove", "eyes", "--forget").stderr
    assert first_hash(folder) is None


def test_a_part_that_is_being_fetched_is_not_removed(tiny: Server, folder: Path) -> None:
    run("fetch", "eyes")
    with FileLock(folder / "eyes" / ".fetch.lock"):
        done = run("remove", "eyes")
    assert (done.exit_code, "eyes is being fetched" in done.stderr) == (1, True)
    assert store.require_part(manifest.part("eyes")).exists()


def test_help_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wav2clip_gen", "weights", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for word in ("list", "fetch", "verify", "path", "convert", "remove"):
        assert f" {word} " in done.stdout
