"""The test split of a dataset that is handed to code which must not see it: touching it is an error."""

from __future__ import annotations

from typing import NoReturn

from benchmark.core.errors import JobError

RULE = "a method never sees the test split"


class WithheldError(JobError):
    """Something that may use the training split only touched the test split."""


def _refuse(what: str) -> NoReturn:
    raise WithheldError(
        f"{RULE}: what it was handed has none, and {what} was asked of it",
        where="dataset.test",
        allowed="dataset.train (for settings: DATASET@val, whose test split is cut out of the training split)",
        hint="use the training split; accuracy on the test split is measured by the harness alone",
    )


class Withheld:
    """Stands in the place of a test split. Whatever is asked of it raises :class:`WithheldError`."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # what copying and pickling look for
            raise AttributeError(name)
        _refuse(f"test.{name}")

    def __len__(self) -> int:
        _refuse("len(test)")

    def __bool__(self) -> bool:
        _refuse("bool(test)")

    def __iter__(self):
        _refuse("iter(test)")

    def __getitem__(self, index: object):
        _refuse("test[...]")

    def __repr__(self) -> str:
        return "Withheld()"
