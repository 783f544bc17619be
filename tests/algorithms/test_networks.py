"""Networks by name and of one's own: what they give, what actors make of them without torch, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from headrace.algorithms import acting_onnx, dqn, grpo, networks, onnx_graph, policy_nets, ppo
from headrace.algorithms.acting import acting_net
from headrace.algorithms.base import NetworkOptions
from headrace.common.errors import UsageError
from headrace.common.seeding import stream
from headrace.common.types import Spaces, Weights

PIXELS = Spaces.box((4, 84, 84), "uint8", n_actions=3)
VECTOR = Spaces.box((6,), n_actions=3)


class Attention(nn.Module):
    """A network of one's own: each number of an observation is a token."""

    def __init__(self, shape: tuple[int, ...], width: int = 16) -> None:
        super().__init__()
        self.embed, self.position = nn.Linear(1, width), nn.Parameter(torch.randn(shape[0], width))
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x[..., None]) + self.position
        return (tokens + self.attend(tokens, tokens, tokens, need_weights=False)[0]).mean(1)


class ThreeAxes(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., None]


class Fails(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no matrix\nof mine")


class Counts(nn.Module):
    """What it computes depends on a value: no graph says that."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.linear = nn.Linear(shape[0], 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(x)
        return y if float(x.sum()) > 0 else -y


OWN = f"{__name__}:Attention"
CASES = [
    pytest.param(NetworkOptions(), VECTOR, id="mlp"),
    pytest.param(NetworkOptions(layer_norm=True, activation="relu"), VECTOR, id="layer norm"),
    pytest.param(NetworkOptions(), Spaces.box((), n_actions=2), id="a number"),
    pytest.param(NetworkOptions(), Spaces.box((5,), "uint8", n_actions=2), id="whole numbers"),
    pytest.param(NetworkOptions(), Spaces.box((6,), "int64", n_actions=2), id="large whole numbers"),
    pytest.param(NetworkOptions(OWN, {"width": 8}), Spaces.box((6,), "int64", n_actions=2), id="those, one's own"),
    pytest.param(NetworkOptions("nature_cnn", hidden=(32,)), PIXELS, id="nature_cnn"),
    pytest.param(NetworkOptions("nature_cnn", hidden=(32,)), Spaces.box((64, 64, 3), "uint8", n_actions=2), id="RGB"),
    pytest.param(NetworkOptions("impala_cnn", hidden=(32,)), Spaces.box((42, 42), n_actions=2), id="impala_cnn"),
    pytest.param(NetworkOptions(OWN, {"width": 8}), VECTOR, id="one's own"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "headrace" / "graphs"


def observations(spaces: Spaces, batch: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    if spaces.obs_dtype == "uint8":
        return rng.integers(0, 256, (batch, *spaces.obs_shape), np.uint8)
    return rng.normal(1.0, 3.0, (batch, *spaces.obs_shape)).astype(spaces.obs_dtype)


@pytest.mark.parametrize(("options", "spaces"), CASES)
def test_what_acts_without_torch_computes_what_is_learned(options: NetworkOptions, spaces: Spaces) -> None:
    config = ppo.Config(**vars(options))
    learner, policy = ppo.PPO(config, spaces, seed=3), ppo.policy(config, spaces)
    torch.manual_seed(3)
    for version in range(2):
        for parameter in learner.pi.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        learner.obs_norm.update(torch.from_numpy(observations(spaces, 50)))
        policy.load(Weights("run", 1, version, *learner.weights()))
        obs = observations(spaces, 7)
        acted = policy.act(obs, None, np.random.default_rng(2), explore=True)
        with torch.no_grad():
            logp = learner.pi(learner.obs_norm(torch.from_numpy(obs))).log_prob(torch.from_numpy(acted.action))
        np.testing.assert_allclose(acted.extras["behaviour_logp"], logp.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("module", [ppo, grpo, dqn])
def test_every_algorithm_takes_any_network(module) -> None:
    config = module.Config(network="nature_cnn", hidden=(16,))
    learner = getattr(module, module.__name__.rsplit(".", 1)[1].upper())(config, PIXELS, seed=0)
    policy = module.policy(config, PIXELS)
    policy.load(Weights("run", 1, 0, *learner.weights()))
    assert policy.act(observations(PIXELS, 5), None, np.random.default_rng(0), explore=True).action.shape == (5,)


def test_an_actor_of_any_network_loads_no_torch(tmp_path: Path) -> None:
    learner = ppo.PPO(ppo.Config(network="nature_cnn"), PIXELS, seed=0)
    np.savez(tmp_path / "weights.npz", **learner.weights()[0])
    code = (
        "import sys, numpy as np\n"
        "from headrace.algorithms import ppo\n"
        "from headrace.common.types import Spaces, Weights\n"
        "spaces = Spaces.box((4, 84, 84), 'uint8', n_actions=3)\n"
        "policy = ppo.policy(ppo.Config(network='nature_cnn'), spaces)\n"
        f"policy.load(Weights('run', 1, 0, dict(np.load({str(tmp_path / 'weights.npz')!r}))))\n"
        "policy.act(np.zeros((8, 4, 84, 84), np.uint8), None, np.random.default_rng(0), True)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_starting_weights_are_those_of_the_seed() -> None:
    for options, spaces in ((NetworkOptions("nature_cnn"), PIXELS), (NetworkOptions(OWN), VECTOR)):
        a, b, other = (policy_nets.make(options, spaces, stream(seed, "pi")).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert any(not torch.equal(a[name], other[name]) for name in a)


def test_a_kept_graph_is_used_again_and_a_wrong_one_is_not(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = networks.make(NetworkOptions(OWN), VECTOR, 3, stream(0, "pi")).acting("pi")["pi.onnx"]
    (kept,) = cache.iterdir()
    exported = []
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: exported.append(a) or pytest.fail("made anew"))
    again = networks.make(NetworkOptions(OWN), VECTOR, 3, stream(1, "pi")).acting("pi")["pi.onnx"]
    np.testing.assert_array_equal(again, made)
    monkeypatch.undo()
    model = onnx.ModelProto.FromString(kept.read_bytes())
    model.graph.node[-1].attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, f=2.0)
    for damaged in (model.SerializeToString(), b"", kept.read_bytes()[:-40]):
        kept.write_bytes(damaged)
        net = networks.make(NetworkOptions(OWN), VECTOR, 3, stream(1, "pi"))
        np.testing.assert_array_equal(net.acting("pi")["pi.onnx"], made)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "spaces", "said"),
    [("natur_cnn", PIXELS, "mlp, nature_cnn, impala_cnn or package.module:Class"),
     ("mlp", PIXELS, "takes vectors, and observations are uint8[4, 84, 84]"),
     ("nature_cnn", VECTOR, "takes images, and observations are float32[6]; mlp takes vectors"),
     ("nature_cnn", Spaces.box((20, 20), n_actions=2), "cannot be made for observations [20, 20]"),
     (f"{__name__}:OWN", VECTOR, "is no torch.nn.Module"),
     (f"{__name__}:ThreeAxes", VECTOR, "must give features, float [2, F]"),
     (f"{__name__}:Fails", VECTOR, "does not take observations float32[6]: RuntimeError: no matrix of mine"),
     (f"{__name__}:Attention", Spaces.box((), "int8", n_actions=2), None)],
)  # fmt: skip
def test_a_network_that_does_not_fit_is_one_line(network: str, spaces: Spaces, said: str | None) -> None:
    if said is None:
        networks.make(NetworkOptions(network), spaces, 2, stream(0, "pi"))
        return
    with pytest.raises(UsageError) as caught:
        networks.make(NetworkOptions(network), spaces, 2, stream(0, "pi"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_that_no_graph_can_say_is_one_line() -> None:
    net = networks.make(NetworkOptions(f"{__name__}:Counts"), VECTOR, 2, stream(0, "pi"))
    with pytest.raises(UsageError, match=r"algorithm.network Counts \(.*test_networks.py, line \d+\): ") as caught:
        net.acting("pi")
    assert "\n" not in str(caught.value)


# --- graphs from elsewhere -----------------------------------------------------------------------------------------


def shipped() -> tuple[dict[str, np.ndarray], onnx.ModelProto]:
    tensors = networks.make(NetworkOptions(OWN), VECTOR, 3, stream(0, "pi")).acting("pi")
    return tensors, onnx.ModelProto.FromString(tensors["pi.onnx"].tobytes())


def load(tensors: dict[str, np.ndarray], graph: bytes) -> acting_onnx.OnnxNet:
    net = acting_net("pi", NetworkOptions(OWN), VECTOR, 3)
    net.load(tensors | {"pi.onnx": np.frombuffer(graph, np.uint8)})
    assert isinstance(net, acting_onnx.OnnxNet)
    return net


def test_a_graph_cannot_read_files(tmp_path: Path) -> None:
    tensors, model = shipped()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1 << 20))
    first = model.graph.initializer[0]
    del first.external_data[:]
    first.external_data.add(key="location", value=str(secret))
    obs = observations(VECTOR, 4)
    expected = load(tensors, shipped()[1].SerializeToString())(obs)
    np.testing.assert_array_equal(load(tensors, model.SerializeToString())(obs), expected)  # by name, not by place
    first.name = "another"
    with pytest.raises(UsageError, match=r"needs 'another'.*is not there"):
        load(tensors, model.SerializeToString())
    constant = model.graph.node.add(op_type="Constant", output=["c"]).attribute.add(name="value", type=4)
    constant.t.CopyFrom(first)
    first.name = shipped()[1].graph.initializer[0].name
    with pytest.raises(UsageError, match="names a file in its node Constant"):
        load(tensors, model.SerializeToString())


def hostile() -> dict[str, onnx.ModelProto]:
    made = {name: shipped()[1] for name in ("foreign", "function", "loop", "many", "constants", "sparse", "outputs")}
    made["foreign"].graph.node.add(op_type="PyOp", domain="ai.onnx.contrib", output=["y"])
    made["function"].functions.add(name="Gemm", domain="mine")
    made["loop"].graph.node.add(op_type="Loop", output=["y"]).attribute.add(name="body", type=5).g.name = "b"
    for _ in range(acting_onnx.MAX_NODES):
        made["many"].graph.node.add(op_type="Relu")
    large = made["constants"].graph.node.add(op_type="Constant", output=["y"]).attribute.add(name="value", type=4)
    large.t.raw_data = bytes(acting_onnx.MAX_CONSTANT_BYTES + 1)
    made["sparse"].graph.sparse_initializer.add()
    made["outputs"].graph.node[-1].op_type = "Nonsense"
    return made


@pytest.mark.parametrize(
    ("kind", "said"),
    [("foreign", "operators beyond ONNX's own: ai.onnx.contrib.PyOp"), ("function", "beyond ONNX's own: mine.Gemm"),
     ("loop", "a graph within its node Loop"), ("many", "nodes; the most"), ("constants", "bytes of constants"),
     ("sparse", "sparse initialisers"), ("outputs", "another network")],
)  # fmt: skip
def test_a_graph_that_is_not_to_be_run_is_refused(kind: str, said: str) -> None:
    tensors, _ = shipped()
    with pytest.raises(UsageError, match=said):
        load(tensors, hostile()[kind].SerializeToString())


def test_a_graph_that_is_none_or_too_large_is_refused() -> None:
    tensors, _ = shipped()
    for graph, said in ((b"\xff" * 100, "no ONNX"), (bytes(acting_onnx.MAX_GRAPH_BYTES + 1), "the most taken")):
        with pytest.raises(UsageError, match=said):
            load(tensors, graph)


def test_a_later_version_whose_tensors_do_not_fit_is_refused() -> None:
    tensors, model = shipped()
    net = load(tensors, model.SerializeToString())
    name = next(name for name in tensors if name.endswith("head.weight"))
    with pytest.raises(UsageError, match=r"head.weight.*and it is float32"):
        net.load(tensors | {name: tensors[name][:, :-1]})
    with pytest.raises(UsageError, match="is not there"):
        net.load({key: value for key, value in tensors.items() if key != name})
    assert onnx_graph.TOLERANCE < 1e-3
