"""What to write instead: mutation testing read backwards."""

from handgrad.crosscheck.errors.repair.repair import repairs as repairs
