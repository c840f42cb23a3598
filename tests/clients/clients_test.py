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
import unittest

import anthropic
import litellm
import openai
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
