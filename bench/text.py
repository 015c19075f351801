"""Text from outside (file names, labels) made safe for one line of a terminal, a message or a file."""

from __future__ import annotations


def visible(text: str) -> str:
    """The text on one line: line ends, control characters, escape codes and bytes that are not UTF-8 as ``\\n``,
    ``\\x1b`` or ``\\xe9``. Text that needs no escape is returned as it is."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte of a file name, as os.fsdecode hands it over
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
