"""What a client printed, and whether two answers are the same to its user."""

import difflib
from dataclasses import dataclass

# How alike the lines of two answers of the text reader must be, 1 being the same letters.
ALIKE = 0.9


@dataclass(frozen=True)
class Answer:
    """Lines of `probability text`, best first."""

    lines: tuple

    @classmethod
    def read(cls, printed):
        pairs = (line.split(" ", 1) for line in printed.splitlines() if line)
        return cls(tuple((float(probability), text) for probability, text in pairs))

    def texts(self):
        return [text for _, text in self.lines]


def compare(direct, offloaded, is_text):
    """Whether they agree, and in what words to say it."""
    if not direct.lines or not offloaded.lines:
        return False, f"direct {direct.lines[:1]}, through the sidecars {offloaded.lines[:1]}"
    if is_text:
        ratio = difflib.SequenceMatcher(None, "\n".join(direct.texts()), "\n".join(offloaded.texts())).ratio()
        same = len(set(direct.texts()) & set(offloaded.texts()))
        return ratio >= ALIKE, f"{same} of {len(direct.lines)} lines the same, letters {100 * ratio:.0f} % the same"
    (before, name), (after, other) = direct.lines[0], offloaded.lines[0]
    return name == other, f"{name} {before:.2f} -> {other} {after:.2f}"
