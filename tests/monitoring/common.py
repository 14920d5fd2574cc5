"""What the parts of this check share."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples/monitoring"


def say(text):
    print(f"monitoring: {text}", flush=True)


def fail(text):
    sys.exit(f"monitoring: FAILED: {text}")
