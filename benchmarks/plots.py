# pyright: reportMissingImports=false
"""Plots of results as SVG, for light and for dark pages. Without matplotlib there are none."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from benchmarks.contenders import OURS
from benchmarks.markdown import NONE, text
from benchmarks.overview import PLOTS, Column, column
from benchmarks.results import Figure, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, ROW, MARGIN = 8.3, 0.27, 0.9
"""Inches, of 100 pixels: a README is about 830 wide."""


@frozen
class Theme:
    """The colours of a page."""

    name: str
    ink: str
    faint: str
    ours: str
    others: str


THEMES = (
    Theme("light", ink="#1f2328", faint="#d1d9e0", ours="#1a7f37", others="#afb8c1"),
    Theme("dark", ink="#f0f6fc", faint="#3d444d", ours="#3fb950", others="#656c76"),
)


def has_matplotlib() -> bool:
    """Whether plots can be drawn."""
    return importlib.util.find_spec("matplotlib") is not None


def write(results: Results, folder: Path, names: Iterable[str] = PLOTS) -> list[str]:
    """Write the plots with these names for each theme, such as `overview-light.svg`; return the names of those written.

    Those without a figure are not written.
    """
    found = {name: {one: figures for one in PLOTS[name] if (figures := column(results, one))} for name in names}
    written = {name: panels for name, panels in found.items() if panels}
    for name, panels in written.items():
        for theme in THEMES:
            _write(panels, theme, folder / f"{name}-{theme.name}.svg")
    return list(written)


def _write(panels: Mapping[Column, Mapping[str, Figure]], theme: Theme, path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 optional

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 optional

    lines = list(dict.fromkeys(name for figures in panels.values() for name in figures))
    with mpl.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "0"}):
        size = (WIDTH, MARGIN + ROW * len(lines))
        canvas, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
        for place, (panel, figures) in zip(axes[0], panels.items(), strict=True):
            _bars(place, panel.head, lines, figures, theme)
        axes[0][0].invert_yaxis()
        canvas.tight_layout(w_pad=2)
        canvas.savefig(path, transparent=True, metadata={"Date": None})
        plt.close(canvas)


def _bars(axes: Axes, title: str, names: Sequence[str], figures: Mapping[str, Figure], theme: Theme) -> None:
    values = [figures[name].value if name in figures else 0.0 for name in names]
    axes.barh(names, values, color=[theme.ours if name == OURS else theme.others for name in names], height=0.7)
    for row, name in enumerate(names):
        label = text(figures[name], with_spread=False) if name in figures else NONE
        end, gap = (values[row], row), (4, 0)
        axes.annotate(label, end, xytext=gap, textcoords="offset points", va="center", color=theme.ink)
    axes.set_title("\n".join(textwrap.wrap(title, 26)), color=theme.ink, fontsize=9.5, loc="left")
    axes.set_xlim(0, max(values) * 1.3 or 1)
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
    axes.set_xticks([])
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(theme.faint)
