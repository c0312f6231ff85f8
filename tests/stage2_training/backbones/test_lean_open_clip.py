"""Importing a backbone leaves scikit-learn alone, for a command that starts sooner, and usable."""

import subprocess
import sys

PROGRAM = """
import sys
import sspa.stage2_training.model.contract
assert "open_clip" in sys.modules and "transformers" in sys.modules
print("sklearn" in sys.modules)
from sklearn.metrics import roc_auc_score
print(roc_auc_score([0, 1], [0.2, 0.7]))
"""


def test_open_clip_comes_without_scikit_learn_which_can_still_be_imported() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n1.0\n"
