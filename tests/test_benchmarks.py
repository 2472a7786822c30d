"""The benchmark runs, its files hold what the report reads, and the README shows those files."""

import json
import math

import pytest
import torch

from benchmarks import measure, report, run
from benchmarks.accuracy import Exact
from benchmarks.cases import Case
from benchmarks.peers import EAGER, PEERS, not_run
from kdlab import reference


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    threads = torch.get_num_threads()
    options = ["--quick", "--device", "cpu", "--threads", "1", "--out", str(out)]
    status = run.main([*options, "--peers", "eager", "eager fp32", "kdlab"])
    torch.set_num_threads(threads)
    assert status == 0
    (path,) = out.glob("*.json")
    return json.loads(path.read_text())


def test_a_record_says_where_when_and_with_what(record):
    assert record["device"]["type"] == "cpu" and record["device"]["threads"] == 1
    assert record["versions"]["torch"] == torch.__version__
    assert {"date", "settings", "load", "commit", "left_out"} <= record.keys()
    assert len(record["load"]["after"]) == 3
    assert not record["left_out"]


def test_every_case_has_every_measure(record):
    for case in record["cases"]:
        assert case["not_run"]["liger"].startswith("not run: ")
        assert {"eager", "kdlab"} <= case["error"]["near"].keys()
        for mode in run.MODES:
            found = case["modes"][mode]
            assert found["copy"]["bytes_per_second"] > 0
            for peer in found["peers"].values():
                assert 0 < peer["seconds"]["min"] <= peer["seconds"]["median"]
                assert peer["seconds"]["q1"] <= peer["seconds"]["median"] <= peer["seconds"]["q3"]
                for number in ("bytes_per_element", "share_of_copy"):
                    assert math.isfinite(peer[number]) and peer[number] > 0
            assert found["peers"]["eager"]["ratio_to_eager"]["median"] == 1


def test_the_floor_counts_each_byte_once():
    case = Case("kl", "bf16", 4, 10)
    assert case.floor_bytes("forward") == 4 * 10 * 2 * 2
    assert case.floor_bytes("full") == 4 * 10 * 2 * 3


def test_inputs_outgrow_the_cache(monkeypatch):
    monkeypatch.setattr(measure, "cache_bytes", lambda _: 10_000)
    inputs = measure.Inputs(Case("kl", "fp32", 2, 100), torch.device("cpu"))
    assert inputs.count * 2 * 200 * 4 >= 20_000
    assert all(s.requires_grad for s in inputs.student)
    assert not torch.equal(inputs.student[0], inputs.student[1])


@pytest.mark.parametrize("divergence", EAGER)
def test_peers_compute_the_definition(divergence):
    if not hasattr(reference, divergence):
        pytest.skip("no reference formula yet")
    student, teacher = torch.randn(6, 50, requires_grad=True), torch.randn(6, 50)
    exact = Exact(Case(divergence, "fp32", 6, 50), student, teacher)
    for name in ("eager", "eager fp32", "kdlab"):
        error = exact.error(PEERS[name](divergence))
        assert error["loss"] < 1e-5 and error["gradient"] < 1e-5, (name, error)


def test_a_wrong_gradient_shows():
    student, teacher = torch.randn(6, 50, requires_grad=True), torch.randn(6, 50)
    exact = Exact(Case("kl", "fp32", 6, 50), student, teacher)
    assert exact.error(lambda s, t: 1.1 * EAGER["kl"](s, t))["gradient"] == pytest.approx(0.1)


def test_peak_memory_sees_an_allocation_of_any_kind():
    seen = measure.peak_extra_bytes(lambda: bytearray(b"x" * 30_000_000), torch.device("cpu"))
    if seen is None:
        pytest.skip("this system does not let a process reset its peak")
    assert 30e6 <= seen < 70e6


def test_liger_says_why_it_did_not_run():
    assert not_run("liger", "kl", "bf16", "cpu") == "not run: needs a GPU"
    assert not_run("liger", "mse", "bf16", "cuda") == "not run: Liger has no such loss"


def test_readme_shows_what_the_files_say():
    page = report.README.read_text()
    runs = report.newest()
    assert report.between_markers(page, report.markdown(runs)) == page, "run make bench-report"
    for stem, _ in runs:
        assert (report.RESULTS / f"{stem}.svg").exists(), "run make bench-report"
    if not any(record["device"]["type"] == "cuda" for _, record in runs):
        assert report.NO_GPU in page


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="markers"):
        report.between_markers("# kdlab", "text")


def test_the_report_reads_a_record(record, tmp_path):
    pytest.importorskip("matplotlib")
    text = report.markdown([("a-run", record)])
    assert "kl fp32 16 × 512" in text and "needs a GPU" in text and report.NO_GPU in text
    first = report.draw("a-run", record, tmp_path).read_bytes()
    assert report.draw("a-run", record, tmp_path).read_bytes() == first
