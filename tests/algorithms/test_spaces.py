"""Several observations, several actions, masks: what is learned, what acts without torch and what is exported agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from headrace.algorithms import acting_inputs, distributions, dqn, grpo, networks, normalise, ppo, sac
from headrace.algorithms.acting import JoinedMLP, NumpyMLP
from headrace.algorithms.base import Batch, NetworkOptions
from headrace.algorithms.branches import Encoder
from headrace.algorithms.export import export
from headrace.common import named
from headrace.common.errors import UsageError
from headrace.common.seeding import stream
from headrace.common.types import Array, Field, Spaces, Weights

DISCRETE, BOX = Field("int64", below=4, start=3), Field("float32", (2,))
MULTI, BINARY = Field("int64", (3,), below=(4, 2, 3), start=(0, 1, 0)), Field("int64", (3,), below=(2, 2, 2))
SPEED, GEAR, DIALS = Field("float32", (3,)), Field("int64", below=3, start=1), Field("int8", (2,), below=(2, 5))
CAMERA, HEIGHT = Field("uint8", (40, 40)), Field("int16", ())
VECTORS = {"speed": SPEED, "arm.gear": GEAR, "arm.dials": DIALS, "height": HEIGHT}


class Weighed(nn.Module):
    """A network of one's own over several observations."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], width: int = 8) -> None:
        super().__init__()
        assert shapes == {"camera": (40, 40), "arm.gear": (3,), "speed": (3,)}
        self.camera, self.rest = nn.Linear(40, width), nn.Linear(6, width)

    def forward(self, x: Mapping[str, torch.Tensor]) -> torch.Tensor:
        rest = self.rest(torch.cat([x["arm.gear"], x["speed"]], -1)).tanh()
        return rest * self.camera(x["camera"].float().mean(1) / 255)


