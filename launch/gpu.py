"""The learner's GPU in its metrics, from NVIDIA's management library (the extra ``gpu``), asked at every scrape.

Nothing is shown where there is no such device, no such library, or a figure that this card does not tell: a learner
learns as well without.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from headrace.common.metrics import Metrics

_log = logging.getLogger("headrace.learner")


def show_gpu(metrics: Metrics, device: str) -> None:
    """Show what ``device`` (cpu or cuda[:N], as torch counts them) does from now on."""
    if not device.startswith("cuda"):
        return
    try:
        import pynvml
    except ImportError:
        _log.info("learner: no figures of the GPU in the metrics; pip install 'headrace[gpu]' for them")
        return
    try:
        pynvml.nvmlInit()
        # By its UUID: torch may see fewer devices than the library, and in another order.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{_uuid(device)}")
    except pynvml.NVMLError as error:
        _log.warning("learner: no figures of the GPU in the metrics: %s", error)
        return
    for name, read in _figures(pynvml, handle).items():
        try:
            read()
        except pynvml.NVMLError:
            continue  # this card does not tell
        metrics.track(name, _or_nan(read, pynvml.NVMLError))


def _uuid(device: str) -> str:
    import torch

    return str(torch.cuda.get_device_properties(device).uuid)


def _figures(nvml: Any, handle: Any) -> dict[str, Callable[[], float]]:
    return {
        "gpu_utilization_ratio": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        "gpu_memory_used_bytes": lambda: float(nvml.nvmlDeviceGetMemoryInfo(handle).used),
        "gpu_memory_total_bytes": lambda: float(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        "gpu_power_watts": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
        "gpu_temperature_celsius": lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
    }


def _or_nan(read: Callable[[], float], error: type[Exception]) -> Callable[[], float]:
    """A device that has fallen off its bus must not take the scrape of everything else along."""

    def safely() -> float:
        try:
            return read()
        except error:
            return float("nan")

    return safely
