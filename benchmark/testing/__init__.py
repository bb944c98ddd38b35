"""The contract of a method as checks that anybody can run on theirs: ``ddbench check METHOD``."""

from benchmark.testing.checks import NOT_TRIED, RULES, Broken, check_method

__all__ = ["NOT_TRIED", "RULES", "Broken", "check_method"]
