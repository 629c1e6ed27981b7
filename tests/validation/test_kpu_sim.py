"""kpu-sim's results and traces, reproduced by our executor; wrong files give one clear error."""

from __future__ import annotations

import csv

import pytest

from experiments.validation import kpu_sim, tables
from experiments.validation.kpu_sim_program import Setting, instruction_count, lines, program_of

TABLE = tables.DATA / "kpu_sim_executor.csv"
TRACES = sorted(tables.DATA.glob("trace_*.csv"))


def rows_of(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def with_cell(text, column, value):
    """The text of a table with another cell in its first row."""
    rows = [line.split(",") for line in text.split("\n")]
    rows[1][rows[0].index(column)] = value
    return "\n".join(",".join(row) for row in rows)


def write(path, rows, columns=None):
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns or list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.mark.parametrize("most", [2_000, pytest.param(10**9, marks=pytest.mark.long)])
def test_results_are_those_of_kpu_sim(tmp_path, capsys, most):
    rows = [row for row in rows_of(TABLE) if int(row["n_instr"]) <= most]
    assert len(rows) > 200
    assert kpu_sim.main(["--csv", write(tmp_path / "part.csv", rows)]) == 0
    assert capsys.readouterr().out == f"rows {len(rows)} mismatches 0\n"


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_traces_are_those_of_kpu_sim(path, capsys):
    assert kpu_sim.main(["--trace", str(path)]) == 0
    assert "mismatches 0" in capsys.readouterr().out
    wrong = "--cache" if path.stem.endswith("nocache") else "--no-cache"
    assert kpu_sim.main(["--trace", str(path), wrong]) == 1


def test_sizes_of_a_trace_may_come_from_an_option(tmp_path, capsys):
    path = tmp_path / "mine.csv"
    path.write_bytes(TRACES[0].read_bytes())
    assert kpu_sim.main(["--trace", str(path)]) == 2
    assert "--dims" in capsys.readouterr().err
    assert kpu_sim.main(["--trace", str(path), "--dims", "32,32,32,16,16,16,16"]) == 0


def by_hand(s: Setting) -> int:
    """Makespan of a setting by a scheduler of a dozen lines: (class, engine) -> when it is free."""
    _, hold = program_of(s)
    free: dict = {}
    barrier = start = 0
    for line, cycles in zip(lines(s), hold.tolist(), strict=True):
        if line.engine == 5:
            barrier = max([barrier, *free.values()])
            continue
        key = line.engine, line.queue
        earliest = start if line.engine == 4 else barrier
        start = max(earliest, free.get(key, 0))
        free[key] = start + cycles
    return max(free.values())


@pytest.mark.parametrize(
    "s",
    [
        Setting(1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1),
        Setting(40, 50, 33, 16, 8, 9, 7, 2, 1, 1, 3, 2, 16, 8, 4),
        Setting(40, 50, 33, 7, 60, 5, 16, 8, 0, 7, 5, 11, 64, 64, 32),
        Setting(33, 65, 17, 16, 16, 16, 4, 4, 1, 12, 9, 9, 64, 16, 64),
    ],
)
def test_any_number_of_engines_and_any_tile(s):
    result = kpu_sim.results(s)
    assert result["makespan_cycles"] == by_hand(s)
    assert result["n_instr"] <= instruction_count(s)


def test_a_wrong_number_is_a_mismatch(tmp_path, capsys):
    rows = rows_of(TABLE)[:5]
    rows[2]["makespan_cycles"] = str(int(rows[2]["makespan_cycles"]) + 1)
    rows[4]["bm_busy"] = "0"
    assert kpu_sim.main(["--csv", write(tmp_path / "wrong.csv", rows)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("rows 5 mismatches 2\n") and "line 4: makespan_cycles" in out and "line 6: bm_busy" in out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "", "empty"),
        (lambda text: text.replace("makespan_cycles", "cycles"), "lacks the columns makespan_cycles"),
        (lambda text: text.replace("16,16,16,128", "16,x,16,128", 1), "N = 'x': not a number"),
        (lambda text: text.replace("16,16,16,128", "16,0,16,128", 1), "at least 1"),
        (lambda text: text.replace("16,16,16,128", "16,nan,16,128", 1), "must be an integer"),
        (lambda text: text.replace("16,16,16,128", "16,16,128", 1), "has 22 cells"),
        (lambda text: text.replace(",elem_size", ",K", 1), "the column K stands there twice"),
        (lambda text: with_cell(text, "channels", "1000000000"), "channels = '1000000000': must be an integer"),
        (lambda text: with_cell(text, "M", "1e15"), "M = '1e15': must be an integer"),
        (lambda text: with_cell(text, "tile_caching", "2"), "tile_caching = '2': must be 0, 1, true or false"),
        (lambda text: text.replace("16,16,16,128,64,32", "99999,99999,99999,1,1,1", 1), "more than 4,000,000"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, capsys, change, words):
    path = tmp_path / "wrong.csv"
    path.write_text(change("\n".join(TABLE.read_text().splitlines()[:3])))
    assert kpu_sim.main(["--csv", str(path)]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and str(path) in err


def test_a_missing_file_and_an_empty_table(tmp_path, capsys):
    assert kpu_sim.main(["--csv", str(tmp_path / "none.csv")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert kpu_sim.main(["--csv", write(tmp_path / "header.csv", [], list(rows_of(TABLE)[0]))]) == 0
    captured = capsys.readouterr()
    assert captured.out == "rows 0 mismatches 0\n" and captured.err.startswith("note: ") and captured.err.count("\n") == 1


def test_caching_may_be_said_in_words(tmp_path, capsys):
    rows = rows_of(TABLE)[:20]
    for row in rows:
        row["tile_caching"] = {"0": "False", "1": "true"}[row["tile_caching"]]
    assert kpu_sim.main(["--csv", write(tmp_path / "words.csv", rows)]) == 0
    assert capsys.readouterr().out == "rows 20 mismatches 0\n"


@pytest.mark.parametrize("dims", ["1000000,1000000,1000000,1,1,1,16", "1,1,1,1,1,1,99999999", "1048576,1,1048576,1048576,1,1048576,1"])
def test_sizes_beyond_what_can_be_run(dims, capsys):
    assert kpu_sim.main(["--trace", str(TRACES[0]), "--dims", dims]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: --dims {dims}") and err.count("\n") == 1


def test_every_row_of_the_table_is_within_the_limits():
    assert len(list(kpu_sim.settings_in(str(TABLE)))) == len(rows_of(TABLE))
