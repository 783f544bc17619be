"""Going on with a run: which settings may be different, what is kept of the former ones, and what starts a new run."""

from __future__ import annotations

import dataclasses
import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from headrace.algorithms import ALGORITHMS
from headrace.common.errors import LogLost, UsageError
from headrace.common.types import Layout, Trajectory
from headrace.launch import init_from, resume, run_files
from headrace.launch.build import Blueprint, with_addresses
from headrace.launch.cli import main
from headrace.launch.config import Config
from headrace.launch.load import load
from headrace.learner.checkpoint_reader import Checkpoint, latest
from headrace.learner.checkpoint_writer import CheckpointWriter
from headrace.learner.experience import make_buffer
from headrace.observe.rows import MetricsLog
from tests.observe.test_rows import row
from tests.observe.test_rows_full_disk import disk_of

from .runs import headrace, train

SHORT = ["run.total_steps=2048", "learner.device=cpu", "run.log_every_s=0.1"]


#: One preset of each algorithm.
PRESETS = {name: f"cartpole-{name}" for name in ALGORITHMS} | {"sac": "pendulum-sac"}


def config(*overrides: str, preset: str = "cartpole-ppo") -> Config:
    return with_addresses(load(preset, ["run.id=x", *overrides]))


def history(run_dir: Path) -> list[tuple[str, Any, Any]]:
    lines = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    assert all(line["when"].startswith("20") for line in lines)
    return [(line["key"], line["former"], line["new"]) for line in lines]


def stored(run_dir: Path, key: str) -> Any:
    section, name = key.split(".")
    return tomllib.loads((run_dir / "config.toml").read_text())[section][name]


def content(run_dir: Path) -> dict[Path, bytes]:
    """Of every file but the lock, which names whoever came last."""
    return {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file() and p.name != "lock"}


def private(path: Path) -> bool:
    return stat.S_IMODE(path.stat().st_mode) == 0o600


# --- the rule ------------------------------------------------------------------------------------------------------


def test_every_value_in_force_is_written(tmp_path):
    """A default that moves in a later version must not move a run."""
    for algorithm in ALGORITHMS:
        asked = config(preset=PRESETS[algorithm])
        kept = tomllib.loads(asked.to_toml())
        own = asked.algorithm_module().Config()
        fields = {f.name for f in dataclasses.fields(own) if getattr(own, f.name) is not None}
        assert kept["algorithm"].keys() == {"name", *fields}
        assert kept["learner"]["max_staleness"] == 1
        path = tmp_path / f"{algorithm}.toml"
        path.write_text(asked.to_toml())
        assert load(str(path)) == asked


@pytest.mark.parametrize(
    "change",
    ["run.id=y", "run.seed=1", "task.env=Acrobot-v1", "task.kwargs.sutton_barto_reward=true", "algorithm.hidden=[8]"],
)
def test_what_a_run_keeps_is_refused_with_the_way_to_have_it(change):
    with pytest.raises(UsageError, match=r"--resume: .*start a new run.*--init-from RUN") as caught:
        resume.changes(config(), config(change))
    assert change.partition("=")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_keeps_what_stands_between_its_layers():
    """Another activation fits the same tensors, and makes nonsense of them."""
    sac, tanh = (config(*change, preset="pendulum-sac") for change in ([], ["algorithm.activation=tanh"]))
    with pytest.raises(UsageError, match=r"algorithm\.activation was 'relu' and cannot become 'tanh'"):
        resume.changes(sac, tanh)


def test_all_else_may_change_and_is_told():
    changed = ["run.total_steps=9", "algorithm.gamma=0.5", "task.solved=3.0", "learner.device=cpu"]
    found = resume.changes(config(), config(*changed))
    assert {(c.key, c.former, c.new) for c in found} == {
        ("run.total_steps", 100_000, 9),
        ("algorithm.gamma", 0.99, 0.5),
        ("task.solved", None, 3.0),
        ("learner.device", "auto", "cpu"),
    }
    assert resume.changes(config(), config()) == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_a_checkpoint_cannot_be_restored_into_is_known_beforehand(algorithm):
    """Every setting of every algorithm: one that changes the shape of what is saved must be among the fixed ones, or
    `--resume --set` would be refused by the learner only, after a start."""
    small = ["algorithm.capacity=50", "algorithm.min_size=0"] if algorithm in ("dqn", "sac", "r2d2") else []
    before = config("algorithm.hidden=[4]", *small, preset=PRESETS[algorithm])
    learnt, buffer = Blueprint(before).algorithm(), saved_buffer(before)
    for field in dataclasses.fields(before.algorithm_config()):
        after = other_value(before, field.name)
        try:
            Blueprint(after).algorithm().restore(learnt.state())
            if buffer is not None:
                make_buffer(Blueprint(after).experience, Blueprint(after).schema, 0).restore(buffer)
        except UsageError:
            with pytest.raises(UsageError, match="cannot become"):
                resume.changes(before, after)


