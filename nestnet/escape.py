"""Text from outside made harmless for the medium that shows it.

Names of classes, files, folders and runs, and whatever else a person or a file may have chosen, can hold anything: escape
sequences of terminals, markup, line breaks, bytes that are not UTF-8. Each medium has its one function here.
"""

import unicodedata

# Categories of characters that have no shape of their own: control characters (Cc), formatting such as the override of the
# direction of writing (Cf), surrogates (Cs, which stand for bytes that are not UTF-8), and the separators of lines (Zl, Zp).
INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# They join letters and emoji in many scripts, and are harmless.
JOINERS = {"\u200c", "\u200d"}


def for_terminal(text: object) -> str:
    r"""Return a text with every invisible character written out, as one line.

    A byte of a file name that is not UTF-8 is shown as that byte.

    >>> print(for_terminal("cat\x1b[31m\n\udcff"))
    cat\x1b[31m\n\xff
    """
    return "".join(map(_visible, str(text)))


def _visible(character: str) -> str:
    if unicodedata.category(character) not in INVISIBLE or character in JOINERS:
        return character
    if "\udc80" <= character <= "\udcff":
        # Python stands it for the byte 0x80 to 0xff of a file name (PEP 383)
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
