"""The page of a sweep, from the folder that `kpu-jax sweep` wrote."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from kpu_jax.analysis.sweep_analysis import OF_OBJECTIVE, field_advice, field_table
from kpu_jax.base.errors import KPUError, shown
from kpu_jax.base.tables import Row
from kpu_jax.base.text import number_or_text
from kpu_jax.hardware import load_config
from kpu_jax.report_html.page import Page

MOST_BYTES = 64 * 2**20
MOST_ROWS = 500  # of a table in the page: more would not be read


def sweep_page(folder: Path, command: str = "") -> Page:
    """The page of the results in `folder`: table.csv, layers.csv and best_chip.yaml, and, where they are there, answer.txt
    and study.toml. `command` reproduces it.

    Raises `KPUError` naming the file that is missing, cannot be read or holds other things.
    """
    from kpu_jax.visualization import plot_pareto, plot_sweep, svg_of
    from kpu_jax.visualization.sweep_rows import fields_of

    rows = read_rows(folder / "table.csv", ("chip", "latency_ms", "energy_mj", "edp_js", "area_mm2", "meets"))
    layers = read_rows(folder / "layers.csv", ("layer", "latency_ms", "energy_mj"))
    best = load_config(folder / "best_chip.yaml")
    answer, study = (read_text(file) if (file := folder / name).exists() else "" for name in ("answer.txt", "study.toml"))
    kept = [row for row in rows if row["meets"]]
    chips = len({row["chip"] for row in rows})
    lead = f"{chips:,} chips timed exactly; {len(kept):,} of {len(rows):,} mapped chips keep the limits"
    page = Page(f"Sweep: {folder.resolve().name}", lead)
    page.section("Best chips").table([_best(kept, name, column) for name, column in (
        ("latency", "latency_ms"), ("energy", "energy_mj"), ("energy x delay", "edp_js"), ("area", "area_mm2"))])  # fmt: skip
    fields = fields_of(kept)
    objective = _objective(kept)
    decided = field_table(kept, OF_OBJECTIVE[objective], fields)
    if answer:
        page.points([line for line in answer.splitlines() if line.startswith("best ")])
        page.pre(answer, "The question, and the whole answer")
    page.section("What decides").points(field_advice(decided) or ["No field varies by itself among these chips."])
    page.text(f"By how much the best chip with another value is worse in {objective}, among the chips timed exactly:").table(decided)
    page.section("What is possible")
    page.figure(svg_of(plot_pareto(rows)), "Latency against energy of every chip timed exactly; colour: area.")
    if fields:
        page.figure(svg_of(plot_sweep(rows)), "Each line a chip: its fields, and what it takes.")
        for field in fields[:6]:
            slices = svg_of(plot_sweep(rows, kind="slice", field=field))
            page.figure(slices, f"Energy x delay over {field}; the line: the best at each value.")
    page.section("Chips").text(f"The first {min(len(rows), MOST_ROWS):,} of {len(rows):,} rows of table.csv, best first.")
    page.table(rows[:MOST_ROWS])
    page.section("The best chip, operation by operation").table(layers[:MOST_ROWS])
    page.section("Configuration").pre(str(best), "All fields of the best chip").pre(str(best.technology), "All constants of its technology")
    page.section("How to reproduce").text("The folder holds the files that this page was made of: table.csv, layers.csv, best_chip.yaml.")
    if answer and study:
        page.text("They were made by this command, of this study (study.toml in the folder):").pre(f"{answer.splitlines()[0]}\n\n{study}")
    if command:
        page.text("The page itself:").pre(command)
    return page


def read_text(file: Path) -> str:
    """The text of a file of results; `KPUError` if it cannot be read."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text (UTF-8)"
        raise KPUError(f"{file}: cannot be read: {reason}; give a folder that kpu-jax sweep wrote") from None
    if len(data) > MOST_BYTES:
        raise KPUError(f"{file}: larger than {MOST_BYTES} [byte]: that is no result of a sweep")
    return text


def read_rows(file: Path, wanted: tuple[str, ...]) -> list[Row]:
    """The rows of a CSV table with numbers and true/false as such; `KPUError` naming the file, line or column that is wrong."""
    text = read_text(file)
    try:
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise KPUError(f"{file}: is no CSV table: {error}") from None
    if not rows:
        raise KPUError(f"{file}: has no rows")
    if missing := [name for name in wanted if name not in rows[0]]:
        raise KPUError(f"{file}: has no column {', '.join(missing)}: that is no table that kpu-jax sweep wrote")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise KPUError(f"{file}, line {number}: has another number of columns than the header")
    table = [{name: value if name == "layer" else _value(value) for name, value in row.items()} for row in rows]
    for number, row in enumerate(table, 2):
        for name in wanted:
            if name not in ("layer", "meets") and not isinstance(row[name], (int, float)):
                raise KPUError(f"{file}, line {number}: {name} must be a number, got {shown(row[name])}")
    return table


def _value(text: str) -> Any:
    return text == "True" if text in ("True", "False") else number_or_text(text)


def _objective(kept: list[Row]) -> str:
    """What the sweep minimised: its table begins with the best row."""
    least = {name: min(row.get(column, float("inf")) for row in kept) for name, column in OF_OBJECTIVE.items()}
    return next((name for name in ("edp", "latency", "energy") if kept[0].get(OF_OBJECTIVE[name]) == least[name]), "edp")


def _best(rows: list[Row], name: str, column: str) -> Row:
    if not rows:
        raise KPUError("none of these chips keeps the limits: there is no best one to report")
    row = min(rows, key=lambda row: row.get(column, float("inf")))
    return {"least": name, **{key: value for key, value in row.items() if key not in ("meets",)}}
