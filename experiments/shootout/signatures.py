"""Whether a diagnosis says what a gross mutant is: in the words that the catalogue of errors has for it."""

from handgrad.crosscheck.errors import Mutant

# Kinds with one diagnosis that every report must make.
SIGNATURES = {
    "scale",
    "sign",
    "dropped leaf",
    "batch factor",
    "transposed",
    "examples permuted",
    "missing broadcast reduction",
    "wrong branch",
    "conjugate",
    "dtype",
}
# Kinds without a pattern, and with a bound that another number is as true as.
UNTOLD = {"noise", "small or large ones dropped"}
AROUND = ("right but for ", "wrong for ", "right for ", "right ", "elements ", "where ")


def is_told(mutant: Mutant) -> bool:
    """Whether there is something to say of it: one leaf is wrong, in a way that has a pattern."""
    return bool(mutant.leaf) and mutant.kind not in UNTOLD


def says(said: str, mutant: Mutant) -> bool:
    """Whether this is said of it; of a place, among the other places that are the same elements."""
    words = mutant.description.split(": ", 1)[1]
    if not words.startswith(("right ", "wrong for ")):
        return said == words
    place, what = words.removesuffix(" there").removesuffix(" elsewhere").split(": ")
    for start in AROUND:
        place = place.removeprefix(start)
    return place.removesuffix(" only") in said and what in said
