r"""Text from outside made harmless for the medium that shows it.

Names of classes, files, folders and runs, and whatever else a person or a file may have chosen, can hold anything: escape
sequences of terminals, markup, line breaks, bytes that are not UTF-8. Each medium has its one function here.

What a person reads (a terminal, a page, a card, a figure) is one line, in which every character without a shape of its own is
written out, such as `\x1b`, `\n` or `\u202e`; a byte of a file name that is not UTF-8 is `\xff`. What a program reads (CSV,
JSON) keeps every character, so that names come back as they were; only what UTF-8 cannot hold is written out (`for_data`).
"""

import csv
import html
import io
import re
import shlex
import unicodedata
from collections.abc import Iterable

# Categories of characters that have no shape of their own: control characters (Cc), formatting such as the override of the
# direction of writing (Cf), surrogates (Cs, which stand for bytes that are not UTF-8), and the separators of lines (Zl, Zp).
INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# They join letters and emoji in many scripts, and are harmless.
JOINERS = {"\u200c", "\u200d"}


def for_terminal(text: object) -> str:
    r"""Return a text with every invisible character written out, as one line.

    >>> print(for_terminal("cat\x1b[31m\n\udcff"))
    cat\x1b[31m\n\xff
    """
    return "".join(map(_visible, str(text)))


def for_figure(text: object, longest: int = 60) -> str:
    r"""Return a text for a figure: as on a terminal, and without its middle where it has more characters than that.

    Control characters would make an SVG malformed XML, and matplotlib refuses surrogates. It takes `$` for a formula unless
    `text.parse_math` is off, as it is within `nestnet.figures.plain_text`.

    >>> for_figure("night\n") + for_figure("a long name", longest=7)
    'night\\na l…ame'
    """
    visible = for_terminal(text)
    if len(visible) <= longest:
        return visible
    # names often begin alike, or end alike
    return f"{visible[: longest // 2]}…{visible[longest // 2 + 1 - longest :]}"


def for_html(text: object) -> str:
    """Return a text for HTML, within an element or an attribute in quotes.

    >>> for_html('<b class="x">')
    '&lt;b class=&quot;x&quot;&gt;'
    """
    return html.escape(for_terminal(text))


# Everything that means something within a line of CommonMark or of GitHub's dialect: HTML, entities, emphasis, code, links
# and bare URLs, strikethrough, formulas, and the borders of table cells.
MARKUP = re.compile(
    r"""
    [\\`*\[\]<>&|~$@]
    | (?<![A-Za-z0-9])_ | _(?![A-Za-z0-9])  # between letters it is only itself
    | :(?=/) | (?<=www)\.                   # of bare URLs
    | ^\x20 | \x20$ | (?<=\x20)\x20         # spaces that would be dropped
    """,
    re.VERBOSE | re.IGNORECASE,
)


def for_markdown(text: object) -> str:
    r"""Return a text for Markdown, within a line: a heading, a paragraph after its first word, or a cell of a table.

    Markup becomes character references, which have no meaning but themselves wherever they stand; a backslash would have
    another one in formulas. Only the border of a cell is `\|`, as usual.

    >>> print(for_markdown("golden_retriever <b> | **"))
    golden_retriever &#60;b&#62; \| &#42;&#42;
    """
    return MARKUP.sub(_referenced, for_terminal(text))


def markdown_code(text: object) -> str:
    """Return a text as code within a line of Markdown, also in a cell of a table.

    >>> markdown_code("net.onnx"), markdown_code("a`|b")
    ('`net.onnx`', '<code>a&#96;\\\\|b</code>')
    """
    visible = for_terminal(text)
    # backticks cannot be escaped within backticks, a border of a cell ends them, and spaces at their ends are dropped
    if visible and not re.search(r"[`|\\]|^ | $|  ", visible):
        return f"`{visible}`"
    return f"<code>{for_markdown(visible)}</code>"


def markdown_block(text: str, language: str) -> str:
    """Return lines of code as a block of Markdown, without a line break at its end.

    Args:
        text: lines that are visible already, such as YAML or Python, each with its line break.
        language: name by which the code is coloured.
    """
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}{fence}"


def for_latex(text: object) -> str:
    r"""Return a text for LaTeX, in a paragraph or a cell of a table.

    >>> print(for_latex("50 % of a_b \\"))
    50 \% of a\_b \textbackslash{}
    """
    escaped = "".join(LATEX.get(character, character) for character in for_terminal(text))
    return re.sub("-(?=-)", "-{}", escaped)  # dashes in a row would be joined


LATEX_NAMES = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "|": "bar", "<": "less", ">": "greater"}
LATEX_NAMES["`"] = "asciigrave"
LATEX = {character: rf"\text{name}{{}}" for character, name in LATEX_NAMES.items()}
LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}
# after the `\\` of a row they would be taken for its arguments
LATEX |= {character: f"{{{character}}}" for character in "[]*"}
LATEX |= {"±": r"$\pm$", "…": r"\ldots{}"}


