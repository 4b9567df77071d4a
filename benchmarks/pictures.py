"""The pictures: SVG, drawn by matplotlib, the same bytes for the same figures."""

from pathlib import Path
from typing import Any

from benchmarks.results import Chart, Lines

_OURS, _OTHERS, _GRID = "#0b6e4f", "#8da2b5", "#d9dee3"


def draw(picture: Chart | Lines, directory: Path) -> Path:
    """Write one picture as ``<file>.svg``; give where it is."""
    import matplotlib as mpl  # noqa: PLC0415 - only a recorded run draws

    mpl.use("svg")
    # Text stays text, and ids depend on nothing but the picture.
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": picture.file, "font.family": "sans-serif", "font.size": 9}
    import matplotlib.pyplot as plt  # noqa: PLC0415 - after `use`

    figure, axes = plt.subplots(figsize=_size(picture), layout="constrained")
    axes.set_title(picture.title, loc="left", fontsize=10)
    axes.set_axisbelow(True)
    axes.grid(color=_GRID, axis="x" if isinstance(picture, Chart) else "both")
    axes.spines[["top", "right"]].set_visible(False)
    if isinstance(picture, Chart):
        _bars(axes, picture)
    else:
        _lines(axes, picture)
    path = directory / f"{picture.file}.svg"
    figure.savefig(path, metadata={"Date": None, "Creator": None}, facecolor="white")
    plt.close(figure)
    # Without spaces at the ends of lines, which no reader of a diff wants to see.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return path


def _size(picture: Chart | Lines) -> tuple[float, float]:
    return (8.0, 0.9 + 0.26 * len(picture.bars)) if isinstance(picture, Chart) else (8.0, 3.6)


def _bars(axes: Any, chart: Chart) -> None:
    bars = chart.bars[::-1]  # the first one on top
    values = [bar.value for bar in bars]
    errors = [[max(0.0, bar.value - bar.low) for bar in bars], [max(0.0, bar.high - bar.value) for bar in bars]]
    axes.barh(
        [bar.label for bar in bars],
        values,
        xerr=errors,
        color=[_OURS if bar.ours else _OTHERS for bar in bars],
        error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
    )
    if chart.log:
        axes.set_xscale("log")
    axes.set_xlabel(chart.unit)


def _lines(axes: Any, lines: Lines) -> None:
    for label, points in lines.lines:
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3.5, linewidth=1.4, label=label)
    if lines.log_x:
        axes.set_xscale("log")
    if lines.log_y:
        axes.set_yscale("log")
    axes.set_xlabel(lines.x_unit)
    axes.set_ylabel(lines.y_unit)
    axes.legend(frameon=False, fontsize=8)
