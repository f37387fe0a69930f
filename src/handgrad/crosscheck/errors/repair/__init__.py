"""What to write instead: mutation testing read backwards."""

from handgrad.crosscheck.errors.repair.repair import obstacle as obstacle, repairs as repairs
