#!/usr/bin/env python3
"""Writes testdata/chat/templates.json: templates, contexts, and what jinja2 renders, set up as
Transformers sets it up for chat templates. `expected` is null where jinja2 refuses.

    pip install jinja2==3.1.6
    tools/oracle/make_chat_goldens.py testdata/chat/templates.json

With files of templates, the same conversations by these, for a comparison that is not committed:

    tools/oracle/make_chat_goldens.py /tmp/cases.json FOLDER/*.jinja
    tools/oracle/make_chat_goldens.py /tmp/cases.json 20000   # so many templates that are drawn, of generators
    FERRY_CHAT_TEMPLATES=/tmp/cases.json build/text_test --gtest_filter=ChatTemplate.RendersAsJinja2
"""

import json
import pathlib
import random
import sys
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime(2026, 3, 7, 9, 5, 1)


class Generation(jinja2.ext.Extension):
    """Transformers' {% generation %}: its body, as it is."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )

    def refuse(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = lambda f: NOW.strftime(f)
    return env


CHATML = """{% for m in messages %}
{%- if loop.first and m['role'] != 'system' %}
{{- '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}
{%- endif %}
{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

# A reasoning model's: thoughts of earlier answers are dropped, the prompt opens the next.
REASONER = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- set ns = namespace(first=true, open_tool=false, system='') %}
{%- for message in messages %}{% if message['role'] == 'system' %}{% set ns.system = ns.system + message['content'] %}{% endif %}{% endfor %}
{{- bos_token }}{{ ns.system }}
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- set ns.open_tool = false %}{{- '<|User|>' + message.content }}
{%- elif message.role == 'assistant' and message.tool_calls is defined and message.tool_calls is not none %}
{%- if ns.open_tool %}{{- '<|outputs_end|>' }}{% endif %}
{%- for call in message['tool_calls'] %}
{%- if loop.first %}{{- '<|Assistant|><|calls_begin|>' }}{% else %}{{- '\\n' }}{% endif %}
{{- '<|call|>' + call['type'] + '<|sep|>' + call['function']['name'] + '\\n```json\\n' + call['function']['arguments'] + '\\n```' }}
{%- endfor %}{{- '<|calls_end|>' }}
{%- elif message.role == 'assistant' %}
{%- set content = message.content %}
{%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
{{- '<|Assistant|>' ~ content ~ eos_token }}
{%- elif message.role == 'tool' %}
{%- if not ns.open_tool %}{{- '<|outputs_begin|>' }}{% set ns.open_tool = true %}{% endif %}
{{- '<|output|>' + message.content + '<|output_end|>' }}
{%- endif %}
{%- endfor %}
{%- if ns.open_tool %}{{- '<|outputs_end|>' }}{% endif %}
{%- if add_generation_prompt and not ns.open_tool %}{{- '<|Assistant|><think>\\n' }}{% endif %}"""

# Tools as a JSON list in the system text, dates, checks that refuse.
TOOLS = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{% set tools = none %}{% endif %}

{#- The system text comes first. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|header|>system<|end|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
    {{- "Tools: " + tools | selectattr('function') | map(attribute='function.name') | list | join(", ") + "\\n" }}
{%- endif %}
{{- "Today: " + date_string + "\\n" + system_message }}
{%- for t in tools or [] %}
    {{- t | tojson(indent=4) }}
    {{- "\\n\\n" }}
{%- endfor %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|header|>' + message['role'] + '<|end|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("one call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {%- if message.content is mapping or message.content is iterable and message.content is not string %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header|>assistant<|end|>\\n\\n' }}
{%- endif %}
"""

# Groups tool answers, looks at neighbours, walks backwards, thinks or not.
GROUPS = """{%- macro text_of(content) -%}
{%- if content is string -%}{{ content }}
{%- else -%}{%- for part in content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- if tools %}
    {{- '<|im_start|>system\\n# Tools' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and not(message.content is string and message.content.startswith('<resp>') and message.content.endswith('</resp>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<resp>\\n' }}{{ text_of(message.content) }}{{- '\\n</resp>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- elif message.role == "assistant" %}
        {%- set content = text_of(message.content or '') %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '\\n<call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{% else %}{{- call.arguments | tojson }}{% endif %}
            {{- '}\\n</call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + text_of(message.content) + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}"""

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Wie ist das Wetter? \"now\" \\ \u00e9\u4e2d\U0001f600 <b>&'",
        "parameters": {"type": "object", "properties": {"z": {"type": "number"}, "a": {"enum": [1, 2.5, None, True]}}, "required": []},
    },
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"z": 1e20, "a": -0.5, "deep": [[], {}, ""]}}}
CALL_TEXT = {"type": "function", "function": {"name": "weather", "arguments": "{\"z\": 3}"}}

