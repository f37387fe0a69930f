"""Which arguments are differentiated."""

import operator
from collections.abc import Sequence

from handgrad.crosscheck.subject.arguments import Arguments, ProblemError
from handgrad.crosscheck.subject.words import counted

Argnums = int | Sequence[int] | None


def positions(argnums: int | Sequence[int], count: int) -> tuple[int, ...]:
    """The arguments, counted from the first.

    Raises:
      ProblemError: there is none, or no such argument.
    """
    chosen = tuple(operator.index(i) for i in ((argnums,) if not isinstance(argnums, Sequence) else argnums))
    if not chosen or not all(-count <= i < count for i in chosen):
        raise ProblemError(f"argnums must be among the {counted(count, 'argument')}, got {argnums!r}")
    return tuple(i % count for i in chosen)


def wanted_leaves(arguments: Arguments, argnums: Argnums) -> list[int] | None:
    """The leaves of these arguments that have a gradient; None: all that have one."""
    if argnums is None:
        return None
    chosen = positions(argnums, arguments.count)
    return [i for i in arguments.differentiable() if arguments.owner[i] in chosen]
