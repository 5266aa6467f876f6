"""The networks, as `nn.Module`s that know torch and nothing else; each says which size multiple and minimum it needs."""

from .critic import Critic
from .embedding import FaceEmbedding
from .face import FaceNet, Generator
from .guided import DeepGuidedFilter, GuidedFilter, GuidedUpsampler
from .landmarks import LandmarkNet
from .refiner import Refiner
from .restorer import RestorerNet
from .sharpener import Sharpener

REGISTRY = {c.__name__: c for c in (FaceNet, Generator, Critic, FaceEmbedding, RestorerNet, DeepGuidedFilter, GuidedUpsampler, Refiner, Sharpener, LandmarkNet)}
__all__ = [*REGISTRY, "GuidedFilter", "REGISTRY"]
