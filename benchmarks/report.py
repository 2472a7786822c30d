"""The README's table and the plots, from `results/*.json` alone: `make bench-report`.

The newest file of each device counts. Nothing here measures or rounds up: a cell is a number from a
file, or the file's reason why there is none.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.run import RESULTS

README = RESULTS.parent.parent / "README.md"
BEGIN = "<!-- benchmarks: begin (make bench-report writes this) -->"
END = "<!-- benchmarks: end -->"
SHOWN = ("eager", "torch.compile", "liger", "kdlab")
COLUMNS = ("eager", "eager fp32", "torch.compile", "liger", "kdlab")
NO_GPU = (
    "**GPU: not measured yet.** `make bench` on a machine with a CUDA GPU measures it and writes "
    "the file."
)


def newest(folder: Path = RESULTS) -> list[tuple[str, dict[str, Any]]]:
    """(file name without suffix, record) of the newest run of each device, GPUs first."""
    found: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith(("tiles-", "counters-")):
            continue  # what `benchmarks.tune` and a profiler found is for developers
        record = json.loads(path.read_text())
        if record["settings"]["quick"]:
            continue
        device = record["device"]["type"], record["device"]["name"]
        if device not in found or record["date"] >= found[device][1]["date"]:
            found[device] = path.stem, record
    return [found[key] for key in sorted(found, key=lambda k: (k[0] != "cuda", k[1]))]


def markdown(runs: list[tuple[str, dict[str, Any]]]) -> str:
    """What stands between the README's markers."""
    parts = [section(stem, record) for stem, record in runs]
    if not any(record["device"]["type"] == "cuda" for _, record in runs):
        parts.append(NO_GPU)
    return "\n\n".join(parts)


def section(stem: str, record: dict[str, Any]) -> str:
    device, versions = record["device"], record["versions"]
    threads = f", {device['threads']} threads" if "threads" in device else ""
    used = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "triton", "liger-kernel") if versions[name]
    )
    load = record["load"].get("after")
    busy = f"; load average {load[0]} at the end" if device["type"] == "cpu" and load else ""
    lines = [
        f"**{device['name']}{threads}**, {record['date'][:10]}, {used}{busy}. "
        f"Every number: [{stem}.json](benchmarks/results/{stem}.json).",
        "",
        "| loss + gradient | eager | eager, cast to float32 | torch.compile | Liger | kdlab "
        "| kdlab ÷ eager | kdlab ÷ torch.compile | of a copy's speed | extra memory "
        "| gradient error |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(row(case) for case in record["cases"]),
        "",
        f"![Time, memory and error beside the peers](benchmarks/results/{stem}.svg)",
    ]
    if record["left_out"]:
        lines += ["", "Left out: " + "; ".join(record["left_out"]) + "."]
    return "\n".join(lines)


def label(case: dict[str, Any]) -> str:
    return f"{case['divergence']} {case['dtype']} {case['rows']} × {case['classes']}"


def row(case: dict[str, Any]) -> str:
    peers = case["modes"]["full"]["peers"]

    def seconds(name: str) -> str:
        if name not in peers:
            if name == "eager fp32":  # what eager is already
                return "–"
            return case["not_run"].get(name, "not run").removeprefix("not run: ")
        s = peers[name]["seconds"]
        return f"{_ms(s['median'])} ({_ms(s['q1'])} to {_ms(s['q3'])}) ms"

    def ratio(other: str) -> str:
        if "kdlab" not in peers or other not in peers:
            return "–"
        return f"{peers['kdlab']['seconds']['median'] / peers[other]['seconds']['median']:.2f}"

    def each(value) -> str:
        return " / ".join(value(name) if name in peers else "–" for name in COLUMNS)

    def memory(name: str) -> str:
        peak = peers[name]["peak_extra_bytes"]
        return "–" if peak is None else f"{peak / 1e6:.0f}"

    def error(name: str) -> str:
        found = case["error"]["near"].get(name, {})
        return f"{found['gradient']:.0e}" if "gradient" in found else "–"

    share = f"{peers['kdlab']['share_of_copy']:.0%}" if "kdlab" in peers else "–"
    cells = [label(case), *(seconds(name) for name in COLUMNS), ratio("eager")]
    cells += [ratio("torch.compile"), share, f"{each(memory)} MB", each(error)]
    return "| " + " | ".join(cells) + " |"


