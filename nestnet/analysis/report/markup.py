"""HTML from Python: whatever is put into an element is escaped, unless it is `Html`."""

from collections.abc import Iterable, Sequence

from nestnet.analysis.report.figures import Drawn
from nestnet.text.escape import for_html


class Html(str):
    """Text that is HTML already."""


def tag(name: str, *content: object, **attributes: object) -> Html:
    """An element. A trailing underscore of an attribute's name goes (`class_`), one within is a hyphen.

    >>> tag("p", "1 < 2", tag("b", "!"), class_="small")
    '<p class="small">1 &lt; 2<b>!</b></p>'
    """
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{for_html(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{given}>{joined(content)}</{name}>")


def joined(parts: Iterable[object]) -> Html:
    """Parts one after the other; those that are no HTML are escaped."""
    return Html("".join(part if isinstance(part, Html) else for_html(part) for part in parts))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], **attributes: object) -> Html:
    """A table that scrolls sideways where it is too wide. The first cell of a row is its name."""
    columns = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    lines = (tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows)
    body = tag("table", tag("thead", columns), tag("tbody", *lines), **attributes)
    return tag("div", body, class_="scroll", tabindex=0)


def lines(text: str) -> Html:
    """Lines of text for a `<pre>`; elsewhere the line breaks of a text are written out."""
    return Html("\n".join(map(for_html, text.split("\n"))))


def words(text: str) -> Html:
    """What may be broken into lines in a table of numbers."""
    return tag("div", text, class_="words")


def figure(drawn: Drawn, caption: str, **attributes: object) -> Html:
    """A figure with its caption, which is also what a screen reader says of it."""
    image = tag("div", Html(drawn.svg), class_="scroll", role="img", aria_label=caption)
    return tag("figure", image, tag("figcaption", caption), **attributes)
