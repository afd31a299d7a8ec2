"""The table of a check, in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

GIB = 2**30


def write_report(found: dict[str, Any], path: Path) -> str:
    """Write what was found, and return it."""
    text = "\n".join([*_head(found), *_checks(found), *_steps(found), *_others(found), *_failures(found), ""])
    path.write_text(text)
    return text


def _head(found: dict[str, Any]) -> list[str]:
    facts = f"{found['date']}, torch {found['torch']}, Python {found['python']}, w2c-gen {found['w2c-gen']}"
    return [f"# {found['device']}", "", facts, ""]


def _checks(found: dict[str, Any]) -> list[str]:
    rows = ["| check | off by | at most | |", "| --- | --- | --- | --- |"]
    for one in found["checks"]:
        verdict = "passed" if one["passed"] else f"FAILED {one['detail']}"
        rows.append(f"| {one['what']} | {one['error']:.2g} | {one['limit']:.2g} | {verdict} |")
    return [*rows, ""]


def _steps(found: dict[str, Any]) -> list[str]:
    rows = [
        "| models | px | cuts | precision | way | ms a step | steps a second | of the recipe | peak memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    recipes = {(one["models"], one["side"]): one["ms"] for one in found["steps"] if one["way"] == "common recipe"}
    for one in found["steps"]:
        recipe = recipes.get((one["models"], one["side"]))
        faster = f"{recipe / one['ms']:.1f} x" if recipe else ""
        memory = f"{one['peak_bytes'] / GIB:.2f} GiB" if one.get("peak_bytes") else ""
        cells = [one["models"], one["side"], one["cuts"], one["precision"], one["way"]]
        cells += [f"{one['ms']:.2f}", f"{one['per_second']:.1f}", faster, memory]
        notes = "; ".join(one.get("notes", ()))
        rows.append(f"| {' | '.join(map(str, cells))} |{' ' + notes if notes else ''}")
    return [*rows, ""]


def _others(found: dict[str, Any]) -> list[str]:
    rows = ["| what | figure |", "| --- | --- |"]
    matmul = found.get("matmul")
    rows += [f"| large matrix product in bfloat16 | {matmul / 1e12:.3g} TFLOP/s |"] if matmul else []
    for one in found["flop"] if matmul else ():
        ways = [step for step in found["steps"] if (step["models"], step["side"]) == (one["models"], one["side"])]
        fastest = min(ways, key=lambda step: float(step["ms"]), default=None)
        if fastest and one["flop"]:
            share = one["flop"] / (fastest["ms"] / 1000) / matmul
            what = f"{one['models']} {one['side']} px, {fastest['precision']}, {fastest['way']}"
            rows.append(f"| share of that in a step: {what} ({one['flop'] / 1e12:.3g} TFLOP) | {share:.0%} |")
    if decode := found.get("decode"):
        rows.append(f"| a shown frame of {decode['side']} px: decoded, moved, on the host | {decode['ms']:.2f} ms |")
    if encoder := found.get("encoder"):
        rows.append(f"| Wav2CLIP (mini) over {encoder['minutes']:g} min of sound | {encoder['seconds']:.1f} s |")
    for name, film in found.get("films", {}).items():
        if film:
            song, first = film["of_song"], film["first_frame_seconds"] or float("nan")
            rows.append(f"| film of {song:.0f} s, {name}, whole command | {film['seconds']:.1f} s |")
            rows.append(f"| the same, per second of song | {film['per_second_of_song']:.2f} s |")
            rows.append(f"| the same, to the first frame | {first:.1f} s |")
            stages = ", ".join(f"{stage} {value:.1f}" for stage, value in film["stages"].items() if stage != "film")
            rows.append(f"| its stages, s | {stages} |")
    return [*rows, ""]


def _failures(found: dict[str, Any]) -> list[str]:
    return [f"FAILED {name}: {error}" for name, error in found["failures"].items()]
