"""From the options of ``[learner]`` to a :class:`Device` this machine has."""

from __future__ import annotations

import os
import shutil

from headrace.algorithms.device import Device
from headrace.common.errors import UsageError
from headrace.launch.config import Learner
from headrace.observe.probe import ask

#: What torch.compile needs one of, for the code it writes.
_COMPILERS = ("c++", "g++", "clang++")


def check_options(options: Learner) -> None:
    """What can be said without torch. Raises :class:`UsageError`."""
    if options.cuda_graphs and options.device == "cpu":
        raise UsageError("learner.cuda_graphs: needs a CUDA device, and learner.device is 'cpu'")
    compilers = (os.environ.get("CXX", ""), *_COMPILERS)
    if options.compile and not any(shutil.which(name) for name in compilers if name):
        raise UsageError(f"learner.compile: needs a C++ compiler, and none of {', '.join(_COMPILERS)} is installed")


def resolve(options: Learner) -> Device:
    """``auto``: CUDA where there is a device, else the CPU. Raises :class:`UsageError` for what torch does not have."""
    import torch

    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"learner.device {name!r}: {str(error).splitlines()[0]}") from error
    if options.cuda_graphs and name == "cpu":
        raise UsageError("learner.cuda_graphs: needs a CUDA device, and torch finds none here")
    if name != "cpu":
        torch.cuda.set_device(torch.device(name).index or 0)  # graphs are recorded on the current device
    return Device(name, options.precision, options.compile, options.cuda_graphs)


def check_device(options: Learner) -> None:
    """Whether torch finds the CUDA device asked for by name. Raises :class:`UsageError`. Asks in a process of its own:
    one that looks itself keeps part of the device's memory."""
    kind, _, index = options.device.partition(":")
    if kind != "cuda":
        return
    answer = ask("torch")
    found = len(answer.get("devices", ()))
    if "error" not in answer and int(index or 0) >= found:
        raise UsageError(f"learner.device {options.device!r}: torch finds {found or 'no'} CUDA devices here")
