"""Chat templates of every trait: the assistant's words and its end of turn are found, or the row is refused.

The files that TRL ships stand for the models they belong to; the small ones here have the same traits under no name
that anybody knows.
"""

from datetime import date
from pathlib import Path

import pytest
import trl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trl.chat_template_utils import get_training_chat_template

from fedllm_data.errors import ChatTemplateError, ConfigError
from fedllm_eval.policy.chat import encode_conversation, encode_messages, encode_pair
from fedllm_eval.policy.rendering import fix_date, render_text
from fedllm_eval.policy.training_template import training_template, trains_end_of_turn
from fedllm_train.clients.token_cache import encoder_for

FOLDER = Path(trl.__file__).parent / "chat_templates"
OF_TRL = sorted(path.stem for path in FOLDER.glob("*.jinja") if not path.stem.endswith("_training"))
NOT_FOR_TEXT = {"idefics3", "smolvlm", "llava_next"}
"""Templates of image models that read lists of parts and nothing else."""
PATCHED = {
    *("deepseek_r1_distill", "deepseekv3", "gptoss", "phi3", "phi3_5", "qwen3", "qwen3_5_nothink", "qwen3_5_think"),
    *("qwen3_6", "nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra", "nemotron_3_5_lightning"),
}
"""Templates that write a turn otherwise once the conversation goes on, and of which TRL has a training version."""

HEAD = "{%- for m in messages -%}"
TAIL = "{%- endfor -%}{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
DROPS_REASONING = (  # as Qwen3 does: an empty think block in the last turn alone, earlier reasoning dropped
    HEAD
    + "{%- set said = m['content'].split('</think>')[-1].lstrip() -%}"
    + "<|{{ m['role'] }}|>{%- if m['role'] == 'assistant' and loop.last -%}<think></think>{%- endif -%}"
    + "{{ said }}<|end|>"
    + TAIL
)
OTHER_END = (  # as Phi-3 and gpt-oss do: the last turn ends with another token
    HEAD
    + "<|{{ m['role'] }}|>{{ m['content'] | trim }}"
    + "{%- if loop.last and m['role'] == 'assistant' -%}<|system|>{%- else -%}<|end|>{%- endif -%}"
    + TAIL
)
OTHER_PROMPT = (  # as DeepSeek's do: the generation prompt holds what no finished turn holds
    HEAD
    + "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>"
    + "{%- endfor -%}{%- if add_generation_prompt -%}<|assistant|><think>{%- endif -%}"
)
DEFAULT_SYSTEM = (  # as Qwen2.5 does
    "{%- if messages[0]['role'] != 'system' -%}<|system|>You help.<|end|>{%- endif -%}"
    + HEAD
    + "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>"
    + TAIL
)
REFUSES = (  # as Gemma and Mistral do
    "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}"
    + HEAD
    + "{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('roles must alternate') }}"
    + "{%- endif -%}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>"
    + TAIL
)
DATED = (  # as Llama 3.1 and gpt-oss do
    "<|system|>Today is {{ strftime_now('%Y-%m-%d') }}.<|end|>"
    + HEAD
    + "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>"
    + TAIL
)
SYSTEM_LAST = (  # as Mistral's do: the system message moves to the newest question, and a space begins each answer
    "{%- set at = namespace(last=0) -%}"
    "{%- for m in messages if m['role'] == 'user' -%}{%- set at.last = m['content'] -%}{%- endfor -%}"
    "{%- for m in messages -%}{%- if m['role'] == 'user' -%}<|user|>"
    "{%- if m['content'] == at.last and messages[0]['role'] == 'system' -%}{{ messages[0]['content'] }}{%- endif -%}"
    "{{ m['content'] }}<|assistant|>{%- elif m['role'] == 'assistant' -%}{{ ' ' + m['content'] }}<|end|>{%- endif -%}"
    "{%- endfor -%}"
)
NO_END = HEAD + "<|{{ m['role'] }}|>{{ m['content'] }}\n" + TAIL
SMALL = {
    "drops_reasoning": DROPS_REASONING,
    "other_end": OTHER_END,
    "other_prompt": OTHER_PROMPT,
    "default_system": DEFAULT_SYSTEM,
    "dated": DATED,
}