CONVERSATIONS = {
    "one": [{"role": "user", "content": "Hi"}],
    "system": [{"role": "system", "content": "  Sei kurz. \n"}, {"role": "user", "content": "\u3000 2+2?\u00a0\n"}],
    "turns": [
        {"role": "user", "content": "<think>a{{ 1 }}"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nfour {% if %}"},
        {"role": "user", "content": ""},
    ],
    "ends with answer": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "</think>x"}],
    "reasoning": [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "reasoning_content": "\n\nwhy\n"},
        {"role": "user", "content": "<resp>not a question</resp>"},
    ],
    "empty": [],
}
TOOL_CONVERSATIONS = {
    "call": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
        {"role": "tool", "content": "rainy"},
        {"role": "assistant", "content": "both"},
    ],
    "two calls": [
        {"role": "user", "content": [{"type": "text", "text": "parts"}, {"type": "image"}, {"type": "text", "text": "!"}]},
        {"role": "assistant", "content": "", "tool_calls": [CALL_TEXT, CALL_TEXT]},
        {"role": "tool", "content": {"t": 3}},
    ],
}

EXPRESSIONS = [
    "{{ 1 + 2 * 3 - 4 // 3 % 2 }} {{ 7 // -2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}",
    "{{ 7 / 2 }} {{ 4 / 2 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 1e16 }} {{ 1.5e-7 }} {{ 123456789.125 }} {{ 0.1 + 0.2 }} {{ 1e15 * 10 }} {{ 1e22 }} {{ 0.0001 }}",
    "{{ 1_000 }} {{ +3 }} {{ - 3 }} {{ 3 - -3 }} {{ true + 1 }} {{ 1 == true }} {{ 1.0 == 1 }} {{ '1' == 1 }}",
    "{{ 9223372036854775807 }} {{ 'a' * 3 }} {{ 2 * 'ab' }} {{ 'a' * -1 }}|",
    "{{ none }} {{ true }} {{ False }} {{ undefined_name }}| {{ [] }} {{ {} }} {{ () }} {{ (1,) }} {{ (1, 'a') }} {{ [1.0, none, 'it\\'s', \"q\\\"\", 'both \\' \"'] }}",
    "{{ {'a': 1, 'b': [true], 'a': 2} }} {{ ['\u00e9\\n\\t\\\\', '\u4e2d', '\\x00\\x7f\\xa0\\u200b\\ud55c\\U0001f600'] }}",
    "{{ 'a' 'b' \"c\" }} {{ 'a' ~ 1 ~ none ~ 2.0 ~ [] }} {{ 'x' + 'y' ~ 'z' }} {{ 1 ~ (2 + 3) }}", "{{ 1 ~ 2 + 3 }}",
    "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 in [1] }} {{ 'b' in 'abc' }} {{ 'x' not in {'x': 1} }} {{ not 1 in [2] }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 3 >= 3.0 }}",
    "{{ 1 and 'x' }} {{ 0 or '' or [] }} {{ not none }} {{ 'a' if 0 else 'b' if 0 else 'c' }} {{ 'a' if 0 }}|",
    "{{ 'abcdef'[1:4] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[:-4] }} {{ 'abcdef'[5:1:-2] }} {{ 'abc'[10:] }}| {{ [1,2,3,4][1::2] }} {{ '\u00e9\u4e2da'[1] }} {{ 'abc'[-1] }} {{ 'abc'[7] }}| {{ (1,2,3)[:2] }} {{ [1,2][::99999999999] }}",
    "{{ {'a': {'b': 5}}.a.b }} {{ {'a': 1}['a'] }} {{ {'a': 1}.x }}| {{ {'items': 3}['items'] }} {{ [10, 20].1 }} {{ {'a': [1, 2]}['a'][1] }}",
    "{{ x.missing is defined }} {{ x is defined }} {{ y is defined }} {{ y is undefined }} {{ none is none }} {{ 'a' is string }} {{ 1 is number }} {{ true is number }} {{ true is integer }} {{ 1.5 is float }} {{ true is boolean }} {{ {} is mapping }} {{ [] is sequence }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 1 is eq 1 }} {{ 2 is in [1, 2] }} {{ 1 is not none }} {{ not 1 is none }} {{ 1 is sameas 1 }} {{ false is false }} {{ 0 is false }} {{ range is callable }}",
    "{{ ' a b '|trim }}| {{ 'xxaxx'|trim('x') }} {{ 'abc'|upper|lower|capitalize }} {{ 'hello wORLD (foo-bar'|title }} {{ 'abc'|length }} {{ '\u00e9\u4e2d'|length }} {{ {'a': 1}|count }} {{ zz|length }}",
    "{{ [1, 2, 3]|join }} {{ [1, 'a', none]|join(', ') }} {{ [{'n': 1}, {'n': 2}]|join('-', attribute='n') }} {{ 'abc'|join('.') }}",
    "{{ y|default('d') }} {{ y|d }}| {{ ''|default('e', true) }} {{ ''|default('e') }}| {{ none|default('n') }} {{ x|default(default_value='q') }}",
    "{{ [3, 1, 2]|first }} {{ [3, 1, 2]|last }} {{ []|first }}| {{ 'abc'|first }} {{ 'abc'|list }} {{ {'a': 1}|list }} {{ 5|string + '!' }} {{ '42'|int + 1 }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ '3.9'|int }} {{ 3.9|int }} {{ '2.5'|float }} {{ 'q'|float(1.5) }}",
    "{{ {'b': 1, 'a': 2}|items|list }} {{ {'b': 1, 'A': 2}|dictsort }} {{ {'b': 1, 'a': 2}|dictsort(by='value', reverse=true) }} {% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}={{ v }};{% endfor %} {{ {'a': 1}.keys()|list }} {{ {'a': 1}.values()|list }} {{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b', 3) }} {{ {'a': 1}.get('b') }}",
    "{{ 'aXbX'|replace('X', '--') }} {{ 'aXbX'|replace('X', '-', 1) }} {{ 'ab'|replace('', '.') }} {{ 'abc'|reverse }} {{ [1, 2]|reverse|list }} {{ [3, 1, 2]|sort }} {{ ['b', 'A', 'c']|sort }} {{ ['b', 'A']|sort(case_sensitive=true, reverse=true) }} {{ [{'a': 2}, {'a': 1}]|sort(attribute='a') }} {{ ['a', 'A', 'b', 'a']|unique|list }}",
    "{{ [{'a': {'b': 1}}, {'a': {'b': 2}}]|map(attribute='a.b')|list }} {{ ['a', 'b']|map('upper')|list }} {{ ['1', '2']|map('int')|sum }} {{ [{'a': 1}, {}]|map(attribute='a', default=0)|list }} {{ [1, 2, 3, 4]|select('odd')|list }} {{ [0, 1, none]|select|list }} {{ [1, 2, 3]|reject('gt', 2)|list }} {{ [{'r': 'u'}, {'r': 'a'}]|selectattr('r', 'equalto', 'u')|list }} {{ [{'r': 1}, {'q': 2}]|rejectattr('r')|list }} {{ [{'r': 1}, {}]|selectattr('r', 'defined')|list|length }}",
    "{{ {'b': [1, 2.0, 'x\"\\n\u00e9'], 'a': {}, 'c': none}|tojson }} {{ {'b': 1, 'a': [1, {}]}|tojson(indent=2) }} {{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }} {{ [1, 2]|tojson(separators=(',', ':')) }} {{ '</script>&'|tojson }} {{ []|tojson(indent=4) }} {{ true|tojson }}",
    "{{ 'a\\nb\\n\\nc'|indent }} {{ 'a\\nb'|indent(2, true) }} {{ 'a\\n\\nb'|indent(width='> ', blank=true) }} {{ -3|abs }} {{ 2.5|round }} {{ 3.5|round }} {{ 2.675|round(2) }} {{ 2.1|round(0, 'ceil') }} {{ [1, 2]|sum }} {{ [1, 2.5]|sum(start=1) }} {{ [3, 1]|min }} {{ ['a', 'B']|max }} {{ []|max }}|",
    "{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(' ', 1) }} {{ ' a b  c '.split(none, 1) }} {{ 'a.b.c'.rsplit('.', 1) }} {{ 'a\\nb\\r\\nc'.splitlines() }} {{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.replace('b', 'x') }} {{ 'abc'.find('c') }} {{ 'abc'.find('z') }} {{ 'abab'.count('ab') }} {{ '-'.join(['a', 'b']) }} {{ 'a'.isdigit() }} {{ '12'.isdigit() }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ \"it's a TEST\".title() }} {{ 'xay'.strip('xy') }} {{ 'ab'.upper() }} {{ 'xyabyx'.lstrip('xy') }} {{ 'abyx'.rstrip('xy') }}",
    "{% for i in range(3) %}{{ i }}{% if not loop.last %},{% endif %}{% endfor %} {{ range(5, 1, -2)|list }} {% for x in [] %}{% else %}none{% endfor %} {% for x in 'ab' %}{{ loop.index }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.cycle('p', 'q') }}{{ loop.previtem }}{{ loop.nextitem }}{% endfor %}",
    "{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }} {% endfor %}{% for x in [1, 2, 3, 4] if x is even %}{{ loop.index }}:{{ x }} {% endfor %}{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}",
    "{% set a = 1 %}{% for i in [1, 2] %}{% set a = a + i %}{{ a }} {% endfor %}{{ a }} {% if true %}{% set a = 9 %}{% endif %}{{ a }} {% set b, c = 1, 2 %}{{ b }}{{ c }} {% set n = namespace(v=0) %}{% for i in [1, 2, 3] %}{% set n.v = n.v + i %}{% endfor %}{{ n.v }} {{ n.w is defined }}",
    "{% set t %}a{{ 1 }}b{% endset %}{{ t }}{{ t|length }} {% set u | upper | trim %} x{% endset %}{{ u }}| {% filter upper %}q{{ 'r' }}{% endfilter %} {% with p = 3, q = 4 %}{{ p + q }}{% endwith %}{{ p }}|",
    "{% macro m(a, b='d', c=none) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(c=3, a=1) }}{{ m() }} {% set top = 5 %}{% macro see() %}{{ top }}{% endmacro %}{{ see() }} {% macro rec(n) %}{{ n }}{% if n > 0 %}{{ rec(n - 1) }}{% endif %}{% endmacro %}{{ rec(3) }} {{ m(1)|length }}",
    "  {% if true %}\n  a\n  {% endif %}\n b {#- c -#}  \n  d\n{# e #}\nf {%+ if true %} g {% endif +%}\n h\n\n{%- if true -%}  \n i  {%- endif %}\n  {{ 'j' }}\n  {{- 'k' -}}  \n l {% raw %}{{ no }}{% if %}{% endraw %}\n m\n\n",
    "a\r\nb{% if true %}\r\nc{% endif %}\rd\r\n",
    "{{ strftime_now('%d %b %Y %H:%M') }} {{ dict(a=1, b=2) }} {% generation %}x{{ 1 }}{% endgeneration %}",
    "{{ '{{' }}{{ '%}' }}{{ {'a': {'b': 1}}['a']['b']}} {{ {'a': {'b': {}}} }}",
    "{{ x.y }}", "{{ y.z }}", "{{ y['z'] }}", "{{ 'a' + 1 }}", "{{ [1].append(2) }}", "{{ {}.update({}) }}",
    "{{ 1 // 0 }}", "{{ 'a' < 1 }}", "{{ nope() }}", "{{ 'a'|nope }}", "{{ 1 is nope }}", "{% for x in 5 %}{% endfor %}",
    "{{ raise_exception('no') }}", "{% if %}", "{{ 1 +", "{% for x in y", "{% endif %}", "{{ (1 }}", "{{ ''.__class__ }}|", "{{ ''['__class__'] }}|",
    "{{ y + 'a' }}", "{{ none + 'a' }}", "{{ y in 'abc' }}", "{% for x in none %}{% endfor %}", "{% for x in y %}{% else %}e{% endfor %}", "{{ none|length }}",
    "{{ 'abc'.nope }}|", "{{ 'abc'.nope() }}", "{% break %}", "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "{% set a, b = [1] %}", "{% set x.y = 1 %}", "{{ y|tojson }}",
    "{{ 42|round }} {{ 42|round(2) }} {{ true|round }} {{ 42|round(0, 'floor') }} {{ 41.5|round|int }} {{ -0.4|round }}",
    "{{ '9007199254740993'|int }} {{ ' 1_000 '|int }} {{ '+5'|int }} {{ '-7'|int }} {{ '1_0.5'|float }} {{ 'inf'|int(3) }} {{ '1__0'|int(4) }} {{ '5.'|int }} {{ '0x10'|int(6) }} {{ '+-5'|int(8) }} {{ 'nan'|int(9) }} {{ '-9223372036854775808'|int }} {{ ''|int(1) }}",
    "{{ 9007199254740993 == 9007199254740992.0 }} {{ 9007199254740993 > 9007199254740992.0 }} {{ 9007199254740991 == 9007199254740991.0 }} {{ 9223372036854775807 < 1e19 }} {{ -9223372036854775807 > -1e19 }} {{ 3 < 3.5 }} {{ -3.5 < -3 }} {{ [1] == [1.0] }}",
    "{{ none|selectattr('a')|list }} {{ none|map('upper')|list }} {{ 0|reject('odd')|list }} {{ ''|rejectattr('a', 'eq', 1)|list }} {{ none|map(attribute='a')|list }}",
    "{{ 'a\u00e9\u4e2d\U0001f600\x7f\t\"'|tojson(ensure_ascii=true) }} {{ {'\u00e9': ['\u4e2d']}|tojson(true) }} {{ '\u00e9\x7f'|tojson(ensure_ascii=false) }}",
    "{{ 1|map('upper')|list }}",
    "{{ [nope] }} {{ (nope,) }} {{ {'a': nope} }} {{ [nope]|join('-') }}| {{ nope ~ 'a' }}",
    "{{ 5.3 % 0.1 }} {{ 5.3 // 0.1 }} {{ -5.3 % 0.1 }} {{ -5.3 // 0.1 }} {{ 1 % -0.3 }} {{ 0.0 // -2 }} {{ -1.0 % 1 }} {{ 1e300 % 7 }}",
    "{{ [{'a': 'B', 'i': 1}, {'a': 'c', 'i': 2}, {'a': 'b', 'i': 3}]|sort(attribute='a', reverse=true) }} {{ {'b': 'X', 'A': 'y'}|dictsort(by='value') }} {{ '\u3000a\t b\x1c c'.split() }} {{ 'aaa'.rfind('aa') }} {{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }} {{ {'a': 1} == {'a': 2} }} {{ ['b', 'a', 'B']|unique|list }} {{ 'x' is in {'x': 1} }} {{ '\u00e9\u4e2da'|last }}",
    # What is made as it is asked for: true, without a length, given out once.
    "{% if none|selectattr('a') %}yes{% endif %}{% if [{'r': 1}]|selectattr('r', 'eq', 2) %}yes{% endif %} {{ not ([]|select) }} {{ ([]|reject('none'))|default('d', true)|list }} {{ ({}|items) and 1 }} {{ ([]|unique) and 1 }} {{ ([]|reverse) and 1 }}",
    "{% set x = [1, 2, 3]|select('odd') %}{{ x|list }}{{ x|list }} {% set y = [1]|map('string') %}{% for a in y %}{{ a }}{% endfor %}{% for a in y %}{{ a }}{% else %}none{% endfor %} {% set z = [2, 1]|reverse %}{{ z|join }}{{ z|join }}",
    "{{ ([1]|select) == [1] }} {{ ([1]|select) is sequence }} {{ ([1]|select) is iterable }} {{ (['a']|map('upper'))[0] }} {{ ['a']|map('upper')|reverse|length }} {{ 'B' in (['a', 'b']|map('upper')) }} {{ [1, 2]|select|first }} {% set x = [1]|select %}{{ x == x }} {{ x == [1]|select }}",
    # Whoever takes an item has it, in the middle of a loop, too; what nobody asks for is not made.
    "{% set g = [1, 2, 3]|select %}{% for x in g %}{{ x }}{{ g|list }}{{ loop.last }}{{ loop.length }}{% else %}none{% endfor %} {% set g = [1, 2, 3]|select %}{% for x in g %}{{ x }}{{ loop.last }}{{ g|join('-') }} {% endfor %}{% set g = 'abcd'|map('upper') %}{% for x in g %}{{ loop.index }}{% for y in g %}{{ x }}{{ y }}{% break %}{% endfor %}{% endfor %}",
    "{% set g = [1, 2, 3, 4]|reverse %}{{ g|first }} {{ 3 in g }} {{ g|list }} {{ g|first }}| {% set g = [1, 2]|map('nope') %}{% set h = g|map('upper') %}ok {% set g = ['a', 'b']|map('upper') %}{% set h = g|map('lower') %}{{ g|first }}{{ h|list }}{{ g|list }}",
    "{% for x in [1, 2] %}{% continue %}{% else %}none{% endfor %} {% for x in [1, 2] %}{{ x }}{% break %}{% else %}left{% endfor %} {% for x in [1, 2] %}{% if x == 2 %}{% break %}{% endif %}{% else %}left{% endfor %} {% for x in [1, 2] %}{% for y in [3] %}{{ loop.index }}{% endfor %}{% set l = loop %}{{ l.index }}{{ loop['last'] }}{{ loop.nope }}{{ loop is mapping }}{{ loop is iterable }}{{ loop is callable }}{% endfor %}",
    "{% for x in [1]|map('nope') %}{% endfor %}",
    "{{ [1]|select|length }}",
    "{{ [1]|select|last }}",
    "{{ ['a']|map('upper') + ['b'] }}",
    "{{ ['a']|map('upper')|tojson }}",
    "{{ {'a': 1}|items|length }}",
    "{{ [2, 1]|reverse|length }}",
    "{{ [1, 1]|unique|length }}",
    "{{ none|map()|list }} {{ []|selectattr()|list }} {{ ''|map(nope=1)|list }}",
    "{{ [1]|map()|list }}",
    "{{ [1]|selectattr()|list }}",
    "{{ 'a\\vb\\fc\\x1cd\\x1de\\x1ef\\x1fg\\x85h\\u2028i\\u2029j\\r\\nk\\n\\rl\\u200bm\\u2028'.splitlines() }} {{ 'a\\u2028b\\u2029c\\x85d\\ve\\x1cf\\r\\rg'|indent(2) }} {{ '\\u2028\\x85'|indent(1, true, true) }}| {{ '\\x85'.splitlines() }} {{ ''.splitlines() }} {{ 'a\\n'|indent(2, blank=true) }}|",
]


