"""The page of `sspa-train demo`, in Gradio: its components, and what happens when they are used."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from sspa.shared.errors import UserError
from sspa.shared.label_sets import Label
from sspa.stage2_training.demo.scoring import Scored, Scorer, Typed, with_typed

STYLE = """
footer { display: none !important; }
.message { border-left: .25rem solid #b42318; padding: .3rem .7rem; overflow-wrap: anywhere; }
.why p { margin: .3rem 0; overflow-wrap: anywhere; }
#add { background: #c2410c; color: #fff; }
#upload .or { color: inherit; }
body:not(.dark) { --color-accent: #c2410c; }
"""
# Gradio gives no name to the button around an image, and no role to what it names: screen readers need both.
SCRIPT = """() => {
  const name = () => {
    for (const frame of document.querySelectorAll("button:not([aria-label]) > .image-frame"))
      frame.parentElement.setAttribute("aria-label", "Enlarge the image");
    for (const empty of document.querySelectorAll("div.empty[aria-label]:not([role])"))
      empty.setAttribute("role", "img");
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
}"""

_ONE, _TUNED = "one for all labels", "each label’s own, tuned"
_OTHERS = 15
# Of a label, shown at once.
_DESCRIPTIONS = 3


def build_page(scorer: Scorer, threshold: float | None) -> gr.Blocks:
    """The page as a Gradio app.

    Args:
        scorer: scores images with the run shown.
        threshold: the initial probability from which a label counts as predicted; None for the tuned ones.

    Raises:
        UserError: tuned thresholds are requested and a label has none.
    """
    tuned = scorer.tagger.tuned_thresholds()
    missing = [label.key for label in scorer.own.labels if label.key not in tuned]
    if threshold is None and missing:
        raise UserError(f"--threshold tuned: this run has none for {missing[0]!r}; give one number for all labels")
    with gr.Blocks(title=f"SSPA: {scorer.tagger.folder.path.resolve().name}", analytics_enabled=False) as page:
        gr.HTML(_introduction(scorer))
        _wire(_laid_out(scorer, threshold, can_be_tuned=not missing), _Actions(scorer, tuned))
    return page


@dataclass(frozen=True)
class _Parts:
    """The components of the page that events read or write."""

    scored: gr.State
    typed: gr.State
    upload: gr.File
    message: gr.HTML
    image: gr.Image
    kind: gr.Radio
    slider: gr.Slider
    seen: gr.Label
    others: gr.Label
    region_map: gr.Image
    why: gr.HTML
    name: gr.Textbox
    description: gr.Textbox
    add: gr.Button
    clear: gr.Button


def _laid_out(scorer: Scorer, threshold: float | None, can_be_tuned: bool) -> _Parts:
    """Create the components, from top to bottom."""
    limits = scorer.limits
    parts: dict[str, Any] = {
        name: gr.State(start, time_to_live=3600) for name, start in (("scored", None), ("typed", {}))
    }
    with gr.Row():
        with gr.Column():
            parts["upload"] = gr.File(
                label=f"An image, at most {limits.megabytes:g} MB and {limits.megapixels:g} megapixels",
                file_types=["image"],
                elem_id="upload",
            )
            parts["message"] = gr.HTML(elem_id="message")
            parts["image"] = gr.Image(label="Image", interactive=False, visible=False, buttons=[], elem_id="picture")
            with gr.Group():
                start = _TUNED if threshold is None else _ONE
                parts["kind"] = gr.Radio(
                    [_ONE, _TUNED], value=start, label="Threshold", visible=can_be_tuned, elem_id="kind"
                )
                value, label = 0.5 if threshold is None else threshold, _slider_label(threshold is None)
                parts["slider"] = gr.Slider(0, 1, value, step=0.01, label=label, elem_id="threshold")
        with gr.Column():
            parts["seen"] = gr.Label(label="Seen (click a label to see why)", show_heading=False, elem_id="seen")
            below = f"Below the threshold, at most {_OTHERS}"
            parts["others"] = gr.Label(label=below, show_heading=False, elem_id="others")
    with gr.Row():
        with gr.Column():
            parts["region_map"] = gr.Image(
                label="Where it was seen", interactive=False, visible=False, buttons=[], elem_id="map"
            )
        with gr.Column():
            parts["why"] = gr.HTML(elem_id="why", elem_classes="why")
    return _Parts(**parts, **_new_labels(scorer))


def _new_labels(scorer: Scorer) -> dict[str, Any]:
    """The components for typing labels."""
    gr.HTML(_about_new_labels(scorer), elem_id="new-labels")
    with gr.Row(visible=scorer.takes_new_labels):
        name = gr.Textbox(label="A new label", placeholder="red umbrella", max_length=200, elem_id="name")
        description = gr.Textbox(
            label="A description of it (optional)",
            placeholder="A red umbrella is a round cloth canopy on a stick, often held over a person in the rain.",
            max_length=500,
            elem_id="description",
        )
    with gr.Row(visible=scorer.takes_new_labels):
        add = gr.Button("Score it", variant="primary", elem_id="add")
        clear = gr.Button("Remove typed labels", elem_id="clear")
    return {"name": name, "description": description, "add": add, "clear": clear}


class _Actions:
    """The event handlers; each returns the new values of the components that `_wire` names."""

    def __init__(self, scorer: Scorer, tuned: dict[str, float]) -> None:
        self.scorer, self.tuned = scorer, tuned

    def show(self, found: Scored | None, how: str, value: float) -> list[Any]:
        return _lists(found, self.tuned if how == _TUNED else {}, value)

    def upload(self, file: str | None, labels: Typed, how: str, value: float) -> list[Any]:
        nothing = [None, "", gr.Image(None, visible=False), *self.show(None, how, value), *_no_reasons()]
        if file is None:
            return nothing
        try:
            found = self.scorer.score(Path(file), labels)
        except UserError as error:
            return [None, _said(error), *nothing[2:]]
        return [found, "", gr.Image(found.image, visible=True), *self.show(found, how, value), *_no_reasons()]

    def type_label(self, file: str | None, labels: Typed, word: str, said: str, how: str, value: float) -> list[Any]:
        try:
            more = with_typed(labels, word, said)
            # Even before there is an image, so that a label that already exists is rejected immediately.
            self.scorer.own.with_labels(more)
            found = None if file is None else self.scorer.score(Path(file), more)
        except UserError as error:
            return [gr.skip(), gr.skip(), _said(error), gr.skip(), gr.skip(), gr.skip(), gr.skip()]
        return [more, found, "", *self.show(found, how, value), "", ""]

    def clear(self, file: str | None, how: str, value: float) -> list[Any]:
        return [{}, *self.upload(file, {}, how, value)]

    def select(self, file: str | None, found: Scored | None, labels: Typed, event: gr.SelectData) -> list[Any]:
        if found is None or file is None:
            return _no_reasons()
        index = _names(found.labels).index(event.value)
        return _reasons(self.scorer, Path(file), found, labels, index)


def _wire(on: _Parts, actions: _Actions) -> None:
    """Connect each event with its handler, inputs and outputs."""
    # None of this is a public API, and events are handled one after the other.
    quiet: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}
    hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    rules, lists, reasons = [on.kind, on.slider], [on.seen, on.others], [on.region_map, on.why]
    shown = [on.scored, on.message, on.image, *lists, *reasons]
    on.upload.change(actions.upload, [on.upload, on.typed, *rules], shown, **quiet)
    for change in (on.kind.change, on.slider.change):
        change(actions.show, [on.scored, *rules], lists, trigger_mode="always_last", **hidden)
    on.kind.change(lambda how: gr.Slider(label=_slider_label(how == _TUNED)), on.kind, on.slider, **hidden)
    for listed in lists:
        listed.select(actions.select, [on.upload, on.scored, on.typed], reasons, **quiet)
    gr.on(
        [on.add.click, on.name.submit, on.description.submit],
        actions.type_label,
        [on.upload, on.typed, on.name, on.description, *rules],
        [on.typed, on.scored, on.message, *lists, on.name, on.description],
        **quiet,
    )
    on.clear.click(actions.clear, [on.upload, *rules], [on.typed, *shown], **quiet)


def _slider_label(tuned: bool) -> str:
    return ("A label that you typed" if tuned else "A label") + " counts as seen from this probability"


def _lists(found: Scored | None, tuned: dict[str, float], one: float) -> list[Any]:
    """The labels at or above their thresholds, and the most probable of the others; `one` is for untuned labels."""
    if found is None:
        return [None, None]
    names = _names(found.labels)
    above: dict[str, float] = {}
    below: dict[str, float] = {}
    for label, name, probability in zip(found.labels, names, found.probabilities.tolist(), strict=True):
        (above if probability >= tuned.get(label.key, one) else below)[name] = probability
    most = sorted(below, key=lambda name: -below[name])[:_OTHERS]
    return [above or None, {name: below[name] for name in most} or None]


def _names(labels: Sequence[Label]) -> list[str]:
    """Each label's name on the page: its text, with its key if two labels share a text."""
    count = Counter(label.text for label in labels)
    return [label.text if count[label.text] == 1 else f"{label.text} ({label.key})" for label in labels]


def _said(error: UserError) -> str:
    return f'<p class="message" role="alert">{escape(" ".join(str(error).split()))}</p>'


def _no_reasons() -> list[Any]:
    return [gr.Image(None, visible=False), ""]


def _reasons(scorer: Scorer, path: Path, found: Scored, typed: Typed, index: int) -> list[Any]:
    label, percent = found.labels[index], 100 * float(found.probabilities[index])
    lines = [f"<h3>{escape(label.text)}: {percent:.1f} %</h3>"]
    descriptions = scorer.descriptions(label.key, typed)
    quoted = [f"<p>“{escape(description)}”</p>" for description in descriptions]
    lines += quoted[:_DESCRIPTIONS]
    if more := quoted[_DESCRIPTIONS:]:
        lines.append(f"<details><summary>{len(more)} more descriptions</summary>{''.join(more)}</details>")
    if not descriptions:
        lines.append("<p>Known by its name only: it has no description.</p>")
    elif (by_name := scorer.by_name_only(path, typed)) is not None:
        bare = 100 * float(by_name[index])
        lines.append(
            f"<p>With the bare names instead of the descriptions it would be {bare:.1f} %: "
            f"the descriptions contribute {percent - bare:+.1f} points.</p>"
        )
    drawn = found.map_over_image(index)
    if drawn is None:
        lines.append("<p>This run’s head scores the image as a whole: there is no map.</p>")
    else:
        lines.append("<p>Bright regions are where the label was seen, relative to the brightest one in this map.</p>")
    return [gr.Image(drawn, visible=drawn is not None), "\n".join(lines)]


def _introduction(scorer: Scorer) -> str:
    folder, backbone = scorer.tagger.folder, scorer.tagger.recognizer.backbone
    about = folder.record()
    return (
        f"<h2>{escape(folder.path.resolve().name)}</h2>"
        f"<p>{len(scorer.own.labels)} labels, learned from {escape(about.data.name)}; "
        f"backbone: {escape(backbone.description)}. "
        "Images stay on the machine that runs this page and are deleted when it ends.</p>"
    )


def _about_new_labels(scorer: Scorer) -> str:
    if scorer.takes_new_labels:
        said = (
            "Type a label that the model was not trained on; a description of what it looks like may help. All labels "
            "are scored together, so a new one can shift the others a little."
        )
    else:
        said = "This run’s head knows only the labels it was trained on: new ones cannot be typed."
    return f"<h3>New labels</h3><p>{said}</p>"
