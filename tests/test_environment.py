"""Other machines and users: busy cores, users without a name or a home, folders that cannot be written to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, SAMPLES
from wav2clip_gen import environment
from wav2clip_gen.audio import stem_cache, structure
from wav2clip_gen.environment import prepare_environment
from wav2clip_gen.errors import OutputError
from wav2clip_gen.job import prepare
from wav2clip_gen.video.verify import probe

QUICK = ("--duration", "1", "--size", "32x32", "--fps", "4", "--first-steps", "1", "--steps", "1", "--cuts", "2")
STRANGER = 4242  # no entry in the list of users
READ_ALL = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")  # where Python lies in root's home


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}),
        ({"GOMP_SPINCOUNT": "infinity"}, {"KMP_BLOCKTIME": "1"}),
        ({"KMP_BLOCKTIME": "infinite"}, {"GOMP_SPINCOUNT": "2000"}),
        ({"OMP_WAIT_POLICY": "active"}, {}),
    ],
)
def test_threads_spin_shortly_unless_the_user_decided(given: dict[str, str], missing: dict[str, str]) -> None:
    variables = dict(given)
    prepare_environment(variables)
    assert variables == {**given, **missing}


@pytest.mark.skipif(sys.platform != "linux", reason="the torch of other systems brings another OpenMP")
@pytest.mark.parametrize("first", ["wav2clip_gen", "wav2clip_gen.training.trainer"])
def test_the_openmp_of_torch_knows_how_long_to_spin(first: str) -> None:
    """OpenMP itself reports what it read when torch loaded it; a second each, to import torch."""
    variables = {name: value for name, value in os.environ.items() if name not in environment.SPINNING}
    variables |= {"OMP_DISPLAY_ENV": "VERBOSE", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", f"import {first}, torch"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    assert "GOMP_SPINCOUNT = '2000'" in done.stderr


def test_a_user_without_a_name_is_called_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4242")

    monkeypatch.setattr("getpass.getuser", nobody)
    variables = {"OMP_WAIT_POLICY": "passive"}
    prepare_environment(variables)
    assert variables["USER"] == environment.user_number()


def as_stranger(*arguments: object, home: str = "", temporary: Path) -> subprocess.CompletedProcess[str]:
    """Run `w2c-gen` as a user who is not in the list of users, with no variables but these."""
    if not hasattr(os, "getuid") or os.getuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become another user, with setpriv")
    user = ["setpriv", "--reuid", str(STRANGER), "--regid", str(STRANGER), "--clear-groups", *READ_ALL]
    variables = [f"HOME={home}"] if home else []
    variables += [f"PATH={os.environ['PATH']}", f"PYTHONPATH={ROOT}", f"TMPDIR={temporary}", "OMP_NUM_THREADS=1"]
    command = [sys.executable, "-m", "wav2clip_gen", *map(str, arguments)]
    return subprocess.run([*user, "env", "-i", *variables, *command], capture_output=True, text=True, check=False)


def folder_of_stranger(path: Path) -> Path:
    path.mkdir()
    if hasattr(os, "getuid") and os.getuid() == 0:
        os.chown(path, STRANGER, STRANGER)
    return path


@pytest.fixture
def places() -> Iterator[tuple[Path, Path]]:
    """A folder for films and one for temporary files, where a stranger can get to."""
    folder = Path(tempfile.mkdtemp(prefix="w2c-test-", dir="/tmp" if os.name == "posix" else None))
    folder.chmod(0o755)
    yield folder_of_stranger(folder / "films"), folder_of_stranger(folder / "temporary")
    shutil.rmtree(folder)


@pytest.mark.slow  # numba compiles for 20 s
@pytest.mark.parametrize("home", ["", pytest.param("/", marks=pytest.mark.more)])  # Docker sets HOME to / for a number
def test_a_user_without_a_home_gets_a_film(home: str, places: tuple[Path, Path]) -> None:
    """Stems are cached among the temporary files. A process each: imports, stems and film."""
    films, temporary = places
    song = shutil.copy(SAMPLES / "sounds" / "bell.ogg", films / "bell.ogg")
    stems = ("--stems", "drums", "--separator", "dsp")
    done = as_stranger(song, "-o", films / "film.mp4", *stems, *QUICK, home=home, temporary=temporary)
    assert (done.returncode, done.stdout) == (0, f"{films / 'film.mp4'}\n"), done.stderr
    assert probe(films / "film.mp4").frames == 4
    assert sorted(path.name for path in films.iterdir()) == ["bell.ogg", "film.json", "film.mp4"]
    own = temporary / f"w2c-gen-{STRANGER}"
    assert list((own / "numba").rglob("*.nbi"))  # as librosa's folder cannot be written to
    assert (own.stat().st_mode & 0o777, len(list(own.rglob("drums.wav")))) == (0o700, 1)


ONLY_MNT = """set -e
mount --make-rprivate /
mount --bind "$1" /mnt
mount -o remount,ro,bind /
for place in /tmp /var/tmp; do mount --bind "$place" "$place"; mount -o remount,ro,bind "$place"; done
cd "$2"
shift 2
exec "$@"
"""  # a folder becomes /mnt, and nothing else can be written to


@pytest.mark.parametrize("here", ["/", pytest.param("/mnt", marks=[pytest.mark.slow, pytest.mark.more])])
def test_where_only_the_folder_for_films_can_be_written_to(here: str, tmp_path: Path) -> None:
    """A film if that is the current folder, else one sentence; 1 s, and 20 s in which numba compiles."""
    isolated = ["unshare", "--mount", "sh", "-c", ONLY_MNT, "sh", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*isolated, "/", "true"], check=False).returncode:
        pytest.skip("only root can make folders read-only, with unshare and mount")
    film = [str(SAMPLES / "sounds" / "bell.ogg"), "-o", "/mnt/film.mp4", *QUICK]
    unset = ("TMPDIR", "TEMP", "TMP", "TORCHINDUCTOR_CACHE_DIR")  # torch sets the last one for this process
    variables = {name: value for name, value in os.environ.items() if name not in unset}
    variables["PYTHONPATH"] = str(ROOT)
    command = [*isolated, here, sys.executable, "-m", "wav2clip_gen", *film]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if here == "/":
        lines = ["error: no folder for temporary files can be written to"]
        lines += ["hint: set TMPDIR to a folder that you can write to"]
        assert (done.returncode, done.stderr.splitlines()) == (1, lines)
    else:
        assert (done.returncode, done.stdout) == (0, "/mnt/film.mp4\n"), done.stderr
        assert probe(tmp_path / "film.mp4").frames == 4


def test_numba_caches_where_it_always_did_unless_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    structure._place_numba_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setattr(structure, "is_writable", lambda folder: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "chosen")
    structure._place_numba_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == "chosen"
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    structure._place_numba_cache()
    assert os.environ.pop("NUMBA_CACHE_DIR") == str(tmp_path / f"w2c-gen-{environment.user_number()}" / "numba")


def test_without_a_folder_for_temporary_files_one_sentence_names_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found in ['/tmp', '/var/tmp', '/usr/tmp', '/']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(OutputError, match="no folder for temporary files") as refused:
        prepare(SAMPLES / "africa.ogg", tmp_path / "film.mp4")
    assert "TMPDIR" in refused.value.hint


def test_a_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = environment.private_folder()
    assert folder == tmp_path / f"w2c-gen-{environment.user_number()}"
    if not hasattr(os, "getuid") or os.getuid() != 0:
        pytest.skip("only root can give a folder to another user")
    os.chown(folder, STRANGER, STRANGER)
    with pytest.raises(OutputError, match="belongs to another user"):
        environment.private_folder()


def test_stems_are_cached_where_they_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert stem_cache.cache_folder() == tmp_path / "cache" / "w2c-gen"
    monkeypatch.setattr(stem_cache, "is_writable", lambda folder: False)
    assert stem_cache.cache_folder() == environment.private_folder()
    (tmp_path / "cache" / "w2c-gen").mkdir(parents=True)
    assert stem_cache.cache_folder() == tmp_path / "cache" / "w2c-gen", "its stems can be read"