# Words that a name may hold itself, although `for_data` writes them in place of something else.
LOOKALIKE = re.compile(r"\\(?=x[0-9a-f]{2}|ud[89a-f][0-9a-f]{2})")


def for_data(text: object) -> str:
    r"""Return a text that a program is to read, in CSV or JSON: as it is, but for what UTF-8 cannot hold.

    A byte that is not UTF-8 becomes `\xff`, and a lone surrogate that stands for no byte `\ud800`. A backslash before such
    words in the name itself becomes `\x5c`. So every `\x` with two hexadecimal digits stands for that byte, and a name can be
    told from another one:

    >>> print(for_data("caf\udce9"), for_data(r"caf\xe9"), for_data(r"C:\new"))
    caf\xe9 caf\x5cxe9 C:\new
    """
    unambiguous = LOOKALIKE.sub(r"\\x5c", str(text))
    return "".join(_visible(each) if unicodedata.category(each) == "Cs" else each for each in unambiguous)


def csv_row(cells: Iterable[object]) -> str:
    """Return a record of CSV by RFC 4180, without the line break at its end.

    A cell that begins with `=`, `+`, `-` or `@` is left as it is. A spreadsheet would take it for a formula, but what it is
    usually shielded with, an apostrophe or a space, becomes part of the name for every other reader, and negative numbers
    would be texts.

    >>> csv_row(["a, b", "c", 1])
    '"a, b",c,1'
    """
    record = io.StringIO()
    # the writer puts only those characters of a line break in quotes that it ends records with: both of them here
    csv.writer(record, lineterminator="\r\n").writerow([for_data(cell) for cell in cells])
    return record.getvalue().removesuffix("\r\n")


def for_shell(path: object) -> str:
    r"""Return a path for a command line that can be pasted into a POSIX shell; what has no shape is in bash's `$'...'`.

    >>> print(for_shell("runs/my run"), for_shell("-x"), for_shell("caf\udce9\n"))
    'runs/my run' ./-x $'caf\xe9\x0a'
    """
    text = str(path)
    if text.startswith(("-", "~")):
        text = f"./{text}"  # it would be taken for an option, or by nestnet for the home directory of somebody
    if for_terminal(text) == text:
        return shlex.quote(text)
    return f"$'{''.join(map(_in_ansi_c_quotes, text))}'"


def for_python(text: str) -> str:
    r"""Return a literal of Python that is this string, in double quotes unless it has quotes itself.

    >>> print(for_python("net.onnx"), for_python('a "b"'), for_python("caf\udce9"))
    "net.onnx" 'a "b"' "caf\udce9"
    """
    literal = repr(text)
    return f'"{literal[1:-1]}"' if "'" not in text and '"' not in text else literal


def quoted(text: object) -> str:
    r"""Return a text in quotes, as `repr` does, for the value of a field in a message; a byte that is not UTF-8 is `\xff`.

    >>> print(quoted("caf\udce9"), quoted("it's"))
    'caf\xe9' "it's"
    """
    # an odd number of backslashes begins an escape of Python's; an even one stands for those of the text
    return re.sub(r"(?<!\\)((?:\\\\)*)\\udc([89a-f][0-9a-f])", r"\1\\x\2", repr(str(text)))


def is_utf8(text: str) -> bool:
    r"""Whether a text can be written as UTF-8: it has no surrogates, which stand for bytes of file names that are not.

    >>> is_utf8("café"), is_utf8("caf\udce9")
    (True, False)
    """
    return not any(unicodedata.category(character) == "Cs" for character in text)


def _visible(character: str) -> str:
    number = ord(character)
    # noncharacters, of which XML forbids some, are the last two of each 65,536 and 32 others
    shapeless = unicodedata.category(character) in INVISIBLE or number & 0xFFFE == 0xFFFE or 0xFDD0 <= number <= 0xFDEF
    if not shapeless or character in JOINERS:
        return character
    if "\udc80" <= character <= "\udcff":
        # Python stands it for the byte 0x80 to 0xff of a file name (PEP 383)
        return f"\\x{number - 0xDC00:02x}"
    if 0x80 <= number <= 0xFF:
        return f"\\u{number:04x}"  # `\x85` would be the byte
    return character.encode("unicode_escape").decode()


def _referenced(found: re.Match[str]) -> str:
    return r"\|" if found[0] == "|" else f"&#{ord(found[0])};"


def _in_ansi_c_quotes(character: str) -> str:
    if character in "'\\":
        return f"\\{character}"
    if for_terminal(character) == character:
        return character
    if "\udc80" <= character <= "\udcff":
        return _visible(character)
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
