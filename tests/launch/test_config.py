"""One configuration: every preset loads, and everything wrong is one clear line."""

import os
import subprocess
import sys

import numpy as np
import pytest

from headrace.common import codec
from headrace.common.errors import Rejected, UsageError
from headrace.common.types import Episode, Layout, Trajectory
from headrace.launch.build import Blueprint, plan, with_addresses
from headrace.launch.load import load, presets


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_is_whole_and_says_what_it_is(name):
    blueprint = Blueprint(with_addresses(load(name)))
    blueprint.check()
    assert plan(blueprint)["versions_at_least"] > 0
    assert presets()[name].read_text().startswith("# ")


@pytest.mark.parametrize(
    ("preset", "override", "says"),
    [
        ("cartpole-poo", "run.seed=1", "neither a preset nor a file; did you mean 'cartpole-ppo'"),
        ("cartpole-ppo", "run.sede=1", "unknown key run.sede; did you mean 'seed'"),
        ("cartpole-ppo", "rum.seed=1", "unknown key rum; did you mean 'run'"),
        ("cartpole-ppo", "algorithm.gama=0.9", "unknown key algorithm.gama; did you mean 'gamma'"),
        ("cartpole-ppo", "algorithm.name=pppo", "algorithm.name 'pppo' is unknown; did you mean 'ppo'"),
        ("cartpole-ppo", "algorithm.gamma=much", "algorithm.gamma = 'much'"),
        ("cartpole-ppo", "algorithm.gamma=1.5", "algorithm.gamma = 1.5: input should be less than or equal to 1"),
        (
            "cartpole-ppo",
            "algorithm.minibatch=0",
            "algorithm.minibatch = 0: input should be greater than or equal",
        ),
        ("cartpole-ppo", "algorithm.hidden=[64, 0]", "algorithm.hidden.1 = 0: input should be greater than or equal"),
        ("cartpole-dqn", "algorithm.n_step=0", "algorithm.n_step = 0: input should be greater than or equal to 1"),
        ("cartpole-dqn", "algorithm.epsilon_end=-0.1", "algorithm.epsilon_end = -0.1"),
        ("pendulum-sac", "algorithm.tau=2", "algorithm.tau = 2: input should be less than or equal to 1"),
        (
            "pendulum-sac",
            "algorithm.target_entropy=1",
            "algorithm.target_entropy = 1: input should be less than or equal",
        ),
        (
            "pendulum-sac",
            "algorithm.activation=gelu",
            "algorithm.activation = 'gelu': input should be 'tanh' or 'relu'",
        ),
        ("cartpole-grpo", "algorithm.clip=0", "algorithm.clip = 0: input should be greater than 0"),
        ("cartpole-ppo", "learner.device=abacus", "learner.device = 'abacus'"),
        ("cartpole-ppo", "learner.precision=float8", "learner.precision = 'float8'"),
        ("cartpole-ppo", "algorithm.hidden=64", "algorithm.hidden = 64: input should be a list, such as [64, 64]"),
        ("cartpole-ppo", "task.kwargs.x=nan", "task.kwargs.x = nan is not a finite number"),
        ("cartpole-ppo", "task.kwargs.x={y=[1.0, -inf]}", "task.kwargs.x.y.1 = -inf is not a finite number"),
        ("cartpole-ppo", "task.solved=nan", "task.solved = nan: input should be a finite number"),
        ("cartpole-ppo", "weights.lease_ttl_s=inf", "weights.lease_ttl_s = inf: input should be a finite number"),
        ("cartpole-ppo", f"run.id={'x' * 300}", f"run.id = '{'x' * 59}...: up to 64 letters, digits, "),
        ("cartpole-ppo", "run.id=runs/1", "run.id = 'runs/1': up to 64 letters, digits, '.', '_' and '-'"),
        ("cartpole-ppo", "run.total_steps=0", "run.total_steps = 0: input should be greater than 0"),
        ("cartpole-ppo", "task.backend=atari", "task.backend = 'atari'"),
        ("cartpole-ppo", "transport.url=kafka://[", "transport.url = 'kafka://[': invalid IPv6 URL"),
        ("cartpole-ppo", "algorithm.name=5", "algorithm.name 5 is unknown; known: dqn, grpo, ppo, r2d2, sac"),
        ("cartpole-ppo", "seed=1", "write section.key=value"),
        ("cartpole-ppo", "run.seed.x=1", "is a value, not a section"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(preset, override, says):
    with pytest.raises(UsageError) as caught:
        load(preset, ["run.seed=0", override])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_and_files_and_what_is_written_comes_back_equal(tmp_path):
    config = load("lunarlander-ppo", ["run.seed=7", "task.env=CartPole-v1", "algorithm.hidden=[8]", 'run.id="x"'])
    assert (config.run.seed, config.task.env, config.algorithm_config().hidden) == (7, "CartPole-v1", (8,))
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert load(str(path)) == config
    path.write_text("run = ")
    with pytest.raises(UsageError, match="not valid TOML"):
        load(str(path))


def test_a_file_is_utf_8_whatever_the_locale(tmp_path):
    (tmp_path / "umlaut.toml").write_text('[task.kwargs]\nname = "Mühle"\n', encoding="utf-8")
    code = "import sys; from headrace.launch.load import load; print(ascii(load(sys.argv[1]).task.kwargs['name']))"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    argv = [sys.executable, "-c", code, str(tmp_path / "umlaut.toml")]
    done = subprocess.run(argv, env=plain, capture_output=True, text=True, check=False)
    assert done.stdout == "'M\\xfchle'\n", done.stderr


def test_groups_bring_their_own_number_of_environments():
    blueprint = Blueprint(load("cartpole-grpo", ["algorithm.group_size=5"]))
    assert blueprint.envs_per_worker == 5
    with pytest.raises(UsageError, match="groups restart from one seed"):
        Blueprint(load("cartpole-grpo", ["task.backend=envpool"])).check()


def test_options_the_machine_cannot_serve_are_refused_before_anything_starts(monkeypatch):
    with pytest.raises(UsageError, match=r"learner\.cuda_graphs: needs a CUDA device"):
        Blueprint(load("cartpole-ppo", ["learner.device=cpu", "learner.cuda_graphs=true"])).check()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"learner\.compile: needs a C\+\+ compiler"):
        Blueprint(load("cartpole-ppo", ["learner.compile=true"])).check()


def test_an_environment_the_algorithm_cannot_serve_is_refused():
    with pytest.raises(UsageError, match="needs a Discrete action space"):
        Blueprint(load("cartpole-dqn", ["task.env=Pendulum-v1"])).check()
    with pytest.raises(UsageError, match="SAC needs a Box action space and this one is Discrete; PPO takes both"):
        Blueprint(load("pendulum-sac", ["task.env=CartPole-v1"])).check()


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ("phys2d/CartPole-v1", "cannot be made: ModuleNotFoundError: No module named 'jax' (cartpole.py, line "),
        ("CartPoel-v1", "Did you mean: `CartPole`?"),
        ("no_such_module:X-v0", "no_such_module cannot be imported from "),
    ],
)
def test_an_environment_that_cannot_be_had_is_one_line(env, says):
    with pytest.raises(UsageError) as caught:
        Blueprint(load("cartpole-ppo", [f"task.env={env}"])).check()
    assert f"task.env '{env}'" in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({}, ""),
        ({"steps": 9}, "shape"),
        ({"envs": 500}, "shape"),
        ({"actor_id": 1}, "lease"),
        ({"task_id": "Acrobot-v1"}, "schema"),
        ({"run_id": "y"}, "run"),
    ],
)
def test_the_learner_takes_what_the_config_says_of_a_fragment(wrong, reason):
    overrides = ["run.id=x", "actors.envs=3", "actors.fragment_steps=8", "learner.max_staleness=0"]
    assert refusal(Blueprint(load("cartpole-ppo", overrides)), **{"steps": 8, "envs": 3} | wrong) == reason


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [({}, ""), ({"envs": 4}, "shape"), ({"steps": 21}, "shape"), ({"steps": 1}, ""), ({"valid_of": 4}, "empty")],
)
def test_the_learner_takes_what_the_config_says_of_a_group(wrong, reason):
    blueprint = Blueprint(load("cartpole-grpo", ["run.id=x", "algorithm.group_size=5", "algorithm.max_steps=20"]))
    assert refusal(blueprint, **{"steps": 20, "envs": 5} | wrong) == reason


