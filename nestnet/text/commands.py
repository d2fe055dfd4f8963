"""Command lines that are shown to a person, who can paste them into a shell."""

from nestnet.text.escape import for_shell


def format_command(command: str, *arguments: object, **options: object) -> str:
    """Return a `nestnet` command line for a POSIX shell.

    Args:
        command: name of the command, such as `"export"`.
        *arguments: positional arguments, such as paths.
        **options: value of each option. `True` gives a switch without a value, `False` and `None` leave the option out.

    Returns:
        The command line, with every argument and value quoted where a shell needs it.

    >>> format_command("export", "runs/my run", mode="base", best=True, recalibrate=50)
    "nestnet export 'runs/my run' --mode base --best --recalibrate 50"
    """
    words = ["nestnet", command, *map(for_shell, arguments)]
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            words.append(for_shell(value))
    return " ".join(words)
