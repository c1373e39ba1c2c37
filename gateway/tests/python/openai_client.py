"""Talks to a running gateway with OpenAI's own Python client.

    python openai_client.py BASE_URL          e.g. http://127.0.0.1:8080/v1

What the gateway must serve:

    auto      a routed model with a cache, priced, whose provider answers quickly
    broken    its provider answers every call with 503
    stuck     its provider never answers, timeout 300 ms

Prints `ok <name>` per case. The first failure ends the run with its reason and exit code 1.
"""

import asyncio
import sys
import time
import uuid

import openai

AUTO, BROKEN, STUCK = "auto", "broken", "stuck"


class Failed(Exception):
    """A case that did not hold; its text says what was expected and what came."""


def expect(holds, why):
    if not holds:
        raise Failed(why)


def expect_equal(found, wanted, what):
    expect(found == wanted, f"{what}: expected {wanted!r}, found {found!r}")


def question(text):
    """A prompt that no other run and no other case has asked, so that only a case's own repeats are hits."""
    return [{"role": "user", "content": f"{text} ({uuid.uuid4()})"}]


def refusal_of(call, wanted):
    """The error of type `wanted` that `call` must end with."""
    try:
        call()
    except wanted as error:
        return error
    except openai.OpenAIError as error:
        raise Failed(f"expected {wanted.__name__}, got {type(error).__name__}: {error}") from error
    raise Failed(f"expected {wanted.__name__}, got an answer")


# --- plain ---------------------------------------------------------------------------------------------


def lists_the_configured_models(client):
    names = [model.id for model in client.models.list()]
    expect(AUTO in names, f"models: expected {AUTO!r} among {names}")


def answers_a_plain_request(client):
    answer = client.chat.completions.create(model=AUTO, messages=question("Name a river."))
    choice = answer.choices[0]
    expect(choice.message.content, "the answer has no content")
    expect_equal(choice.message.role, "assistant", "role")
    expect_equal(choice.finish_reason, "stop", "finish_reason")
    usage = answer.usage
    expect(usage is not None, "the answer has no usage")
    expect(usage.prompt_tokens > 0 and usage.completion_tokens > 0, f"tokens must be above 0: {usage}")
    expect_equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total_tokens")


def says_in_headers_what_happened(client):
    raw = client.chat.completions.with_raw_response.create(model=AUTO, messages=question("Name a lake."))
    for name in ("route", "cache", "attempts", "cost-usd", "trace-id"):
        expect(raw.headers.get(f"x-throughline-{name}"), f"header x-throughline-{name} is missing")
    expect_equal(raw.headers["x-throughline-cache"], "miss", "x-throughline-cache")
    expect_equal(raw.headers["x-throughline-attempts"], "1", "x-throughline-attempts")
    expect(float(raw.headers["x-throughline-cost-usd"]) > 0, "a call that reached a priced model costs more than 0")
    trace = raw.headers["x-throughline-trace-id"]
    expect(len(trace) == 32 and int(trace, 16) != 0, f"not a W3C trace id: {trace!r}")
    expect(raw.parse().choices[0].message.content, "the parsed answer has no content")


def answers_a_repeat_from_the_cache(client):
    def ask(messages):
        return client.chat.completions.with_raw_response.create(model=AUTO, messages=messages)

    messages = question("Name a mountain.")
    first, second = ask(messages), ask(messages)
    expect_equal(first.headers.get("x-throughline-cache"), "miss", "first x-throughline-cache")
    expect_equal(second.headers.get("x-throughline-cache"), "hit", "second x-throughline-cache")
    expect_equal(second.headers.get("x-throughline-attempts"), "0", "second x-throughline-attempts")
    found, wanted = (raw.parse().choices[0].message.content for raw in (second, first))
    expect_equal(found, wanted, "content of the repeat")
    other = ask(question("Name a mountain."))
    expect_equal(other.headers.get("x-throughline-cache"), "miss", "x-throughline-cache of another prompt")


# --- streamed ------------------------------------------------------------------------------------------


