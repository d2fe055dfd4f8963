"""The rendering of a figure as an SVG element in the colours of the page, and as a PNG. matplotlib is imported late."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from nestnet.analysis.plotting import plain_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXT_COLOUR = "#1b1e23"
"""Colour of text and axes in PNGs; in SVGs it is replaced by the page's text colour."""
# ElementTree puts namespaces in braces before names.
SVG_NAMESPACE = "{http://www.w3.org/2000/svg}"
XLINK_NAMESPACE = "{http://www.w3.org/1999/xlink}"
# A reference of one element to another by its id: `#id`, or `url(#id)`.
REFERENCE = re.compile(r"(?:^|url\()#([^)]+)")


@dataclass(frozen=True)
class RenderedFigure:
    """Figure in both formats.

    Attributes:
        svg: `<svg>` element for a page. Its text has the page's colour, and its background is transparent.
        png: content of a PNG file, on white.
    """

    svg: str
    png: bytes


def render_figure(plot: "Callable[[], Figure]", name: str) -> RenderedFigure:
    """Render a figure in both formats.

    Args:
        plot: function that draws the figure. It is called with a report's matplotlib style active.
        name: name of the figure, unique on a page, so that its ids differ from those of other figures.

    Returns:
        The figure in both formats, with the same layout.
    """
    with _report_style(name):
        figure = plot()
        # Compute the layout only once, because it would differ between the formats.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        png = BytesIO()
        figure.savefig(png, dpi=150, format="png")
        svg = BytesIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(svg, dpi=150, format="svg", transparent=True, metadata=no_metadata)
    return RenderedFigure(_inline_svg(svg.getvalue()), png.getvalue())


@contextmanager
def _report_style(name: str) -> Iterator[None]:
    """Set matplotlib's style of a report's figures within this context; `name` seeds the ids of an SVG."""
    from matplotlib import rc_context

    style: dict[Any, Any] = {
        "text.color": TEXT_COLOUR,
        "axes.edgecolor": TEXT_COLOUR,
        "axes.labelcolor": TEXT_COLOUR,
        "xtick.color": TEXT_COLOUR,
        "ytick.color": TEXT_COLOUR,
        "grid.color": "#808080",
        "font.size": 10,
        "font.family": "sans-serif",
        # Text stays text in an SVG, so that it can be searched and read aloud.
        "svg.fonttype": "none",
        "svg.hashsalt": name,
    }
    with rc_context(style), plain_text():
        yield


def _inline_svg(svg: bytes) -> str:
    """Return the `<svg>` element of a file for a page.

    It is as wide as its container, and has no unused ids. Only elements and attributes change,
    because a name in the figure's text may look like either.
    """
    root = ElementTree.fromstring(svg)
    # Without these attributes, the style sheet determines the size by the view box.
    del root.attrib["width"]
    del root.attrib["height"]
    _remove_metadata(root)
    referenced = _find_referenced_ids(root)
    for element in root.iter():
        # HTML has no namespaces: remove the prefix of elements, and give links the prefix that HTML accepts.
        element.tag = element.tag.removeprefix(SVG_NAMESPACE)
        attributes = {}
        for name, value in element.attrib.items():
            if name != "id" or value in referenced:
                attributes[name.replace(XLINK_NAMESPACE, "xlink:")] = value.replace(TEXT_COLOUR, "currentColor")
        element.attrib = attributes
    root.set("xmlns", SVG_NAMESPACE.strip("{}"))
    root.set("xmlns:xlink", XLINK_NAMESPACE.strip("{}"))
    return ElementTree.tostring(root, encoding="unicode")


def _remove_metadata(root: ElementTree.Element) -> None:
    """Remove the metadata of an SVG, and its style sheet, which would hold for the whole page."""
    removed = (f"{SVG_NAMESPACE}metadata", f"{SVG_NAMESPACE}style")
    # Iterate over copies of the lists, because elements are removed from them.
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in removed:
                parent.remove(child)


def _find_referenced_ids(root: ElementTree.Element) -> set[str]:
    """Return the ids to which an attribute of any element refers."""
    ids: set[str] = set()
    for element in root.iter():
        for value in element.attrib.values():
            ids.update(REFERENCE.findall(value))
    return ids
