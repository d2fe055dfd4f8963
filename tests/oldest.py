"""Print the oldest releases that pyproject.toml admits, one per line, as `pip install --requirement` takes them.

`make test-oldest` tests with these. They are read from pyproject.toml, so that what is tested is what is promised.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def oldest(extra: str) -> list[str]:
    """Return `name==version` for each dependency of nestnet, and of one of its extras.

    Args:
        extra: name of the extra; those that it names in turn are included.
    """
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    requirements = [*project["dependencies"], *_of_extra(project, extra)]
    return [_pinned(requirement) for requirement in requirements]


def _of_extra(project: dict, extra: str) -> Iterator[str]:
    for requirement in project["optional-dependencies"][extra]:
        own = re.fullmatch(rf"{project['name']}\[(.+)\]", requirement)
        if own is None:
            yield requirement
            continue
        for other in own[1].split(","):
            yield from _of_extra(project, other)


def _pinned(requirement: str) -> str:
    name, bound, version = requirement.partition(">=")
    if not bound or "," in version:
        raise ValueError(f"{requirement!r} in pyproject.toml: it must have a floor and no other bound, as {name}>=1.0")
    return f"{name}=={version}"


if __name__ == "__main__":
    print(*oldest("dev"), sep="\n")
