r"""Escaping of untrusted text for the medium that shows it.

Names of classes, files, folders and runs, and other text that a user or a file has chosen, can hold anything:
escape sequences of terminals, markup, line breaks, bytes that are not UTF-8. There is one function for each
medium.

Text for a person (on a terminal, a page, a model card, a figure) is one line, in which every invisible
character is written out, such as `\x1b`, `\n` or `\u202e`, and a byte of a file name that is not UTF-8 as
`\xff`. Text for a program (CSV, JSON) keeps every character, so that names can be read back unchanged; only
characters that UTF-8 cannot hold are written out (`for_data`).

Every function takes a text, or an object that is converted with `str`, and returns the escaped text.
"""

import csv
import html
import io
import re
import shlex
from collections.abc import Iterable

from nestnet.text.visible import is_escaped_byte, is_surrogate, make_visible

# Characters that mean something within a line of CommonMark or of GitHub's dialect: HTML, entities, emphasis,
# code, links and bare URLs, strikethrough, formulas, and the borders of table cells.
MARKUP = re.compile(
    r"""
    [\\`*\[\]<>&|~$@]
    | (?<![A-Za-z0-9])_ | _(?![A-Za-z0-9])  # between letters it is only itself
    | :(?=/) | (?<=www)\.                   # of bare URLs
    | ^\x20 | \x20$ | (?<=\x20)\x20         # spaces that would be dropped
    """,
    re.VERBOSE | re.IGNORECASE,
)

# Within backticks, none of these can be escaped: a backtick ends the code, a border of a cell ends the cell,
# a backslash would have to be doubled in a cell alone, and spaces at the ends or in a row are dropped.
NOT_IN_BACKTICKS = re.compile(r"[`|\\]|^ | $|  ")

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "`": r"\textasciigrave{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    # After the `\\` at the end of a row these would be taken for its arguments.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    # LaTeX's default fonts do not have these characters.
    "±": r"$\pm$",
    "…": r"\ldots{}",
}

# Backslashes before sequences that look like those that `for_data` writes, but are part of the name itself.
LOOKALIKE = re.compile(r"\\(?=x[0-9a-f]{2}|ud[89a-f][0-9a-f]{2})")

# `repr` writes a byte that is not UTF-8 as `\udcff`. Backslashes of the text itself come in pairs before it.
REPR_OF_BYTE = re.compile(r"(?<!\\)((?:\\\\)*)\\udc([89a-f][0-9a-f])")


def for_terminal(text: object) -> str:
    r"""Return a text with every invisible character written out, as one line.

    >>> print(for_terminal("cat\x1b[31m\n\udcff"))
    cat\x1b[31m\n\xff
    """
    return "".join(map(make_visible, str(text)))