def refusal(blueprint, steps, envs, valid_of=None, **stamps):
    """Why a fragment of zeros of that size is refused, "" if it is not. ``valid_of``: columns with a valid step."""
    rows = {Layout.STEP: (steps, envs), Layout.CHAIN: (steps + 1, envs), Layout.FINAL: (0,)}
    arrays = {n: np.zeros((*rows[f.layout], *f.shape), f.dtype) for n, f in blueprint.schema.fields.items()}
    if "valid" in arrays:
        arrays["valid"][0, :valid_of] = True
    who = {
        "run_id": "x", "learner_epoch": 1, "actor_id": 0, "incarnation": 1, "seq": 0, "policy_version": 0, "lease": 0,
        "task_id": "CartPole-v1", "schema_hash": blueprint.schema.hash,
    }  # fmt: skip
    try:
        blueprint.check_fragment(Trajectory(**who | stamps, T=steps, B=envs, arrays=arrays))
    except Rejected as refused:
        return refused.reason
    return ""


def fits(steps, ends, cap):
    """Whether the codec takes a fragment of cartpole-ppo, all of its steps ending an episode or none."""
    blueprint = Blueprint(load("cartpole-ppo", ["run.id=x"]))
    rows = {Layout.STEP: (steps, 8), Layout.CHAIN: (steps + 1, 8), Layout.FINAL: (steps * 8 if ends else 0,)}
    arrays = {n: np.zeros((*rows[f.layout], *f.shape), f.dtype) for n, f in blueprint.schema.fields.items()}
    episodes = (Episode(1.5, 2**20),) * (steps * 8 if ends else 0)
    who = ("x" * 64, 1, 0, 2**62, 10**6, 10**6, 10**7, "CartPole-v1", blueprint.schema.hash)
    try:
        codec.encode(Trajectory(*who, steps, 8, arrays, episodes), cap)
    except Rejected:
        return False
    return True


