"""Keys: whatever can change an answer changes the key, and nothing else does."""

import dataclasses

import pytest

from sspa.shared.label_sets import Label
from sspa.stage1_knowledge.answer_forms import Fields, FieldsForm, SentenceForm
from sspa.stage1_knowledge.asking import Asker
from sspa.stage1_knowledge.engines.contract import Answer, Identity, Sampling
from sspa.stage1_knowledge.keys import KEY_VERSION, TABLE, canonical, common_parts, digest, messages_digest, request_key
from sspa.stage1_knowledge.prompt import built_in_prompt, read_prompt

IDENTITY = Identity("vllm 0.32", "m/x", "abc", "awq", "bfloat16", "t1", "xgrammar")
ARGUMENTS = '{"kv_cache_dtype": "fp8"}'
SAMPLING = Sampling(temperature=0.3)
SCHEMA = Fields.model_json_schema()
MESSAGES = [{"role": "user", "content": "What is a cat?"}]


def key(
    identity=IDENTITY,
    sampling=Sampling(temperature=0.3),
    form="fields",
    schema=SCHEMA,
    messages=MESSAGES,
    seed=0,
    room=80,
) -> str:
    return request_key(digest(common_parts(identity, sampling, form, schema)), messages_digest(messages), seed, room)


# One case for each part of the table that enters.
CHANGES = {
    "messages": lambda: key(messages=[{"role": "user", "content": "What is a cat? "}]),
    "chat_template": lambda: key(dataclasses.replace(IDENTITY, chat_template="t2")),
    "model": lambda: key(dataclasses.replace(IDENTITY, model="m/y")),
    "revision": lambda: key(dataclasses.replace(IDENTITY, revision="abd")),
    "quantisation": lambda: key(dataclasses.replace(IDENTITY, quantisation="")),
    "dtype": lambda: key(dataclasses.replace(IDENTITY, dtype="float16")),
    "engine_arguments": lambda: key(dataclasses.replace(IDENTITY, engine_arguments=ARGUMENTS)),
    "temperature": lambda: key(sampling=Sampling(temperature=0.31)),
    "top_p": lambda: key(sampling=Sampling(top_p=0.91)),
    "repetition_penalty": lambda: key(sampling=Sampling(repetition_penalty=1.0)),
    "max_tokens": lambda: key(room=81),
    "seed": lambda: key(seed=1),
    "answer_form": lambda: key(form="sentence"),
    "schema": lambda: key(schema={**SCHEMA, "title": "other"}),
    "structured_backend": lambda: key(dataclasses.replace(IDENTITY, structured_backend="guidance")),
}


def test_each_part_that_enters_has_a_case_and_is_in_the_key() -> None:
    entering = {part.name for part in TABLE if part.enters}
    assert entering == {*CHANGES, "key_version"}
    common = common_parts(dataclasses.replace(IDENTITY, engine_arguments=ARGUMENTS), Sampling(), "fields", SCHEMA)
    assert entering == {*common, "messages", "seed", "max_tokens"}
    assert common["key_version"] == KEY_VERSION


@pytest.mark.parametrize("part", CHANGES)
def test_what_can_change_the_answer_changes_the_key(part: str) -> None:
    assert CHANGES[part]() != key()


def test_the_key_version_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr("sspa.stage1_knowledge.keys.KEY_VERSION", KEY_VERSION + 1)
    assert key() != before


def asker(prompt=None, retries=3, form=None) -> Asker:
    chosen = form or SentenceForm()
    common = digest(common_parts(IDENTITY, Sampling(), chosen.name, chosen.schema))
    return Asker(prompt or built_in_prompt("natural"), chosen, Sampling(), retries, common, lambda _: None)


def first_key(label=Label("cat", "cat"), sample=0, **changes) -> str:
    made = asker(**changes)
    return made.questions(label, sample + 1)[sample].key


def test_what_is_left_out_does_not_change_the_key(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = {
        "engine": key(dataclasses.replace(IDENTITY, engine="ray 2 vllm 0.33")) == key(),
        "label": first_key(Label("Katze", "cat")) == first_key(),
        "retries": first_key(retries=9) == first_key(),
    }
    renamed = tmp_path / "renamed.jinja"
    renamed.write_text(
        "{# a comment #}{% block demonstration_label %}a{% endblock %}{% block demonstration_answer %}b{% endblock %}"
        "{% block question %}c{{ text }}{% endblock %}"
    )
    other = tmp_path / "other.jinja"
    other.write_text(renamed.read_text().replace("{# a comment #}", ""))
    same["prompt_file"] = first_key(prompt=read_prompt(renamed)) == first_key(prompt=read_prompt(other))
    before = first_key()
    monkeypatch.setattr("sspa.stage1_knowledge.verdicts.MAX_WORDS", 9)
    same["verdict_rules"] = first_key() == before
    assert all(same.values()), same
    assert set(same) <= {part.name for part in TABLE if not part.enters}


def _other(value: object) -> object:
    return value + 0.01 if isinstance(value, float) else f"{value}x"


def test_every_field_of_the_identity_enters_or_is_in_the_table_as_left_out() -> None:
    """By changing each field: new fields of `Identity` need a decision."""
    enters = {part.name: part.enters for part in TABLE}
    for field in dataclasses.fields(Identity):
        changed = dataclasses.replace(IDENTITY, **{field.name: _other(getattr(IDENTITY, field.name))})
        assert (key(changed) != key()) == enters[field.name], field.name


def test_every_field_of_the_sampling_enters_by_itself_or_with_the_request() -> None:
    for field in dataclasses.fields(Sampling):
        changed = dataclasses.replace(SAMPLING, **{field.name: getattr(SAMPLING, field.name) + 1})
        assert (key(sampling=changed) != key()) == (field.name not in ("seed", "max_tokens")), field.name


def test_label_text_hint_and_sample_act_through_messages_and_seed() -> None:
    keys = {
        first_key(),
        first_key(Label("cat", "tomcat")),
        first_key(Label("cat", "cat", "the animal")),
        first_key(sample=1),
        first_key(form=FieldsForm()),
    }
    assert len(keys) == 5


def test_a_structured_backend_that_constrains_nothing_is_left_out() -> None:
    other = dataclasses.replace(IDENTITY, structured_backend="guidance")
    assert key(other, form="sentence", schema=None) == key(form="sentence", schema=None)


def test_attempts_have_their_own_keys() -> None:
    made = asker()
    (question,) = made.questions(Label("cat", "cat"), 1)
    question.answers += [Answer("", "stop"), Answer("cut", "length"), Answer("", "stop")]
    drawn = [made.draw(question, attempt) for attempt in range(4)]
    assert drawn == [(0, 80), (1, 80), (2, 160), (3, 160)]
    assert len({made.key(question, attempt) for attempt in range(4)}) == 4


def test_keys_do_not_change_between_versions_of_this_code() -> None:
    """Golden: if this fails, users' paid answers are no longer found; increase KEY_VERSION deliberately."""
    assert canonical({"b": 1, "a": ["é", 0.3]}) == '{"a":["é",0.3],"b":1}'.encode()
    assert key(schema={"type": "object"}) == "6777853d52c33d5fd82148dedd7636aa844b77b34210cb08c0bb015840637cca"