def of_trl(kit, name):
    tokenizer = kit.make_tokenizer((FOLDER / f"{name}.jinja").read_text(encoding="utf-8"))
    tokenizer.bos_token = "<|end|>"  # some templates write it, and none may be undefined
    return tokenizer


def talk(kit, *, system=False, turns=2):
    messages = [{"role": "system", "content": "be kind"}] if system else []
    for question, answer in [("say red", "blue"), ("say two", "one three")][:turns]:
        messages += [kit.user(question), kit.assistant(answer)]
    return messages


def trained_text(tokenizer, encoded):
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    return tokenizer.decode([token for token, kept in pairs if kept])


@pytest.mark.parametrize("name", [name for name in OF_TRL if name not in NOT_FOR_TEXT])
@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("turns", [1, 2])
def test_every_template_that_trl_knows_trains_on_both_answers_and_no_question(kit, name, system, turns):
    if system and name == "gemma":
        pytest.skip("knows no system role")
    tokenizer = of_trl(kit, name)
    text = trained_text(tokenizer, encode_messages(tokenizer, talk(kit, system=system, turns=turns)))
    answers = ["blue", "one three"][:turns]
    assert all(text.count(answer) == 1 for answer in answers)
    assert not any(word in text for word in ("red", "two", "kind"))
    assert [text.index(answer) for answer in answers] == sorted(text.index(answer) for answer in answers)


@pytest.mark.parametrize("name", sorted(PATCHED))
@pytest.mark.parametrize("turns", [1, 2])
def test_where_turns_are_rewritten_tokens_and_mask_are_those_of_trls_training_template(kit, name, turns):
    tokenizer = of_trl(kit, name)
    template = get_training_chat_template(tokenizer)
    for messages in (talk(kit, turns=turns), talk(kit, system=True, turns=turns)):
        theirs = tokenizer.apply_chat_template(
            messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
        )
        assert encode_messages(tokenizer, messages) == {
            "input_ids": theirs["input_ids"],
            "assistant_masks": theirs["assistant_masks"],
        }


