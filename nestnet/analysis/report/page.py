"""The page of a report: a self-contained HTML file."""

from collections.abc import Sequence

from nestnet.analysis.report.comparison import RunGroup
from nestnet.analysis.report.comparison_section import build_comparison
from nestnet.analysis.report.html import Html, element, join_html
from nestnet.analysis.report.page_template import PAGE, STYLE
from nestnet.analysis.report.rendering import RenderedFigure
from nestnet.analysis.report.run_section import RunReport, build_run
from nestnet.text.escape import for_html


def build_page(
    reports: Sequence[RunReport], groups: Sequence[RunGroup], comparison: RenderedFigure | None, footer: str
) -> str:
    """Build the page of a report.

    Args:
        reports: content of each run's part, at least one.
        groups: the same runs, grouped by what they train; used if there are several runs.
        comparison: figure of several runs; `None` if there is none.
        footer: text at the end of the page: date and versions.

    Returns:
        The text of the file.
    """
    is_single = len(reports) == 1
    parts: list[Html] = []
    # For a single run, the heading of its part is the heading of the page.
    if is_single:
        title = f"Report of {reports[0].run.name}"
    else:
        title = f"Report of {len(reports)} runs"
        parts += [element("h1", title), _build_navigation(reports), build_comparison(groups, comparison)]
    for number, report in enumerate(reports, start=1):
        parts.append(build_run(report, number, is_single=is_single))
    parts.append(element("footer", footer))
    return PAGE.substitute(title=for_html(f"{title} - nestnet"), style=STYLE, body=join_html(parts))


def _build_navigation(reports: Sequence[RunReport]) -> Html:
    """Build links to the parts of the page on each run."""
    links = []
    for number, report in enumerate(reports, start=1):
        links.append(element("li", element("a", report.run.name, href=f"#run-{number}")))
    return element("nav", element("ul", *links))