def for_figure(text: object, longest: int = 60) -> str:
    r"""Return a text for a figure: as on a terminal, and shortened in the middle if it is too long.

    Control characters would make an SVG malformed XML, and matplotlib refuses surrogates. It takes `$` for
    the mark of a formula unless `text.parse_math` is off, as it is within
    `nestnet.analysis.figures.plain_text`.

    Args:
        text: untrusted text.
        longest: largest number of characters to return.

    Returns:
        The escaped text.

    >>> for_figure("night\n") + for_figure("a long name", longest=7)
    'night\\na l…ame'
    """
    visible = for_terminal(text)
    if len(visible) <= longest:
        return visible
    # Both ends stay, because names often begin alike, or end alike.
    start = visible[: longest // 2]
    end = visible[longest // 2 + 1 - longest :]
    return f"{start}…{end}"


def for_html(text: object) -> str:
    """Return a text for HTML, within an element or an attribute in quotes.

    >>> for_html('<b class="x">')
    '&lt;b class=&quot;x&quot;&gt;'
    """
    return html.escape(for_terminal(text))


def for_markdown(text: object) -> str:
    r"""Return a text for Markdown, within a line: a heading, a paragraph after its first word, or a cell of a table.

    Markup becomes character references, which have the same meaning everywhere, whereas a backslash means
    something else in formulas. Only the border of a cell becomes `\|`, as usual.

    >>> print(for_markdown("golden_retriever <b> | **"))
    golden_retriever &#60;b&#62; \| &#42;&#42;
    """
    return MARKUP.sub(_reference_markup, for_terminal(text))


def markdown_code(text: object) -> str:
    r"""Return a text as code within a line of Markdown, also in a cell of a table.

    >>> print(markdown_code("net.onnx"), markdown_code("a`|b"))
    `net.onnx` <code>a&#96;\|b</code>
    """
    visible = for_terminal(text)
    if visible and not NOT_IN_BACKTICKS.search(visible):
        return f"`{visible}`"
    return f"<code>{for_markdown(visible)}</code>"


def markdown_block(text: str, language: str) -> str:
    """Return lines of code as a block of Markdown, without a line break at its end.

    Args:
        text: lines that are visible already, such as YAML or Python, each with its line break.
        language: name by which the code is coloured.

    Returns:
        The block.
    """
    # The fence has to be longer than any row of backticks in the code.
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}{fence}"


def for_latex(text: object) -> str:
    r"""Return a text for LaTeX, in a paragraph or a cell of a table.

    >>> print(for_latex("50 % of a_b \\"))
    50 \% of a\_b \textbackslash{}
    """
    escaped = "".join(LATEX.get(character, character) for character in for_terminal(text))
    # Dashes in a row would be joined to a longer one.
    return re.sub("-(?=-)", "-{}", escaped)


def for_data(text: object) -> str:
    r"""Return a text for a program, in CSV or JSON: unchanged, except for characters that UTF-8 cannot hold.

    A byte that is not UTF-8 becomes `\xff`, and any other lone surrogate `\ud800`. A backslash before such a
    sequence in the name itself becomes `\x5c`. So every `\x` with two hexadecimal digits
    stands for that byte, and different names stay different:

    >>> print(for_data("caf\udce9"), for_data(r"caf\xe9"), for_data(r"C:\new"))
    caf\xe9 caf\x5cxe9 C:\new
    """
    written = []
    for character in LOOKALIKE.sub(r"\\x5c", str(text)):
        if is_surrogate(character):
            character = make_visible(character)
        written.append(character)
    return "".join(written)


def csv_row(cells: Iterable[object]) -> str:
    """Return a record of CSV by RFC 4180, without the line break at its end.

    A cell that begins with `=`, `+`, `-` or `@` is left as it is. A spreadsheet would take it for a formula,
    but what usually prevents that, an apostrophe or a space, becomes part of the name for every other reader,
    and turns negative numbers into texts.

    Args:
        cells: texts and numbers of the record.

    Returns:
        The record.

    >>> csv_row(["a, b", "c", 1])
    '"a, b",c,1'
    """
    record = io.StringIO()
    # The writer quotes those characters of a line break with which it ends records: both of them here.
    writer = csv.writer(record, lineterminator="\r\n")
    writer.writerow([for_data(cell) for cell in cells])
    return record.getvalue().removesuffix("\r\n")


def for_shell(path: object) -> str:
    r"""Return a path for a command line that can be pasted into a POSIX shell.

    A path with invisible characters is in bash's quotes `$'...'`, in which they can be written out.

    >>> print(for_shell("runs/my run"), for_shell("-x"), for_shell("caf\udce9\n"))
    'runs/my run' ./-x $'caf\xe9\x0a'
    """
    text = str(path)
    if text.startswith(("-", "~")):
        # Otherwise it would be taken for an option or for a home directory.
        text = f"./{text}"
    if for_terminal(text) == text:
        return shlex.quote(text)
    return f"$'{''.join(map(_in_ansi_c_quotes, text))}'"


def for_python(text: str) -> str:
    r"""Return a string literal of Python, in double quotes unless the string contains quotes.

    >>> print(for_python("net.onnx"), for_python('a "b"'), for_python("caf\udce9"))
    "net.onnx" 'a "b"' "caf\udce9"
    """
    literal = repr(text)
    if "'" in text or '"' in text:
        return literal
    return f'"{literal[1:-1]}"'


def quoted(text: object) -> str:
    r"""Return a text in quotes, as `repr` does, for a value in a message; a byte that is not UTF-8 becomes `\xff`.

    >>> print(quoted("caf\udce9"), quoted("it's"))
    'caf\xe9' "it's"
    """
    return REPR_OF_BYTE.sub(r"\1\\x\2", repr(str(text)))


def is_utf8(text: str) -> bool:
    r"""Return whether a text can be written as UTF-8: it has no surrogates, which stand for bytes that are not UTF-8.

    >>> is_utf8("café"), is_utf8("caf\udce9")
    (True, False)
    """
    return not any(map(is_surrogate, text))


def _reference_markup(markup: re.Match[str]) -> str:
    """Return the escaped form of a character of Markdown's markup."""
    if markup[0] == "|":
        return r"\|"
    return f"&#{ord(markup[0])};"


def _in_ansi_c_quotes(character: str) -> str:
    """Return the form of a character within `$'...'`."""
    if character in "'\\":
        return f"\\{character}"
    if for_terminal(character) == character:
        return character
    if is_escaped_byte(character):
        return make_visible(character)
    # bash encodes `\u` by its locale, but takes bytes as they are.
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
