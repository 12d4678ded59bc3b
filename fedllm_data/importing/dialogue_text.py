"""Whole dialogues written as one text, whose turns are marked: Anthropic HH, Guanaco, Glaive, ChatML.

A text is taken for a dialogue only if it begins with a mark and the assistant's mark follows; anything else is plain
text. Standard library only.
"""

import re
from dataclasses import dataclass

__all__ = ["dialogue_turns", "without_mark"]


@dataclass(frozen=True)
class _Style:
    begins: re.Pattern[str]
    mark: re.Pattern[str]
    """Its only group is the role."""
    answered: re.Pattern[str]


_STYLES = (
    # Bai et al. 2022, arXiv:2204.05862: "\n\nHuman: ...\n\nAssistant: ...".
    _Style(
        begins=re.compile(r"\s*Human:"),
        mark=re.compile(r"(?:\A\s*|(?:\r?\n){2})(Human|Assistant):"),
        answered=re.compile(r"(?:\r?\n){2}Assistant:"),
    ),
    # OpenAssistant-Guanaco: "### Human: ...### Assistant: ...".
    _Style(
        begins=re.compile(r"\s*### Human:"),
        mark=re.compile(r"### (Human|Assistant):"),
        answered=re.compile(r"### Assistant:"),
    ),
    # Glaive function calling: "USER: ...\n\n\nASSISTANT: ... <|endoftext|>\n\n\nFUNCTION RESPONSE: ...".
    _Style(
        begins=re.compile(r"\s*(?:SYSTEM|USER):"),
        mark=re.compile(r"(?:\A|\n)\s*(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE):"),
        answered=re.compile(r"\n\s*ASSISTANT:"),
    ),
    # ChatML, as chat templates write it: "<|im_start|>user\n...<|im_end|>\n<|im_start|>assistant\n...<|im_end|>".
    _Style(
        begins=re.compile(r"\s*<\|im_start\|>"),
        mark=re.compile(r"<\|im_start\|>(\w+)\n"),
        answered=re.compile(r"<\|im_start\|>assistant\n"),
    ),
)
_ENDS = ("<|endoftext|>", "<|im_end|>")
_SYSTEM_MARK = re.compile(r"\A\s*SYSTEM:\s*")


def dialogue_turns(text: str) -> list[tuple[str, str]] | None:
    """Return the turns of a dialogue as (mark, text without surrounding space), None if the text is none.

    >>> dialogue_turns(chr(10) * 2 + "Human: Hi" + chr(10) * 2 + "Assistant: Hello")
    [('Human', 'Hi'), ('Assistant', 'Hello')]
    >>> dialogue_turns("A human: that is what I am.") is None
    True
    """
    style = next((style for style in _STYLES if style.begins.match(text) and style.answered.search(text)), None)
    if style is None:
        return None
    _, *pieces = style.mark.split(text)
    turns = []
    for mark, content in zip(pieces[::2], pieces[1::2], strict=True):
        for end in _ENDS:
            content = content.strip().removesuffix(end)
        turns.append((mark, content.strip()))
    return turns


def without_mark(system: str) -> str:
    """Return a system text without the mark that Glaive's files begin it with.

    >>> without_mark("SYSTEM: You are kind.")
    'You are kind.'
    """
    return _SYSTEM_MARK.sub("", system)
