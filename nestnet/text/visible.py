r"""Invisible characters, and how they are written out, such as `\x1b` or `\u202e`."""

import unicodedata

# General categories of Unicode whose characters have no shape: control characters (Cc), formatting such as
# the override of the writing direction (Cf), surrogates (Cs), and the separators of lines and paragraphs (Zl,
# Zp).
INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# The zero width joiner and non-joiner belong to letters and emoji of many scripts, and are harmless.
JOINERS = {"\u200c", "\u200d"}


def is_visible(character: str) -> bool:
    r"""Return whether a character is visible, or joins visible ones.

    Args:
        character: one character.

    Returns:
        Whether it can be shown as it is.

    Example:
        >>> is_visible("a"), is_visible("\u200d"), is_visible("\n")
        (True, True, False)
    """
    number = ord(character)
    # Unicode reserves 66 noncharacters, of which XML forbids some: the last two of each 65,536 numbers, and 32 others.
    is_noncharacter = number & 0xFFFE == 0xFFFE or 0xFDD0 <= number <= 0xFDEF
    if character in JOINERS:
        return True
    return unicodedata.category(character) not in INVISIBLE and not is_noncharacter


def make_visible(character: str) -> str:
    r"""Return a character, written out if it is invisible.

    Args:
        character: one character. A lone surrogate from U+DC80 to U+DCFF stands for a byte of a file name that
            is not UTF-8.

    Returns:
        The character itself, or an escape sequence of Python's. A byte is `\x80` to `\xff`.

    Example:
        >>> print(make_visible("a"), make_visible("\x1b"), make_visible("\x85"), make_visible("\udcff"))
        a \x1b \u0085 \xff
    """
    if is_visible(character):
        return character
    number = ord(character)
    if is_escaped_byte(character):
        return f"\\x{number - 0xDC00:02x}"
    if 0x80 <= number <= 0xFF:
        # Python would write `\x85`, which means a byte here.
        return f"\\u{number:04x}"
    return character.encode("unicode_escape").decode()


def is_surrogate(character: str) -> bool:
    """Return whether a character is a lone surrogate, which UTF-8 cannot hold."""
    return unicodedata.category(character) == "Cs"


def is_escaped_byte(character: str) -> bool:
    """Return whether a character is one of the surrogates by which Python represents bytes 0x80 to 0xff (PEP 383)."""
    return "\udc80" <= character <= "\udcff"
