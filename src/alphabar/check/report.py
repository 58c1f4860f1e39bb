"""What a check says: a verdict, what was measured, what should be, and the name of the bug."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

# Right; right in another convention; right, but breaks easily; wrong; could not be told.
Verdict = Literal["right", "equivalent", "fragile", "bug", "unchecked"]
_WORST_FIRST: tuple[Verdict, ...] = ("bug", "unchecked", "fragile", "equivalent", "right")


class Diagnosis(NamedTuple):
    """A bug that would explain what was measured."""

    id: str  # of the catalogue, such as A2; else what is wrong in which place
    name: str  # what the code does
    explains: str  # how well the numbers fit
    remedy: str  # what to write


@dataclass(frozen=True)
class Finding:
    """What was found of one function.

    Args:
        name: of the function.
        role: what it was checked as.
        verdict: see `Verdict`.
        law: the law that it was held against.
        measured: what it does, in numbers or as a formula.
        expected: what the law says.
        diagnoses: what would explain the difference, the best first.
        convention: how it was called, and in which of the usual conventions it is right.
        why: of `fragile`, how it breaks; of `unchecked`, what was in the way and what to do.
        seconds: how long the check took.
    """

    name: str
    role: str
    verdict: Verdict
    law: str
    measured: str
    expected: str
    diagnoses: tuple[Diagnosis, ...] = ()
    convention: str = ""
    why: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "role": self.role,
            "verdict": self.verdict,
            "law": self.law,
            "measured": self.measured,
            "expected": self.expected,
            "diagnoses": [d._asdict() for d in self.diagnoses],
            "convention": self.convention,
            "why": self.why,
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "Finding":
        """What `to_dict` gave."""
        diagnoses = tuple(Diagnosis(**d) for d in found["diagnoses"])
        return cls(**{**found, "diagnoses": diagnoses})

    def __str__(self) -> str:
        rows = [f"{self.name} ({self.role}): {self.verdict}"]
        rows += [f"  {key:<11} {text}" for key, text in self._lines() if text]
        return "\n".join(rows)

    def _lines(self) -> Sequence[tuple[str, str]]:
        lines = [("law", self.law)]
        if self.verdict != "unchecked":
            lines += [("measured", self.measured), ("expected", self.expected)]
        lines += [("convention", self.convention), ("because", self.why)]
        for found in self.diagnoses:
            lines += [
                (found.id, found.name),
                ("", f"  explains: {found.explains}"),
                ("", f"  remedy:   {found.remedy}"),
            ]
        return lines


class CheckFailed(AssertionError):
    """A check found a bug; the message is the report."""


@dataclass(frozen=True)
class Report:
    """What was found of one function or several."""

    functions: tuple[Finding, ...] = field(default_factory=tuple)

    @property
    def verdict(self) -> Verdict:
        """The worst of all; of nothing, unchecked."""
        found = {f.verdict for f in self.functions}
        return next((v for v in _WORST_FIRST if v in found), "unchecked")

    def raise_if_failed(self) -> None:
        """For a test suite of one's own.

        Raises:
            CheckFailed: where a bug was found.
        """
        if self.verdict == "bug":
            raise CheckFailed("\n" + str(self))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"verdict": self.verdict, "functions": [f.to_dict() for f in self.functions]}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "Report":
        """What `to_dict` gave."""
        return cls(tuple(map(Finding.from_dict, found["functions"])))

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.functions)) or "nothing was checked"
