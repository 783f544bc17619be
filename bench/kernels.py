"""What a PPO minibatch costs: autograd over one flat parameter vector, against torch's own optimiser and clipping.

    ours        algorithms/ppo.py as the learner runs it (optimise.py)
    foreach     the same networks, clip_grad_norm_, torch.optim.Adam(foreach=True)
    fused       the same with Adam(fused=True)

    python bench/kernels.py [--minibatch 256] [--hidden 64 64] [--rounds 40] [--json kernels]

One thread, a whole update (4 epochs over 2,048 samples, shuffled) each in turn; ratios are taken within each round.
They all make the same parameters: the largest difference after the first update is part of the result.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from statistics import median

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch
from hardware import relative, save
from torch import Tensor, nn

from headrace.algorithms.minibatches import Samples
from headrace.algorithms.ppo import PPO, Config
from headrace.common.seeding import stream
from headrace.common.types import Spaces

FEATURES, ACTIONS, SAMPLES = 8, 4, 2048


class Sequential:
    """PPO's epochs as most people write them, from the same start and with the same shuffling as ``ours``."""

    def __init__(self, ours: PPO, **adam: bool) -> None:
        self.config, self.rng = ours.config, stream(0, "minibatch")
        self.pi, self.vf = copy.deepcopy(ours.pi), copy.deepcopy(ours.vf)
        self.parameters = [*self.pi.parameters(), *self.vf.parameters()]
        self.adam = torch.optim.Adam(self.parameters, lr=self.config.learning_rate, eps=1e-5, **adam)

    def epochs(self, obs: Tensor, rows: Tensor, action: Tensor) -> None:
        config, size = self.config, self.config.minibatch
        for _ in range(config.epochs):
            order = torch.from_numpy(self.rng.permutation(len(obs)))
            x, a, (old_logp, advantage, target) = obs[order], action[order], rows[:, order]
            for start in range(0, len(obs) - size + 1, size):
                cut = slice(start, start + size)
                self._step(x[cut], a[cut], old_logp[cut], advantage[cut], target[cut])

    def _step(self, x: Tensor, action: Tensor, old_logp: Tensor, advantage: Tensor, target: Tensor) -> None:
        config = self.config
        log_all = torch.log_softmax(self.pi.net(x), -1)
        ratio = (log_all.gather(1, action[:, None])[:, 0] - old_logp).exp()
        surrogate = torch.min(ratio * advantage, ratio.clamp(1 - config.clip, 1 + config.clip) * advantage).mean()
        entropy = -(log_all.exp() * log_all).sum(-1).mean()
        error = (self.vf(x)[:, 0] - target).square().mean()
        self.adam.zero_grad()
        (config.value_coef * error - surrogate - config.entropy_coef * entropy).backward()
        nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm)
        self.adam.step()

    def vector(self) -> Tensor:
        """Parameters in the order of :class:`headrace.algorithms.optimise.Flat`."""
        return torch.cat([parameter.detach().ravel() for parameter in self.parameters])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minibatch", type=int, default=256)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 64])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument(
        "--json", metavar="NAME", default="kernels", help="bench/results/NAME.json (default %(default)s)"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    ppo = PPO(
        Config(minibatch=args.minibatch, hidden=tuple(args.hidden)), Spaces.box((FEATURES,), n_actions=ACTIONS), seed=0
    )
    rng = np.random.default_rng(0)
    obs = torch.from_numpy(rng.standard_normal((SAMPLES, FEATURES)).astype(np.float32))
    rows = rng.standard_normal((3, SAMPLES)).astype(np.float32)
    rows[0] = np.log(1 / ACTIONS) + 0.1 * rows[0]
    action = rng.integers(ACTIONS, size=SAMPLES)
    others = {"foreach": Sequential(ppo, foreach=True), "fused": Sequential(ppo, fused=True)}
    steps = (obs, torch.from_numpy(action), *torch.from_numpy(rows))
    runs = {"ours": lambda: ppo._epochs(Samples(steps, np.arange(SAMPLES), args.minibatch))}
    runs |= {
        name: lambda other=other: other.epochs(obs, torch.from_numpy(rows), torch.from_numpy(action))
        for name, other in others.items()
    }
    for run in runs.values():
        run()
    differences = {name: float((other.vector() - ppo.adam._flat.value).abs().max()) for name, other in others.items()}
    updates = ppo.config.epochs * (SAMPLES // args.minibatch)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - began) / updates * 1e3)
    found = {name: {
        "ms_per_minibatch": round(median(ms), 4),
        "times_ours": round(median(m / o for m, o in zip(ms, times["ours"], strict=True)), 3),
        "largest_difference": differences.get(name, 0.0),
    } for name, ms in times.items()}  # fmt: skip
    for name, f in found.items():
        print(f"{name:8} {f['ms_per_minibatch']:.3f} ms a minibatch of {args.minibatch}, {f['times_ours']:.2f} x ours, "
              f"parameters differ by {f['largest_difference']:.1e}")  # fmt: skip
    payload = {"minibatch": args.minibatch, "hidden": args.hidden, "rounds": args.rounds, "variants": found}
    print(relative(str(save(args.json, payload))))


if __name__ == "__main__":
    main()
