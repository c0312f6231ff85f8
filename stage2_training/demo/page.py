"""The page of `sspa-train demo`, in Gradio: what is on it, and what happens when it is touched."""

from collections import Counter
from collections.abc import Sequence
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
"""

_ONE, _TUNED = "one for all labels", "each label’s own, tuned on val"
_OTHERS = 15


def build_page(scorer: Scorer, threshold: float | None) -> gr.Blocks:
    """The page as a Gradio app.

    Args:
        scorer: of the run that it shows.
        threshold: from which probability a label counts as predicted, at first; None for the tuned ones.

    Raises:
        UserError: tuned thresholds are wanted and a label has none.
    """
    tagger, limits = scorer.tagger, scorer.limits
    tuned = tagger.tuned_thresholds()
    missing = [label.key for label in scorer.own.labels if label.key not in tuned]
    if threshold is None and missing:
        raise UserError(f"--threshold tuned: this run has none for {missing[0]!r}; give one number for all labels")
    with gr.Blocks(title=f"SSPA: {tagger.folder.path.resolve().name}", analytics_enabled=False) as page:
        scored = gr.State(None, time_to_live=3600)
        typed = gr.State({}, time_to_live=3600)
        gr.HTML(_introduction(scorer))
        with gr.Row():
            with gr.Column():
                upload = gr.File(
                    label=f"An image, at most {limits.megabytes:g} MB and {limits.megapixels:g} megapixels",
                    file_types=["image"],
                    elem_id="upload",
                )
                message = gr.HTML(elem_id="message")
                image = gr.Image(label="Image", interactive=False, visible=False, buttons=[], elem_id="picture")
                with gr.Group():
                    kind = gr.Radio(
                        [_ONE, _TUNED],
                        value=_TUNED if threshold is None else _ONE,
                        label="Threshold",
                        visible=not missing,
                        elem_id="kind",
                    )
                    slider = gr.Slider(
                        0, 1, 0.5 if threshold is None else threshold, step=0.01,
                        label=_slider_label(threshold is None),
                        elem_id="threshold",
                    )  # fmt: skip
            with gr.Column():
                seen = gr.Label(label="Seen (click a label to see why)", show_heading=False, elem_id="seen")
                others = gr.Label(label=f"Below the threshold, at most {_OTHERS}", show_heading=False, elem_id="others")
        with gr.Row():
            with gr.Column():
                region_map = gr.Image(
                    label="Where it was seen", interactive=False, visible=False, buttons=[], elem_id="map"
                )
            with gr.Column():
                why = gr.HTML(elem_id="why", elem_classes="why")
        gr.HTML(_about_new_labels(scorer), elem_id="new-labels")
        with gr.Row(visible=scorer.takes_new_labels):
            name = gr.Textbox(label="A new label", placeholder="red umbrella", max_length=200, elem_id="name")
            sentence = gr.Textbox(
                label="A sentence about it (optional)",
                placeholder="A red umbrella is a round cloth canopy on a stick, often held over a person in the rain.",
                max_length=500,
                elem_id="sentence",
            )
        with gr.Row(visible=scorer.takes_new_labels):
            add = gr.Button("Score it", variant="primary", elem_id="add")
            clear = gr.Button("Remove typed labels", elem_id="clear")

        rules: list[Any] = [kind, slider]
        lists = [seen, others]

        def show(found: Scored | None, how: str, value: float) -> list[Any]:
            return _lists(found, tuned if how == _TUNED else {}, value)

        def on_upload(file: str | None, labels: Typed, how: str, value: float) -> list[Any]:
            nothing = [None, "", gr.Image(None, visible=False), *show(None, how, value), *_no_reasons()]
            if file is None:
                return nothing
            try:
                found = scorer.score(Path(file), labels)
            except UserError as error:
                return [None, _said(error), *nothing[2:]]
            return [found, "", gr.Image(found.image, visible=True), *show(found, how, value), *_no_reasons()]

        def on_typed(file: str | None, labels: Typed, word: str, said: str, how: str, value: float) -> list[Any]:
            try:
                more = with_typed(labels, word, said)
                # Also where there is no image yet: a label that is there already is said to be, at once.
                scorer.own.with_labels(more)
                found = None if file is None else scorer.score(Path(file), more)
            except UserError as error:
                return [gr.skip(), gr.skip(), _said(error), gr.skip(), gr.skip(), gr.skip(), gr.skip()]
            return [more, found, "", *show(found, how, value), "", ""]

        def on_clear(file: str | None, how: str, value: float) -> list[Any]:
            return [{}, *on_upload(file, {}, how, value)]

        def on_select(file: str | None, found: Scored | None, labels: Typed, event: gr.SelectData) -> list[Any]:
            if found is None or file is None:
                return _no_reasons()
            index = _names(found.labels).index(event.value)
            return _reasons(scorer, Path(file), found, labels, index)

        # Nothing here is an API for others, and one visitor's click is answered after the other's.
        quiet: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}
        reasons = [region_map, why]
        upload.change(on_upload, [upload, typed, *rules], [scored, message, image, *lists, *reasons], **quiet)
        for rule in rules:
            rule.change(
                show, [scored, *rules], lists, api_visibility="private", trigger_mode="always_last",
                show_progress="hidden",
            )  # fmt: skip
        kind.change(
            lambda how: gr.Slider(label=_slider_label(how == _TUNED)),
            kind,
            slider,
            api_visibility="private",
            show_progress="hidden",
        )
        for shown in lists:
            shown.select(on_select, [upload, scored, typed], reasons, **quiet)
        gr.on(
            [add.click, name.submit, sentence.submit],
            on_typed,
            [upload, typed, name, sentence, *rules],
            [typed, scored, message, *lists, name, sentence],
            **quiet,
        )
        clear.click(on_clear, [upload, *rules], [typed, scored, message, image, *lists, *reasons], **quiet)
    return page


def _slider_label(tuned: bool) -> str:
    return ("A label that you typed" if tuned else "A label") + " counts as seen from this probability"


def _lists(found: Scored | None, tuned: dict[str, float], one: float) -> list[Any]:
    """What is at or above its threshold, and the most probable of what is below; `one` is for labels not tuned."""
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
    """How each label is called on the page: by its text, with its key where two share one."""
    count = Counter(label.text for label in labels)
    return [label.text if count[label.text] == 1 else f"{label.text} ({label.key})" for label in labels]


def _said(error: UserError) -> str:
    return f'<p class="message" role="alert">{escape(" ".join(str(error).split()))}</p>'


def _no_reasons() -> list[Any]:
    return [gr.Image(None, visible=False), ""]


def _reasons(scorer: Scorer, path: Path, found: Scored, typed: Typed, index: int) -> list[Any]:
    label, percent = found.labels[index], 100 * float(found.probabilities[index])
    lines = [f"<h3>{escape(label.text)}: {percent:.1f} %</h3>"]
    sentences = scorer.sentences(label.key, typed)
    lines += [f"<p>“{escape(sentence)}”</p>" for sentence in sentences]
    if not sentences:
        lines.append("<p>Known by its name only: there is no sentence about it.</p>")
    elif (by_name := scorer.by_name_only(path, typed)) is not None:
        bare = 100 * float(by_name[index])
        lines.append(
            f"<p>With the bare names instead of the sentences it would be {bare:.1f} %: "
            f"the sentences contribute {percent - bare:+.1f} points.</p>"
        )
    drawn = found.map_over_image(index)
    if drawn is None:
        lines.append("<p>This run’s head scores the image as a whole: there is no map.</p>")
    else:
        lines.append("<p>Bright is where the label was seen, relative to the brightest place of this map.</p>")
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
            "Type a label that the model was not trained on; a sentence on what it looks like may help. All labels are "
            "scored together, so that a new one can move the others a little."
        )
    else:
        said = "This run’s head knows only the labels it was trained on: new ones cannot be typed."
    return f"<h3>New labels</h3><p>{said}</p>"
