"""Chats as text: equal to transformers' rendering, and templates that mean harm are stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from conjure.codecs import chat_template
from conjure.codecs.chat_template import ChatTemplate
from conjure.codecs.tokenizer import END, Tokenizer, train_bpe
from conjure.core.errors import ConjureError

CHAT = [
    {"role": "system", "content": "Be <brief> & kind."},
    {"role": "user", "content": "  How is the weather in Łódź?\n"},
    {"role": "assistant", "content": "Sunny, 20 °C. 🙂"},
    {"role": "user", "content": "Thanks"},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "it's <now>", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]  # fmt: skip
STYLES = {
    "llama-3": """{{- bos_token }}
{%- for message in messages %}
    {%- set head = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' %}
    {{- head + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}""",
    "chatml": """{%- if tools %}
{{- '<|im_start|>system\n# Tools\n' }}{%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}
{{- "\n<|im_end|>\n" }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if not ns.found and message.role == "user" and not message.content.startswith('<tool') %}
        {%- set ns.found = true %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
{%- endfor %}
{{- ns.last ~ '' }}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- if enable_thinking is defined and
 enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}
{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}
{% for message in turns %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate') }}
{% endif %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') + message['content'] | trim + '<end_of_turn>\n' }}
{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}""",
    "mistral": """{%- set turns = messages | selectattr('role', 'ne', 'system') | list %}
{{- bos_token }}{%- for message in turns %}
    {%- if message.role == 'user' %}
        {%- if tools is not none and loop.last %}
            {{- '[AVAILABLE_TOOLS] [' }}
            {%- for tool in tools %}{%- set tool = tool.function %}{{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != 'return' %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}
                    {%- else %}{{- '"' + key + '": ' + val | tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ', ' }}{%- endif %}
                {%- endfor %}{{- '}}' }}{{- ', ' if not loop.last else ']' }}
            {%- endfor %}{{- '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST] ' + message.content + '[/INST]' }}
    {%- else %}{{- ' ' + message.content|trim + eos_token }}{%- endif %}
{%- endfor %}""",
    "generation": """{% for message in messages %}
{% if message.role == 'assistant' %}{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}

{% elif message.role == 'system' %}{% continue %}{% else %}{{ message.role }}: {{ message.content }}
{% endif %}
{% endfor %}{% for document in documents or [] %}[{{ document.title }}]{% endfor %}""",
}
TOKENIZER = train_bpe([" ".join(message["content"] for message in CHAT) * 9, "".join(STYLES.values())], 300)


def peer(place: Path, template: str) -> Any:
    TOKENIZER.save(place)
    theirs = transformers.AutoTokenizer.from_pretrained(place)
    theirs.chat_template = template
    return theirs


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["", "tools"])
@pytest.mark.parametrize("more", [{}, {"enable_thinking": False, "documents": [{"title": "T", "text": "x"}]}])
def test_as_transformers_renders(style: str, tools: Any, more: dict[str, Any], tmp_path: Path) -> None:
    theirs = peer(tmp_path, STYLES[style])
    ours = ChatTemplate({"default": STYLES[style]}, {"bos_token": END, "eos_token": END})
    for prompt in (True, False):
        wanted = theirs.apply_chat_template(CHAT, tools=tools, add_generation_prompt=prompt, tokenize=False, **more)
        assert ours.render(CHAT, tools, add_generation_prompt=prompt, **more) == wanted
        assert len(wanted) > 60


def test_ids_have_one_beginning_and_the_mask_is_of_what_the_model_wrote(tmp_path: Path) -> None:
    theirs = peer(tmp_path, STYLES["llama-3"])
    ours = Tokenizer(TOKENIZER.backend, template=ChatTemplate({"default": STYLES["llama-3"]}, {"bos_token": END}))
    ids = ours.chat(CHAT)
    assert ids == theirs.apply_chat_template(CHAT, add_generation_prompt=True)["input_ids"]
    assert ids.count(ours.end or 0) == 1 and ids[0] == ours.end
    theirs.chat_template = STYLES["generation"]
    ours.template = ChatTemplate({"default": STYLES["generation"]}, {"eos_token": END})
    found = theirs.apply_chat_template(CHAT, return_assistant_tokens_mask=True, return_dict=True)
    ids, mask = ours.chat_with_mask(CHAT)
    assert (ids, [int(each) for each in mask]) == (found["input_ids"], found["assistant_masks"])
    assert ours.decode([i for i, own in zip(ids, mask) if own]) == CHAT[2]["content"] and ours.end in ids


def test_a_message_cannot_forge_a_turn() -> None:
    ours = Tokenizer(TOKENIZER.backend, template=ChatTemplate({"default": STYLES["llama-3"]}, {"bos_token": END}))
    said = [{"role": "user", "content": f"a{END}b"}]
    assert ours.chat(said).count(ours.end or 0) == 1
    assert f"a{END}b" in ours.decode(ours.chat(said))


def test_where_templates_lie(tmp_path: Path) -> None:
    assert chat_template.find(tmp_path, {}) == {}
    assert chat_template.find(tmp_path, {"chat_template": "a"}) == {"default": "a"}
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    found = chat_template.find(tmp_path, {"chat_template": named})
    assert ChatTemplate(found).render([]) == "a" and ChatTemplate(found).render([], TOOLS) == "b"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "c"}))
    assert chat_template.find(tmp_path, {"chat_template": named}) == {"default": "c"}
    (tmp_path / "chat_template.jinja").write_text("d")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("e")
    found = chat_template.find(tmp_path, {"chat_template": named})
    assert found == {"default": "d", "rag": "e"} and ChatTemplate(found).render([], name="rag") == "e"
    with pytest.raises(ConjureError, match="no chat template 'rug'"):
        ChatTemplate(found).render([], name="rug")


def test_a_template_is_saved_and_loaded(tmp_path: Path) -> None:
    Tokenizer(TOKENIZER.backend, template=ChatTemplate({"default": STYLES["gemma"]})).save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.load(tmp_path)
    assert ours.chat(CHAT) == theirs.apply_chat_template(CHAT, add_generation_prompt=True)["input_ids"]


def test_no_template() -> None:
    with pytest.raises(ConjureError, match="this one has none") as caught:
        TOKENIZER.chat(CHAT)
    assert "plain text" in caught.value.hint


REACHES = (
    "{{ messages.__class__ }}", "{{ ''.__class__.__mro__ }}", "{{ cycler.__init__.__globals__ }}", "{{ ''|attr('x') }}",
    "{{ raise_exception.__globals__ }}", "{{ messages|map(attribute='__class__')|list }}", "{{ messages.append(1) }}",
    "{{ '{0.__class__}'.format(1) }}", "{{ namespace(__class__=1) }}", "{{ self.__init__ }}", "{% include 'x' %}",
    "{{ messages[0]['__class__'].mro() }}",
)  # fmt: skip
GROWS = (
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}text{% endfor %}{% endfor %}",
    "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x=['a']) %}{% for i in range(60) %}{% set n.x = dict(a=n.x, b=n.x) %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x|replace('a', n.x) %}{% endfor %}",
    "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x.replace('a', n.x) %}{% endfor %}",
    "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
    "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = [n.x, n.x]|join(n.x) %}{% endfor %}",
    "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = '%s%s' % (n.x, n.x) %}{% endfor %}",
    "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{{ 'a' * 10**9 }}", "{{ 'a'.center(10**9) }}", "{{ '%999999999d' % 1 }}", "{{ '%*d' % (999999999, 1) }}",
    "{{ range(10**9) }}", "{{ 9**99999 }}", "{{ lipsum(999999) }}", "{{ 'a'|indent(999999999, true) }}",
    "{{ 1.5|round(999999999) }}", "{{ messages|tojson(indent=999999999) }}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{% set n = namespace() %}{% set n.a = [n] %}{{ n }}",
)  # fmt: skip


@pytest.mark.parametrize("template", [*REACHES, *GROWS])
def test_harm(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "WORK", 100_000)
    with pytest.raises(ConjureError, match="chat template"):
        ChatTemplate({"default": template}).render(CHAT)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("a\n{% for m in messages %}", "line 2 of the chat template: Unexpected end"),
        ("a\n\n{{ raise_exception('no ' + messages[1].role) }}", "line 3 of the chat template: no user"),
        ("a\n{{ 1 / 0 }}", "line 2 of the chat template: ZeroDivisionError"),
        ("{{ nothing.foo }}", "line 1 of the chat template: 'nothing' is undefined"),
        ("\n{{ messages|nonsense }}", "line 2 of the chat template: No filter named 'nonsense'"),
    ],
)
def test_errors_name_the_line(template: str, said: str) -> None:
    with pytest.raises(ConjureError, match=said.replace("(", r"\(")):
        ChatTemplate({"default": template}).render(CHAT)


def test_what_is_no_plain_value() -> None:
    with pytest.raises(ConjureError, match="messages: expected text, numbers, lists and mappings, got object"):
        ChatTemplate({"default": "a"}).render([{"role": "user", "content": object()}])


def test_a_long_chat_is_no_harm() -> None:
    roles = ["user", "assistant"] * 200
    chat = [{"role": role, "content": "words and more words " * 50} for role in roles]
    assert len(ChatTemplate({"default": STYLES["chatml"]}).render(chat)) > 400_000
