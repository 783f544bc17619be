"""The ladder's reference: PPO on LunarLander in one file, as little as two cores need and nothing else.

    actor processes ── fragments [T, B] in shared arrays, two slots each ──> learner (this process, one torch thread)
                    <── one shared vector of policy weights ────────────────

Actors collect fragment k+1 with the weights the learner had before it trained on fragment k, so every fragment is one
version old. Simplifications: a truncated episode counts as terminated, and with EnvPool the step that it spends on each
reset is trained on like any other. No contracts, no checks, no recovery: what a system adds is measured against this.
"""

import argparse
import json
import multiprocessing as mp
import os
import time

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import gymnasium
import numpy as np
import torch
from greedy import SNAPSHOT_STEPS, first_pass
from torch import nn

OBS, HIDDEN, ACTIONS, T = 8, 64, 4, 128
CLIP, ENTROPY, VALUE, MAX_NORM, GAMMA, LAMBDA, EPOCHS, LR = 0.2, 0.01, 0.5, 0.5, 0.999, 0.98, 4, 1e-3
SHAPES = [(HIDDEN, OBS), (HIDDEN,), (HIDDEN, HIDDEN), (HIDDEN,), (ACTIONS, HIDDEN), (ACTIONS,)]
FIELDS = {"obs": (T + 1, OBS), "action": (T,), "logp": (T,), "reward": (T,), "done": (T,)}
fork = mp.get_context("fork")


def shared(*shape):
    return np.frombuffer(fork.RawArray("f", int(np.prod(shape))), np.float32).reshape(shape)


class Gymnasium:
    def __init__(self, n, seed):
        self.envs = [gymnasium.make("LunarLander-v3", disable_env_checker=True) for _ in range(n)]
        self.start = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(self.envs)])

    def step(self, actions, obs, reward, done):
        for i, (env, action) in enumerate(zip(self.envs, actions.tolist(), strict=True)):
            obs[i], reward[i], terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                done[i], obs[i] = 1, env.reset()[0]


class EnvPool:
    def __init__(self, n, seed):
        import envpool

        self.pool = envpool.make("LunarLander-v3", "gymnasium", num_envs=n, num_threads=1, seed=seed)
        self.start = self.pool.reset()[0]

    def step(self, actions, obs, reward, done):
        obs[:], reward[:], terminated, truncated, _ = self.pool.step(actions.astype(np.int32))
        done[:] = terminated | truncated


def act(backend, n, seed, weights, slots, go, full):
    rng, vector = np.random.default_rng(seed), backend(n, seed)
    obs, fragment = vector.start, 0
    while go.acquire():
        cuts = np.split(weights.copy(), np.cumsum([int(np.prod(s)) for s in SHAPES])[:-1])
        w1, b1, w2, b2, w3, b3 = (cut.reshape(shape).T for cut, shape in zip(cuts, SHAPES, strict=True))
        slot, noise = slots[fragment % 2], rng.gumbel(size=(T, n, ACTIONS)).astype(np.float32)
        slot["obs"][0], slot["done"][:] = obs, 0
        logits, rows = np.empty((T, n, ACTIONS), np.float32), np.arange(n)
        for t in range(T):
            logits[t] = np.tanh(np.tanh(slot["obs"][t] @ w1 + b1) @ w2 + b2) @ w3 + b3
            action = (logits[t] + noise[t]).argmax(-1)
            slot["action"][t] = action
            vector.step(action, slot["obs"][t + 1], slot["reward"][t], slot["done"][t])
        log_all = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        slot["logp"][:] = log_all[np.arange(T)[:, None], rows, slot["action"].astype(int)]
        obs, fragment = slot["obs"][T], fragment + 1
        full.release()


def network(outputs, gain):
    sizes, gains, layers = [OBS, HIDDEN, HIDDEN, outputs], [2**0.5, 2**0.5, gain], []
    for i, last in enumerate(gains):
        layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.Tanh()]
        nn.init.orthogonal_(layers[-2].weight, last)
        nn.init.zeros_(layers[-2].bias)
    return nn.Sequential(*layers[:-1])


def gae(value, reward, done):
    advantage, carry = np.empty_like(reward), 0.0
    for t in range(T - 1, -1, -1):
        alive = 1 - done[t]
        carry = reward[t] + GAMMA * alive * value[t + 1] - value[t] + GAMMA * LAMBDA * alive * carry
        advantage[t] = carry
    return advantage


