"""Messages of jsonargparse, turned into those of nestnet."""

import re

from nestnet.text.messages import in_one_line

PLAIN_KINDS = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "a string",
    "<class 'list'>": "a list",
    "<class 'dict'>": "a mapping",
    "<class 'NoneType'>": "null",
}
"""Types as jsonargparse names them, in words."""


def explain_parse_error(message: str) -> str:
    """Return jsonargparse's message about a value as `field = value: rule`.

    Args:
        message: message of a `jsonargparse.ArgumentError`.

    Returns:
        The message of one line.
    """
    # "Parser key "epochs": Does not validate ... Expected a <class 'int'>. Got value: x"
    about_value = re.search(r'Parser key "(.+?)":\s*(.*)', message, re.DOTALL)
    if about_value is None:
        line = in_one_line(message)
        if line.startswith("unrecognized arguments"):
            line += (
                "; images are given as --data.root FOLDER, a file as --config FILE, any field as --section.key value"
            )
        return line
    name, explanation = about_value.groups()
    value = re.search(r"(?:Got value|Given value): (.*?)(?:\n|$)", explanation)
    shown_value = value[1] if value else "?"
    kinds = {_name_kind(kind) for kind in re.findall(r"Expected an? (.+?)(?:\. Got|\n|$)", explanation)}
    # `null` comes last.
    rule = " or ".join(sorted(kinds, key=lambda kind: (kind == "null", kind)))
    remedy = ""
    # Forgotten brackets, in a shell or in YAML.
    if value is not None and kinds <= {"a list", "null"} and not shown_value.startswith("{"):
        remedy = f"; write [{shown_value}]"
    return f"{name} = {shown_value}: it must be {rule or in_one_line(explanation)}{remedy}"


def _name_kind(kind: str) -> str:
    """Return `typing.Literal['a', 'b']` and `<class 'int'>` in words."""
    if kind.startswith("typing.Literal["):
        choices = kind.removeprefix("typing.Literal[").rstrip("]").replace("'", "")
        if "," not in choices:
            return choices
        return f"one of {choices}"
    return PLAIN_KINDS.get(kind, kind)
