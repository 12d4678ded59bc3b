"""Tools, calls and results as text, in the form of Hermes and Qwen, since a message of a row is role and text alone.

The calls of an assistant follow its text, a call in `<tool_call>` tags; results come from the user, in
`<tool_response>` tags; the tools that a row lists end its system message. This is what the chat templates of Qwen 2.5
and Qwen 3 make of structured calls, character by character, so for these bases nothing differs. Bases whose templates
write calls in another form learn this one; templates that know no tools, such as SmolLM2's, would leave calls out.
An Arrow column cannot keep the structure itself: it pads the arguments of every call with nulls for the names that
only other calls use.
"""

import ast
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedllm_data.importing.record_columns import Unusable, type_name

__all__ = ["call_text", "calls_of", "parsed", "result_text", "tools_of", "tools_text", "without_nulls"]

_TOOLS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def parsed(text: str) -> Any:
    """Return what a text holds: JSON, the Python literal of a list or dict, or the array that pandas writes into CSV.

    Raises:
        ValueError: if it is none of these.

    >>> parsed('[1, null]'), parsed("{'a': True}"), parsed("[{'a': 1}" + chr(10) + " {'a': 2}]")
    ([1, None], {'a': True}, [{'a': 1}, {'a': 2}])
    """
    # numpy separates the items of an array by line breaks alone; inside literals a line break is always escaped.
    literal = text.strip()
    forms: tuple[tuple[Callable[[str], Any], str], ...] = (
        (json.loads, text),
        (ast.literal_eval, literal),
        (ast.literal_eval, literal.replace("}\n {", "}, {")),
    )
    for read, form in forms:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd escapes in the text
                return read(form)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    raise ValueError("is neither JSON nor a Python literal")


def calls_of(place: str, value: object) -> list[dict[str, Any]]:
    """Return the calls of a message, each with name and arguments.

    Args:
        place: what reasons call the message.
        value: a call or a list of calls, as such or as text: `{name, arguments}`, or OpenAI's
            `{id, type, function: {name, arguments}}`; arguments may be JSON text.

    Raises:
        Unusable: if it is something else.

    >>> calls_of("messages[1]", {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}})
    [{'name': 'f', 'arguments': {'x': 1}}]
    """
    try:
        value = parsed(value) if isinstance(value, str) else value
        calls = [_decoded(call) for call in (value if isinstance(value, list) else [value])]
    except ValueError as error:
        raise Unusable(f"{place}: the tool call {error}") from None
    return [_call(place, call) for call in calls]


def call_text(call: Mapping[str, Any]) -> str:
    """Return a call as text.

    >>> print(call_text({"name": "f", "arguments": {"x": 1}}))
    <tool_call>
    {"name": "f", "arguments": {"x": 1}}
    </tool_call>
    """
    return f"<tool_call>\n{_json({'name': call['name'], 'arguments': call['arguments']})}\n</tool_call>"


def result_text(content: object) -> str:
    """Return what a tool answered as text; what is in tags already stays as it is.

    >>> print(result_text({"ok": True}))
    <tool_response>
    {"ok": true}
    </tool_response>
    """
    text = content if isinstance(content, str) else _json(content)
    return text if text.lstrip().startswith("<tool_response>") else f"<tool_response>\n{text}\n</tool_response>"


def tools_of(value: object) -> list[Mapping[str, Any]] | None:
    """Return the tools that a column lists, as such or as text; None if it lists none.

    >>> tools_of('[{"name": "f"}]'), tools_of("hammer, saw"), tools_of([])
    ([{'name': 'f'}], None, None)
    """
    try:
        value = parsed(value) if isinstance(value, str) else value
        listed = value if isinstance(value, list) else [value]
        tools = [_decoded(tool) for tool in listed]
    except ValueError:
        return None
    found = [tool for tool in tools if isinstance(tool, Mapping) and ("name" in tool or "function" in tool)]
    return found if found and len(found) == len(tools) else None


def tools_text(tools: Sequence[Mapping[str, Any]]) -> str:
    """Return the part of a system message that presents the tools.

    >>> tools_text([{"name": "f"}]).splitlines()[5:8]
    ['<tools>', '{"name": "f"}', '</tools>']
    """
    return _TOOLS.format(tools="\n".join(_json(tool) for tool in tools))


def without_nulls(value: Any) -> Any:
    """Return a value without the nulls inside its mappings, with which Arrow pads structs whose fields differ.

    >>> without_nulls({"name": "f", "arguments": [{"x": 1, "y": None}]})
    {'name': 'f', 'arguments': [{'x': 1}]}
    """
    if isinstance(value, Mapping):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def _decoded(tool: Any) -> Any:
    """A tool or a call whose parts may be JSON texts, as `datasets` stores those whose fields differ."""
    tool = parsed(tool) if isinstance(tool, str) else tool
    if not isinstance(tool, Mapping):
        return tool
    decoded = dict(tool)
    for name in ("function", "parameters"):
        if isinstance(decoded.get(name), str) and decoded[name].lstrip().startswith("{"):
            decoded[name] = parsed(decoded[name])
    if isinstance(decoded.get("function"), Mapping):
        decoded["function"] = _decoded(decoded["function"])
    return decoded


def _call(place: str, call: object) -> dict[str, Any]:
    if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping):
        call = call["function"]
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        raise Unusable(f"{place}: a tool call must have a name and arguments, got {type_name(call)}")
    arguments = call["arguments"] if call.get("arguments") is not None else call.get("parameters")
    if isinstance(arguments, str):
        try:
            arguments = parsed(arguments) if arguments.strip() else {}
        except ValueError:
            pass  # models do write arguments that are no JSON; they stay the text they are
    return {"name": call["name"], "arguments": {} if arguments is None else arguments}


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unusable(f"a tool, its call or its result cannot be written as JSON: {str(error)[:100]}") from None