# Values by a pattern, Python's two ways: what is written, and what is refused.
FORMATS = [
    "{{ '%s is %d, %5.2f|%-6s|%06d|%x' % ('a', 3, 2.5, 'b', -42, 255) }} {{ '%s' % 'x' }} {{ '%s' % [1, 'a'] }} {{ '%r' % 'it' }} {{ '%(a)s-%(b)03d' % {'a': 'q', 'b': 7} }} {{ '100%%' % () }}",
    "{{ '%s, %s'|format('a', 2) }} {{ '%(n)s'|format(n=none) }} {{ 5|format }} {{ ['%s', '<%s>']|map('format', 1)|list }} {{ '%c%c' % (65, '中') }} {{ '%.2s|' % 'é中a' }} {{ '%5s|' % '中' }} {{ '%*d|%-*d|%.*f' % (4, 1, 4, 2, 1, 2.25) }}",
    "{{ '{} {}'.format(1, 'a') }} {{ '{1}{0}{1}'.format('a', 'b') }} {{ '{n:>5}|{n:<5}|{n:^5}|{n:*^6}'.format(n='ab') }} {{ '{:,} {:_} {:08.3f} {:+d} {:x} {:#b} {:e} {:.1%}'.format(1234567, 1234567, 3.14159, 5, 255, 5, 12345.678, 0.25) }} {{ '{{}} {{{}}}'.format(1) }}",
    "{{ '{0.a.b} {0[a][b]} {1[1]}'.format({'a': {'b': 5}}, ['x', 'y']) }} {{ '{!r} {!s:>4}|'.format('a', 1) }} {{ '{:{}{}}'.format('x', '>', 4) }} {{ '{:{w}.{p}f}'.format(2.5, w=7, p=2) }} {{ '{a}{b}'.format_map({'a': 1, 'b': none}) }} {{ '{}'.format(true) }}{{ '{:d}'.format(true) }} {{ '{}'.format([1.0]) }}",
    "{{ '{:.3} {:.3} {:.3} {:.1} {:.5}'.format(123.0, 12.0, 0.00001234, 5.5, 100000.0) }} {{ '{:g} {:G} {:#g} {:n}'.format(1e20, 1e-10, 1.5, 2.5) }} {{ '{:010,}|{:011,.1f}|{:_x}|{:09,}'.format(1234, 1234.5, 65535, 12345) }} {{ '{:05}|{:<05}|{:5}|{:05}'.format('ab', 'ab', true, -3) }} {{ '{:中>4}'.format(1) }} {{ '{:c}'.format(65) }}",
    "{{ '%s|' % nope }} {{ 'abc' % [1] }} {{ 'abc' % {} }} {{ '%s' % {'a': 1} }} {{ '{}|'.format(nope) }} {{ '%.3d %+d % d %#x %#o' % (5, 5, 5, 255, 8) }} {{ '%d' % 3.99 }} {{ '%i %u' % (true, 2) }} {{ '%.0f %.0f %g %#.3g' % (0.5, 1.5, 0.0001, 1.0) }}",
    "{{ '{0.nope}|'.format({'a': 1}) }}", "{{ '{0.__class__}|'.format('a') }}",
    "{{ '%d' % 'a' }}", "{{ '%d' % none }}", "{{ '%x' % 1.5 }}", "{{ '%s %s' % 'a' }}", "{{ '%s' % ('a', 'b') }}", "{{ 'abc' % 1 }}", "{{ '%(a)s' % 1 }}", "{{ '%(a)s' % {} }}", "{{ '%' % 1 }}", "{{ '%5%' % () }}", "{{ '%-5%' % (1,) }}",
    "{{ '%q' % 1 }}", "{{ '%c' % 'ab' }}", "{{ '%(a' % {'a': 1} }}", "{{ '%(a)s %s' % {'a': 1} }}", "{{ '%s %(a)s' % {'a': 1} }}", "{{ '%*d' % ('a', 1) }}", "{{ '%s'|format(1, a=2) }}", "{{ '%d' % nope }}",
    "{{ '{}'.format() }}", "{{ '{a}'.format() }}", "{{ '{'.format(1) }}", "{{ '}'.format(1) }}", "{{ '{0} {}'.format(1, 2) }}", "{{ '{} {0}'.format(1, 2) }}", "{{ '{:d}'.format('a') }}", "{{ '{:s}'.format(1) }}",
    "{{ '{:>5}'.format(none) }}", "{{ '{:5}'.format([1]) }}", "{{ '{:=5}'.format('a') }}", "{{ '{:+}'.format('a') }}", "{{ '{:-}'.format('a') }}", "{{ '{:->4}'.format('a') }}", "{{ '{:,}'.format('a') }}", "{{ '{:.2}'.format(3) }}",
    "{{ '{:.}'.format(3.5) }}", "{{ '{:,x}'.format(3) }}", "{{ '{:5q}'.format(3) }}", "{{ '{!z}'.format(3) }}", "{{ '{!r'.format(3) }}", "{{ '{0[}'.format([1]) }}", "{{ '{0[]}'.format([1]) }}", "{{ '{0.}'.format([1]) }}",
    "{{ '{0[0]x}'.format([1]) }}", "{{ '{:{:{}}}'.format(1, 2, 3) }}", "{{ '{a{b}}'.format(a=1) }}", "{{ '{a}'.format_map(1) }}", "{{ '{a}'.format_map({'a': 1}, 2) }}", "{{ '{:,_}'.format(1) }}", "{{ '{:c}'.format(-1) }}", "{{ '{:5'.format(1) }}",
]


