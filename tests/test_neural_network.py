"""The study of a network in narrow formats, at its quick size."""

from experiments import neural_network


def test_tuning_through_the_machine_wins_accuracy_back(capsys):
    fp32, int8, int4 = neural_network.main(["--quick"])
    assert fp32.accuracy > 0.93 and abs(int8.accuracy - fp32.accuracy) < 0.015
    assert int4.accuracy < fp32.accuracy - 0.01 and int4.tuned > int4.accuracy + 0.01
    assert int4.energy_uj < int8.energy_uj < 0.7 * fp32.energy_uj and int8.cycles < fp32.cycles
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[1].split()[0] == "fp32"
