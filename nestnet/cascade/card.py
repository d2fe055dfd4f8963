"""The model card of a cascade."""

from dataclasses import dataclass
from pathlib import Path

from nestnet.cascade.study import CascadeStudy
from nestnet.deploy import card_sections
from nestnet.nn.mode import Mode
from nestnet.runs.reading import Run
from nestnet.storage.safe_yaml import dump_yaml
from nestnet.text.commands import format_command
from nestnet.text.escape import for_markdown, markdown_block, markdown_code
from nestnet.text.tables import markdown_table
from nestnet.text.units import format_count, format_macs
from nestnet.training.subnet_warnings import describe_untrained
from nestnet.weights.metadata import Metadata

LIMITS = r"""\ The threshold was chosen on held-out images of this data set, and the test images judged it once. On
other images, other cameras or other light the base may be sure and wrong, and more or fewer images are passed on. The
measured times are those of one machine."""


@dataclass(frozen=True)
class CascadeCard:
    """Subject of the card: an exported cascade.

    Attributes:
        study: study of the cascade.
        run: run that trained both networks.
        metadata: metadata of the network of each mode.
        output: name of the file or folder that holds the cascade.
        code: Python that loads the cascade with nestnet and classifies images.
        code_without_nestnet: Python that loads both networks with timm alone; empty if nothing but nestnet reads the output.
        data: section on the data, from `nestnet.deploy.card_sections.render_data`.
    """

    study: CascadeStudy
    run: Run
    metadata: dict[Mode, Metadata]
    output: str
    code: str
    code_without_nestnet: str
    data: str


def render_card(card: CascadeCard) -> str:
    """Render the card as Markdown.

    Args:
        card: cascade to describe.
    """
    study = card.study
    head = {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "nestnet", "cascade"],
        "model_file": card.output,
    }
    base = for_markdown(study.networks[Mode.BASE])
    motivated = for_markdown(study.networks[Mode.MOTIVATED])
    introduction = (
        f"Two image classifiers of {card.metadata[Mode.BASE].num_classes:,} classes that were trained as one nested network by "
        f"nestnet. {base} decides every image of which its calibrated probability is at least {study.cascade.threshold:.4g}; "
        f"{motivated} decides the others. It was made for {for_markdown(study.target)}."
    )
    for mode in Mode:
        warning = describe_untrained(mode, card.run.trained, base_is_given=card.run.config.extends_given_base)
        if warning is not None:
            introduction += f"\n\n**Do not use this**: {warning}."
    sections = {
        "Data": card.data,
        "Accuracy and cost": _render_accuracy(study),
        "Use": _render_use(card),
        "Training": card_sections.render_training(card.run),
        "Limits": LIMITS,
    }
    parts = [f"# A cascade of {base} and {motivated}\n\n{introduction}\n"]
    for title, text in sections.items():
        parts.append(f"## {title}\n\n{text}\n")
    return f"---\n{dump_yaml(head)}---\n\n" + "\n".join(parts)


def _render_accuracy(study: CascadeStudy) -> str:
    verdict = study.verdict
    rows = [["network", "top-1, %", "multiply-accumulates per image", "ms per image", "calibration error, %"]]
    for mode in Mode:
        rows.append(
            [
                f"{for_markdown(study.networks[mode])} alone",
                f"{verdict.top1[mode]:.2f}",
                format_macs(getattr(study.macs, mode)),
                f"{1000 * getattr(verdict.seconds, mode):.3g}",
                f"{study.calibrations[mode].calibrated_error:.2f}",
            ]
        )
    macs = format_macs(study.macs.of_share(verdict.passed_on))
    rows.append(["cascade", f"{verdict.cascade_top1:.2f}", macs, f"{1000 * verdict.cascade_seconds:.3g}", ""])
    timing = study.timing
    threads = format_count(timing.threads, "thread", "threads")
    note = (
        f"On {verdict.images:,} test images, of which {verdict.passed_on:.1%} were passed on. Times were measured with PyTorch "
        f"on {timing.device} ({threads}) in batches of {timing.batch_size}. A cascade costs as much as the motivated network "
        f"alone if {study.macs.break_even:.0%} of the images are passed on. The probabilities of both networks are "
        f"calibrated by a temperature, {study.cascade.base_temperature:.3f} and {study.cascade.motivated_temperature:.3f}."
    )
    return f"{markdown_table(rows)}\n{note}"


def _render_use(card: CascadeCard) -> str:
    blocks = [markdown_block(f"{card.code}\n", "python")]
    if card.code_without_nestnet:
        blocks.append("Both networks with timm, without nestnet:")
        blocks.append(markdown_block(f"{card.code_without_nestnet}\n", "python"))
    command = markdown_code(format_command("predict", "IMAGE", cascade=Path(card.output)))
    blocks.append(f"From image files: {command}")
    return "\n\n".join(blocks)
