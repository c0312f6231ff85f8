"""The two answer forms: a free sentence, or fields constrained by a schema. Either becomes a description."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label
from sspa.stage1_knowledge.answer_text import UNFINISHED, first_sentence, json_objects
from sspa.stage1_knowledge.engines.contract import Answer, Message
from sspa.stage1_knowledge.prompt import Prompt

FORMS = ("sentence", "fields")


@dataclass(frozen=True)
class Read:
    """What an answer says: the description, or "" and what is wrong with the form of the answer."""

    description: str
    complete: bool
    fault: str = ""


def _no_answer(answer: Answer) -> Read | None:
    """What to read of an answer that holds none, in whatever form it was asked for; None if it holds one."""
    if answer.finish == "filter":
        return Read("", complete=True, fault="the server's filter withheld the answer")
    if answer.text == UNFINISHED:
        return Read("", complete=False, fault="cut: the model was still thinking; raise --max-tokens")
    return None


class Fields(BaseModel):
    """What a label looks like, part by part; constrains the answer form `fields`."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    appearance: str = Field(min_length=3, max_length=160, description="overall shape, colour and material")
    parts: list[str] = Field(min_length=1, max_length=5, description="visible parts")
    company: list[str] = Field(min_length=1, max_length=5, description="things often seen with it")
    look_alikes: list[str] = Field(max_length=3, description="things that look similar")


class SentenceForm:
    """The answer is one sentence in plain words; if there are more, the first is kept."""

    name = "sentence"
    max_tokens = 80
    schema: dict[str, Any] | None = None

    def messages(self, prompt: Prompt, label: Label) -> list[Message]:
        """The chat that asks for a sentence."""
        return prompt.chat(label)

    def read(self, answer: Answer, prompt: Prompt, label: Label) -> Read:
        """The first sentence of the answer, without what models write around one."""
        if nothing := _no_answer(answer):
            return nothing
        sentence, more = first_sentence(answer.text, label.text)
        # Truncated only if the kept sentence itself is; a truncated second one costs nothing.
        cut = answer.finish == "length" and not more and not sentence.endswith((".", "!", "?"))
        return Read(sentence, complete=not cut)


class FieldsForm:
    """The answer is JSON of `Fields`, constrained to its schema while decoding and validated again here."""

    name = "fields"
    max_tokens = 240
    schema: dict[str, Any] | None = Fields.model_json_schema()

    def messages(self, prompt: Prompt, label: Label) -> list[Message]:
        """The chat that asks for fields."""
        return prompt.chat(label, question="fields_question", answer="demonstration_fields")

    def read(self, answer: Answer, prompt: Prompt, label: Label) -> Read:
        """The description that the template's block `fields_sentence` composes from the fields."""
        if nothing := _no_answer(answer):
            return nothing
        try:
            fields = _fields(answer.text)
        except ValidationError as error:
            if answer.finish == "length":
                return Read("", complete=False)
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the answer"
            return Read("", complete=True, fault=f"not the asked fields: {where}: {first['msg']}")
        composed = prompt.block("fields_sentence", label, text=label.text, hint=label.hint, **fields.model_dump())
        return Read(" ".join(composed.split()), complete=True)


def _fields(text: str) -> Fields:
    """The fields of an answer, or of the first JSON object in it that has them.

    Raises:
        ValidationError: what is wrong with the answer as a whole.
    """
    try:
        return Fields.model_validate_json(text)
    except ValidationError:
        for found in json_objects(text):
            with suppress(ValidationError):
                return Fields.model_validate(found)
        raise


AnswerForm = SentenceForm | FieldsForm


def answer_form(name: str) -> AnswerForm:
    """The form of that name.

    Raises:
        UserError: there is none.
    """
    if name == SentenceForm.name:
        return SentenceForm()
    if name == FieldsForm.name:
        return FieldsForm()
    raise UserError(f"--form {name}: unknown; choose one of {', '.join(FORMS)}")
