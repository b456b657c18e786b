"""Which cells there are: quick, for a look in a quarter of an hour, full, and held out."""

from __future__ import annotations

from collections.abc import Collection

from benchmarks.defence import attacks
from benchmarks.defence.cells import ALL_METHODS, Cell
from benchmarks.defence.tables import DEFAULT
from benchmarks.defence.victims import Victim

_SEEDS = 3
CLEAN_SIZES = (50, 100, 200, 500)
# Where poison is varied besides the attack's own share: a patch and a faint pattern.
_SHARES = {"badnets": (0.01, 0.1), "chessboard": (0.01, 0.1)}
_EPOCHS = {"fashion": 10, "mnist": 14, "shapes": 12, "cifar10": 30}
_TRAIN = {"fashion": 8000, "mnist": 3200, "shapes": 8000, "cifar10": 49500}
_F, _M, _S = "fashion", "mnist", "shapes"
_R, _P, _D = "residual", "plain", "depthwise"
# Each attack with three seeds, each seed on other data or another network. (BppAttack not on
# MNIST, whose images are black and white already: few grey levels leave no trace there. SIG not
# there either, where it takes on half of the images at best. WaNet not on shapes, whose images are
# noisy: it does not take.)
_MEETS: dict[str, tuple[tuple[str, str], ...]] = {
    "badnets": ((_F, _R), (_S, _P), (_M, _D)),
    "badnets-one-to-one": ((_M, _R), (_S, _R), (_F, _P)),
    "badnets-all-to-all": ((_F, _D), (_M, _P), (_S, _R)),
    "x2x": ((_S, _R), (_M, _D), (_F, _R)),
    "blended": ((_F, _R), (_S, _D), (_M, _P)),
    "chessboard": ((_F, _R), (_M, _P), (_S, _D)),
    "wanet": ((_F, _P), (_M, _R), (_F, _R)),
    "bpp": ((_F, _D), (_S, _P), (_F, _R)),
    "sample-specific": ((_F, _R), (_M, _D), (_S, _P)),
    "sig": ((_F, _P), (_S, _R), (_S, _D)),
    "label-consistent": ((_F, _R), (_S, _D), (_F, _P)),
    "adaptive-margin": ((_F, _R), (_S, _P), (_M, _D)),
    "adaptive-clipped": ((_F, _R), (_M, _D), (_S, _R)),
    "adaptive-quiet": ((_F, _R), (_S, _R), (_M, _P)),
    "adaptive-evidence": ((_F, _R), (_F, _P), (_M, _D)),
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
    # ANP takes minutes a cell: on one only.
    return [*cells, Cell(victims[0], "anp")]


def full(*, cifar10: bool = False) -> list[Cell]:
    """Every attack with every method, three seeds; shares of poison; sizes of the clean set.

    Args:
        cifar10: Whether every attack meets a residual network on CIFAR-10, too.
    """
    cells = []
    for seed in range(_SEEDS):
        for name in attacks.NAMES:
            for dataset, network in (_MEETS[name][seed], _CIFAR10)[: 1 + cifar10]:
                victim = victim_of(dataset, network, name, seed)
                cells += [Cell(victim, method) for method in ALL_METHODS]
                cells += [Cell(victim, DEFAULT, size) for size in CLEAN_SIZES if size != 500]
    for name, shares in _SHARES.items():
        for seed, (dataset, network) in enumerate(_MEETS[name]):
            for share in shares:
                victim = victim_of(dataset, network, name, seed, share)
                cells += [Cell(victim, method) for method in ("none", DEFAULT)]
    return cells


def held_out() -> list[Cell]:
    """The default method on victims that nothing was chosen on: each attack that does not know the
    defence, and no attack, with a seed that the full size has not."""
    names = [name for name in attacks.NAMES if name not in attacks.ADAPTIVE]
    victims = [
        victim_of(*_MEETS[name][place % _SEEDS], name, _SEEDS)
        for place, name in enumerate(names, start=1)
    ]
    return [Cell(victim, method) for victim in victims for method in ("none", DEFAULT)]


def first_of(names: Collection[str]) -> list[Victim]:
    """The victims of these attacks with the first seed and the attack's own share of poison."""
    return [victim for victim in every_victim() if victim.attack in names and victim.seed == 0]


def every_victim() -> list[Victim]:
    """All victims with the attack's own share of poison."""
    return list(dict.fromkeys(c.victim for c in full() if c.victim.share is None))


def victim_of(
    dataset: str, network: str, attack: str, seed: int, share: float | None = None
) -> Victim:
    """A victim with as many training samples and passes as its data set has in the full size."""
    return Victim(
        dataset,
        network,
        attack,
        seed,
        share,
        train=_TRAIN[dataset],
        epochs=_EPOCHS[dataset],
    )
