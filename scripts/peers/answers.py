"""What a client printed, and whether two answers are the same to its user."""

import difflib
import json
from dataclasses import dataclass

# How alike the lines of two answers of the text reader must be, 1 being the same letters.
ALIKE = 0.9


@dataclass(frozen=True)
class Answer:
    """Lines of `probability text`, best first, or of text alone, and the form of the server's JSON where the
    client printed it."""

    lines: tuple
    form: object = None

    @classmethod
    def read(cls, printed):
        body = None
        if printed.startswith("{"):
            body, _, printed = printed.partition("\n")
        lines = tuple(map(pair, filter(None, printed.splitlines())))
        return cls(lines, body and form(json.loads(body)))

    def texts(self):
        return [text for _, text in self.lines]


def pair(line):
    """Probability and text of a line; none where it is text alone."""
    probability, _, text = line.partition(" ")
    try:
        return float(probability), text
    except ValueError:
        return None, line


def form(value):
    """A JSON value with its keys in their order, and the kind of each text and number."""
    if isinstance(value, dict):
        return [(key, form(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return [form(inner) for inner in value]
    return type(value).__name__


def compare(direct, offloaded, is_text):
    """Whether they agree, and in what words to say it."""
    if direct.form != offloaded.form:
        forms = (str(answer.form)[:200] for answer in (direct, offloaded))
        return False, "the form of the answer is {}, through the sidecars {}".format(*forms)
    if not direct.lines or not offloaded.lines:
        return False, f"direct {direct.lines[:1]}, through the sidecars {offloaded.lines[:1]}"
    if is_text:
        ratio = difflib.SequenceMatcher(None, "\n".join(direct.texts()), "\n".join(offloaded.texts())).ratio()
        same = len(set(direct.texts()) & set(offloaded.texts()))
        return ratio >= ALIKE, f"{same} of {len(direct.lines)} lines the same, letters {100 * ratio:.0f} % the same"
    (before, name), (after, other) = direct.lines[0], offloaded.lines[0]
    return name == other, f"{name} {before:.2f} -> {other} {after:.2f}"
