"""Studies: a space with a workload, an objective and limits, from one TOML file."""

from pathlib import Path

import pytest

from kpu_jax.base.errors import KPUError
from kpu_jax.explore.study import load_study

AXIS = '\n[[axis]]\nfields = "compute.tile_count"\nvalues = [1, 2]\n'


def write(folder: Path, text: str) -> Path:
    file = folder / "study.toml"
    file.write_text(text + AXIS)
    return file


def test_a_study_holds_all_that_its_file_says(tmp_path):
    text = 'workload = ["mlp", {network = "bert_base", sequence = 32}]\nobjective = "energy"\n[constraints]\narea_mm2 = 20'
    study = load_study(write(tmp_path, text))
    assert (len(study.space), study.names, study.objective) == (2, ("mlp", "bert_base"), "energy")
    assert study.constraints == {"area_mm2": 20} and study.workload.names[0] == "fc0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "`workload` is missing"),
        ("workload = []", "`workload` is missing"),
        ("workload = 5", "workload entry 5 must be a network's name"),
        ('workload = ["resnet"]', "network = 'resnet' is unknown: did you mean 'resnet50'"),
        ('workload = [{network = "bert_base", name = "x"}]', "workload: network 'bert_base' has no argument 'name'"),
        ('workload = [{network = "mlp", dtype = [1]}]', "dtype = .* is not a number format"),
        ('workload = [{network = "mlp", batch = ' + "9" * 400 + "}]", "mlp.batch .*about 40[01] digits"),
        ('workload = "mlp"\nobjective = "speed"', "objective = 'speed' is unknown"),
        ('workload = "mlp"\nobjective = ["edp"]', "objective = .* is unknown"),
        ('workload = "mlp"\nconstraints = 5', "constraints = 5 must be a table"),
        ('workload = "mlp"\n[constraints]\narea = 5', "constraints: 'area' is unknown: did you mean 'area_mm2'"),
        ('workload = "mlp"\n[constraints]\narea_mm2 = "20"', r"constraints\.area_mm2 must be .*\[mm\^2\], got '20'"),
        ('workload = "mlp"\noutput = "x.csv"', "unknown entry 'output'"),
    ],
)
def test_errors_name_the_file_and_the_entry(tmp_path, text, message):
    file = write(tmp_path, text)
    with pytest.raises(KPUError, match=message) as caught:
        load_study(file)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize("file", sorted(Path(__file__).parents[2].glob("experiments/*/*.toml")), ids=lambda p: p.name)
def test_the_studies_of_this_repository_load(file):
    assert len(load_study(file).space) > 100_000
