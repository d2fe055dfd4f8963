"""HTML from Python: everything that is put into an element is escaped, unless it is `Html`."""

from collections.abc import Iterable, Sequence

from nestnet.analysis.report.rendering import RenderedFigure
from nestnet.text.escape import for_html


class Html(str):
    """Text that is HTML already, and is not escaped again."""


def element(name: str, *content: object, **attributes: object) -> Html:
    """Return an HTML element.

    Args:
        name: name of the element, such as `p`.
        *content: parts of its content. Each part that is not `Html` is escaped.
        **attributes: attribute values by name. Trailing underscores of a name are dropped (`class_`), because some
            names are keywords of Python; other underscores become hyphens.

    Returns:
        The element with its end tag.

    Example:
        >>> element("p", "1 < 2", element("b", "!"), class_="small")
        '<p class="small">1 &lt; 2<b>!</b></p>'
    """
    # The start tag, without its angle brackets.
    start = name
    for key, value in attributes.items():
        attribute = key.rstrip("_").replace("_", "-")
        start += f' {attribute}="{for_html(value)}"'
    return Html(f"<{start}>{join_html(content)}</{name}>")


def join_html(parts: Iterable[object]) -> Html:
    """Join parts of HTML; each part that is not `Html` is escaped."""
    joined = ""
    for part in parts:
        joined += part if isinstance(part, Html) else for_html(part)
    return Html(joined)


def table(head: Sequence[object], rows: Iterable[Sequence[object]], **attributes: object) -> Html:
    """Return a table, which scrolls horizontally if it is too wide for the screen.

    Args:
        head: names of the columns.
        rows: cells of each row, of which the first is the row's name.
        **attributes: attributes of the table, as in `element`.

    Returns:
        A `<div>` that holds the table.
    """
    head_row = element("tr", *(element("th", cell, scope="col") for cell in head))
    body_rows = []
    # The name of a row is a heading, which screen readers repeat for each of its cells.
    for name, *cells in rows:
        row_name = element("th", name, scope="row")
        body_rows.append(element("tr", row_name, *(element("td", cell) for cell in cells)))
    whole = element("table", element("thead", head_row), element("tbody", *body_rows), **attributes)
    # The tabindex allows scrolling by keyboard.
    return element("div", whole, class_="scroll", tabindex=0)


def mode_label(mode: str) -> Html:
    """Return the name of a mode in its colour."""
    return element("span", mode, class_=mode)


def preformatted(text: str) -> Html:
    """Return lines of text for a `<pre>` element.

    In other elements a line break is escaped, because it may come from a name.
    """
    return Html("\n".join(for_html(line) for line in text.split("\n")))


def wrapping_cell(text: str) -> Html:
    """Return a table cell whose text may wrap, for tables of numbers, whose cells otherwise do not wrap."""
    return element("div", text, class_="words")


def figure(rendered: RenderedFigure, caption: str, **attributes: object) -> Html:
    """Return a figure with its caption, which is also its description for screen readers.

    Args:
        rendered: the figure.
        caption: text below the figure.
        **attributes: attributes of the element, as in `element`.

    Returns:
        A `<figure>` element.
    """
    image = element("div", Html(rendered.svg), class_="scroll", role="img", aria_label=caption)
    return element("figure", image, element("figcaption", caption), **attributes)


def format_percent(share: float, digits: int = 2) -> str:
    r"""Return a share as a percentage with a no-break space.

    Args:
        share: share from 0 to 1.
        digits: number of decimals.

    Returns:
        The percentage with its sign.

    Example:
        >>> format_percent(1 / 6), format_percent(1.0, 0)
        ('16.67\xa0%', '100\xa0%')
    """
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"