class Blind(nn.Module):
    """Looks at one of them only."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.linear = nn.Linear(*shapes["speed"], 8)

    def forward(self, x: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self.linear(x["speed"]).tanh()


def spaces_of(obs: Mapping[str, Field], action: Field, masked: bool = True) -> Spaces:
    mask = {"action_mask": Field("bool", (action.features,))} if masked and action.choices else {}
    return Spaces({**obs, **mask}, action)


PIXELS = {"camera": CAMERA, "arm.gear": GEAR, "speed": SPEED}
CNN = {"network": "nature_cnn", "hidden": (16,)}
CASES = [
    pytest.param({"": SPEED}, DISCRETE, {}, id="a masked vector"),
    pytest.param({"": GEAR}, DISCRETE, {}, id="a whole number"),
    pytest.param({"": DIALS}, MULTI, {}, id="whole numbers, several actions"),
    pytest.param(VECTORS, DISCRETE, {"layer_norm": True, "activation": "relu"}, id="vectors"),
    pytest.param(VECTORS, MULTI, {"normalise_obs": False}, id="vectors, several actions"),
    pytest.param({"": SPEED}, BINARY, {}, id="binary actions"),
    pytest.param(VECTORS, BOX, {}, id="vectors, continuous actions"),
    pytest.param({"": CAMERA}, MULTI, CNN, id="a masked image"),
    pytest.param(PIXELS, DISCRETE, CNN, id="image and vectors"),
    pytest.param({"a.left": CAMERA, "a.right": CAMERA}, BOX, CNN, id="two images"),
    pytest.param(PIXELS, MULTI, {"network": f"{__name__}:Weighed"}, id="one's own"),
    pytest.param(PIXELS, DISCRETE, {"network": f"{__name__}:Blind"}, id="one's own, half blind"),
]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def observations(spaces: Spaces, batch: int, seed: int = 1) -> Any:
    """As they are in memory: an array, or by name; each component of an action has an allowed choice."""
    rng = np.random.default_rng(seed)

    def some(field: Field) -> Array:
        shape = (batch, *field.shape)
        if field.dtype == "float32":
            return rng.normal(1.0, 3.0, shape).astype(np.float32)
        return rng.integers(0, field.below or 2 if field.dtype == "bool" else field.below or 200, shape).astype(
            field.dtype
        )

    obs = named.each(some, named.alone(spaces.obs))
    mask, first = named.mask(obs), 0
    if mask is not None:
        for n in spaces.action.choices:
            part = mask[:, first : first + n]
            part[np.arange(batch), rng.integers(0, n, batch)] |= ~part.any(1)
            first += n
    return obs


def tensors(obs: Any) -> Any:
    return named.each(torch.from_numpy, obs)


def trained(module: Any, config: Any, spaces: Spaces) -> tuple[Any, Any, Weights]:
    """As if it had learnt: other weights, a normaliser that has seen something."""
    learner = getattr(module, module.__name__.rsplit(".", 1)[1].upper())(config, spaces, seed=3)
    noise = torch.Generator().manual_seed(0)
    for parameter in (learner.q if module is dqn else learner.pi).parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=noise))
    learner.obs_norm.update(tensors(observations(spaces, 50)))
    weights, policy = Weights("run", 1, 1, *learner.weights()), module.policy(config, spaces)
    policy.load(weights)
    return learner, policy, weights


@pytest.mark.parametrize(("obs", "action", "options"), CASES)
def test_what_acts_without_torch_computes_what_is_learned(obs: Any, action: Field, options: Any) -> None:
    spaces = spaces_of(obs, action)
    learner, policy, weights = trained(ppo, ppo.Config(**options), spaces)
    shown = observations(spaces, 64)
    acted = policy.act(shown, None, np.random.default_rng(2), explore=True)
    with torch.no_grad():
        logp = learner.pi(learner.obs_norm(tensors(shown))).log_prob(torch.from_numpy(acted.action))
    np.testing.assert_allclose(acted.extras["behaviour_logp"], logp.numpy(), atol=1e-4)
    assert (logp > -100).all(), "nothing was done that is not allowed"
    assert acted.action.shape == (64, *action.shape)
    if not options.get("network") and obs.keys() != {""}:
        assert isinstance(policy.net, JoinedMLP)
    if options.get("normalise_obs", True) and "speed" in obs:
        assert weights.tensors["obs_mean.speed"].shape == (3,)
    assert not any(name.startswith(("obs_mean.arm", "obs_mean.camera", "obs_mean.action")) for name in weights.tensors)


def run(graph: bytes, obs: Any) -> Array:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feed = named.spread("obs", obs)
    assert {one.name for one in session.get_inputs()} == feed.keys()
    return np.asarray(session.run(["action"], feed)[0])


def as_shown(obs: Any, spaces: Spaces) -> Any:
    """What the environment itself shows: whole numbers from where its spaces begin."""
    parts = {n: part + np.asarray(spaces.obs[n].start, part.dtype) if spaces.obs[n].choices else part
             for n, part in named.parts(obs).items()}  # fmt: skip
    return named.alone(parts)


@pytest.mark.parametrize(("obs", "action", "options"), CASES)
def test_an_exported_policy_does_what_the_policy_does(obs: Any, action: Field, options: Any) -> None:
    spaces = spaces_of(obs, action)
    _, policy, weights = trained(ppo, ppo.Config(**options), spaces)
    low, high = np.float32([[-2.0], [0.0]]), np.float32([[2.0], [10.0]])
    bounds, shape = (None, action.shape) if action.choices else ((low, high), (2, 1))
    graph = export(policy, weights, spaces, bounds, False, shape)
    shown = observations(spaces, 100)
    expected = policy.act(shown, None, np.random.default_rng(0), explore=False).action
    found = run(graph, as_shown(shown, spaces))
    if action.choices:
        np.testing.assert_array_equal(found, expected + np.asarray(action.start))
        assert len(np.unique(expected)) > 1, "it chooses"
    else:
        np.testing.assert_allclose(
            found[..., 0], low.T + (np.clip(expected, -1, 1) + 1) * (high - low).T / 2, atol=1e-4
        )
    if action.choices:
        sampled = run(export(policy, weights, spaces, bounds, True, shape), as_shown(shown, spaces))
        mask = named.mask(shown)
        first = np.cumsum([0, *action.choices[:-1]])
        taken = (sampled - np.asarray(action.start)).reshape(100, -1) + first
        assert np.take_along_axis(mask, taken, 1).all(), "a sample is allowed"


@pytest.mark.parametrize("dueling", [False, True])
def test_a_q_network_over_masked_observations_is_exported(dueling: bool) -> None:
    spaces = spaces_of(VECTORS, DISCRETE)
    _, policy, weights = trained(dqn, dqn.Config(dueling=dueling), spaces)
    shown = observations(spaces, 100)
    expected = policy.act(shown, None, np.random.default_rng(0), explore=False).action
    assert np.take_along_axis(shown["action_mask"], expected[:, None], 1).all()
    found = run(export(policy, weights, spaces, None, False), as_shown(shown, spaces))
    np.testing.assert_array_equal(found, expected + 3)


# --- distributions -------------------------------------------------------------------------------------------------


def multi(logits: torch.Tensor, choices: tuple[int, ...]) -> distributions.MultiCategorical:
    return distributions.MultiCategorical(logits, *map(torch.from_numpy, acting_inputs.laid_out(choices)))


@pytest.mark.parametrize("choices", [(4, 2, 3), (5,), (2, 2)])
def test_several_categoricals_are_those_of_torch(choices: tuple[int, ...]) -> None:
    logits = torch.randn(32, sum(choices), requires_grad=True)
    ours = multi(logits, choices)
    theirs = [torch.distributions.Categorical(logits=part) for part in logits.split(choices, 1)]
    action = torch.stack([each.sample() for each in theirs], 1)
    logp = sum(each.log_prob(action[:, i]) for i, each in enumerate(theirs))
    entropy = sum(each.entropy() for each in theirs)
    for mine, other in ((ours.log_prob(action), logp), (ours.entropy(), entropy)):
        torch.testing.assert_close(mine, other)
        gradients = [torch.autograd.grad(one.sum(), logits, retain_graph=True)[0] for one in (mine, other)]
        torch.testing.assert_close(*gradients)


def test_of_two_choices_it_is_a_bernoulli() -> None:
    logits = torch.randn(32, 6)
    theirs = torch.distributions.Bernoulli(logits=logits[:, 1::2] - logits[:, ::2])
    action = theirs.sample()
    torch.testing.assert_close(multi(logits, (2, 2, 2)).log_prob(action.long()), theirs.log_prob(action).sum(1))
    torch.testing.assert_close(multi(logits, (2, 2, 2)).entropy(), theirs.entropy().sum(1))


def test_what_is_masked_has_no_probability_no_entropy_and_no_gradient() -> None:
    logits, mask = torch.randn(32, 5, requires_grad=True), torch.rand(32, 5) < 0.5
    mask[:, 2] = True
    ours = distributions.Categorical(distributions.masked(logits, {"action_mask": mask}))
    theirs = torch.distributions.Categorical(logits=logits.masked_fill(~mask, -torch.inf))
    action = torch.full((32,), 2)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    plogp = torch.where(mask, theirs.probs * theirs.probs.log(), 0.0)
    torch.testing.assert_close(ours.entropy(), -plogp.sum(1))
    (gradient,) = torch.autograd.grad((ours.log_prob(action) + ours.entropy()).sum(), logits)
    assert torch.isfinite(gradient).all()
    assert (gradient[~mask] == 0).all()


@pytest.mark.parametrize("action", [DISCRETE, MULTI, BINARY])
def test_sampling_follows_the_probabilities_of_what_is_allowed(action: Field) -> None:
    spaces = spaces_of({"": SPEED}, action)
    learner, policy, _ = trained(ppo, ppo.Config(), spaces)
    one = observations(spaces, 1)
    many = named.each(lambda part: np.repeat(part, 40_000, axis=0), one)
    taken = policy.act(many, None, np.random.default_rng(5), explore=True).action.reshape(40_000, -1)
    with torch.no_grad():
        logits = distributions.masked(learner.pi.net(learner.obs_norm(tensors(one))), tensors(one))
    for i, part in enumerate(logits[0].split(action.choices)):
        found = np.bincount(taken[:, i], minlength=len(part)) / 40_000
        np.testing.assert_allclose(found, part.softmax(0).numpy(), atol=0.015)


def test_epsilon_greedy_explores_among_what_is_allowed() -> None:
    spaces = spaces_of({"": SPEED}, DISCRETE)
    policy = dqn.policy(dqn.Config(epsilon_start=1.0), spaces)
    policy.net = lambda obs: np.zeros((len(obs), 4), np.float32)
    mask = np.tile(np.array([True, False, True, True]), (30_000, 1))
    obs = {"": np.zeros((30_000, 3), np.float32), "action_mask": mask}
    taken = policy.act(obs, None, np.random.default_rng(1), explore=True).action
    np.testing.assert_allclose(np.bincount(taken, minlength=4) / 30_000, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.01)


# --- learning ------------------------------------------------------------------------------------------------------


def transitions(spaces: Spaces, size: int) -> Batch:
    rng, obs, after = np.random.default_rng(3), observations(spaces, size), observations(spaces, size, seed=4)
    mask = named.mask(obs)
    action = (np.where(mask, rng.random(mask.shape), -1).argmax(1) if mask is not None
              else rng.uniform(-1, 1, (size, 2)).astype(np.float32))  # fmt: skip
    rest = {"action": action, "reward": rng.normal(size=size).astype(np.float32),
            "discount": np.full(size, 0.9, np.float32), "weight": np.ones(size, np.float32)}  # fmt: skip
    return Batch({**named.spread("obs", obs), **named.spread("next_obs", after), **rest}, size)


@pytest.mark.parametrize("double", [False, True])
def test_the_target_takes_the_best_of_what_is_allowed_next(double: bool) -> None:
    spaces = spaces_of(VECTORS, DISCRETE)
    learner, _, _ = trained(dqn, dqn.Config(double=double, minibatch=64), spaces)
    batch = transitions(spaces, 64)
    x, x_next = (learner.obs_norm(tensors(batch[kind])) for kind in ("obs", "next_obs"))
    with torch.no_grad():
        online, target, q = learner.q(x_next), learner.target(x_next), learner.q(x)
    chooser, allowed = (online if double else target), batch.arrays["next_obs.action_mask"]
    errors = []
    for i, action in enumerate(batch.arrays["action"]):
        best = max(np.flatnonzero(allowed[i]), key=lambda a: float(chooser[i, a]))
        y = batch.arrays["reward"][i] + 0.9 * float(target[i, best])
        errors.append(abs(float(q[i, action]) - y))
    *_, error = learner._loss(x, x_next, *(torch.from_numpy(batch.arrays[n]) for n in dqn._TRANSITION[2:]))
    np.testing.assert_allclose(error.numpy(), errors, rtol=1e-4, atol=1e-5)
    assert not allowed[np.arange(64), chooser.argmax(1).numpy()].all(), "the best of all is not always allowed"


@pytest.mark.parametrize(("module", "action"), [(dqn, DISCRETE), (sac, BOX)])
def test_replay_algorithms_take_several_vectors(module: Any, action: Field) -> None:
    spaces = spaces_of(VECTORS, action)
    learner, policy, _ = trained(module, module.Config(hidden=(16,), minibatch=32), spaces)
    before = learner.state().tensors["q.one.0.stack.0.weight" if module is sac else "q.body.stack.0.weight"]
    assert before.shape[1] == 3 + 3 + 7 + 1 + (2 if module is sac else 0)
    for _ in range(3):
        assert all(np.isfinite(value) for value in learner.update(transitions(spaces, 32)).metrics.values())
    policy.load(Weights("run", 1, 2, *learner.weights()))
    again = getattr(module, module.__name__.rsplit(".", 1)[1].upper())(learner.config, spaces, seed=9)
    again.restore(learner.state())
    for name, tensor in learner.state().tensors.items():
        np.testing.assert_array_equal(again.state().tensors[name], tensor)


@pytest.mark.parametrize("options", [CNN, {"network": f"{__name__}:Weighed"}])
def test_ppo_learns_from_what_it_recorded(options: Any) -> None:
    """The first gradient step of an update meets the policy that acted: ratios of 1. And a network is shown [B, ...],
    never [T, B, ...]: one's own need not know of time."""
    spaces = spaces_of(PIXELS, MULTI)
    config = ppo.Config(**options, minibatch=24, epochs=1)
    learner, policy, _ = trained(ppo, config, spaces)
    T, B, rng = 4, 6, np.random.default_rng(0)
    obs = observations(spaces, (T + 1) * B)
    acted = policy.act(named.rows(obs, slice(0, T * B)), None, rng, explore=True)
    ends = np.zeros((T, B), bool)
    ends[1, 2] = ends[3, 0] = True
    batch = Batch({
        **named.spread("obs", named.each(lambda part: part.reshape(T + 1, B, *part.shape[1:]), obs)),
        **named.spread("final_obs", named.rows(obs, slice(0, 2))),
        "final_t": np.array([1, 3]), "final_b": np.array([2, 0]), "terminated": ends, "truncated": ~ends & False,
        "action": acted.action.reshape(T, B, 3), "behaviour_logp": acted.extras["behaviour_logp"].reshape(T, B),
        "reward": rng.normal(size=(T, B)).astype(np.float32),
    }, T * B)  # fmt: skip
    metrics = learner.update(batch).metrics
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-5)
    assert metrics["clip_fraction"] == 0.0


