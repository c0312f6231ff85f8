"""Serves the page of `sspa-train demo`: the address, no external resources, no files left behind."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from sspa.shared.errors import UserError
from sspa.shared.terminal import say
from sspa.stage2_training.demo.gate import Gate
from sspa.stage2_training.demo.scoring import Limits, Scorer
from sspa.stage2_training.demo.uploads import Uploads, upload_folder
from sspa.stage2_training.serving.address import is_loopback, listen, serve_until_interrupted
from sspa.stage2_training.serving.origin import hosts_of

if TYPE_CHECKING:
    from sspa.stage2_training.inference.tagger import Tagger

# All uploads together, as a multiple of the largest file; the oldest go first.
_FILES_KEPT = 25
# Events that may wait for their turn; one more is told that the page is busy.
_WAITING = 100
# Whose last image and labels are kept, about a megabyte each; the one who was here longest ago goes first.
_VISITORS = 100


def serve(load: Callable[[], "Tagger"], threshold: float | None, limits: Limits, host: str, port: int) -> None:
    """Serve a run's page until interrupted.

    Args:
        load: returns the tagger; called once the address is known to be free.
        threshold: see `build_page`.
        host: the address to listen on; for any but this machine's own, a warning is shown.
        port: 0 takes any free one.

    Raises:
        UserError: Gradio is not installed, the address is not available, or `load` raises it.
    """
    _need_gradio()
    with listen(host, port) as listening, upload_folder() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        uploads = Uploads(folder, _FILES_KEPT * limits.bytes)
        actual = listening.getsockname()[1]
        app = make_app(Scorer(load(), limits), threshold, uploads, host, actual)
        if not is_loopback(host):
            say(f"warning: everyone who reaches {host} can use this page; it asks for no password")
        serve_until_interrupted(app, listening, host)


def make_app(scorer: Scorer, threshold: float | None, uploads: Uploads, host: str, port: int) -> Gate:
    """The page as an ASGI app that requests nothing from other hosts, behind the gate."""
    import fastapi
    import gradio as gr

    from sspa.stage2_training.demo.page import SCRIPT, STYLE, build_page

    page = build_page(scorer, threshold)
    page.queue(max_size=_WAITING, api_open=False)
    page.state_session_capacity = _VISITORS
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=scorer.limits.bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        # The default theme would load web fonts.
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
        js=SCRIPT,
    )
    functions = frozenset(page.fns)
    return Gate(app, uploads, hosts_of(host, port), port, functions, scorer.limits.bytes)


def _need_gradio() -> None:
    # Read when Gradio is imported: no usage statistics, no look for newer versions.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError:
        raise UserError("the demo page needs gradio: install sspa with the extra 'demo'") from None
