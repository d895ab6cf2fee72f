"""`python -m demo`: the demo on the repo's own `feature_repo`."""

import sys
from pathlib import Path

from demo.account import run

if __name__ == "__main__":
    sys.exit(run(Path(__file__).resolve().parent.parent / "feature_repo"))
