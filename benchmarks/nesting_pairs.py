"""Pairs of timm's networks: which of them nest, and why the others do not.

    python benchmarks/nesting_pairs.py [--only PATTERN] [--pairs benchmarks/nesting_pairs.txt]

Nests each pair of the list with `nestnet.nest`, which checks that the base's computation lies inside the motivated
network's, and checks the nested network once more with `nestnet.verify_nesting`. Images have 64 pixels, or as many as
the family takes at least, and there are 10 classes. A pair either nests, or is refused with a reason. Anything else is a
failure, and the exit code is 1 then.

Writes the table docs/nesting-pairs.md, unless a part of the pairs is chosen. All pairs take 10 to 30 minutes.
"""

import argparse
import gc
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from common import format_table
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import nestnet
from nestnet.nesting.misfits import MisfitError
from nestnet.nesting.plain_network import find_inputs
from nestnet.storage.atomic import write_atomically

LIST = Path(__file__).with_suffix(".txt")
TABLE = Path(__file__).parent.parent / "docs" / "nesting-pairs.md"

CLASSES = 10
OPTIONS: Sequence[dict[str, Any]] = ({"img_size": 64}, {})
"""Options with which both networks are built: the first ones that they take, and with which an image size is found."""

COLUMNS = ["base", "M", "motivated", "M", "verdict", "where the base's weights are, or why not"]
"""Heads of the columns; M stands for millions of parameters."""

NESTS = "nests"
REFUSED = "refused"
FAILED = "failed"

LONGEST_REASON = 300
"""Number of characters after which a reason is cut in the table. There may be one for each block."""