def test_fragments_that_cannot_fit_are_refused_before_the_start_with_what_fits(capsys):
    cap, key = 1 << 16, "actors.fragment_steps"

    def check(steps):
        Blueprint(load("cartpole-ppo", [f"transport.record_bytes={cap}", f"{key}={steps}"])).check()
        return capsys.readouterr().err

    with pytest.raises(UsageError) as caught:
        check(1000)
    assert f"{key} = 1000: fragments of 8 x 1000 steps come to 272,128 bytes" in str(caught.value)
    most = int(str(caught.value).split(f"{key} up to ")[1].split(" fits")[0])
    assert fits(most, False, cap)
    assert not fits(most + 10, False, cap)
    warning = check(most)
    assert f"warning: {key} = {most}: fragments of 8 x {most} steps come, if every step ended an episode, " in warning
    always = int(warning.split(f"{key} up to ")[1].split(" fits")[0])
    assert fits(always, True, cap)
    assert not fits(always + 40, True, cap)
    assert check(always) == ""


def test_a_group_that_may_not_fit_is_a_warning(capsys):
    Blueprint(load("cartpole-grpo", ["transport.record_bytes=65536"])).check()
    said = capsys.readouterr().err
    assert said.startswith("warning: algorithm.max_steps = 500: a group of ")
    assert "transport.record_bytes is 65,536; algorithm.max_steps up to " in said


def test_a_broker_without_a_topic_means_one_of_the_runs_own():
    config = with_addresses(load("cartpole-ppo", ["run.id=x", "transport.url='kafka://h:1?partitions=3'"]))
    assert config.transport.url == "kafka://h:1/headrace-x?partitions=3"
