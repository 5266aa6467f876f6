"""The networks, as `nn.Module`s; each says which size multiple and minimum it needs.

May be touched: torch and nothing else.
"""

from .critic import Critic, PartCritic, SpectralCritic
from .embedding import FaceEmbedding
from .face import FaceNet, Generator
from .guided import DeepGuidedFilter, GuidedFilter, GuidedUpsampler
from .landmarks import LandmarkNet
from .refiner import Refiner
from .restorer import RestorerNet
from .sharpener import Sharpener

REGISTRY = {
    net.__name__: net
    for net in (
        FaceNet, Generator, Critic, SpectralCritic, PartCritic, FaceEmbedding, LandmarkNet,
        RestorerNet, DeepGuidedFilter, GuidedUpsampler, Refiner, Sharpener,
    )
}  # fmt: skip
__all__ = [*REGISTRY, "GuidedFilter", "REGISTRY"]  # pyright: ignore[reportUnsupportedDunderAll]