class DrawnFormats:
    """One value by one pattern."""

    VALUES = ["0", "5", "-42", "1234567", "3.5", "-0.5", "0.0", "-0.0", "1e16", "123456789.125", "1.5e-7", "2.675", "99.995", "(inf|float)", "(-(inf|float))", "(nan|float)",
              "true", "none", "'abc'", "''", "'é中a'", "\"it's\"", "[1, 'a']", "{'a': 1}", "nope", "9223372036854775807"]

    def __init__(self, seed):
        self.draw = random.Random(seed)

    def template(self):
        some = self.draw.choice
        value = some(self.VALUES)
        if self.draw.randint(0, 1):
            flags = "".join(some(["", "", some("-+ #0")]) for _ in range(2))
            pattern = "%" + flags + some(["", "1", "7", "14"]) + some(["", "", ".", ".0", ".1", ".3", ".12"]) + some(["", "", "l"]) + some("diouxXeEfFgGcrsq")
            return "{{ '<" + pattern + ">' % (" + value + ",) }}"
        align = some(["", "", some("<>^="), some("*0-中") + some("<>^=")])
        spec = align + some(["", "", "+", " ", "-"]) + some(["", "", "#"]) + some(["", "", "0"]) + some(["", "1", "7", "14"]) + some(["", "", ",", "_"])
        spec += some(["", "", "", ".0", ".1", ".3", ".12"]) + some(["", "", *"bcdeEfFgGnosxX%"])
        return "{{ '<{" + some(["", "", "!r", "!s"]) + some([":" + spec, ":" + spec, ":" + spec, ""]) + "}>'.format(" + value + ") }}"


