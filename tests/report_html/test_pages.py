"""Pages: complete in themselves, of well-formed HTML, with the numbers of the run, and nothing of outside let through."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

import kpu_jax as kpu
from kpu_jax.analysis import write_csv
from kpu_jax.cli import main
from kpu_jax.report_html import Page
from kpu_jax.report_html.sweep_page import read_rows

VOID = {"meta", "img", "link", "br"}
CHIPS = [{"chip": i, "mapped_for": "edp", "latency_ms": 2.5 / (i + 1), "energy_mj": 0.5 + i / 8, "edp_js": 1e-6, "area_mm2": 30.0 + i,
          "meets": True, "pareto": True, "compute.tile_count": i + 1.0} for i in range(2)]  # fmt: skip


class Checker(HTMLParser):
    """Collects tags, attributes and text, and fails where tags do not match."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes, self.tags, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def check(html):
    """A checked page: balanced, no scripts, no references to outside; pictures parse as SVG."""
    seen = Checker()
    seen.feed(html)
    assert not seen.open and "script" not in seen.tags and "link" not in seen.tags and "iframe" not in seen.tags
    for tag, name, value in seen.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith(("data:image/svg+xml;base64,", "#")), (tag, value[:60])
    assert "@import" not in html and "url(" not in html and not re.search(r"https?://", html)
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    for picture in pictures:
        svg = base64.b64decode(picture).decode()
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        links = re.findall(r'(?:href|src)="([^"]*)"', svg)
        assert all(link.startswith(("#", "data:")) for link in links)
    return " ".join(seen.words), pictures


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("run") / "report.html"
    assert main(["report", "edge_ai", "--matmul", "64x64x64", "--set", "compute.tile_count=2", "--output", str(file)]) == 0
    return file


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A small folder such as `kpu-jax sweep` writes; tests/test_cli.py makes a page of a real one."""
    folder = tmp_path_factory.mktemp("sweep")
    write_csv(CHIPS, folder / "table.csv")
    write_csv([{"layer": "<fc0>", "latency_ms": 1.0, "energy_mj": 0.25}], folder / "layers.csv")
    kpu.save_config(kpu.presets.edge_ai(), folder / "best_chip.yaml")
    return folder


def test_a_run_is_one_complete_page(run_file):
    words, pictures = check(run_file.read_text(encoding="utf-8"))
    assert len(pictures) == 6
    chip, op = kpu.presets.edge_ai().replace({"compute.tile_count": 2}), kpu.Gemm(64, 64, 64)
    report = kpu.simulate(chip, op, kpu.best_mapping(chip, op))
    assert f"{report.cycles:,.0f}" in words and f"{report.energy_pj * 1e-9:,.4g}" in words
    assert f"kpu-jax report edge_ai --matmul 64x64x64 --set compute.tile_count=2 --objective edp --output {run_file}" in words
    assert "compute.processor_array.rows" in words and f"kpu_jax {kpu.__version__}" in words
    assert [p.name for p in run_file.parent.iterdir()] == ["report.html"]


def test_a_sweeps_folder_is_one_complete_page(results, tmp_path):
    file = tmp_path / "sweep.html"
    assert main(["report", str(results), "--output", str(file)]) == 0
    words, pictures = check(file.read_text(encoding="utf-8"))
    assert len(pictures) == 3 and "2 chips timed exactly" in words and "<fc0>" in words
    rows = read_rows(results / "table.csv", ("chip",))
    assert "1.25" in words and rows == CHIPS
    (tmp_path / "layers.csv").write_text("layer,cycles\n1_2,3_4\n", encoding="utf-8")
    assert read_rows(tmp_path / "layers.csv", ("layer",)) == [{"layer": "1_2", "cycles": 34}]  # a name stays a name


def test_text_from_outside_is_escaped():
    evil = "<script>alert(1)</script>&\"'"
    page = Page(evil, evil).section(evil).text(evil).pre(evil, evil).table([{evil: evil, "n": 3.0}]).figure("<svg/>", evil)
    html = page.html()
    words, _ = check(html)
    assert "<script" not in html and words.count("<script>alert(1)</script>") == 11


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("edge_ai", "--matmul or --network"), ("edge_ai --matmul 8x8x8 --output x.pdf", ".html"), (". --network mlp", "folder of results"),
        (".", "table.csv"), ("edge_ai --matmul 8x8x8 --output nowhere/x.html", "nowhere"), ("edge_aj --matmul 8x8x8", "edge_ai"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line(capsys, tmp_path, monkeypatch, line, word):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *line.split()]) == 2
    error = capsys.readouterr().err
    assert word in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ("", "no rows"), ("chip,x\n1,2\n", "no column"), ("chip,latency_ms,energy_mj,edp_js,area_mm2,meets\n1,2\n", "line 2"),
        ("chip,latency_ms,energy_mj,edp_js,area_mm2,meets\n1,fast,2,2,3,True\n", "latency_ms must be"),
        ("chip,latency_ms,energy_mj,area_mm2,meets\n1,1,2,3,True\n", "no column edp_js"),
        ("\0", "table.csv"), (b"\xff\xfe\x00", "no text"),
        ("chip,latency_ms,energy_mj,edp_js,area_mm2,meets\n1,1,2,2,3,False\n", "none of these chips"),
    ],
)  # fmt: skip
def test_a_broken_folder_is_named(results, tmp_path, table, word, capsys):
    shutil.copytree(results, tmp_path / "r")
    (tmp_path / "r" / "table.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    assert main(["report", str(tmp_path / "r"), "--output", str(tmp_path / "x.html")]) == 2
    assert word in capsys.readouterr().err and not (tmp_path / "x.html").exists()


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_shows_it_with_all_pictures(run_file, tmp_path):
    """The page as a browser lays it out: a script that only the test adds counts the pictures that were decoded."""
    probe = "<script>onload = () => document.title = [...document.images].filter(i => i.complete && i.naturalWidth > 100).length</script>"
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", run_file.read_text(encoding="utf-8"))
    page = tmp_path / "page.html"
    page.write_text(html.replace("</head>", f"{probe}</head>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    shown = subprocess.run([BROWSER, *options, page.as_uri()], capture_output=True, text=True, timeout=120).stdout
    assert "<title>6</title>" in shown