# --- networks ------------------------------------------------------------------------------------------------------


def test_whole_numbers_become_one_hot_in_the_order_of_the_names() -> None:
    fields = {name: field for name, field in VECTORS.items() if name != "height"}
    spaces = spaces_of(fields, DISCRETE)
    obs = observations(spaces, 20)
    x = Encoder(networks.taken(spaces), joined=True)(normalise.make(spaces, False)(tensors(obs)))
    expected = [obs["speed"], np.eye(3)[obs["arm.gear"]], np.eye(2)[obs["arm.dials"][:, 0]],
                np.eye(5)[obs["arm.dials"][:, 1]]]  # fmt: skip
    np.testing.assert_array_equal(x.numpy(), np.concatenate(expected, 1).astype(np.float32))


def test_branches_meet_before_the_head() -> None:
    """What an image means may depend on the vector beside it: a sum of what each says alone would not do."""
    spaces = spaces_of({"camera": CAMERA, "speed": SPEED}, DISCRETE, masked=False)
    net = networks.make(NetworkOptions("nature_cnn", hidden=(16,)), spaces, 4, stream(0, "pi"))
    obs = {"camera": torch.randint(0, 256, (2, 40, 40), dtype=torch.uint8), "speed": torch.randn(2, 3)}
    with torch.no_grad():
        one, two, three, four = (
            net({"camera": obs["camera"][i : i + 1], "speed": obs["speed"][j : j + 1]}) for i in (0, 1) for j in (0, 1)
        )
    assert (one - two - three + four).abs().max() > 1e-3