class Drawn:
    """Templates that use generators wherever they can, also those that a loop goes through right now."""

    SOURCES = ["[1, 2, 3, 4]", "[2, 2, 1, none, 3]", "['b', 'a', 'C', 'a']", "{'p': 1, 'q': 2}", "'xyz'", "range(5)", "[]", "nope"]
    MAKERS = ["map('string')", "map('string')|map('upper')", "select", "select('ne', 2)", "reject('none')", "unique", "reverse",
              "map('default', 0)", "items", "list"]
    USES = ["{{ V|list }}", "{{ V|join('-') }}", "{{ V|first }}", "{{ 2 in V }}", "{{ 'a' in V }}", "{{ V|unique|first }}", "{{ take(V) }}",
            "{{ V|map('string')|first }}", "{{ V|reject('eq', x)|first }}", "{{ V|reverse|list }}", "{{ (V|list)|length }}", "{{ V|max }}"]
    FIELDS = ["index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem", "cycle('p', 'q')", "changed(x)"]
    CONDITIONS = ["x != 2", "x in g", "x in h", "g|first", "h|list", "x is string", "loop.last", "loop.index is odd", "loop.nextitem == 2"]

    def __init__(self, seed):
        self.draw = random.Random(seed)

    def generator(self, names=()):
        return self.draw.choice([*self.SOURCES, *names * 4]) + "|" + self.draw.choice(self.MAKERS)

    def body(self, depth, in_loop):
        return "".join(self.statement(depth, in_loop) for _ in range(self.draw.randint(1, 3)))

    def statement(self, depth, in_loop):
        kind = self.draw.randint(0, 9)
        name = self.draw.choice("gh")
        if kind < 3 or depth == 0:
            return self.draw.choice(self.USES).replace("V", name) + " "
        if kind < 6:
            test = " if " + self.draw.choice(self.CONDITIONS[: 9 if in_loop else 6]) if self.draw.randint(0, 3) == 0 else ""
            otherwise = "{% else %}none " if self.draw.randint(0, 1) else ""
            return "{% for x in " + name + test + " %}{{ x }}:" + self.body(depth - 1, True) + ";" + otherwise + "{% endfor %}"
        if kind == 6:
            return "{% set " + self.draw.choice("gh") + " = " + self.generator("gh") + " %}"
        if not in_loop or kind == 7:
            condition = self.draw.choice(self.CONDITIONS[: 9 if in_loop else 6])
            leave = self.draw.choice(["", "{% break %}", "{% continue %}"]) if in_loop else ""
            return "{% if " + condition + " %}" + self.body(depth - 1, in_loop) + leave + "{% endif %}"
        return "{{ loop." + self.draw.choice(self.FIELDS) + " }} "

    def template(self):
        return ("{% macro take(v) %}<{{ v|first }}>{% endmacro %}{% set g = " + self.generator() + " %}{% set h = " + self.generator("g") +
                " %}" + self.body(3, False) + "{{ g|list }} {{ h|list }}")