class ZeroInitialization(TorchFunctionMode):
    """A context in which initial weights are zero. Random ones take longer than the check itself, which draws its own."""

    SKIPPED = (
        Tensor.normal_,
        Tensor.uniform_,
        Tensor.erfinv_,
        nn.init.kaiming_normal_,
        nn.init.kaiming_uniform_,
        nn.init.normal_,
        nn.init.trunc_normal_,
        nn.init.uniform_,
        nn.init.xavier_uniform_,
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func in self.SKIPPED:
            weight: Tensor = args[0] if args else options["tensor"]
            with torch.no_grad():
                return weight.zero_()
        return func(*args, **options)


@dataclass(frozen=True)
class Pair:
    """A pair of the list.

    Attributes:
        section: title of the part of the list.
        base: timm's name of the base network.
        motivated: timm's name of the motivated network.
    """

    section: str
    base: str
    motivated: str


@dataclass(frozen=True)
class Result:
    """What became of a pair.

    Attributes:
        pair: the pair.
        sizes: numbers of parameters of the base and of the motivated network; 0 if they could not be built.
        verdict: one of `NESTS`, `REFUSED` and `FAILED`.
        kind: kind of the reason, by which pairs are counted.
        reason: where the base's weights are, or why the pair does not nest.
    """

    pair: Pair
    sizes: tuple[int, int]
    verdict: str
    kind: str
    reason: str


def read_pairs(path: Path) -> list[Pair]:
    """Read a list: two names per line. A line with `## ` begins a section, and other lines with `#` are comments."""
    pairs = []
    section = "Pairs"
    for line in path.read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
            continue
        names = line.partition("#")[0].split()
        if names:
            base, motivated = names
            pairs.append(Pair(section, base, motivated))
    return pairs


def build(pair: Pair) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return both networks, and images that they take."""
    for options in OPTIONS:
        try:
            with ZeroInitialization():
                base = timm.create_model(pair.base, num_classes=CLASSES, **options)
                motivated = timm.create_model(pair.motivated, num_classes=CLASSES, **options)
        except Exception:  # of any kind, for a size that a family does not take
            if options is OPTIONS[-1]:
                raise
            continue
        inputs = find_inputs(base, 3)
        if inputs is not None:
            return base, motivated, inputs
    raise ValueError("no size of images was found that the base takes")


def try_pair(pair: Pair) -> Result:
    """Nest a pair, and check it."""
    sizes = (0, 0)
    try:
        base, motivated, inputs = build(pair)
        sizes = (count_parameters(base), count_parameters(motivated))
        net = nestnet.nest(base, motivated, check=inputs)
        nestnet.verify_nesting(net, inputs)
    except MisfitError as error:
        text = "; ".join(misfit.text for misfit in error.misfits)
        return Result(pair, sizes, REFUSED, error.misfits[0].kind, text)
    except Exception as error:  # whatever it is, it is ours, and the other pairs are tried all the same
        return Result(pair, sizes, FAILED, type(error).__name__, str(error))
    return Result(pair, sizes, NESTS, describe_kind(net), describe_nesting(net))


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def describe_kind(net: nestnet.NestedModel) -> str:
    """Return in what two networks differ."""
    placements = [placement for placement in net.weights_map.values() if not placement.private]
    names = []
    if any(placement.groups != 1 or placement.column_groups != 1 for placement in placements):
        names.append("width in groups")
    elif any(not placement.is_whole for placement in placements):
        names.append("width")
    if list(net.skipped_blocks()):
        names.append("depth")
    return " and ".join(names) or "nothing"


def describe_nesting(net: nestnet.NestedModel) -> str:
    """Return how many blocks base mode skips, and an example of each kind of weight whose rows or columns are in groups."""
    parts = []
    skipped = len(list(net.skipped_blocks()))
    if skipped:
        parts.append(f"{skipped} blocks skipped" if skipped > 1 else "1 block skipped")
    examples: dict[str, str] = {}
    for name, placement in net.weights_map.items():
        is_in_groups = placement.groups != 1 or placement.column_groups != 1
        # A norm or a bias has the groups of the weight beside it.
        if is_in_groups and len(placement.shape) > 1 and not placement.private:
            examples.setdefault(re.sub(r"\d+", "#", name), str(placement))
    shown = list(examples.values())[:2]
    parts += [f"`{example}`" for example in shown]
    if len(examples) > len(shown):
        parts.append(f"{len(examples) - len(shown)} further kinds of weights in groups")
    return "; ".join(parts) or "first rows and columns"


def format_results(results: Sequence[Result]) -> str:
    """Return the page with the summary and the tables."""
    counts = Counter(result.verdict for result in results)
    lines = [
        "# Pairs that nest",
        "",
        "Each pair is built by timm and given to `nestnet.nest`, which checks that the base's computation lies inside the",
        "motivated network's, and to `nestnet.verify_nesting`. Images have 64 pixels, or as many as the family takes at least,",
        "and there are 10 classes. Where weights are in groups, examples show the base's rows and columns in the motivated",
        "network's.",
        "",
        f"    python benchmarks/nesting_pairs.py    # torch {torch.__version__}, timm {timm.__version__}",
        "",
        f"Of {len(results)} pairs {counts[NESTS]} nest and {counts[REFUSED]} are refused"
        + (f"; {counts[FAILED]} failed." if counts[FAILED] else "."),
        "",
    ]
    sections = list(dict.fromkeys(result.pair.section for result in results))
    kinds = Counter((result.pair.section, result.verdict, result.kind) for result in results)
    rows = []
    for (section, verdict, kind), count in sorted(
        kinds.items(), key=lambda item: (sections.index(item[0][0]), item[0][1])
    ):
        rows.append([section, verdict, kind, str(count)])
    lines.append(format_table(["pairs", "verdict", "differ in", "number"], rows))
    for section in sections:
        rows = []
        for result in results:
            if result.pair.section == section:
                rows.append(format_row(result))
        lines += ["", f"## {section}", ""]
        # Cells are not aligned, because one reason is as long as a page is wide.
        for cells in (COLUMNS, ["-"] * len(COLUMNS), *rows):
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def format_row(result: Result) -> list[str]:
    base, motivated = (f"{size / 1e6:.1f}" for size in result.sizes)
    reason = " ".join(result.reason.replace("|", "\\|").split())
    if len(reason) > LONGEST_REASON:
        reason = reason[:LONGEST_REASON].rsplit(" ", 1)[0] + " ..."
    return [result.pair.base, base, result.pair.motivated, motivated, result.verdict, reason]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", metavar="PATTERN", help="regular expression; pairs that match it in `base motivated` are tried"
    )
    parser.add_argument("--pairs", type=Path, default=LIST, help="list of pairs")
    parser.add_argument("--output", type=Path, help="the table; by default docs/nesting-pairs.md, and none with --only")
    options = parser.parse_args()
    pairs = read_pairs(options.pairs)
    if options.only is not None:
        pairs = [pair for pair in pairs if re.search(options.only, f"{pair.base} {pair.motivated}")]
    results = []
    for pair in pairs:
        result = try_pair(pair)
        results.append(result)
        print(" ".join(format_row(result)), flush=True)
        # Modules and their hooks refer to one another.
        gc.collect()
    output = options.output or (TABLE if options.only is None else None)
    if output is not None:
        write_atomically(output, format_results(results))
        print(output)
    if not results:
        sys.exit("no pair matches")
    if any(result.verdict == FAILED for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