def _ms(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"


def draw(stem: str, record: dict[str, Any], folder: Path) -> Path:
    """Time against eager, peak memory and gradient error of every case, as one figure."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "kdlab"  # the same file again from the same numbers
    import matplotlib.pyplot as plt

    from kdlab import plots

    plots.use_style()
    colours = dict(zip(SHOWN, (plots.GREY, plots.TEACHER, plots.LABELS, plots.LOSS), strict=True))
    hatches = dict(zip(SHOWN, ("", "//", "..", ""), strict=True))
    markers = dict(zip(SHOWN, "s^vo", strict=True))
    cases = record["cases"]
    figure, axes = plt.subplots(1, 4, figsize=(14, 1.2 + 0.62 * len(cases)), sharey=True)
    panels = {
        "loss alone: time ÷ eager's": lambda c, n: _ratio(c, "forward", n),
        "loss and gradient: time ÷ eager's": lambda c, n: _ratio(c, "full", n),
        "peak extra memory ÷ one gradient": _memory,
        "gradient's relative error, near the teacher": _error,
    }
    shown = [name for name in SHOWN if any(_ratio(c, "full", name) is not None for c in cases)]
    step = 0.8 / len(shown)
    for ax, (title, value) in zip(axes, panels.items(), strict=True):
        for i, name in enumerate(shown):
            points = [
                (k + step * (i - (len(shown) - 1) / 2), value(case, name))
                for k, case in enumerate(cases)
            ]
            there = [(y, x) for y, x in points if x is not None]
            if not there:
                continue
            y, x = zip(*there, strict=True)
            if ax is axes[3]:  # a bar has no length on a log axis
                ax.plot(x, y, markers[name], color=colours[name], label=name)
            else:
                style = {"color": colours[name], "hatch": hatches[name], "edgecolor": "white"}
                ax.barh(y, x, height=0.95 * step, label=name, linewidth=0.4, **style)
        ax.set_xlabel(title)
    axes[3].set_xscale("log")
    axes[0].set_yticks(range(len(cases)), [label(case) for case in cases])
    axes[0].invert_yaxis()
    for ax in axes[:2]:
        ax.axvline(1, color=plots.GREY, linewidth=0.8)
    handles, names = axes[1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=len(names))
    figure.suptitle(f"{record['device']['name']}, {record['date'][:10]}", x=0.02, ha="left")
    path = folder / f"{stem}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


def _ratio(case: dict[str, Any], mode: str, name: str) -> float | None:
    peers = case["modes"][mode]["peers"]
    return peers[name]["ratio_to_eager"]["median"] if name in peers and "eager" in peers else None


def _memory(case: dict[str, Any], name: str) -> float | None:
    peak = case["modes"]["full"]["peers"].get(name, {}).get("peak_extra_bytes")
    size = Case(case["divergence"], case["dtype"], case["rows"], case["classes"])
    return None if peak is None else peak / (size.elements * size.bytes_per_value)


def _error(case: dict[str, Any], name: str) -> float | None:
    return case["error"]["near"].get(name, {}).get("gradient")


def between_markers(page: str, text: str) -> str:
    """`page` with `text` between the markers; ValueError if it has none."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"README: expected the markers {BEGIN!r} and {END!r}")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", page)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.parse_args(arguments)
    runs = newest()
    for stem, record in runs:
        print("drew", draw(stem, record, RESULTS))
    README.write_text(between_markers(README.read_text(), markdown(runs)))
    print("wrote", README)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
