"""What the scripts take on the command line; run_all.py hands the common part on to all of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from record import FOLDER

__all__ = ["options", "prepare"]


def options(about: str, devices: bool = False) -> argparse.ArgumentParser:
    """A parser of what every script takes.

    Args:
        about: The script's documentation.
        devices: Whether it can run on a GPU.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--busy", action="store_true", help="processor time of one thread")
    parser.add_argument("--quick", action="store_true", help="short: only to see that it works")
    parser.add_argument("--again", action="store_true", help="run parts that the file holds too")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")
    if devices:
        parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser


def prepare(given: argparse.Namespace) -> None:
    """Ends the script where its device is missing; sets the threads that `--busy` asks for."""
    if getattr(given, "device", "cpu") == "cuda":
        if not torch.cuda.is_available():
            _refuse("--device cuda: PyTorch finds no GPU on this machine")
        if given.busy:
            _refuse("--busy counts the processor's time, and --device cuda is another device")
    if given.busy:
        torch.set_num_threads(1)


def _refuse(why: str) -> None:
    print(why, file=sys.stderr)
    sys.exit(2)