def saved_buffer(of: Config) -> Any:
    """The state of a replay buffer that is full and was written over; None where there is no replay."""
    experience = Blueprint(of).experience
    if not hasattr(experience, "capacity"):
        return None
    blueprint = Blueprint(of)
    buffer = make_buffer(experience, blueprint.schema, 0)
    while buffer.state().values["buffer"]["inserted"] < 2 * experience.capacity:
        buffer.add(blank(blueprint))
        buffer.next_round()
    return buffer.state()


def blank(of: Blueprint) -> Trajectory:
    """A fragment of zeros, in which no episode ends."""
    T, B = of.expected.steps, of.expected.envs
    lead = {Layout.STEP: (T, B), Layout.CHAIN: (T + 1, B), Layout.FINAL: (0,), Layout.START: (B,)}
    arrays = {name: np.zeros((*lead[f.layout], *f.shape), f.dtype) for name, f in of.schema.fields.items()}
    return Trajectory("run", 0, 0, 0, 0, 0, 0, "task", "", T, B, arrays)


def other_value(of: Config, name: str) -> Config:
    was = of.algorithm.get(name)
    new = {bool: lambda: not was, int: lambda: was + 1, float: lambda: was / 2, list: lambda: [5]}.get(type(was))
    value = new() if new is not None else 0.5
    others = {
        "priority_alpha": 0.0, "activation": "relu" if of.algorithm["name"] != "sac" else "tanh", "layer_norm": True,
        "network": "tests.algorithms.test_networks:Attention", "network_kwargs": {"width": 8},
        "memory": "gru", "memory_width": 9,
    }  # fmt: skip
    value = others.get(name, value)
    return of.model_copy(update={"algorithm": {**of.algorithm, name: value}})


def test_another_log_needs_its_name():
    kafka = config("transport.url=kafka://a:9092/t")
    resume.changes(kafka, config("transport.url=kafka://b:9092,c:9092/t?client=confluent"))
    for other in ("kafka://a:9092/u", "local://"):
        after = config(f"transport.url={other}")
        with pytest.raises(UsageError, match="add --new-log"):
            resume.changes(kafka, after)
        assert [c.key for c in resume.changes(kafka, after, new_log=True)] == ["transport.url"]


def test_a_lost_log_is_begun_anew_and_its_cost_is_told(tmp_path, caplog):
    info = {"positions": {"0": 17, "3": 4}, "counters": {"env_steps": 1000}, "issued": 9, "spent": [[0, 4], [5, 7]]}
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(row(1300))
    log.close()
    saved, lost = resume.with_new_log(Checkpoint(tmp_path, 1, info, {}), tmp_path, config())
    assert saved.info == {**info, "positions": {}, "examined": {}, "log_id": ""}
    assert (lost.key, lost.new) == ("log", config().transport.url)
    assert lost.former["positions"] == {"0": 17, "3": 4}
    assert lost.former["env_steps_lost_at_least"] == 300
    assert lost.former["leases_out_at_the_checkpoint"] == 3
    assert lost.former["records_lost"] == "unknown"
    (said,) = caplog.messages
    assert "300 steps" in said
    assert "unknown" in said


def test_an_error_that_says_that_the_log_is_lost_says_how_to_go_on():
    with pytest.raises(UsageError, match=r"topic t: position 7 is beyond its end; .*--resume --new-log"):  # noqa: SIM117
        with resume.naming_new_log():
            raise LogLost("topic t: position 7 is beyond its end")


# --- the files -----------------------------------------------------------------------------------------------------


def test_files_are_private_and_the_history_grows(tmp_path):
    blueprint = Blueprint(config())
    run_files.write(tmp_path, blueprint)
    assert not (tmp_path / "history.jsonl").exists()
    for steps in (200_000, 300_000):
        after = config(f"run.total_steps={steps}")
        run_files.write(tmp_path, Blueprint(after), resume.changes(run_files.stored_config(tmp_path), after))
    assert history(tmp_path) == [("run.total_steps", 100_000, 200_000), ("run.total_steps", 200_000, 300_000)]
    assert stored(tmp_path, "run.total_steps") == 300_000
    assert all(private(tmp_path / name) for name in ("config.toml", "history.jsonl"))
    assert {p.name for p in tmp_path.iterdir()} == {"config.toml", "plan.json", "history.jsonl"}