def main(path, *files):
    drawn = int(files[0]) if files and files[0].isdigit() else 40
    files = () if files and files[0].isdigit() else files
    cases = []
    env = environment()

    def add(name, template, context):
        try:
            expected = env.from_string(template).render(**context)
        except (jinja2.exceptions.TemplateError, jinja2.exceptions.SecurityError, TypeError, ZeroDivisionError, ValueError, SyntaxError, LookupError, OverflowError) as e:
            print(f"{name}: refused: {e}", file=sys.stderr)
            expected = None
        cases.append({"name": name, "template": template, "context": context, "expected": expected})

    tokens = {"bos_token": "<s>", "eos_token": "</s>", "tools": None}
    templates = {"chatml": CHATML, "reasoner": REASONER, "tools": TOOLS, "groups": GROUPS}
    if files:
        templates = {pathlib.Path(file).stem: pathlib.Path(file).read_text(encoding="utf-8") for file in files}
    for kind, template in templates.items():
        for title, messages in {**CONVERSATIONS, **TOOL_CONVERSATIONS}.items():
            for prompt in (True, False):
                context = {**tokens, "messages": messages, "add_generation_prompt": prompt}
                add(f"{kind}: {title}, prompt {prompt}", template, context)
        context = {**tokens, "messages": CONVERSATIONS["system"], "tools": [TOOL, TOOL], "add_generation_prompt": True, "enable_thinking": False}
        add(f"{kind}: tools", template, context)
    for i, template in enumerate([] if files else EXPRESSIONS):
        add(f"expressions {i}", template, {"x": {"a": 1}})
    draws = Drawn(1)
    for i in range(0 if files else drawn):
        add(f"generators {i}", draws.template(), {"x": 2})
    for i, template in enumerate([] if files else FORMATS):
        add(f"formats {i}", template, {"x": 2})
    formats = DrawnFormats(2)
    for i in range(0 if files else 6 * drawn):
        add(f"drawn formats {i}", formats.template(), {"inf": "inf", "nan": "nan"})
    with open(path, "w", encoding="utf-8") as f:
        json.dump(cases, f, ensure_ascii=False, indent=1)
        f.write("\n")
    print(f"{len(cases)} cases, {sum(c['expected'] is None for c in cases)} refused", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
