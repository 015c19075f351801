"""The errors that a user may see, each with the exit code that the command line gives it."""

from __future__ import annotations

from bench.text import visible


class BenchError(Exception):
    """Something the user can act on. Printed as one line, never as a traceback."""

    exit_code = 1


class ConfigError(BenchError):
    """The configuration, an option or a file that it names is wrong; nothing was run."""

    exit_code = 2

    def __init__(self, message: str, *, where: str | None = None) -> None:
        self.where = where
        super().__init__(f"{where}: {message}" if where else message)


class ContractError(BenchError):
    """A method does not do what ``bench.method.Method`` asks of it; nothing was run."""

    exit_code = 2


class DataError(BenchError):
    """A data set is missing, incomplete or damaged. File names in the message may hold anything: it is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


class WeightsError(BenchError):
    """Weights that do not fit: every key that is missing, left over or of another shape is named."""


class CostError(BenchError):
    """An operation that no counter knows, or two counters that disagree."""


class RunError(BenchError):
    """A run failed; the others are not touched."""


class Diverged(RunError):
    """The training loss is no longer a finite number."""


def memory_is_gone(error: BaseException) -> str | None:
    """What to say of an error that is about memory, in one line; None of any other."""
    text = " ".join(str(error).split())
    if not isinstance(error, MemoryError) and not any(words in text for words in _NO_MEMORY):
        return None
    return f"out of memory: {text.rpartition('Original error was: ')[2] or type(error).__name__}"


#: What allocators and loaders of libraries say (not CUDA's, whose own words are better).
_NO_MEMORY = ("allocate memory", "failed to map segment")
