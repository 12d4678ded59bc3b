"""`fedllm-train chat`: questions from the terminal, from flags or from a pipe, and the answers side by side.

On a terminal that is wide enough every speaker has a column; elsewhere one answer stands below the other. Nothing that
a model writes reaches the terminal as a control sequence.
"""

import argparse
import json
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.policy.locate import locate
from fedllm_eval.texts import json_text
from fedllm_train.chat import Chat, Said, check_text, load_speakers, personal_folder

__all__ = ["add_chat_flags", "run_chat", "shown_text"]

COLUMN_CHARS = 40
"""A speaker's column is never narrower; on a narrower terminal answers stand below one another."""
HELP = """\
/system TEXT   put TEXT before the conversation as the system message, and begin again (without TEXT: none)
/reset         forget what was said
/save FILE     write the conversation to FILE as JSON
/quit          leave (also Ctrl-D)
Everything else is a question. A line that ends in \\ goes on in the next one."""


def add_chat_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `fedllm-train chat`."""
    parser.add_argument("run", metavar="RUN", help="run folder, adapter or model; folder or Hub id")
    parser.add_argument("--client", metavar="ID", help="let this client's own adapter answer, too")
    parser.add_argument(
        "--prompt", action="append", metavar="TEXT", help="ask this and leave; several are asked in one conversation"
    )
    parser.add_argument("--system", metavar="TEXT", help="system message")
    parser.add_argument("--no-base", action="store_true", help="leave out what the run started from")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="tokens of an answer (256)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token (0)")
    parser.add_argument("--top-p", type=float, default=1.0, help="share of probability answers are drawn from (1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of drawn answers (0)")
    parser.add_argument("--revision", help="revision of RUN on the Hub")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each question")


def run_chat(arguments: argparse.Namespace) -> None:
    """Load the speakers and talk until there is no further question.

    Raises:
        ConfigError: if a flag cannot be used, nothing was asked, or, away from a terminal, a question cannot be
            answered.
    """
    _check(arguments)
    is_terminal = arguments.prompt is None and sys.stdin.isatty()
    piped = None if is_terminal else list(arguments.prompt or _questions(sys.stdin))
    if piped == []:
        raise ConfigError("nothing was asked: standard input is empty; give --prompt TEXT, or a question a line")
    for number, question in enumerate(piped or (), start=1):
        check_text(question, f"question {number}")

    # Third parties announce renamed settings; nothing a user of this command can do about it.
    warnings.filterwarnings("ignore", category=FutureWarning)
    from fedllm_eval.policy.threads import threads_by_size

    with threads_by_size():
        chat = Chat(
            load_speakers(arguments.run, arguments.client, arguments.revision, with_base=not arguments.no_base),
            system=arguments.system,
            max_new_tokens=arguments.max_new_tokens,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            seed=arguments.seed,
        )
        show = _json_printer() if arguments.json else _printer()
        if piped is not None:
            for question in piped:
                show(question, chat.ask(question))
        else:
            _talk(chat, show)


def shown_text(text: str) -> str:
    r"""Return a model's answer as a terminal may show it: line breaks stay, other control characters become escapes.

    >>> shown_text("a\n\x1b[31mb\u202ec")
    'a\n\\x1b[31mb\\u202ec'
    """
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs") and letter not in "\n\t\u200c\u200d"
        else letter
        for letter in text
    )


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what can be refused before a model is loaded."""
    if arguments.max_new_tokens < 1:
        raise ConfigError(f"--max-new-tokens is {arguments.max_new_tokens}; give 1 or more")
    if not 0 <= arguments.temperature < float("inf"):
        raise ConfigError(f"--temperature is {arguments.temperature}; give 0 or a positive number")
    if not 0 < arguments.top_p <= 1:
        raise ConfigError(f"--top-p is {arguments.top_p}; give a number above 0 and at most 1")
    for prompt in arguments.prompt or ():
        if not prompt.strip():
            raise ConfigError("--prompt is empty; give a question")
        check_text(prompt, "--prompt")
    check_text(arguments.system or "", "--system")
    location = locate(arguments.run, arguments.revision)
    if arguments.client is not None:
        personal_folder(location, arguments.client)


def _questions(lines: Iterable[str]) -> Iterator[str]:
    """The questions of a text: one a line, empty ones left out; a backslash at the end joins the next line."""
    begun = ""
    for line in lines:
        text = begun + line.rstrip("\r\n")
        if text.endswith("\\"):
            begun = text[:-1] + "\n"
        else:
            begun = ""
            if text.strip():
                yield text
    if begun.strip():
        yield begun.rstrip("\n")


def _talk(chat: Chat, show: Callable[[str, list[Said]], None]) -> None:
    """Ask the person at the terminal until they leave; a question that fails ends nothing."""
    try:
        import readline  # noqa: F401  # gives `input` its line editing and history
    except ImportError:
        pass
    names = ", ".join(speaker.name for speaker in chat.speakers)
    print(f"You talk to: {names}. /help shows what else can be typed.")
    for question in _questions(_typed()):
        word, _, rest = question.partition(" ")
        try:
            if word in ("/quit", "/exit"):
                return
            elif word == "/help":
                print(HELP)
            elif word == "/reset":
                chat.reset()
            elif word == "/system":
                chat.system = rest.strip() or None
                chat.reset()
            elif word == "/save":
                _save(chat, rest.strip())
            elif word.startswith("/") and word[1:].isalpha():
                print(f"{word} is no command; /help lists them. Begin with a space to ask it all the same.")
            else:
                show(question, chat.ask(question))
        except (ConfigError, MetricError, OSError) as error:
            print(" ".join(str(error).split()))


def _typed() -> Iterator[str]:
    while True:
        try:
            yield input("\n> ")
        except EOFError:
            print()
            return


def _save(chat: Chat, name: str) -> None:
    if not name:
        raise ConfigError("/save needs the name of a file")
    opening = [] if chat.system is None else [{"role": "system", "content": chat.system}]
    record = {speaker.name: [*opening, *speaker.turns] for speaker in chat.speakers}
    with Path(name).open("x", encoding="utf-8") as file:  # never over what is there
        file.write(json.dumps(record, ensure_ascii=False, indent=2) + "\n")
    print(f"written to {name}")


def _json_printer() -> Callable[[str, list[Said]], None]:
    def show(question: str, said: list[Said]) -> None:
        answers = [
            {"speaker": one.speaker, "text": one.text, "num_tokens": one.num_tokens, "finished": one.finished}
            for one in said
        ]
        print(json_text({"prompt": question, "answers": answers}), flush=True)

    return show


def _printer() -> Callable[[str, list[Said]], None]:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())

    def show(question: str, said: list[Said]) -> None:
        if not sys.stdin.isatty() or not sys.stdout.isatty():
            console.print(Text(f"> {shown_text(question)}"))
        if console.is_terminal and len(said) > 1 and console.width >= COLUMN_CHARS * len(said):
            table = Table.grid(padding=(0, 3), expand=True)
            for _ in said:
                table.add_column(ratio=1)
            table.add_row(*(Text(one.speaker, style="bold") for one in said))
            table.add_row(*(Text(_answer(one)) for one in said))
            console.print(table)
        else:
            for one in said:
                console.print(Text.assemble((f"{shown_text(one.speaker)}: ", "bold"), _answer(one)))
        sys.stdout.flush()

    return show


def _answer(said: Said) -> str:
    text = shown_text(said.text) or "(nothing)"
    return text if said.finished else f"{text} … (cut at {said.num_tokens} tokens)"