def test_the_plain_case_keeps_its_fast_path() -> None:
    for obs in ({"": SPEED}, {"": SPEED, "action_mask": Field("bool", (4,))}):
        assert isinstance(ppo.policy(ppo.Config(), Spaces(obs, DISCRETE)).net, NumpyMLP)
    assert isinstance(normalise.make(Spaces({"": SPEED}, BOX), True), normalise.ObsNorm)


@pytest.mark.parametrize(
    ("obs", "network", "says"),
    [
        (PIXELS, "mlp", r"takes vectors, and observations are camera uint8\[40, 40\], arm.gear int64\[\], speed"),
        (VECTORS, "nature_cnn", r"takes images, and observations are speed float32\[3\], arm.gear"),
        ({"": SPEED}, "impala_cnn", "takes images, and observations are"),
        ({"a": CAMERA, "b": Field("uint8", (2, 2))}, "nature_cnn", r"cannot be made for observations a \[40, 40\], b"),
        (VECTORS, f"{__name__}:Weighed", "cannot be made for observations speed .*AssertionError"),
    ],
)
def test_networks_that_do_not_fit_are_one_line(obs: Any, network: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        networks.make(NetworkOptions(network), spaces_of(obs, DISCRETE), 4, stream(0, "pi"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "spaces", "says"),
    [
        (dqn, spaces_of(VECTORS, MULTI), "DQN needs a Discrete action space and this one is a MultiDiscrete"),
        (sac, spaces_of(VECTORS, MULTI), "SAC needs a Box action space and this one is MultiDiscrete"),
        (sac, spaces_of(PIXELS, BOX), r"critics take vectors, and observations are uint8\[40, 40\], int64"),
    ],
)
def test_what_an_algorithm_cannot_serve_is_one_line(module: Any, spaces: Spaces, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        module.policy(module.Config(), spaces)


def test_groups_hold_every_observation() -> None:
    schema = grpo.schema(grpo.Config(), spaces_of(VECTORS, MULTI))
    assert {n for n in schema.fields if n.startswith("obs")} == {f"obs.{n}" for n in (*VECTORS, "action_mask")}
    assert schema.fields["action"] == MULTI


def test_a_graph_for_other_names_is_refused_in_one_line() -> None:
    config = ppo.Config(network="nature_cnn", hidden=(16,))
    _, _, weights = trained(ppo, config, spaces_of({"a.left": CAMERA, "a.right": CAMERA}, BOX))
    other = ppo.policy(config, spaces_of({"left": CAMERA, "a.right": CAMERA}, BOX))
    with pytest.raises(UsageError, match=r"of another network than this run.s: it takes obs\.a\.left, which nothing"):
        other.load(weights)
