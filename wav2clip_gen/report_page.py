"""The page of a film: HTML with its own style and script, and curves thinned to what a window can show."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from wav2clip_gen import __version__
from wav2clip_gen.analysis import Section
from wav2clip_gen.config import Settings, all_settings
from wav2clip_gen.drawing import clock
from wav2clip_gen.environment import readable
from wav2clip_gen.files import relative_path
from wav2clip_gen.report import (
    COLUMNS,
    INDEX,
    Curve,
    FilmReport,
    Floats,
    Shown,
    describe_film,
    describe_job,
    of_every_frame,
    page_path,
)

if TYPE_CHECKING:
    from wav2clip_gen.live import Scene

LIVE_COLUMNS = 300  # of the curve that an open page asks for again and again
LEVELS = 999  # steps of a value on the page
MOST_LANES = 12  # of prompts and images that overlap
DENSE = 100  # prompts or sections in a lane, from which their texts have no room
LONGEST = 400  # characters of a prompt on the page
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)  # seconds between times on the axis
MOST_TICKS = 10
LAST_TICK = 0.95  # of the film: a later one would not fit

Table = list[tuple[str, str]]


@dataclass(frozen=True)
class Row:
    """A row of the page that is drawn by its script."""

    key: str
    name: str
    about: str  # in words, for those who do not see it
    data: dict[str, Any]


def render_page(report: FilmReport, out: Path, *, embed: bool = False) -> str:
    """The page of a film, to be written to `out`."""
    environment = _environment()
    rows = _rows(report)
    return environment.get_template("report.html").render(
        **_head(environment, report.title, "report.js", {"media-src": "'self' file: data:"}),
        **_time_axis(report, rows),
        video=embedded(report.film) if embed else relative_url(report.film, out.parent),
        name=readable(report.film.name),
        facts=_facts(report),
        tables=_tables(report),
        command=command(report, out.parent),
    )


def render_live(scene: Scene) -> str:
    """The page of a film that is being made."""
    environment, job = _environment(), scene.job
    report = describe_job(job)
    changed, others = _settings(job.settings)
    tables = [("Settings that differ from the defaults", changed, True), ("Other settings", others, False)]
    sources = {"media-src": "'self' blob:", "img-src": "'self' data:", "connect-src": "'self'"}
    row = Row("similarity", "similarity", "similarity of each frame so far", live_curve(scene.similarity))
    return environment.get_template("live.html").render(
        **_head(environment, report.title, "live.js", sources),
        **_time_axis(report, [row]),
        name=readable(str(job.out)),
        number=scene.number,
        start=job.track.start,
        facts=[*filter(None, [scene.place]), *_facts(report), f"seed {job.seed}"],
        tables=[(heading, rows, opened) for heading, rows, opened in tables if rows],
    )


def live_curve(similarity: Floats) -> dict[str, Any]:
    """The similarity of the frames so far, for the script."""
    made = 1 + max(np.flatnonzero(np.isfinite(similarity)), default=-1)
    low, high = thin(np.append(of_every_frame(similarity[:made]), similarity[made:]), LIVE_COLUMNS)
    return {"kind": "line", "unit": "", **_drawn(low, high, None)}


def _head(environment: Environment, title: str, script: str = "", sources: Mapping[str, str] = {}) -> dict[str, Any]:
    """What the head of each page takes: nothing but its own script is allowed, and only these sources."""
    content = environment.get_template(script).render() if script else ""
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    allowed = {
        "default-src": "'none'", "img-src": "data:", "style-src": "'unsafe-inline'", "base-uri": "'none'",
        "form-action": "'none'", **({"script-src": f"'sha256-{digest}'"} if script else {}), **sources,
    }  # fmt: skip
    policy = "; ".join(f"{name} {value}" for name, value in allowed.items())
    return {
        "title": title, "policy": policy, "script": content, "version": __version__,
        "mark": f"w2c-gen {__version__}", "clock": clock,
    }  # fmt: skip


def _time_axis(report: FilmReport, rows: list[Row]) -> dict[str, Any]:
    """What is shown over time."""
    lanes = pack(report.guidance)
    return {
        "report": report,
        "rows": rows,
        "data": {"duration": report.duration, "rows": {row.key: row.data for row in rows}},
        "ticks": _ticks(report.duration),
        "sections": [_section(one) for one in report.analysis.mix.sections] if report.analysis else [],
        "lanes": lanes[:MOST_LANES],
        "hidden": sum(map(len, lanes[MOST_LANES:])),
        "dense": DENSE,
        "share": lambda seconds: f"{100 * min(max(seconds / report.duration, 0), 1):.3f}%",
        "short": lambda text: text if len(text) <= LONGEST else f"{text[:LONGEST]}...",
    }


def render_index(films: Sequence[Path], out: Path) -> str:
    """A page that leads to the pages of several films, to be written to `out`."""
    entries, total = [], 0.0
    for film in films:
        report = describe_film(film)
        total += report.duration
        entries.append(
            {
                "title": report.title,
                "facts": ", ".join(_facts(report)),
                "film": relative_url(film, out.parent),
                "page": relative_url(page_path(film), out.parent),
            }
        )
    environment = _environment()
    head = _head(environment, "Films", sources={"media-src": "'self' file:"}) | {"mark": INDEX}
    return environment.get_template("index.html").render(**head, entries=entries, total=total)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("wav2clip_gen"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def relative_url(path: Path, folder: Path) -> str:
    """The address of a file as seen from a folder; file names are bytes, whatever they are."""
    seen = relative_path(path, folder)
    return seen.as_uri() if seen.is_absolute() else "./" + quote(os.fsencode(seen.as_posix()), safe="/")


def embedded(film: Path) -> str:
    """A film as an address that contains all of it."""
    return f"data:video/mp4;base64,{base64.b64encode(film.read_bytes()).decode()}"


def command(report: FilmReport, folder: Path) -> str:
    """What makes the film of a record again, typed in `folder`; empty without a record."""
    if report.record is None:
        return ""
    again = report.film.with_suffix(f".again{report.film.suffix}")
    source, target = (str(relative_path(path, folder)) for path in (report.record, again))
    target = target.replace("{", "{{").replace("}", "}}")  # which `--out` replaces
    words = (shell_word(f"./{name}" if name.startswith("-") else name) for name in (source, target))
    return "w2c-gen --from {} --out {}".format(*words)


def shell_word(name: str) -> str:
    """A file name as a shell takes it; bytes that are no text, and control characters, are escaped as bash does."""
    if name.isprintable():
        return shlex.quote(name)
    escaped = (
        chr(byte) if 32 <= byte < 127 and chr(byte) not in "'\\" else f"\\x{byte:02x}" for byte in os.fsencode(name)
    )
    return f"$'{''.join(escaped)}'"


def thin(values: Floats, columns: int = COLUMNS) -> tuple[Floats, Floats]:
    """The least and the greatest of the values in each of `columns` columns; the values themselves if they are few."""
    if len(values) <= columns:
        return values, values
    starts = np.arange(columns) * len(values) // columns
    return np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)


def pack(spans: Iterable[Shown]) -> list[list[Shown]]:
    """Distribute spans over lanes such that none overlap, each in the first lane that has room."""
    lanes: list[list[Shown]] = []
    for one in sorted(spans, key=lambda span: span.start):
        lane = next((lane for lane in lanes if lane[-1].stop <= one.start + 1e-9), None)
        if lane is None:
            lanes.append([one])
        else:
            lane.append(one)
    return lanes


def _rows(report: FilmReport) -> list[Row]:
    """All curves of a film, from top to bottom."""
    curves: list[tuple[Curve, dict[str, Any]]] = []
    if report.waveform:
        low, high = report.waveform
        peak = max(float(np.abs([low, high]).max()), 1e-9)
        curves.append((Curve("waveform", high, lower=low, scale=(-peak, peak)), {"kind": "wave"}))
    if report.analysis:
        features = report.analysis.mix.features
        marks = {"onsets": _milliseconds(features.onsets), "beats": _milliseconds(features.beats)}
        onset = Curve("onsets, beats", features.curves["onset"].values, scale=(0, 1))
        curves.append((onset, {"kind": "onset", **marks}))
        stems = report.analysis.stems.items()
        loud = max((float(stem.features.levels.max()) for _, stem in stems), default=0) or 1.0
        curves += [(Curve(f"{name} loudness", stem.features.levels, scale=(0, loud)), {}) for name, stem in stems]
    curves += [(one, {}) for one in report.parameters]
    for picture, values in report.similarity.items():
        if np.isfinite(values).any():
            curves.append((Curve(f"similarity {picture}".strip(), values), {"kind": "line"}))
    return [_row(f"row{number}", *one, report.frames) for number, one in enumerate(curves)]


def _row(key: str, curve: Curve, extra: dict[str, Any], frames: int) -> Row:
    if curve.lower is None:
        low, high = thin(np.pad(curve.values[:frames], (0, max(0, frames - len(curve.values))), constant_values=np.nan))
    else:
        low, high = curve.lower, curve.values
    data = {"kind": "area", **extra, "unit": curve.unit, **_drawn(low, high, curve.scale)}
    about = f"{curve.name}: from {np.nanmin(low):.3g} to {np.nanmax(high):.3g} {curve.unit}".strip()
    return Row(key, curve.name, about, data)


def _drawn(low: Floats, high: Floats, scale: tuple[float, float] | None) -> dict[str, Any]:
    """A line, or a band where `low` is not `high` itself, on a scale; None: from the least to the greatest value."""
    known = np.isfinite(high)
    least, most = scale or ((float(low[known].min()), float(high[known].max())) if known.any() else (0.0, 1.0))
    if most - least < 1e-9:
        least, most = least - 0.5, most + 0.5
    data = {"low": least, "high": most, "top": quantise(high, least, most)}
    return data if low is high else {**data, "bottom": quantise(low, least, most)}


def quantise(values: Floats, low: float, high: float) -> list[int | None]:
    """Values as whole numbers from 0 (`low`) to `LEVELS` (`high`); None for NaN."""
    scaled = np.round(np.clip((values - low) / (high - low), 0, 1) * LEVELS)
    return [None if math.isnan(value) else int(value) for value in scaled.tolist()]


def _milliseconds(times: Floats) -> list[float]:
    return [round(float(time), 3) for time in times]


def _ticks(duration: float) -> list[tuple[float, str]]:
    """Times on the axis, in seconds and as text."""
    step = next((step for step in TICKS if duration / step <= MOST_TICKS), TICKS[-1])
    times = [number * step for number in range(int(LAST_TICK * duration / step) + 1)]
    return [(time, clock(time) if step >= 1 else f"{time:.1f} s") for time in times]


def _section(section: Section) -> dict[str, Any]:
    """A section for the template."""
    labels = section.labels or ()
    level = "silent" if section.level is None else f"{section.level:.1f} dB"
    others = ", ".join(f"{one.text} ({one.cosine:.2f})" for one in labels)
    return {
        "start": section.start, "stop": section.stop, "level": level, "label": labels[0].text if labels else "",
        "labels": others, "guessing": bool(labels) and section.uncertain,
    }  # fmt: skip


def _facts(report: FilmReport) -> list[str]:
    """The film in a few words."""
    width, height = report.size
    facts = [clock(report.duration), f"{width}×{height}", f"{report.fps:g} fps"]
    if report.analysis and (tempo := report.analysis.mix.features.tempo):
        facts.append(f"{tempo:.0f} beats per minute")
    if report.content:
        facts.append(f"seed {report.settings.run.seed}")
    return facts


def _tables(report: FilmReport) -> list[tuple[str, Table, bool]]:
    """The tables at the foot: heading, rows, and whether it is open at first."""
    content = report.content
    if not content:
        return []
    changed, others = _settings(report.settings)
    family = _dict(content.get("family"))
    weights = [(role, str(digest)) for role, digest in _dict(family.get("sha256")).items()]
    about = [("models", f"{family.get('name')}{' (random weights)' if family.get('random') else ''}")]
    about += [("device", str(family.get("device"))), ("w2c-gen", str(_dict(content["w2c-gen"]).get("version")))]
    spent = [(stage, f"{seconds} s") for stage, seconds in _dict(content.get("seconds")).items() if stage != "film"]
    versions = [(name, str(value)) for name, value in _dict(content.get("versions")).items()]
    tables = [
        (
            "Sync and reactivity",
            [*_sync(_dict(content.get("sync"))), *_reactivity(_dict(content.get("reactivity")))],
            True,
        ),
        ("Settings that differ from the defaults", changed, True),
        ("Models", [*about, *((f"{role}, SHA-256", digest) for role, digest in weights)], True),
        ("Time spent", spent, False),
        ("Other settings", others, False),
        ("Versions", versions, False),
    ]
    return [(heading, rows, opened) for heading, rows, opened in tables if rows]


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _settings(settings: Settings) -> tuple[Table, Table]:
    """The settings that differ from the defaults, and the others."""
    changed: Table = []
    others: Table = []
    for key, item in all_settings().items():
        section, _, name = key.partition(".")
        value = getattr(getattr(settings, section), name)
        shown = f"{value:g}" if isinstance(value, float) else readable(str(value)) if value is not None else "none"
        (others if value == item.default else changed).append((key, f"{shown} {item.metadata['unit']}".strip()))
    changed += [("map", _map(one)) for one in settings.maps]
    changed += [("stem", f"{one.name}, weight {one.weight:g}") for one in settings.stems]
    return changed, others


def _map(one: Any) -> str:
    extras = [f"{name}={getattr(one, name):g}" for name in ("offset", "attack", "decay") if getattr(one, name)]
    return ",".join([f"{one.source}:{one.to}={one.scale:g}", *extras])


def _sync(sync: dict[str, Any]) -> Table:
    late, difference = sync.get("offset_seconds"), sync.get("difference_seconds")
    offset = f"{late * 1000:+.1f} ms" if isinstance(late, (int, float)) else "cannot be measured"
    rows = [("sound offset", offset)]
    if isinstance(difference, (int, float)):
        rows.append(("picture longer than sound by", f"{difference * 1000:+.1f} ms"))
    return rows


def _reactivity(measured: dict[str, Any]) -> Table:
    """How well the picture follows the sound, where that was measured."""
    names = {"correlation": "correlation of change and onsets", "alignment": "peaks of change at onsets (AV-Align)"}
    rows, reason = [], measured.get("reason")
    for key, name in names.items():
        found = _dict(measured.get(key))
        value, *chance = (found.get(part) for part in ("value", "chance", "chance_99"))
        if isinstance(value, (int, float)):
            shown = [f"{one:.2f}" for one in chance if isinstance(one, (int, float))]
            by_chance = f", by chance up to {' (95 %), '.join(shown)} (99 %)" if len(shown) == 2 else ""
            rows.append((name, f"{value:.2f}{by_chance}"))
        elif found:
            rows.append((name, f"cannot be measured: {reason}" if reason else "cannot be measured"))
    return rows
