"""The command that lists networks.

It imports what it needs only when it runs, so that its help and errors in its arguments are printed at once.
"""

from nestnet.cli.parser import Parser
from nestnet.cli.terminal import print_result


def models(arguments: list[str]) -> None:
    """List which networks of timm's nest in which, with parameters, multiply-accumulates and trained weights.

    Without a pattern, list the networks of nestnet's own families. Names and shapes decide, so that a listed pair may
    still be refused when it is built and checked.
    """
    parser = Parser("nestnet models", models.__doc__)
    parser.add_argument(
        "pattern", nargs="?", metavar="PATTERN", help="names, with * for any characters: 'convnextv2_*'"
    )
    parser.add_argument(
        "--img_size", type=int, metavar="N", help="pixels a side of the images for which costs are counted"
    )
    parser.add_argument(
        "--import", dest="imports", action="append", default=[], metavar="MODULE", help="module that registers networks"
    )
    options = parser.parse_args(arguments)

    from nestnet.config.imports import import_modules

    import_modules(options.imports)

    from nestnet.planning.network_table import describe_pairs, list_own_families

    if options.pattern is None:
        print_result(list_own_families())
        print_result("any other two networks of timm's nest if one contains the other: `nestnet models 'convnextv2_*'`")
        return
    if options.img_size is not None and options.img_size < 1:
        raise ValueError(f"--img_size {options.img_size}: it must be at least 1")
    print_result(describe_pairs(options.pattern, img_size=options.img_size))
