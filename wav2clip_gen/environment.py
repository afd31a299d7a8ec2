"""Environment variables."""

from __future__ import annotations

import os


def asked_to_stay_offline() -> bool:
    """Whether W2C_OFFLINE is set."""
    return os.environ.get("W2C_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")
