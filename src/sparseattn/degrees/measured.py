"""Lines that tell a user what came of a sparsity."""

from __future__ import annotations

__all__ = ["told"]


def told(
    stated: float, sparsity: float, windows: float, by_length: dict[str, float], over: str
) -> list[str]:
    """Lines that tell a user what came of a sparsity.

    Args:
        stated: What was asked for.
        sparsity: What the plan has.
        windows: That of its windows alone.
        by_length: See `Realised.by_length`.
        over: What these were counted over, such as `872 held-out texts`.
    """
    buckets = ", ".join(f"{lengths}: {share:.3f}" for lengths, share in by_length.items())
    return [
        f"stated sparsity {stated:.3f}, realised {sparsity:.3f} (windows alone {windows:.3f}) "
        f"over {over}",
        f"by length in tokens: {buckets}",
    ]