def streams(client):
    stream = client.chat.completions.create(model=AUTO, messages=question("Tell a story."), stream=True)
    chunks = list(stream)
    expect(len(chunks) > 1, f"expected several chunks, got {len(chunks)}")
    for chunk in chunks:
        expect(chunk.usage is None, "usage was not asked for, and a chunk has it")
        expect(chunk.choices, "usage was not asked for, and a chunk has no choices")
    expect("".join(chunk.choices[0].delta.content or "" for chunk in chunks), "the stream has no content")
    expect_equal(chunks[-1].choices[0].finish_reason, "stop", "finish_reason of the last chunk")
    expect_equal(len({chunk.id for chunk in chunks}), 1, "ids in one stream")


def streams_with_usage_when_asked(client):
    stream = client.chat.completions.create(
        model=AUTO,
        messages=question("Tell a long story."),
        stream=True,
        stream_options={"include_usage": True},
    )
    *content, last = list(stream)
    expect_equal(last.choices, [], "choices of the chunk with usage")
    expect(last.usage is not None, "the last chunk has no usage")
    expect(last.usage.completion_tokens > 0, f"completion_tokens must be above 0: {last.usage}")
    expect(content and all(chunk.usage is None for chunk in content), "only the last chunk may have usage")
    expect_equal(content[-1].choices[0].finish_reason, "stop", "finish_reason of the last chunk with content")


# --- refused and failed --------------------------------------------------------------------------------


def refuses_an_unknown_model(client):
    def call():
        client.chat.completions.create(model="no-such-model", messages=question("Hello."))

    error = refusal_of(call, openai.NotFoundError)
    expect_equal(error.code, "model_not_found", "code")
    expect_equal(error.param, "model", "param")


def refuses_a_request_without_messages(client):
    def call():
        client.chat.completions.create(model=AUTO, messages=[])

    error = refusal_of(call, openai.BadRequestError)
    expect_equal(error.type, "invalid_request_error", "type")


def reports_a_failing_provider(client):
    def call():
        client.chat.completions.create(model=BROKEN, messages=question("Hello."))

    error = refusal_of(call, openai.InternalServerError)
    expect(error.status_code in (502, 503), f"status: expected 502 or 503, found {error.status_code}")
    expect(error.code, "the error has no code")


def gives_up_on_a_provider_that_never_answers(client):
    def call():
        client.chat.completions.create(model=STUCK, messages=question("Hello."))

    error = refusal_of(call, openai.APIStatusError)
    expect_equal(error.status_code, 504, "status")
    expect_equal(error.code, "timeout", "code")


def works_again_after_failures(client):
    answers_a_plain_request(client)


# --- many at once --------------------------------------------------------------------------------------


def serves_twenty_at_once(client):
    async def ask(other, number):
        answer = await other.chat.completions.create(model=AUTO, messages=question(f"What is {number} + 1?"))
        return answer.choices[0].message.content

    async def ask_all():
        async with openai.AsyncOpenAI(**options(str(client.base_url))) as other:
            return await asyncio.gather(*(ask(other, number) for number in range(20)))

    answers = asyncio.run(ask_all())
    expect(all(answers), f"{sum(not answer for answer in answers)} of 20 answers are empty")


CASES = [
    lists_the_configured_models,
    answers_a_plain_request,
    says_in_headers_what_happened,
    answers_a_repeat_from_the_cache,
    streams,
    streams_with_usage_when_asked,
    refuses_an_unknown_model,
    refuses_a_request_without_messages,
    reports_a_failing_provider,
    gives_up_on_a_provider_that_never_answers,
    works_again_after_failures,
    serves_twenty_at_once,
]


def options(base_url):
    # The client would repeat a 5xx by itself and so hide what the gateway answered.
    return {"base_url": base_url, "api_key": "not-needed", "max_retries": 0, "timeout": 30.0}


def run(case, client):
    """Why the case failed, or None."""
    try:
        case(client)
    except Failed as failure:
        return str(failure)
    except Exception as error:  # an answer that the client itself could not make sense of
        return f"{type(error).__name__}: {error}"
    return None


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    with openai.OpenAI(**options(sys.argv[1])) as client:
        for case in CASES:
            begun = time.monotonic()
            reason = run(case, client)
            if reason is not None:
                print(f"FAILED {case.__name__}: {reason}", flush=True)
                return 1
            print(f"ok {case.__name__} ({time.monotonic() - begun:.2f}s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