def test_settings_that_cannot_be_kept_are_one_line_and_the_old_ones_stay(tmp_path):
    run_files.write(tmp_path, Blueprint(config()))
    before = (tmp_path / "config.toml").read_bytes()
    after = config("run.total_steps=200_000")
    with disk_of(0), pytest.raises(UsageError, match="the settings cannot be kept there: File too large"):
        run_files.write(tmp_path, Blueprint(after), resume.changes(config(), after))
    assert {p.name for p in tmp_path.iterdir()} == {"config.toml", "plan.json"}
    assert (tmp_path / "config.toml").read_bytes() == before


def test_where_there_is_no_run_it_says_so(tmp_path):
    with pytest.raises(UsageError, match="no such directory"):
        run_files.stored_config(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"is no run directory: it holds no config\.toml"):
        run_files.stored_config(tmp_path)


@pytest.mark.parametrize("section", Config.model_fields)
def test_a_config_that_lost_a_section_is_not_made_whole_by_defaults(tmp_path, section):
    kept = {k: v for k, v in tomllib.loads(config().to_toml()).items() if k != section}
    (tmp_path / "config.toml").write_text(tomli_w.dumps(kept))
    with pytest.raises(UsageError, match=rf"config\.toml is damaged: it holds no \[{section}\]"):
        run_files.stored_config(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"env_steps": "all"}', "junk", '{"env_steps": null}'])
