"""Exercises of 10_policy_distillation."""

import math

import numpy as np
import torch
from torch import Tensor

from kdlab import models
from kdlab.course.exercises import Hint, exercise

_EMPTY = "the function returns nothing yet"


@exercise("10.1", "From τ to β")
def _(sharpened) -> None:
    q = 77 + torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    for tau in (0.01, 2.0):
        answer = sharpened(q, tau)
        if answer is None or answer is ...:
            raise Hint(f"{_EMPTY}; τ is a temperature, and kdlab.soften takes an inverse one")
        if torch.allclose(answer, torch.softmax(q * tau, -1), atol=1e-4):
            raise Hint("that multiplies by τ; the paper divides")
        if not torch.allclose(answer, torch.softmax(q / tau, -1), atol=1e-4):
            raise Hint(f"at τ = {tau:g} it is not softmax(Q/τ) over the last dimension")


@exercise("10.2", "β from the gaps")
def _(beta_for) -> None:
    q = torch.randn(101, 2, generator=torch.Generator().manual_seed(1)) * 0.1 - 5
    gap = (q[:, 0] - q[:, 1]).abs().median().item()
    for confidence in (0.9, 0.99):
        beta = beta_for(q, confidence)
        if beta is None or beta is ...:
            raise Hint(f"{_EMPTY}; for two actions softmax is the logistic function of β · gap")
        if float(beta) <= 0:
            raise Hint("β came out negative: take the gap without its sign")
        got = 1 / (1 + math.exp(-float(beta) * gap))
        if abs(got - confidence) > 1e-3:
            raise Hint(f"asked for {confidence:.0%} at the median gap, that β gives {got:.1%}")


@exercise("10.3", "Value iteration by hand")
def _(corridor_q) -> None:
    for n, gamma in ((6, 0.9), (4, 1.0)):
        answer = corridor_q(n, gamma)
        if answer is None or answer is ...:
            raise Hint(f"{_EMPTY}; begin with values of 0 and where each action leads")
        answer = np.asarray(answer, float)
        if answer.shape != (n - 1, 2):
            raise Hint(f"it returns the shape {answer.shape}; expected {(n - 1, 2)}")
        # k steps from the end cost 1 + γ + … + γ^(k−1)
        cost = np.array([sum(gamma**i for i in range(k)) for k in range(n + 1)])
        steps = n - 1 - np.arange(n - 1)
        right = -cost[steps]
        left = -1 - gamma * cost[np.minimum(steps + 1, n - 1)]
        if not np.isclose(answer[-1, 1], -1):
            raise Hint("the step into the last cell earns −1 and nothing after it")
        if np.allclose(answer, np.stack([right, left], 1)):
            raise Hint("the two columns are exchanged: action 0 is left")
        if not np.allclose(answer[:, 1], right, atol=1e-6):
            raise Hint("the values of going right are off; enough sweeps? γ in the right place?")
        if not np.allclose(answer[:, 0], left, atol=1e-6):
            raise Hint("the values of going left are off; at cell 0 the step leads to cell 0")


@exercise("10.4", "Sharpen the student instead")
def _(sampling_policy) -> None:
    torch.manual_seed(0)
    student = models.MLP(4, [8], 3)
    states = torch.randn(1, 4).expand(4000, 4)
    with torch.no_grad():
        z = student(states[:1])[0]
    for beta in (1.0, 5.0):
        policy = sampling_policy(student, beta)
        if policy is None or policy is ...:
            raise Hint(f"{_EMPTY}; it should return a function of states")
        actions = policy(states)
        if not isinstance(actions, Tensor) or actions.shape != (4000,):
            raise Hint("the policy should return one action a state, a tensor of shape (N,)")
        share = torch.bincount(actions, minlength=3) / 4000
        if share.max() == 1 and torch.softmax(beta * z, -1).max() < 0.99:
            raise Hint("always the same action in the same state: draw, do not take the largest")
        if (share - torch.softmax(beta * z, -1)).abs().max() > 0.04:
            raise Hint(f"at β = {beta:g} the actions do not come with the shares of softmax(βz)")


def _balance(student, episodes: int, seed: int) -> tuple[float, Tensor]:
    """Greedy play on CartPole: the mean return, and the states visited, scaled."""
    import gymnasium

    envs = gymnasium.make_vec(
        "CartPole-v1", num_envs=episodes, vectorization_mode="vector_entry_point"
    )
    observed, _ = envs.reset(seed=seed)
    running, total, visited = np.ones(episodes, bool), 0, []
    while running.any():
        states = torch.as_tensor(observed) / torch.tensor([2.4, 2.5, 0.21, 3.0])
        visited.append(states[torch.as_tensor(running)])
        total += int(running.sum())
        with torch.no_grad():
            actions = student(states).argmax(1).numpy()
        observed, _, over, out_of_time, _ = envs.step(actions)
        running &= ~(over | out_of_time)
    return total / episodes, torch.cat(visited)


@exercise("10.5", "The student's own states")
def _(dagger) -> None:
    torch.manual_seed(0)
    student = models.MLP(4, [16], 2)
    played: list[int] = []
    asked: list[int] = []

    def play(policy) -> Tensor:
        played.append(len(played))
        return _balance(policy, 4, seed=len(played))[1]

    def teacher_q(states: Tensor) -> Tensor:
        """A linear controller that balances: where it leans to is worth a little more."""
        asked.append(len(states))
        lean = states @ torch.tensor([0.12, 0.5, 1.05, 1.5])
        return 77 + torch.stack([-lean, lean], 1)

    trained = dagger(teacher_q, student, play, 6)
    if trained is None or trained is ...:
        raise Hint(f"{_EMPTY}; return the student")
    if len(played) != 6:
        raise Hint(f"the student played {len(played)} times in 6 rounds")
    if not asked:
        raise Hint("the teacher was never asked")
    if sum(asked) > 200_000:
        raise Hint(f"the teacher was asked about {sum(asked):,} states; ask once a round")
    steps = _balance(trained, 20, seed=1000)[0]
    if steps <= 300:
        raise Hint(f"it balances for {steps:.0f} steps; are the earlier rounds' states kept?")
