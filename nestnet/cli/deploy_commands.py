"""The command that measures exported files: benchmark.

It imports what it needs only when it runs, so that its help and errors in its arguments are printed at once.
"""

from nestnet.cli.parser import Parser, path
from nestnet.cli.terminal import print_result, print_text


def benchmark(arguments: list[str]) -> None:
    """Time exported files on this device, in turns, and print one table of accuracy, milliseconds and megabytes.

    Files may hold any networks in any format and precision. The accuracy is measured on the test images of the run in
    whose folder a file lies.
    """
    parser = Parser("nestnet benchmark", benchmark.__doc__)
    parser.add_argument("files", type=path, nargs="+", metavar="FILE", help="exported file")
    parser.add_argument(
        "--batch_sizes", type=int, nargs="+", default=[1, 64], metavar="B", help="images in a batch (default: 1 64)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads on a CPU; by default as many as torch uses")
    parser.add_argument(
        "--seconds", type=float, default=2.0, metavar="S", help="time for each file and batch size (default: 2)"
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="device of files that torch runs; auto, the default, takes a GPU if there is one",
    )
    parser.add_argument("--run", type=path, metavar="RUN_DIR", help="run whose test images measure the accuracy")
    parser.add_argument(
        "--data.root",
        dest="root",
        type=path,
        metavar="FOLDER",
        help="folder of images that measure the accuracy, with a folder for each class: those of its test/ or val/ if it "
        "has them, otherwise all",
    )
    parser.add_argument("--no_images", action="store_true", help="do not measure the accuracy, which takes a while")
    parser.add_argument("--format", choices=("text", "csv", "json"), default="text")
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="module of yours that registers the networks' family",
    )
    options = parser.parse_args(arguments)
    if options.no_images and (options.run is not None or options.root is not None):
        raise ValueError("--no_images: leave it out, or leave out --run and --data.root")

    from nestnet.config.imports import import_modules

    import_modules(options.imports)

    from nestnet.deploy.benchmark import benchmark as measure
    from nestnet.deploy.benchmark_accuracy import ImageChoice
    from nestnet.deploy.benchmark_text import LAYOUTS

    images = None
    if not options.no_images:
        images = ImageChoice(options.run, None if options.root is None else str(options.root))
    rows = measure(
        options.files,
        batch_sizes=options.batch_sizes,
        threads=options.threads,
        seconds=options.seconds,
        device=options.device,
        images=images,
    )
    lines = "\n".join(LAYOUTS[options.format](rows))
    if options.format == "text":
        print_text(lines)
    else:
        print_result(lines)
