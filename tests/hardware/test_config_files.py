"""Configuration files: exact round trips, and one clear error for every way a file can be wrong."""

from __future__ import annotations

import json
import os

import jax
import numpy as np
import pytest
import yaml
from hardware_tables import FABRIC_MHZ, L1_BUFFERS, PUBLISHED, put

from kpu_jax.base.errors import KPUError
from kpu_jax.base.pytree import leaf_paths, replace_path
from kpu_jax.hardware import config_from_dict, config_to_dict, derived, load_config, preset, presets, save_config

SUFFIXES = (".yaml", ".yml", ".json")


def same_bits(a, b):
    return all(
        p == q and np.float64(x).tobytes() == np.float64(y).tobytes()
        for (p, x), (q, y) in zip(leaf_paths(a), leaf_paths(b), strict=True)
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_load(tmp_path, published, name, suffix):
    file = tmp_path / f"chip{suffix}"
    write = json.dumps if suffix == ".json" else yaml.safe_dump
    file.write_text(write(published[name]))
    cfg = load_config(file)
    assert cfg == config_from_dict(published[name])
    assert derived.l1_buffer_count(cfg) == L1_BUFFERS[name]
    assert cfg.clocks.fabric_mhz == 1000 and FABRIC_MHZ[name] == preset(name).clocks.fabric_mhz


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", presets.PRESET_NAMES)
def test_round_trip_is_bit_exact(tmp_path, name, suffix):
    file = tmp_path / f"chip{suffix}"
    save_config(preset(name), file, name=name, description="a chip: with a colon, and é")
    assert same_bits(load_config(file), preset(name))
    assert load_config(str(file)) == preset(name)
    assert sorted(p.name for p in tmp_path.iterdir()) == [file.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_of_awkward_numbers_and_every_optional_field(tmp_path, suffix):
    cfg = presets.edge_ai().replace(
        {
            "technology.mac_int8_pj": 1e-5,
            "technology.dram_read_pj_per_byte": 1 / 3,
            "technology.host_pj_per_byte": 0,
            "clocks.fabric_mhz": np.nextafter(1000.0, 2000.0),
            "external_memory.bank_capacity_mb": 1e-6,
            "memory_controller.bandwidth_gbps": 0.1 + 0.2,
            "on_chip_memory.l1.buffer_count": 100,
            "address_map.l2_bank_base": 2**53 - 2**40,
            "compute.fold_overlap": False,
            "compute.drain_overlap": False,
            "latency.external_ns": 0,
        }
    )
    save_config(cfg, tmp_path / f"chip{suffix}")
    assert same_bits(load_config(tmp_path / f"chip{suffix}"), cfg)


def test_saved_file_is_readable_and_states_what_is_fixed(tmp_path):
    save_config(presets.edge_ai(), tmp_path / "chip.yaml", name="edge")
    saved = yaml.safe_load((tmp_path / "chip.yaml").read_text())
    assert saved["name"] == "edge" and saved["compute"]["systolic_mode"] is True
    assert saved["compute"]["processor_array"] == {"rows": 16, "cols": 16, "topology": "rectangular"}
    assert "address_map" not in saved and "buffer_count" not in saved["on_chip_memory"]["l1"]
    assert saved == {"name": "edge", **config_to_dict(presets.edge_ai())}


def text_of(published):
    return yaml.safe_dump(published, sort_keys=False)


def test_numbers_with_an_exponent_and_hex_addresses_are_read(tmp_path, edge):
    file = tmp_path / "chip.yaml"
    file.write_text(text_of(edge) + "clocks: {fabric_mhz: 1e3, dma_mhz: 1.5E2}\naddress_map: {l2_bank_base: 0x1000}\n")
    cfg = load_config(file)
    assert (cfg.clocks.fabric_mhz, cfg.clocks.dma_mhz, cfg.address_map.l2_bank_base) == (1000, 150, 4096)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("chip.toml", b"a: 1", r"chip\.toml: a configuration file ends in \.yaml, \.yml, \.json, got '\.toml'"),
        ("chip", b"a: 1", "ends in .yaml"),
        ("chip.yaml", b"", r"chip\.yaml: the file is empty"),
        ("chip.yaml", b"# only a comment\n", r"chip\.yaml: .*holds nothing"),
        ("chip.json", b" \n", r"chip\.json: the file is empty"),
        ("chip.yaml", b"- 1\n- 2\n", r"chip\.yaml: .*holds a list"),
        ("chip.json", b"3", r"chip\.json: .*holds a int"),
        ("chip.yaml", b"a: {b: 1\n", r"chip\.yaml, line 2: not valid YAML"),
        ("chip.yaml", b"a: 1\n b: 2\n", r"chip\.yaml, line 2: not valid YAML"),
        ("chip.yaml", b"a: 1\n---\nb: 2\n", r"chip\.yaml, line 2: not valid YAML.*another document"),
        ("chip.yaml", b"a: !!python/object:os.system {}\n", r"chip\.yaml, line 1: tags are not supported"),
        ("chip.yaml", b"clocks:\n  dma_mhz: !!bool foo\n", r"chip\.yaml, line 2: tags are .*: write the value without !!bool"),
        ("chip.yaml", b"name: !!timestamp foo\n", r"chip\.yaml, line 1: tags are not supported"),
        ("chip.yaml", b"name: !!int ''\n", r"chip\.yaml, line 1: tags are not supported"),
        ("chip.yaml", b"name: ! x\n", r"chip\.yaml, line 1: tags are not supported"),
        ("chip.yaml", b"name: x\nclocks: &a\n  dma_mhz: 1\n", r"line 2: anchors and aliases .*: write the value out"),
        ("chip.yaml", b"clocks: {<<: {dma_mhz: 1}}\n", r"line 1: merge keys \(<<\) are not supported"),
        ("chip.yaml", b"a: " + b"[" * 9, r"chip\.yaml, line 1: sections are nested too deeply"),
        ("chip.yaml", b"a: " + b"9" * 5000, r"chip\.yaml: holds an integer of 5000 digits"),
        ("chip.json", b'{"a": ' + b"9" * 5000 + b"}", r"chip\.json: holds an integer of 5000 digits"),
        ("chip.yaml", b"#" * 2**18 + b"\n", r"chip\.yaml: larger than 262144 \[byte\]"),
        ("chip.json", b'{"host_memory": {"region_count": 1,\n', r"chip\.json, line 2: not valid JSON"),
        ("chip.yaml", bytes(range(256)), r"chip\.yaml: not a text file"),
        ("chip.yaml", b"\x00\x01\x02", r"chip\.yaml: not a text file"),
        ("chip.json", b"\xff\xfe\x00", r"chip\.json: not a text file"),
        ("chip.json", b"[" * 200_000, r"chip\.json: sections are nested too deeply"),
        ("chip.yaml", b"clocks: {fabric_mhz: 1}\nbuses: {}\nclocks: {}\n", r"line 3: clocks is given twice.*line 1"),
        ("chip.yaml", b"clocks:\n  dma_mhz: 1\n  dma_mhz: 2\n", r"line 3: clocks\.dma_mhz is given twice.*line 2"),
        ("chip.json", b'{"clocks": {"dma_mhz": 1, "dma_mhz": 2}}', r"chip\.json: dma_mhz is given twice"),
        ("chip.yaml", b"? [a]\n: 1\n", r"chip\.yaml, line 1: a field's name must be a word"),
        ("chip.yaml", b"host_memory:\n  region_count: 1\n", r"chip\.yaml, line 1: missing .*capacity_mb \[MB\]"),
    ],
)  # fmt: skip
def test_files_that_are_no_configuration(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(KPUError, match=message) as caught:
        load_config(file)
    assert str(file) in str(caught.value)


def test_aliases_cannot_make_a_short_file_endless(tmp_path):
    """Nine levels of nine aliases are a billion values."""
    file = tmp_path / "chip.yaml"
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    file.write_text("\n".join(["a0: &a0 [x]", *levels, "compute: *a8"]))
    with pytest.raises(KPUError, match=r"chip\.yaml, line 1: anchors and aliases"):
        load_config(file)


@pytest.mark.parametrize("text", ["1:30", "010", "0o17", "2024-01-01", "1_0:30.5"])
def test_numbers_of_yaml_1_1_are_text(tmp_path, edge, text):
    """1:30 was 90 once, and 010 was 8."""
    file = tmp_path / "chip.yaml"
    file.write_text(text_of(edge) + f"clocks: {{dma_mhz: {text}}}\n")
    with pytest.raises(KPUError, match=rf"clocks\.dma_mhz must be a number .*got '{text}'"):
        load_config(file)


@pytest.mark.parametrize("path", [None, 5, b"chip.yaml", ["chip.yaml"], "a\0b.yaml"])
def test_what_names_no_file(path):
    for call in (load_config, lambda p: save_config(presets.minimal(), p)):
        with pytest.raises(KPUError, match=r"a file is named by text|NUL"):
            call(path)


@pytest.mark.parametrize("cfg", [None, {}, "edge_ai", 5, presets.edge_ai().compute])
def test_only_a_configuration_is_saved(tmp_path, cfg):
    with pytest.raises(KPUError, match=r"chip\.yaml: cannot save: the chip must be a KPUConfig, got"):
        save_config(cfg, tmp_path / "chip.yaml")
    assert list(tmp_path.iterdir()) == []


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(KPUError, match=r"none\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(KPUError, match=r"folder\.yaml: cannot be read"):
        load_config(tmp_path / "folder.yaml")


def test_field_errors_name_file_line_and_path(tmp_path, edge):
    file = tmp_path / "chip.yaml"
    text = text_of(edge)
    file.write_text(text.replace("bandwidth_gbps: 100", "bandwidth_gbps: '100'"))
    line = text.splitlines().index("  bandwidth_gbps: 100") + 1
    with pytest.raises(
        KPUError, match=rf"chip\.yaml, line {line}: external_memory\.bandwidth_gbps .*remove the quotes"
    ):
        load_config(file)
    json_file = tmp_path / "chip.json"
    json_file.write_text(json.dumps(put(edge, "clocks.fabric_mhz", float("nan"))))
    with pytest.raises(KPUError, match=r"chip\.json: clocks\.fabric_mhz .*got nan"):
        load_config(json_file)


def test_saving_is_atomic(tmp_path, monkeypatch):
    file = tmp_path / "chip.yaml"
    save_config(presets.minimal(), file)
    before = file.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KPUError, match=r"chip\.yaml: cannot be written: No space left"):
        save_config(presets.edge_ai(), file)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_saving_refuses_what_could_not_be_loaded(tmp_path):
    cfg, file = presets.edge_ai(), tmp_path / "chip.yaml"
    stacked = jax.tree.map(lambda *x: np.stack(x), cfg, presets.minimal())
    with pytest.raises(KPUError, match=r"cannot save: host_memory\.region_count is stacked, of shape \(2,\)"):
        save_config(stacked, file)
    with pytest.raises(KPUError, match=r"cannot save: host_memory\.region_count is traced"):
        jax.jit(lambda c: save_config(c, file))(cfg)
    drifted = replace_path(cfg, "data_movement.streamer_count", jax.numpy.float32(3.5))
    with pytest.raises(KPUError, match=r"data_movement\.streamer_count .*fraction 3\.5"):
        save_config(drifted, file)
    with pytest.raises(KPUError, match=r"ends in \.yaml"):
        save_config(cfg, tmp_path / "chip.txt")
    with pytest.raises(KPUError, match="cannot be written: No such file"):
        save_config(cfg, tmp_path / "none" / "chip.yaml")
    with pytest.raises(KPUError, match="name must be text"):
        save_config(cfg, file, name=3)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
