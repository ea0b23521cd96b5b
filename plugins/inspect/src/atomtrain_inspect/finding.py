"""What an audit gives: facts, and findings in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["note", "warning", "serious"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "note")
SHOWN = 3
"""structures that a sentence names"""
LISTED = 1000
"""structures that the JSON lists"""

Place = tuple[str, int]
"""a file, and the number of a frame in it, from 0"""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    ``check`` is its short name (``forces-sign``), ``text`` a sentence: what, where, what to do. ``serious``: a model
    trained on this is wrong, or its errors are; ``warning``: probably a mistake; ``note``: worth knowing.
    """

    check: str
    severity: Severity
    text: str
    places: Sequence[Place] = ()


@dataclass
class Report:
    """Facts by topic, in the order in which they are shown, and findings, the serious ones first."""

    facts: dict[str, list[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def fact(self, topic: str, line: str) -> None:
        """Add a line to a topic."""
        self.facts.setdefault(topic, []).append(line)

    def count(self, severity: Severity) -> int:
        """How many findings are as severe as this."""
        return sum(finding.severity == severity for finding in self.findings)

    def sort(self) -> None:
        """The serious ones first."""
        self.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "facts": self.facts,
            "findings": [
                {
                    "check": finding.check,
                    "severity": finding.severity,
                    "text": finding.text,
                    "structures": [
                        {"file": file, "frame": frame} for file, frame in finding.places[:LISTED]
                    ],
                }
                for finding in self.findings
            ],
        }