def test_a_damaged_result_is_one_line(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(UsageError, match=r"result\.json is damaged: restore it, or remove it"):
        resume.finished(tmp_path, config())


# --- real runs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a whole short run, without an evaluation."""
    run_dir = tmp_path_factory.mktemp("resume") / "run"
    train("cartpole-ppo", run_dir, SHORT)
    return run_dir


def newest(run_dir: Path) -> Checkpoint:
    found = latest(run_dir / "checkpoints")
    assert found is not None
    return found


def test_without_an_evaluation_result_and_curve_are_there_all_the_same(finished):
    result = json.loads((finished / "result.json").read_text())
    assert result["evaluation"] is None
    assert result["env_steps"] >= 2048
    assert result["steps_per_s"] > 0
    assert (finished / "returns.png").read_bytes().startswith(b"\x89PNG")
    assert private(finished / "config.toml")
    assert stored(finished, "algorithm.gae_lambda") == 0.95


def test_a_finished_run_goes_on_beyond_its_end_by_total_steps(finished):
    before = newest(finished).info["counters"]
    again = headrace("train", "--resume", "--run-dir", str(finished))
    assert again.returncode == 0, again.stderr
    assert "is finished: 2,048 of 2,048 steps" in again.stdout
    assert "--set run.total_steps=" in again.stdout
    assert newest(finished).info["counters"] == before, "nothing was started"

    on = headrace("train", "--resume", "--run-dir", str(finished), "--set", "run.total_steps=4096", "--episodes", "0")
    assert on.returncode == 0, on.stdout + on.stderr
    after = newest(finished).info["counters"]
    assert after["env_steps"] >= 4096
    assert after["version"] > before["version"]
    assert json.loads((finished / "result.json").read_text())["env_steps"] == after["env_steps"]
    assert stored(finished, "run.total_steps") == 4096
    assert history(finished) == [("run.total_steps", 2048, 4096)]


def test_another_task_is_refused_and_nothing_is_touched(finished):
    before = content(finished)
    for change, says in {
        "task.env=Acrobot-v1": "--init-from RUN",
        "transport.url=kafka://user:PASSWORD@127.0.0.1:9092/t": "",
        "transport.url='kafka://user:PASSWORD@127.0.0.1:9092'": "",
    }.items():
        more = ["--new-log"] if "kafka" in change else []
        done = headrace("train", "--resume", "--run-dir", str(finished), "--set", change, *more)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stderr.count("\n") == 1
        assert says in done.stderr
    assert content(finished) == before


@pytest.mark.parametrize(
    "refused", ["learner.device=cuda:77", "weights.tls_client_cert=nowhere.pem"], ids=["by train", "by the learner"]
)
def test_what_is_refused_is_not_kept(finished, refused):
    before = (finished / "config.toml").read_bytes()
    change = ["--set", "run.total_steps=100_000", "--set", refused]
    done = headrace("train", "--resume", "--run-dir", str(finished), *change)
    assert done.returncode == 2, done.stdout + done.stderr
    assert (finished / "config.toml").read_bytes() == before


def test_a_password_is_never_written(tmp_path, monkeypatch, capsys):
    """Not even until the start is refused."""
    monkeypatch.setattr(run_files, "write", lambda *_: pytest.fail("written before it was checked"))
    url = "transport.url=kafka://user:PASSWORD@127.0.0.1:9092/t"
    assert main(["train", "cartpole-ppo", "--set", url, "--run-dir", str(tmp_path / "run")]) == 2
    assert "user:" not in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_new_run_starts_from_what_another_one_learnt(finished, tmp_path):
    run_dir, source = tmp_path / "tuned", newest(finished)
    one = ["run.total_steps=1", "learner.device=cpu", "run.seed=5", "algorithm.learning_rate=0"]
    train("cartpole-ppo", run_dir, one, "--init-from", str(finished), "--episodes", "0")
    after, learnt = newest(run_dir), source.parts["algorithm"]
    tensors = after.parts["algorithm"].tensors
    networks = [name for name in tensors if name.startswith(("pi.", "vf."))]
    assert len(networks) == 12
    assert all(np.array_equal(tensors[name], learnt.tensors[name]) for name in networks)
    assert tensors["obs_norm.count"] > learnt.tensors["obs_norm.count"] > 0, "the normaliser goes on"
    assert after.info["counters"]["version"] == 1
    assert 0 < tensors["adam.steps"] < learnt.tensors["adam.steps"], "the optimiser begins afresh"
    assert after.info["run_id"] != source.info["run_id"]
    assert stored(run_dir, "run.init_from") == str(finished)


def test_networks_and_normalisers_are_taken_and_nothing_else(finished):
    algorithm, learnt = Blueprint(config("run.seed=5")).algorithm(), newest(finished).parts["algorithm"]
    fresh = algorithm.state()
    init_from.begin(algorithm, finished)
    begun = algorithm.state()
    for name, tensor in begun.tensors.items():
        source = fresh if name.startswith("adam.") else learnt
        assert np.array_equal(tensor, source.tensors[name]), name
        assert name.startswith("adam.") or not np.array_equal(tensor, fresh.tensors[name])
    assert begun.values == fresh.values, "random numbers"


def test_each_of_several_optimisers_begins_afresh(tmp_path):
    asked = config(preset="pendulum-sac")
    learnt, begun = Blueprint(asked).algorithm(), Blueprint(asked).algorithm()
    for network in (learnt.pi, learnt.q, learnt.target, learnt.temperature):
        for parameter in network.parameters():
            parameter.data.fill_(0.5)
    for adam in (learnt.adam_pi, learnt.adam_q, learnt.adam_temperature):
        adam.advance(1e-3)
        adam.first.fill_(1.0)
    with CheckpointWriter(tmp_path / "checkpoints") as writer:
        writer.save(1, {"algorithm": learnt.state()}, {})
    init_from.begin(begun, tmp_path)
    for name, tensor in begun.state().tensors.items():
        if not name.startswith("obs_norm."):
            assert (tensor == (0.0 if name.startswith("adam") else 0.5)).all(), name


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["algorithm.hidden=[8]"], r"algorithm.hidden is \[64, 64\] there and \[8\] here"),
        (["task.env=Acrobot-v1"], r"CartPole-v1 has observations \[4\] and 2 actions, Acrobot-v1 has"),
        (["algorithm.name=grpo"], r"algorithm.name is 'ppo' there and 'grpo' here"),
    ],
)
def test_what_cannot_be_started_from_is_refused_before_anything_is_written(finished, overrides, says):
    preset = "cartpole-grpo" if "algorithm.name=grpo" in overrides else "cartpole-ppo"
    with pytest.raises(UsageError, match=says):
        init_from.check(Blueprint(config(*overrides, f"run.init_from='{finished}'", preset=preset)))


def test_a_run_that_is_not_there_cannot_be_started_from(tmp_path):
    arguments = ["--init-from", str(tmp_path / "nowhere"), "--run-dir", str(tmp_path / "run")]
    done = headrace("train", "cartpole-ppo", *arguments)
    assert done.returncode == 2
    assert "nowhere: no such directory" in done.stderr
    assert not (tmp_path / "run").exists()
