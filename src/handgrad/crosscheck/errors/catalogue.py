"""The catalogue: every error in order of precedence. Of explanations that hold, the first is said."""

from handgrad.crosscheck.errors.cotangents import COTANGENTS, NOT_LINEAR
from handgrad.crosscheck.errors.error import Error
from handgrad.crosscheck.errors.examples import EXAMPLES
from handgrad.crosscheck.errors.factors import ADDED, DIFFERENT, FACTORS, WHOLE
from handgrad.crosscheck.errors.forms import FORMS
from handgrad.crosscheck.errors.order import EXCHANGED, ORDER, SHIFTED
from handgrad.crosscheck.errors.places import PLACES, SCALED_PLACES
from handgrad.crosscheck.errors.values import COMPLEX, NOISE, REDUCED, VALUES

# In each group, what explains the numbers as they are comes before a multiple of an error, whatever their order.
GROUPS: tuple[tuple[Error, ...], ...] = (
    FACTORS,
    (*COMPLEX, *WHOLE, *ORDER, *VALUES, *REDUCED, *COTANGENTS),
    ADDED,
    EXCHANGED,
    PLACES,
    SHIFTED,
    EXAMPLES,
    SCALED_PLACES,
    NOT_LINEAR,
    DIFFERENT,
    NOISE,
)
# What a very large gradient is held against: the rest would take seconds.
QUICK = (FACTORS, PLACES)
CATALOGUE: tuple[Error, ...] = (*FORMS, *(error for group in GROUPS for error in group))
