"""Text that others wrote (labels, names, reasons) as a terminal, a figure or a table may show it.

Nothing in a label may act: escape codes are shown as ``\\x1b``, rich's markup as it stands, and a character that the
terminal's encoding lacks becomes an escape instead of an error. ``guarded`` does this for everything that is printed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

#: Control characters, marks that turn the direction of the text after them, separators of lines, halves of pairs.
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

#: What makes a spreadsheet take a cell for a formula; apostrophes before it so that ours can be told from the text's.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def visible(text: str, keep: str = "") -> str:
    """The text on one line: line ends, control characters, escape codes and bytes that are not UTF-8 as ``\\n``,
    ``\\x1b`` or ``\\xe9``. keep: those that may stay."""
    return _ACTING.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def visible_values(value: Any) -> Any:
    """A value read from JSON, every text in it ``visible``."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return [visible_values(one) for one in value]
    return {visible(key): visible_values(one) for key, one in value.items()} if isinstance(value, dict) else value


def _escape(character: str) -> str:
    if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte of a file name, as os.fsdecode hands it over
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def to_cell(text: str) -> str:
    """A text as a cell of a CSV file: an apostrophe before what a spreadsheet would compute. Numbers stay numbers."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_cell(cell: str) -> str:
    """The text that ``to_cell`` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


# ---- the terminal -----------------------------------------------------------------------------------
@contextmanager
def guarded() -> Iterator[None]:
    """Within it, all that is printed to standard output and standard error is ``visible``."""
    before = sys.stdout, sys.stderr
    for stream in before:
        degrade(stream)
    sys.stdout, sys.stderr = (cast(TextIO, stream and _Guarded(raw(stream))) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def degrade(stream: TextIO | None) -> None:
    """Let a stream write a character that its encoding lacks as an escape, where it can be told so."""
    if hasattr(stream, "reconfigure"):
        cast(Any, stream).reconfigure(errors="backslashreplace")


def raw(stream: TextIO) -> TextIO:
    """The stream itself, for codes of our own."""
    return cast(TextIO, getattr(stream, "guarded_stream", stream))


class _Guarded:
    """A text stream whose text is ``visible``; everything else is the stream's."""

    def __init__(self, stream: TextIO) -> None:
        self.guarded_stream = stream

    def write(self, text: str) -> int:
        self.guarded_stream.write(visible(text, keep="\n\t"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guarded_stream, name)


def terminal(*, stderr: bool = False, width: int | None = None) -> Console:
    """A rich console whose own codes reach the terminal while those in texts do not.

    width: of a file or a pipe, unless COLUMNS says how wide that is; default: rich's own.
    """
    from rich.console import Console
    from rich.segment import Segment

    class PlainConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(visible(segment.text, keep="\n"), segment.style)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # the command line decides, not rich

    stream = raw(sys.stderr if stderr else sys.stdout)
    degrade(stream)
    known = stream.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return PlainConsole(file=stream, width=None if known else width)


def words(text: object, console: Console) -> Text:
    """A text for a table of rich's: no markup, and as wide as the terminal will show it."""
    from rich.text import Text

    encoding = console.encoding or "utf-8"
    return Text(visible(str(text)).encode(encoding, "backslashreplace").decode(encoding))
