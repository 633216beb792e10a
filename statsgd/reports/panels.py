"""Panels of figures, drawn off screen in a light and a dark theme.

A figure is a row of panels that a narrow screen stacks, so that text stays legible on a phone.
Matplotlib is imported when a panel is drawn, so that importing statsgd stays light.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

_WIDTH = 4.6  # inches; two panels stand side by side on a page
_RESOLUTION = 150
_COLOURS = 128  # of a PNG


class Theme(NamedTuple):
    """Colours of a figure; series stay distinguishable without colour vision (Okabe, Ito)."""

    name: str
    ink: str
    paper: str
    quiet: str
    """Of points and bars in the background."""
    agreement: str
    """Of the band that counts as agreement."""
    series: tuple[str, ...]


LIGHT = Theme(
    "light", "#222222", "#ffffff", "#b4b8bf", "#009E73",
    ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B57F00", "#444444"),
)  # fmt: skip
DARK = Theme(
    "dark", "#e4e4e7", "#17181b", "#5d626b", "#3fcf9f",
    ("#56B4E9", "#FF9A57", "#3fcf9f", "#E7A6CB", "#F0C94A", "#bbbbbb"),
)  # fmt: skip
STYLES = ("-", "--", ":", "-.", (0, (3, 1, 1, 1)), (0, (5, 1)))


class Panel(NamedTuple):
    """One pair of axes."""

    draw: Callable[[Any, Theme], None]
    """Draws on Matplotlib axes in the colours of a theme."""
    height: float = 3.0
    """Inches, at a width of 4.6."""

    def png(self, theme: Theme = LIGHT) -> bytes:
        """The panel as a PNG that stays sharp on dense screens."""
        import matplotlib as mpl
        from matplotlib.figure import Figure as Canvas
        from PIL import Image

        with mpl.rc_context(_settings(theme)):
            canvas = Canvas(figsize=(_WIDTH, self.height), layout="constrained")
            self.draw(canvas.add_subplot(), theme)
            _take_words_as_they_are(canvas)
            buffer = io.BytesIO()
            canvas.savefig(buffer, format="png", dpi=_RESOLUTION)
        # A palette is a third of the size, and the eye sees no difference.
        drawn, small = Image.open(buffer).convert("RGB"), io.BytesIO()
        drawn.quantize(_COLOURS, dither=Image.Dither.NONE).save(small, "png", optimize=True)
        return small.getvalue()


def together(panels: Sequence[Panel], theme: Theme = LIGHT) -> Any:
    """Panels below one another in pairs, as one Matplotlib figure that a notebook displays."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    class Displayed(Canvas):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png", dpi=_RESOLUTION)
            return buffer.getvalue()

    columns = min(len(panels), 2)
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [max(panel.height for panel in row) for row in rows]
    with mpl.rc_context(_settings(theme)):
        canvas = Displayed(figsize=(_WIDTH * columns, sum(heights)), layout="constrained")
        cells = canvas.add_gridspec(len(rows), columns, height_ratios=heights)
        for i, panel in enumerate(panels):
            panel.draw(canvas.add_subplot(cells[i // columns, i % columns]), theme)
        _take_words_as_they_are(canvas)
    return canvas


def _take_words_as_they_are(canvas: Any) -> None:
    """No words of a user are read as a formula, nor stop a figure where they cannot be encoded."""
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter

    ticks: set[Any] = set()
    for axis in (axis for axes in canvas.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = axis.get_ticklabels(which="both")
        ticks.update(labels)
        if not isinstance(axis.get_major_formatter(), LogFormatter):  # whose powers are formulas
            for label in labels:
                label.set_parse_math(False)
    for text in canvas.findobj(Text):
        if text not in ticks:
            text.set_text(encodable(text.get_text()))
            text.set_parse_math(False)


def encodable(text: str) -> str:
    """`text` with "?" for half characters, as names of old files hold them."""
    return text.encode(errors="replace").decode()


class Figure(NamedTuple):
    """Panels with what they show in words."""

    panels: tuple[Panel, ...]
    caption: str
    alt: str
    """What a reader who cannot see the figure is told."""


def add_legend(axis: Any) -> None:
    """A legend inside the axes where it covers no data, or else below them."""
    from matplotlib.transforms import ScaledTranslation

    legend, canvas = axis.legend(), axis.figure
    _take_words_as_they_are(canvas)  # before they are laid out
    canvas.draw_without_rendering()
    box = legend.get_window_extent()
    if not any(_runs_through(box, line, axis) for line in axis.lines) and not any(
        box.overlaps(patch.get_window_extent()) for patch in axis.patches
    ):
        return
    legend.remove()
    # In inches: the layout will make the axes lower, but not what is written under them.
    written = (axis.get_tightbbox().y0 - axis.get_window_extent().y0) / canvas.dpi
    below = axis.transAxes + ScaledTranslation(0, written - 0.05, canvas.dpi_scale_trans)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=2,
                borderaxespad=0)  # fmt: skip


def _runs_through(box: Any, line: Any, axis: Any) -> bool:
    """Whether the points of a line, or what joins them, lie in a box of the canvas."""
    if line.get_transform() != axis.transData:  # a level, which goes through all of the axes
        return False
    points = line.get_transform().transform(line.get_xydata())
    points = points[np.all(np.isfinite(points), axis=1)]
    if line.get_linestyle() != "None" and len(points) > 1:
        shares = np.linspace(0, 1, 20)[:, None, None]
        points = (points[:-1] + shares * np.diff(points, axis=0)).reshape(-1, 2)
    low, high = box.min, box.max
    return bool(np.any(np.all((points >= low) & (points <= high), axis=1)))


def plain_log_ticks(axis: Any) -> None:
    """Ticks like 0.5, 1, 2 on a logarithmic axis of less than two decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _settings(theme: Theme) -> Any:  # Matplotlib types its settings by their names
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    return {
        **dict.fromkeys(inked, theme.ink),
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "font.size": 9,
        "legend.fontsize": 8,
        # Paper behind the words: where they must lie on data, they stay legible.
        "legend.edgecolor": theme.paper,
    }
