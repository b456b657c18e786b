"""Which cells there are: quick, for a look in a quarter of an hour, and full."""

from __future__ import annotations

from benchmarks.defence import attacks
from benchmarks.defence.cells import ALL_METHODS, Cell
from benchmarks.defence.victims import Victim

SEEDS = (0, 1, 2)
CLEAN_SIZES = (50, 100, 200, 500)
DEFAULT = "mmac-universal"
# Where poison is varied: a patch and a faint pattern.
_SHARES = {"badnets": (0.01, 0.05, 0.1), "chessboard": (0.01, 0.05, 0.1)}
_EPOCHS = {"fashion": 10, "mnist": 14, "shapes": 15, "cifar10": 30}
_TRAIN = {"fashion": 12000, "mnist": 3200, "shapes": 8000, "cifar10": 49500}
_F, _M, _S = "fashion", "mnist", "shapes"
_R, _P, _D = "residual", "plain", "depthwise"
# On which data and network each attack is tried. (BppAttack not on MNIST: its images are black
# and white already, few grey levels leave no trace there.)
_MEETS: dict[str, tuple[tuple[str, str], ...]] = {
    "badnets": ((_F, _R), (_S, _P)),
    "badnets-one-to-one": ((_M, _R), (_S, _R)),
    "badnets-all-to-all": ((_F, _D), (_M, _P)),
    "x2x": ((_S, _R), (_M, _D)),
    "blended": ((_F, _R), (_S, _D)),
    "chessboard": ((_F, _R), (_M, _P)),
    "wanet": ((_F, _P), (_M, _R)),
    "bpp": ((_F, _D), (_S, _P)),
    "sample-specific": ((_F, _R), (_M, _D)),
    "sig": ((_F, _P), (_S, _R)),
    "label-consistent": ((_F, _R), (_S, _D)),
    "adaptive-margin": ((_F, _R), (_S, _P)),
    "adaptive-clipped": ((_F, _R), (_M, _D)),
    "adaptive-quiet": ((_F, _R), (_S, _R)),
    "clean": ((_F, _R), (_M, _P), (_S, _D)),
}
_CIFAR10 = ("cifar10", "residual")


def quick() -> list[Cell]:
    """Three attacks and the clean model on MNIST-5k, one seed, fewer methods."""
    victims = [
        Victim("mnist", "residual", name, 0, train=3200, test=1000, epochs=8)
        for name in ("badnets", "chessboard", "wanet", attacks.CLEAN)
    ]
    cells = [Cell(victim, method) for victim in victims for method in ("none", DEFAULT, "ft")]
    # ANP takes minutes a cell: on the attacks only.
    return cells + [Cell(victim, "anp") for victim in victims[:-1]]


def full(datasets: tuple[str, ...] = ("fashion", "mnist", "shapes")) -> list[Cell]:
    """Every attack with every method, three seeds; shares of poison; sizes of the clean set."""
    cells = []
    for seed in SEEDS:
        for name in attacks.NAMES:
            chosen = [pair for pair in _MEETS[name] if pair[0] in datasets]
            chosen += [_CIFAR10] * ("cifar10" in datasets)
            for dataset, network in chosen:
                victim = _victim(dataset, network, name, seed)
                cells += [Cell(victim, method) for method in ALL_METHODS]
                cells += [Cell(victim, DEFAULT, size) for size in CLEAN_SIZES if size != 500]
        for name, shares in _SHARES.items():
            for share in shares:
                victim = _victim(_F, _R, name, seed, share)
                cells += [Cell(victim, method) for method in ("none", "mmac-reference", DEFAULT)]
    return cells


def _victim(
    dataset: str, network: str, attack: str, seed: int, share: float | None = None
) -> Victim:
    return Victim(
        dataset,
        network,
        attack,
        seed,
        share,
        train=_TRAIN[dataset],
        epochs=_EPOCHS[dataset],
    )
