"""What a wrong gradient is, in a sentence: it is fitted to the right one."""

from handgrad.crosscheck.errors.diagnosis.diagnose import Specimen, diagnose

__all__ = ["Specimen", "diagnose"]
