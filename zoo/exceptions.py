"""Models of which it is known that they do not come back."""

from __future__ import annotations

# Name to the reason. One that comes back after all fails the zoo until it is taken out.
EXPECTED: dict[str, str] = {}