def train(policy, critic, adam, batch, minibatch):
    with torch.no_grad():
        value = critic(torch.from_numpy(batch["obs"]))[..., 0].numpy()
    advantage = gae(value, batch["reward"], batch["done"])
    arrays = batch["obs"][:T], batch["action"].astype(np.int64), batch["logp"], advantage, advantage + value[:T]
    obs, action, old, adv, target = (torch.from_numpy(a.reshape(-1, *a.shape[2:])) for a in arrays)
    for _ in range(EPOCHS):
        for i in torch.randperm(len(obs)).split(minibatch):
            log_all, a = torch.log_softmax(policy(obs[i]), -1), adv[i]
            ratio = (log_all.gather(1, action[i, None])[:, 0] - old[i]).exp()
            a = (a - a.mean()) / (a.std() + 1e-8)
            surrogate = torch.min(ratio * a, ratio.clamp(1 - CLIP, 1 + CLIP) * a).mean()
            entropy = -(log_all.exp() * log_all).sum(-1).mean()
            error = (critic(obs[i])[:, 0] - target[i]).square().mean()
            adam.zero_grad()
            (VALUE * error - surrogate - ENTROPY * entropy).backward()
            nn.utils.clip_grad_norm_(adam.param_groups[0]["params"], MAX_NORM)
            adam.step()


def main(args):
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    policy, critic = network(ACTIONS, 0.01), network(1, 1.0)
    params = [*policy.parameters(), *critic.parameters()]
    adam = torch.optim.Adam(params, lr=LR, eps=1e-5, **{args.adam: True})
    backend, n, actors = (Gymnasium, 8, 2) if args.backend == "gymnasium" else (EnvPool, 16, 1)
    weights, full = shared(sum(int(np.prod(s)) for s in SHAPES)), fork.Semaphore(0)
    slots = [[{k: shared(s[0], n, *s[1:]) for k, s in FIELDS.items()} for _ in range(2)] for _ in range(actors)]
    gates, processes = [fork.Semaphore(0) for _ in range(actors)], []
    for a in range(actors):
        arguments = (backend, n, 1_000_003 * args.seed + 1000 * a, weights, slots[a], gates[a], full)
        processes.append(fork.Process(target=act, args=arguments, daemon=True))
        processes[-1].start()
    steps, snapshots, waited, began = 0, [], 0.0, time.perf_counter()
    weights[:] = nn.utils.parameters_to_vector(policy.parameters()).detach().numpy()
    [gate.release() for gate in gates]
    for update in range(-(-args.steps // (actors * n * T))):
        asked = time.perf_counter()
        if not all(full.acquire(timeout=60) for _ in range(actors)):
            raise SystemExit("no fragment for 60 s: did an actor die?")
        waited += time.perf_counter() - asked
        weights[:] = nn.utils.parameters_to_vector(policy.parameters()).detach().numpy()
        [gate.release() for gate in gates]
        batch = {k: np.concatenate([slots[a][update % 2][k] for a in range(actors)], 1) for k in FIELDS}
        train(policy, critic, adam, batch, args.minibatch)
        steps += actors * n * T
        if steps // SNAPSHOT_STEPS > len(snapshots):
            tensors = [p.detach().numpy().T.copy() for p in policy.parameters()]
            named = {f"pi.{i // 2}.{('weight', 'bias')[i % 2]}": x for i, x in enumerate(tensors)}
            snapshots.append((steps, time.perf_counter() - began, named))
    wall = time.perf_counter() - began
    [process.kill() for process in processes]
    result = {"steps": steps, "wall_s": wall, "steps_per_s": steps / wall, "learner_busy": 1 - waited / wall}
    print(f"bare {args.backend}: {steps / wall:,.0f} steps/s, learner busy {result['learner_busy']:.0%}", flush=True)
    if args.until_greedy is not None:
        result["to_greedy"] = passed = first_pass(snapshots, args.until_greedy)
        print(f"greedy {passed['greedy_mean']:.0f} after {passed['steps']:,} steps, {passed['time_s']:.1f} s")
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"options": vars(args), **result}, file, indent=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minibatch", type=int, default=256)
    parser.add_argument("--adam", choices=["foreach", "fused"], default="fused")
    parser.add_argument("--backend", choices=["gymnasium", "envpool"], default="gymnasium")
    parser.add_argument("--until-greedy", type=float, metavar="R", help="then tell when the greedy mean reached R")
    parser.add_argument("--json", metavar="PATH", help="write the result there")
    main(parser.parse_args())
