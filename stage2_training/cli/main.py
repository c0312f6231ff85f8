"""`sspa-train`: train, evaluate and use the model. Heavy imports happen inside the commands."""

import typer

from sspa.shared.common_options import with_common_options
from sspa.shared.terminal import run_command
from sspa.stage2_training.cli import audit  # noqa: F401 - adds its command to data_app
from sspa.stage2_training.cli.backbone import backbone_app
from sspa.stage2_training.cli.bench import bench_app
from sspa.stage2_training.cli.cache import cache_app
from sspa.stage2_training.cli.compare import compare_app
from sspa.stage2_training.cli.data_files import data_app
from sspa.stage2_training.cli.evaluate import evaluate_app
from sspa.stage2_training.cli.export import export_app
from sspa.stage2_training.cli.refit import refit_app
from sspa.stage2_training.cli.review import review_app
from sspa.stage2_training.cli.run import run_app
from sspa.stage2_training.cli.runs import runs_app
from sspa.stage2_training.cli.settings import settings_app
from sspa.stage2_training.cli.tag import tag_app
from sspa.stage2_training.cli.use import use_app

app = typer.Typer(
    help="Train, evaluate and use SSPA, with the knowledge that sspa-knowledge wrote.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # As in sspa-knowledge: panels would cost 0.15 s of imports.
    rich_markup_mode=None,
)
for commands in (
    run_app,
    refit_app,
    evaluate_app,
    compare_app,
    tag_app,
    review_app,
    use_app,
    bench_app,
    export_app,
    settings_app,
    cache_app,
):
    app.add_typer(commands)
with_common_options(app)
app.add_typer(data_app, name="data")
app.add_typer(backbone_app, name="backbone")
app.add_typer(runs_app, name="runs")


def main() -> None:
    """The console script."""
    run_command(app)
