"""The commands that show the results of runs: plot, report, table and dynamics.

Each imports what it needs only when it runs, so that its help and errors in its arguments are printed at once.
"""

from pathlib import Path

from nestnet.cli.parser import Parser, path
from nestnet.cli.terminal import print_result


def plot(arguments: list[str]) -> None:
    """Draw a run: the loss of each batch, with motivated batches marked, and the top-1 of both subnets."""
    parser = Parser("nestnet plot", plot.__doc__)
    parser.add_argument("run_dir", type=path, metavar="RUN_DIR", help="folder of a run")
    parser.add_argument("--output", type=path, metavar="FILE", help="PNG, SVG or PDF file; by default RUN_DIR/run.png")
    options = parser.parse_args(arguments)

    from nestnet.analysis.run_figure import draw_run

    print_result(draw_run(options.run_dir, options.output or options.run_dir / "run.png"))


def report(arguments: list[str]) -> None:
    """Write an HTML page about one or several runs, finished or not.

    It shows their results, which classes both subnets confuse, and how the runs differ.
    """
    parser = Parser("nestnet report", report.__doc__)
    parser.add_argument("run_dirs", type=path, nargs="+", metavar="RUN_DIR", help="folder of a run")
    parser.add_argument(
        "--output",
        type=path,
        metavar="DIR",
        help="folder for report.html and its figures as PNG files; by default RUN_DIR/report, or report/ for several runs",
    )
    parser.add_argument("--no_images", action="store_true", help="do not evaluate the test images, which takes a while")
    options = parser.parse_args(arguments)

    from nestnet.analysis.report.write_report import write_report

    print_result(write_report(options.run_dirs, options.output, images=not options.no_images))


def table(arguments: list[str]) -> None:
    """Print the paper's table for some runs. Runs that differ only in their seed share a row."""
    parser = Parser("nestnet table", table.__doc__)
    parser.add_argument("run_dirs", type=path, nargs="+", metavar="RUN_DIR", help="folder of a run")
    parser.add_argument("--format", choices=("markdown", "csv", "latex"), default="markdown")
    parser.add_argument("--output", type=path, metavar="FILE", help="write the table there instead of printing it")
    options = parser.parse_args(arguments)

    from nestnet.paper.table import render_table
    from nestnet.runs.outputs import check_output_beside_runs
    from nestnet.storage.atomic import write_atomically

    # A wrong path is refused before the runs are read, which may take a while.
    if options.output is not None:
        check_output_beside_runs(options.output)
    text = render_table(options.run_dirs, options.format)
    if options.output is None:
        print_result(text.rstrip("\n"))
    else:
        write_atomically(options.output, text)
        print_result(options.output)


def dynamics(arguments: list[str]) -> None:
    """Draw runs side by side: losses, their variance, motivated batches, and the paths of the weights."""
    parser = Parser("nestnet dynamics", dynamics.__doc__)
    parser.add_argument("run_dirs", type=path, nargs="+", metavar="RUN_DIR", help="folder of a run")
    parser.add_argument(
        "--epochs",
        type=int,
        nargs="+",
        default=(),
        metavar="E",
        help="epochs to draw; by default the middle and the last one",
    )
    parser.add_argument(
        "--output",
        type=path,
        metavar="DIR",
        default=Path("dynamics"),
        help="folder for the figures (default: dynamics/)",
    )
    options = parser.parse_args(arguments)

    from nestnet.analysis.dynamics import draw_dynamics

    for figure in draw_dynamics(options.run_dirs, options.output, options.epochs):
        print_result(figure)
