"""All checks, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.config.schema import MethodConfig
from bench.errors import ContractError
from bench.method import Method
from bench.testing import declared, measured, options, trained
from bench.testing.subject import Subject, kept_random_state, make_subject

#: In this order, so that the first failure is the cause of those after it.
CHECKS: tuple[Callable[[Subject], None], ...] = (
    declared.check_options, declared.check_stages, declared.check_build, declared.check_points, declared.check_units,
    measured.check_record, measured.check_repeatable, measured.check_batches, measured.check_execute,
    measured.check_parameters, measured.check_work, measured.check_policies, measured.check_copies,
    trained.check_training, trained.check_targets, trained.check_bfloat16, options.check_options_matter,
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One check. claim: what holds if all is well. problem: the one line that says what does not; '' if it holds.
    made: False if the check could not be made because of an earlier problem."""

    name: str
    claim: str
    problem: str = ""
    made: bool = True


def run_checks(cls: type[Method], name: str | None = None, config: MethodConfig | None = None) -> Iterator[Result]:
    """Each check's result as soon as it is known. config: default ``Config.small()``."""
    claim = "The smallest network can be built."
    try:
        subject = make_subject(cls, name, config)
    except ContractError as error:
        yield Result("small", claim, str(error))
        return
    yield Result("small", claim)
    wrong = False
    for check in CHECKS:
        said, words = check.__name__.removeprefix("check_"), " ".join((check.__doc__ or "").split())
        try:
            with kept_random_state():
                check(subject)
            yield Result(said, words)
        except ContractError as error:
            wrong = True
            yield Result(said, words, str(error))
        except Exception:
            if not wrong:  # else what the check relies on is what is wrong
                raise
            yield Result(said, words, made=False)


def check_method(cls: type[Method], name: str | None = None, config: MethodConfig | None = None) -> list[str]:
    """What does not hold, one line each; nothing if all is well. config: default ``Config.small()``."""
    problems = [result.problem for result in run_checks(cls, name, config) if result.problem]
    return list(dict.fromkeys(problems))
