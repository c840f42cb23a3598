"""Clients that people have, against ferry serve with a small model: OpenAI's, Anthropic's, LangChain's and LiteLLM's.

usage: clients_test.py FERRY MODEL [unittest's arguments]; made by ./run test clients.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import typing
import unittest

import anthropic
import litellm
import openai
import pydantic
from langchain_deepseek import ChatDeepSeek

KEY = "a-key-of-the-test"
NAME = "small"
HELLO = [{"role": "user", "content": "Say hello."}]


class Server:
    """ferry serve as a process, until closed."""

    def __init__(self, ferry, model, *options):
        self.folder = tempfile.TemporaryDirectory()
        keys = pathlib.Path(self.folder.name, "keys")
        keys.write_text(KEY + "\n")
        self.log_path = pathlib.Path(self.folder.name, "log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [ferry, "serve", model, "--port", "0", "--name", NAME, "--api-key-file", keys, *options], stderr=log)
        end = time.monotonic() + 120
        while not (ready := re.search(r"serving .* at (http://\S+)/", self.log_path.read_text())):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(self.log_path.read_text())
            time.sleep(0.05)
        self.url = ready[1]

    def close(self):
        self.process.terminate()
        status = self.process.wait(60)
        log = self.log_path.read_text()
        self.folder.cleanup()
        if status != 0:
            raise RuntimeError(f"ferry serve ended with {status}: {log}")


class Clients(unittest.TestCase):
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(FERRY, MODEL, *cls.options)
        cls.addClassCleanup(cls.server.close)
        cls.url = cls.server.url
        cls.openai = openai.OpenAI(base_url=cls.url + "/v1", api_key=KEY, max_retries=0)
        cls.anthropic = anthropic.Anthropic(base_url=cls.url, api_key=KEY, max_retries=0)


class OpenAi(Clients):
    def test_lists_the_model(self):
        self.assertEqual([m.id for m in self.openai.models.list()], [NAME])

    def test_a_chat_and_its_stream_are_the_same(self):
        asked = dict(model=NAME, messages=HELLO, max_tokens=16, temperature=0.7, seed=3)
        whole = self.openai.chat.completions.create(**asked)
        self.assertEqual(whole.choices[0].message.role, "assistant")
        self.assertTrue(whole.choices[0].message.content)
        self.assertEqual(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens)
        chunks = list(self.openai.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)

    def test_structured_output(self):
        schema = {"type": "object", "additionalProperties": False, "required": ["name", "age"],
                  "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": ["integer", "null"]}}}
        r = self.openai.chat.completions.create(
            model=NAME, messages=HELLO, max_tokens=100, temperature=0.7, seed=3, response_format={
                "type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}})
        self.assertEqual(r.choices[0].finish_reason, "stop")
        self.assertEqual(set(json.loads(r.choices[0].message.content)), {"name", "age"})

    def test_choices_and_log_probabilities(self):
        r = self.openai.chat.completions.create(
            model=NAME, messages=HELLO, max_tokens=5, n=3, temperature=1.2, seed=1, logprobs=True, top_logprobs=4)
        self.assertEqual([c.index for c in r.choices], [0, 1, 2])
        first = r.choices[0].logprobs.content[0]
        self.assertEqual(len(first.top_logprobs), 4)
        self.assertLessEqual(first.logprob, 0)

    def test_a_text(self):
        r = self.openai.completions.create(model=NAME, prompt="One, two, three,", max_tokens=8, temperature=0, logprobs=2)
        self.assertTrue(r.choices[0].text)
        self.assertEqual(len(r.choices[0].logprobs.tokens), r.usage.completion_tokens)
        text = "".join(c.choices[0].text for c in self.openai.completions.create(
            model=NAME, prompt="One, two, three,", max_tokens=8, temperature=0, stream=True))
        self.assertEqual(text, r.choices[0].text)

    def test_a_response_and_its_stream_are_the_same(self):
        asked = dict(model=NAME, instructions="Be brief.", input="Say hello.", max_output_tokens=200, temperature=0)
        whole = self.openai.responses.create(**asked)
        self.assertTrue(whole.output_text)
        with self.openai.responses.stream(**asked) as stream:
            text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
            final = stream.get_final_response()
        self.assertEqual(text, whole.output_text)
        self.assertEqual(final.output_text, whole.output_text)
        self.assertEqual(final.usage.output_tokens, whole.usage.output_tokens)

    def test_tokens_of_a_response_are_counted(self):
        asked = dict(model=NAME, instructions="Be brief.", input="Say hello.")
        counted = self.openai.responses.input_tokens.count(**asked).input_tokens
        self.assertEqual(counted, self.openai.responses.create(**asked, max_output_tokens=1).usage.input_tokens)

    def test_errors_are_of_their_kind(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.openai.chat.completions.create(model=NAME, messages=HELLO, temperature=-1)
        self.assertEqual(caught.exception.param, "temperature")
        with self.assertRaises(openai.NotFoundError):
            self.openai.chat.completions.create(model="another", messages=HELLO)
        with self.assertRaises(openai.AuthenticationError):
            openai.OpenAI(base_url=self.url + "/v1", api_key="wrong", max_retries=0).models.list()
        with self.assertRaises(openai.BadRequestError):
            self.openai.embeddings.create(model=NAME, input="a")

    def test_a_stream_that_is_left_frees_its_place(self):
        stream = self.openai.chat.completions.create(model=NAME, messages=HELLO, max_tokens=1500, stream=True)
        next(iter(stream))
        stream.close()
        self.assertTrue(self.openai.chat.completions.create(model=NAME, messages=HELLO, max_tokens=2).choices)


class Anthropic(Clients):
    def test_a_message_and_its_stream_are_the_same(self):
        asked = dict(model=NAME, system="Be brief.", messages=HELLO, max_tokens=16, extra_body={"temperature": 0})
        whole = self.anthropic.messages.create(**asked)
        self.assertEqual(whole.content[0].type, "text")
        self.assertTrue(whole.content[0].text)
        self.assertIn(whole.stop_reason, ("end_turn", "max_tokens"))
        with self.anthropic.messages.stream(**asked) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        self.assertEqual(text, whole.content[0].text)
        self.assertEqual(final.usage.output_tokens, whole.usage.output_tokens)

    def test_tokens_are_counted(self):
        asked = dict(model=NAME, messages=HELLO)
        counted = self.anthropic.messages.count_tokens(**asked).input_tokens
        usage = self.anthropic.messages.create(**asked, max_tokens=1).usage
        self.assertEqual(counted, usage.input_tokens + usage.cache_read_input_tokens)

    def test_errors_are_of_their_kind(self):
        with self.assertRaises(anthropic.BadRequestError):
            self.anthropic.messages.create(model=NAME, messages=[], max_tokens=5)
        with self.assertRaises(anthropic.NotFoundError):
            self.anthropic.messages.create(model="another", messages=HELLO, max_tokens=5)
        with self.assertRaises(anthropic.AuthenticationError):
            anthropic.Anthropic(base_url=self.url, api_key="wrong", max_retries=0).messages.create(
                model=NAME, messages=HELLO, max_tokens=5)


class Others(Clients):
    def test_langchain(self):
        chat = ChatDeepSeek(model=NAME, api_base=self.url + "/v1", api_key=KEY, max_tokens=8, temperature=0)
        whole = chat.invoke("Say hello.")
        self.assertTrue(whole.content)
        self.assertEqual("".join(c.content for c in chat.stream("Say hello.")), whole.content)

    def test_litellm(self):
        r = litellm.completion(model="deepseek/" + NAME, api_base=self.url + "/v1", api_key=KEY, messages=HELLO,
                               max_tokens=8, temperature=0)
        self.assertTrue(r.choices[0].message.content)


WEATHER = {"type": "object", "additionalProperties": False, "required": ["city", "days"],
           "properties": {"city": {"enum": ["Bergen", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather to come.", "parameters": WEATHER}}
ASKS = [{"role": "user", "content": "What will the weather be in Bergen?"}]


class Tools(Clients):
    """With a template that shows tools, and thinks if asked: what a model that was not taught so calls, it is held to."""
    options = ("--chat-template", pathlib.Path(__file__).parent / "tools.jinja")

    def check_arguments(self, name, arguments):
        self.assertEqual(name, "weather")
        self.assertEqual(set(arguments), {"city", "days"})
        self.assertIn(arguments["city"], ("Bergen", "Oslo"))
        self.assertIn(arguments["days"], range(1, 10))

    def test_openai(self):
        asked = dict(model=NAME, messages=ASKS, tools=[TOOL], tool_choice="required", parallel_tool_calls=False,
                     max_tokens=100, temperature=0.8, seed=2)
        whole = self.openai.chat.completions.create(**asked).choices[0]
        self.assertEqual(whole.finish_reason, "tool_calls")
        self.assertIsNone(whole.message.content)
        call, = whole.message.tool_calls
        self.check_arguments(call.function.name, json.loads(call.function.arguments))
        name, arguments, ids, end = "", "", set(), None
        for chunk in self.openai.chat.completions.create(**asked, stream=True):
            for delta in chunk.choices[0].delta.tool_calls or []:
                self.assertEqual(delta.index, 0)
                ids |= {delta.id} - {None}
                name += delta.function.name or ""
                arguments += delta.function.arguments or ""
            end = chunk.choices[0].finish_reason or end
        self.assertEqual((name, arguments, len(ids), end),
                         (call.function.name, call.function.arguments, 1, "tool_calls"))
        # What the tool said goes back, and the message that called is sent as the library has it.
        answer = self.openai.chat.completions.create(
            model=NAME, tools=[TOOL], max_tokens=8, messages=[
                *ASKS, whole.message, {"role": "tool", "tool_call_id": call.id, "content": "Rain."}])
        self.assertTrue(answer.choices[0].message.content)
        named = self.openai.chat.completions.create(
            **{**asked, "tool_choice": {"type": "function", "function": {"name": "weather"}}})
        self.assertEqual(named.choices[0].message.tool_calls[0].function.name, "weather")

    def test_openai_parses_what_is_structured(self):
        class Weather(pydantic.BaseModel):
            city: typing.Literal["Bergen", "Oslo"]
            days: typing.Annotated[int, pydantic.Field(ge=1, le=9)]
        parsed = self.openai.chat.completions.parse(
            model=NAME, messages=ASKS, response_format=Weather, max_tokens=100, temperature=0.8, seed=2)
        self.assertIn(parsed.choices[0].message.parsed.days, range(1, 10))
        called = self.openai.chat.completions.parse(
            model=NAME, messages=ASKS, tools=[openai.pydantic_function_tool(Weather)], tool_choice="required",
            parallel_tool_calls=False, max_tokens=100, temperature=0.8, seed=2)
        self.assertIn(called.choices[0].message.tool_calls[0].function.parsed_arguments.city, ("Bergen", "Oslo"))
        response = self.openai.responses.parse(
            model=NAME, input="Bergen?", text_format=Weather, max_output_tokens=100, temperature=0.8,
            reasoning={"effort": "none"})
        self.assertIn(response.output_parsed.days, range(1, 10))

    def test_openai_responses(self):
        asked = dict(model=NAME, input="Bergen?", max_output_tokens=100, temperature=0, tool_choice="required",
                     parallel_tool_calls=False, tools=[{"type": "function", "name": "weather", "parameters": WEATHER,
                                                        "strict": True}])
        whole = self.openai.responses.create(**asked)
        call, = (item for item in whole.output if item.type == "function_call")
        self.check_arguments(call.name, json.loads(call.arguments))
        with self.openai.responses.stream(**asked) as stream:
            arguments = "".join(e.delta for e in stream if e.type == "response.function_call_arguments.delta")
        self.assertEqual(arguments, call.arguments)
        answer = self.openai.responses.create(model=NAME, max_output_tokens=8, input=[
            {"role": "user", "content": "Bergen?"}, call,
            {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}])
        self.assertTrue(answer.output_text)

    def test_anthropic(self):
        tool = {"name": "weather", "input_schema": WEATHER}
        asked = dict(model=NAME, messages=ASKS, max_tokens=100, tools=[tool],
                     tool_choice={"type": "any", "disable_parallel_tool_use": True}, extra_body={"temperature": 0})
        whole = self.anthropic.messages.create(**asked)
        self.assertEqual(whole.stop_reason, "tool_use")
        call, = (block for block in whole.content if block.type == "tool_use")
        self.check_arguments(call.name, call.input)
        with self.anthropic.messages.stream(**asked) as stream:
            final = stream.get_final_message()
        self.assertEqual([b.input for b in final.content if b.type == "tool_use"], [call.input])
        answer = self.anthropic.messages.create(model=NAME, max_tokens=8, tools=[tool], messages=[
            *ASKS, {"role": "assistant", "content": whole.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Rain."}]}])
        self.assertEqual(answer.content[0].type, "text")

    def test_langchain(self):
        chat = ChatDeepSeek(model=NAME, api_base=self.url + "/v1", api_key=KEY, max_tokens=100, temperature=0)
        call, = chat.bind_tools([TOOL], tool_choice="any", parallel_tool_calls=False).invoke("Bergen?").tool_calls
        self.check_arguments(call["name"], call["args"])
        schema = {"title": "weather", "description": "The weather to come.", **WEATHER}
        for method in ("json_schema", "function_calling"):
            with self.subTest(method):
                self.check_arguments("weather", chat.with_structured_output(schema, method=method).invoke("Bergen?"))

    def test_litellm(self):
        r = litellm.completion(model="deepseek/" + NAME, api_base=self.url + "/v1", api_key=KEY, messages=ASKS,
                               max_tokens=100, temperature=0, tools=[TOOL], tool_choice="required")
        for call in r.choices[0].message.tool_calls:
            self.check_arguments(call.function.name, json.loads(call.function.arguments))

    def test_thoughts(self):
        """A prompt that opens a thought: this model does not end it."""
        asked = dict(model=NAME, messages=HELLO, max_tokens=8, temperature=0,
                     extra_body={"thinking": {"type": "enabled"}})
        whole = self.openai.chat.completions.create(**asked)
        message = whole.choices[0].message
        self.assertTrue(message.reasoning_content)
        self.assertEqual(message.content, "")
        self.assertEqual(whole.usage.completion_tokens_details.reasoning_tokens, 8)
        thought = "".join(getattr(c.choices[0].delta, "reasoning_content", None) or ""
                          for c in self.openai.chat.completions.create(**asked, stream=True))
        self.assertEqual(thought, message.reasoning_content)
        asked["extra_body"] = {"thinking": {"type": "disabled"}}
        message = self.openai.chat.completions.create(**asked).choices[0].message
        self.assertTrue(message.content)
        self.assertFalse(hasattr(message, "reasoning_content"))
        chat = ChatDeepSeek(model=NAME, api_base=self.url + "/v1", api_key=KEY, max_tokens=8, temperature=0,
                            extra_body={"thinking": {"type": "enabled"}})
        self.assertEqual(chat.invoke("Say hello.").additional_kwargs["reasoning_content"], thought)
        with self.anthropic.messages.stream(model=NAME, messages=HELLO, max_tokens=8, extra_body={"temperature": 0},
                                            thinking={"type": "enabled", "budget_tokens": 1024}) as stream:
            blocks = stream.get_final_message().content
        self.assertEqual([(b.type, b.thinking) for b in blocks if b.type == "thinking"], [("thinking", thought)])


class Schema(Clients):
    options = ("--cache-tokens", "256")  # an answer to a request that names no length ends soon

    def test_schemathesis_finds_no_answer_that_is_not_announced(self):
        program = os.path.join(os.path.dirname(sys.executable), "schemathesis")
        ran = subprocess.run(
            [program, "run", self.url + "/openapi.json", "-H", f"Authorization: Bearer {KEY}", "--max-examples", "20",
             "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
             "--suppress-health-check", "all", "--seed", "1", "--generation-database", "none", "--request-timeout", "60"],
            cwd=self.server.folder.name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual(ran.returncode, 0, ran.stdout)


if __name__ == "__main__":
    FERRY, MODEL = sys.argv[1], sys.argv[2]
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