@pytest.mark.parametrize("name", ["cohere2", "gemma3", "lfm2_v2", "llama3", "llama3_2", "qwen2_5", "qwen3_vl"])
def test_where_turns_are_prefixes_of_the_whole_the_tokenizers_own_template_stays(kit, name):
    tokenizer = of_trl(kit, name)
    messages = talk(kit)
    encoded = encode_messages(tokenizer, messages)
    text = render_text(tokenizer, messages)
    assert encoded["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    # Each turn runs from its generation prompt to the end of its rendering, token by token.
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    spans = []
    for index in (1, 3):
        before = render_text(tokenizer, messages[:index], add_generation_prompt=True)
        spans.append((len(before), len(render_text(tokenizer, messages[: index + 1]))))
    inside = [int(any(low <= begin and end <= high for low, high in spans)) for begin, end in offsets]
    assert encoded["assistant_masks"] == inside


def test_smollm2s_and_the_kits_own_templates_are_read_as_they_are(kit):
    for template in (kit.PLAIN_TEMPLATE, kit.MARKED_TEMPLATE):
        assert training_template(kit.make_tokenizer(template)).template is None
    chatml = (  # SmolLM2's
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
        "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tokenizer = kit.make_tokenizer(chatml)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    assert training_template(tokenizer).template is None
    encoded = encode_messages(tokenizer, talk(kit))
    assert trained_text(tokenizer, encoded) == "blue<|im_end|>one three<|im_end|>"


@pytest.mark.parametrize("name", sorted(SMALL))
def test_templates_that_nobody_knows_train_on_the_answers_and_their_end(kit, name):
    tokenizer = kit.make_tokenizer(SMALL[name])
    text = trained_text(tokenizer, encode_messages(tokenizer, talk(kit)))
    expected = {
        "drops_reasoning": "blue<|end|><think></think>one three<|end|>",
        "other_end": "blue<|end|>one three<|system|>",
    }
    assert text == expected.get(name, "blue<|end|>one three<|end|>")


@pytest.mark.parametrize("system", [False, True])
def test_a_space_that_a_tokenizer_joins_to_the_first_word_is_trained_with_it(kit, system):
    tokenizer = kit.make_tokenizer(SYSTEM_LAST)
    assert len(tokenizer(" blue", add_special_tokens=False)["input_ids"]) == 1
    encoded = encode_messages(tokenizer, talk(kit, system=system))
    assert trained_text(tokenizer, encoded) == " blue<|end|> one three<|end|>"


def test_reasoning_that_a_template_drops_from_earlier_turns_is_not_looked_for(kit):
    tokenizer = kit.make_tokenizer(DROPS_REASONING)
    messages = talk(kit)
    messages[1] = kit.assistant("<think>red two</think>\n\nblue")
    text = trained_text(tokenizer, encode_messages(tokenizer, messages))
    assert text == "blue<|end|><think></think>one three<|end|>"


def test_a_conversation_that_the_assistant_begins_is_trained_from_its_first_word(kit):
    tokenizer = kit.make_tokenizer()
    messages = [kit.assistant("sun"), kit.user("say red"), kit.assistant("blue")]
    assert trained_text(tokenizer, encode_messages(tokenizer, messages)) == "sun<|end|>blue<|end|>"


words = st.text(alphabet="abc é日\n\t.", max_size=12).map(str.strip).filter(bool)


@given(answers=st.lists(words, min_size=1, max_size=3), system=st.booleans(), name=st.sampled_from(sorted(SMALL)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_said_is_what_is_trained(kit, answers, system, name):
    tokenizer = kit.make_tokenizer(SMALL[name])
    messages = [{"role": "system", "content": "be kind"}] if system else []
    for answer in answers:
        messages += [kit.user("say red"), kit.assistant(answer)]
    text = trained_text(tokenizer, encode_messages(tokenizer, messages))
    for token in ("<think></think>", "<|system|>"):
        text = text.replace(token, "<|end|>" if token == "<|system|>" else "")
    assert text == "".join(f"{answer}<|end|>" for answer in answers)


def test_an_answer_that_a_template_changes_is_refused_and_loss_on_all_is_not(kit):
    tokenizer = kit.make_tokenizer("{{ messages | length }}" + HEAD + "{{ m['content'] | upper }}<|end|>" + TAIL)
    with pytest.raises(ChatTemplateError, match=r'cannot be found; add .* loss_on="all"'):
        encode_messages(tokenizer, [kit.user("a"), kit.assistant("b")])
    (encoded,) = encoder_for(kit.trl_args("sft"), tokenizer, loss_on="all")({"messages": talk(kit)})
    assert encoded["labels"] == encoded["input_ids"] == encode_conversation(tokenizer, talk(kit))


@pytest.mark.parametrize("name", ["qwen3", "deepseekv3", "phi3"])
def test_loss_on_all_takes_every_token_of_the_tokenizers_own_template(kit, name):
    tokenizer = of_trl(kit, name)
    args = kit.trl_args("sft", max_length=None)
    (encoded,) = encoder_for(args, tokenizer, loss_on="all")({"messages": talk(kit)})
    whole = tokenizer(render_text(tokenizer, talk(kit)), add_special_tokens=False)["input_ids"]
    assert encoded["labels"] == encoded["input_ids"] == whole


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (REFUSES, "System role not supported"),
        ("{% for m in messages %}{{ m['content'] }", "unexpected '}'"),
        ("{{ bos_token + messages[0]['content'] }}", "bos_token"),
        ("{{ messages[0]['content'] / 2 }}", "unsupported operand"),
        ("{{ 1 // 0 }}", "by zero"),
    ],
    ids=["refused", "syntax", "undefined", "type", "zero"],
)
def test_whatever_a_template_raises_is_one_error_with_its_reason(kit, template, reason):
    tokenizer = kit.make_tokenizer(template)
    with pytest.raises(ChatTemplateError) as caught:
        encode_messages(tokenizer, talk(kit, system=True))
    assert reason in caught.value.reason
    with pytest.raises(ChatTemplateError):
        encode_pair(tokenizer, talk(kit, system=True, turns=1), [kit.assistant("a")], [kit.assistant("b")])


@pytest.mark.parametrize("name", sorted(NOT_FOR_TEXT))
def test_a_template_that_leaves_out_what_is_said_is_not_trained_on_silence(kit, name):
    with pytest.raises(ChatTemplateError):
        encode_messages(of_trl(kit, name), talk(kit))


def test_no_template_at_all_is_no_matter_of_a_row(kit):
    tokenizer = kit.make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="has no chat template"):
        encode_pair(tokenizer, [kit.user("a")], [kit.assistant("b")], [kit.assistant("c")])


def test_of_several_named_templates_the_one_for_conversations_counts(kit):
    tokenizer = kit.make_tokenizer()
    tokenizer.chat_template = {"default": kit.MARKED_TEMPLATE, "tool_use": NO_END}
    assert encode_messages(tokenizer, talk(kit)) == encode_messages(kit.make_tokenizer(kit.MARKED_TEMPLATE), talk(kit))


def test_a_template_that_writes_the_date_writes_the_one_that_is_fixed(kit):
    tokenizer = kit.make_tokenizer(DATED)
    assert date.today().isoformat() in render_text(tokenizer, talk(kit))
    fix_date(tokenizer, date(2024, 7, 26))
    assert "Today is 2024-07-26." in render_text(tokenizer, talk(kit))
    assert "2024-07-26" in tokenizer.decode(encode_messages(tokenizer, talk(kit))["input_ids"])
    assert date.today().isoformat() in render_text(kit.make_tokenizer(DATED), talk(kit))


@pytest.mark.parametrize("name", ["gptoss", "llama3_2"])
def test_fixing_todays_date_changes_no_token(kit, name):
    free, fixed = of_trl(kit, name), of_trl(kit, name)
    fix_date(fixed, date.today())
    assert encode_messages(fixed, talk(kit)) == encode_messages(free, talk(kit))
    fix_date(fixed, date(2024, 7, 26))
    assert encode_messages(fixed, talk(kit)) != encode_messages(free, talk(kit))
    assert "2024" in render_text(fixed, talk(kit), add_generation_prompt=True)


def test_whether_the_end_of_a_turn_is_trained_is_known(kit):
    for template in (kit.PLAIN_TEMPLATE, kit.MARKED_TEMPLATE, DROPS_REASONING, OTHER_END):
        assert trains_end_of_turn(kit.make_tokenizer(template))
    marks_words_alone = kit.MARKED_TEMPLATE.replace("<|end|>{% endgeneration %}", "{% endgeneration %}<|end|>")
    for template in (NO_END, marks_words_alone):
        assert not trains_end_of_turn(kit.make_tokenizer(template))
    # With the loss on every token the same end is seen.
    assert trains_end_of_turn(kit.make_tokenizer(marks_words_alone), marked=False)
    assert not trains_end_of_turn(kit.make_tokenizer(NO_END), marked=False)


def test_a_template_whose_turns_end_where_the_next_begins_is_taught_to_stop(kit):
    # GLM-4's answers end with nothing; the model stops by writing the next turn's first token.
    tokenizer = of_trl(kit, "glm4moe")
    assert trained_text(tokenizer, encode_messages(tokenizer, talk(kit))).endswith("one three<|user|>")
    assert trains_end_of_turn(tokenizer)
