"""The GPU's figures: there with a device and the library, absent without, and never what breaks a scrape."""

from __future__ import annotations

import sys
import types

import pytest
from prometheus_client import generate_latest

from headrace.common.metrics import Metrics
from headrace.launch import gpu


def figures(metrics: Metrics) -> dict[str, float]:
    lines = [line.split() for line in generate_latest(metrics.registry).decode().splitlines()]
    return {
        words[0].removeprefix("headrace_"): float(words[1]) for words in lines if words[0].startswith("headrace_gpu")
    }


def test_a_learner_without_a_gpu_shows_none() -> None:
    metrics = Metrics("learner")
    gpu.show_gpu(metrics, "cpu")
    assert figures(metrics) == {}


def test_no_driver_is_a_line_and_no_figures(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The real library, on a machine whose driver it does not find (or whose device it does not know)."""
    monkeypatch.setattr(gpu, "_uuid", lambda device: "00000000-0000-0000-0000-000000000000")
    metrics = Metrics("learner")
    gpu.show_gpu(metrics, "cuda")
    assert figures(metrics) == {}
    assert "no figures of the GPU in the metrics" in caplog.text


class Card(types.ModuleType):
    """A stand-in for the library: a card that does not tell its power, and may fall off its bus."""

    class NVMLError(Exception):
        pass

    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.gone, self.asked = False, ""

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        self.asked = uuid
        return 1

    def _tell(self, **values: int) -> types.SimpleNamespace:
        if self.gone:
            raise self.NVMLError("GPU is lost")
        return types.SimpleNamespace(**values)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> types.SimpleNamespace:
        return self._tell(gpu=87)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> types.SimpleNamespace:
        return self._tell(used=3 << 30, total=80 << 30)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return int(self._tell(celsius=61).celsius)


def test_figures_of_a_card_and_of_one_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    card, metrics = Card(), Metrics("learner")
    monkeypatch.setitem(sys.modules, "pynvml", card)
    monkeypatch.setattr(gpu, "_uuid", lambda device: "8a5e")
    gpu.show_gpu(metrics, "cuda:1")
    assert card.asked == "GPU-8a5e"
    assert figures(metrics) == {
        "gpu_utilization_ratio": 0.87,
        "gpu_memory_used_bytes": 3 << 30,
        "gpu_memory_total_bytes": 80 << 30,
        "gpu_temperature_celsius": 61,
    }
    card.gone = True
    assert all(value != value for value in figures(metrics).values())


@pytest.mark.gpu
def test_figures_of_a_real_card() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    metrics = Metrics("learner")
    gpu.show_gpu(metrics, "cuda")
    found = figures(metrics)
    assert found["gpu_memory_total_bytes"] == pytest.approx(torch.cuda.mem_get_info()[1], rel=0.05)
    assert 0 <= found["gpu_utilization_ratio"] <= 1
