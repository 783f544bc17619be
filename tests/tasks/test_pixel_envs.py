"""What bench/pixels.py claims of its game: a single frame hardly says where the ball comes down, two frames do."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.tasks.pixel_envs import Keeper


def played(seed: int, action: int, at: int) -> tuple[list[bytes], float]:
    """The frames of an episode in which ``action`` is taken at step ``at`` alone, and its return."""
    env = Keeper()
    shown, _ = env.reset(seed=seed)
    frames, reward = [shown.tobytes()], 0.0
    for step in range(Keeper.FALLS):
        shown, got, ended, _, _ = env.step(action if step == at else 0)
        frames.append(shown.tobytes())
        reward += float(got)
    assert ended
    return frames, reward


def landing(frames: list[bytes]) -> int:
    """The place in which the ball is seen last."""
    return frames[-1].index(255) % 84 // Keeper.SIDE


def test_one_frame_is_worth_a_sixth_and_two_are_worth_all() -> None:
    alone: dict[bytes, Counter[int]] = defaultdict(Counter)
    pairs: dict[tuple[bytes, bytes], Counter[int]] = defaultdict(Counter)
    for seed in range(6000):
        frames, _ = played(seed, 0, 0)
        for step in (1, 2):
            alone[frames[step]][landing(frames)] += 1
            pairs[frames[step - 1], frames[step]][landing(frames)] += 1
    assert len(alone) == 14
    assert max(counts.most_common(1)[0][1] / counts.total() for counts in alone.values()) < 1 / 6 + 0.04
    assert {len(counts) for counts in pairs.values()} == {1}
    assert len(pairs) == 14 * len(Keeper.DRIFTS)


def test_only_a_leap_in_time_and_not_a_blind_one_counts() -> None:
    for at, caught in ((0, False), (1, True), (2, True), (3, False)):
        found = Counter(played(seed, 1 + landing(played(seed, 0, 0)[0]), at)[1] for seed in range(200))
        assert (found[1.0] == 200) is caught
        assert caught or found[1.0] < 60  # of those that come down where he stands
