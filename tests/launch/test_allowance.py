"""What the evaluator may take from the others, on a clock of its own."""

from itertools import pairwise

from headrace.launch.allowance import Allowance


class Machine:
    """One process that always wants the processor, and whose start took a second of it."""

    def __init__(self, share: float) -> None:
        self.now_s, self.spent_s = 100.0, 1.0
        self.allowance = Allowance(share, lambda: self.now_s, lambda: self.spent_s)

    def play(self, until_s: float, step_s: float = 0.01, evaluation_s: float = 0.5) -> list[float]:
        """Evaluations as long as there is time, each with a rest before it and rests within; when each began."""
        began = []
        while self.now_s < until_s:
            self.now_s += self.allowance.lacking_s(evaluation_s)
            began.append(self.now_s)
            for _ in range(round(evaluation_s / step_s)):
                self.now_s += self.allowance.lacking_s()
                self.now_s += step_s
                self.spent_s += step_s
        return began


def test_three_minutes_cost_three_percent_of_a_core_and_longer_runs_less() -> None:
    for minutes, most in ((3, 0.03), (10, 0.024), (60, 0.021)):
        machine = Machine(0.02)
        machine.play(100.0 + 60 * minutes)
        assert machine.spent_s / (machine.now_s - 100.0) <= most


def test_one_evaluation_longer_than_the_run_costs_no_more() -> None:
    machine = Machine(0.02)
    machine.play(280.0, evaluation_s=30.0)
    assert machine.spent_s / (machine.now_s - 100.0) <= 0.03


def test_the_first_one_is_played_at_once_and_the_others_at_even_distances() -> None:
    began = Machine(0.02).play(400.0)
    assert began[0] == 100.0
    pauses = [after - before for before, after in pairwise(began[2:])]
    assert all(24 < pause < 27 for pause in pauses), "half a second of playing is 25 s of two percent"


def test_no_limit_is_no_rest_and_a_stop_ends_one() -> None:
    assert Machine(1.0).allowance.lacking_s(1e6) == 0.0
    machine = Machine(0.001)
    machine.spent_s = 1e6
    machine.allowance.rest(lambda: True)
