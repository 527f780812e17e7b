"""The parts of VGT, each with the parameter names of its release: graph, regions, positions.

Its transformer is DistilBERT's (`models/distilbert.py`) to the letter. What is drawn at random is drawn by `F.dropout`
alone, so that the masks of a step repeat where the generator is reset.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from mama_ray.models.distilbert import LAYER_NORM_EPS

NUM_POSITIONS = 28  # 20 words and 8 clips, of which the first 8 are used
SINUSOID_BASE = 10_000
BOX_NUMBERS = 5  # corners over the picture's size, and the area
INIT_STD = 0.02


class RegionEncoder(nn.Module):
    """RoI features and boxes to nodes: boxes by two pointwise convolutions, then one linear layer over both."""

    def __init__(self, region_dim: int, box_width: int, width: int) -> None:
        super().__init__()
        self.region_dim = region_dim
        self.bbox_conv = nn.Sequential(
            nn.Conv2d(BOX_NUMBERS, box_width, kernel_size=1),
            nn.BatchNorm2d(box_width),
            nn.ReLU(),
            nn.Conv2d(box_width, box_width, kernel_size=1),
            nn.BatchNorm2d(box_width),
            nn.ReLU(),
        )
        self.tohid = nn.Sequential(nn.Linear(region_dim + box_width, width), nn.ELU())

    def forward(self, regions: Float[Tensor, "batch frames r d"]) -> Float[Tensor, "batch frames r width"]:
        features, boxes = regions[..., : self.region_dim], regions[..., self.region_dim :]
        boxes = self.bbox_conv(rearrange(boxes, "batch frames r box -> batch box frames r"))
        boxes = rearrange(boxes, "batch box frames r -> batch frames r box")
        return self.tohid(torch.cat([features, boxes], dim=-1))


class GraphConvolution(nn.Module):
    """A X W + b + X W: the neighbours' messages, and the node's own."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        bound = out_width**-0.5
        self.weight = nn.Parameter(torch.empty(in_width, out_width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_width).uniform_(-bound, bound))

    def forward(
        self, nodes: Float[Tensor, "graphs r d"], edges: Float[Tensor, "graphs r r"]
    ) -> Float[Tensor, "graphs r e"]:
        support = nodes @ self.weight
        return edges @ support + self.bias + support


class Graph(nn.Module):
    """Scores of all pairs of nodes, and a two-layer graph convolution over edges."""

    def __init__(self, width: int, hidden_width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc_k = nn.Linear(width, hidden_width)
        self.fc_q = nn.Linear(width, hidden_width)
        self.layers = nn.ModuleList([GraphConvolution(width, hidden_width), GraphConvolution(hidden_width, width)])

    def scores(self, nodes: Float[Tensor, "graphs r width"]) -> Float[Tensor, "graphs r r"]:
        """Return (X W_k)(X W_q)^T without softmax."""
        return self.fc_k(nodes) @ self.fc_q(nodes).mT

    def forward(
        self, nodes: Float[Tensor, "graphs r width"], edges: Float[Tensor, "graphs r r"]
    ) -> Float[Tensor, "graphs r width"]:
        for layer in self.layers:
            nodes = self.dropout(F.relu(layer(nodes, edges)))
        return nodes


class Positions(nn.Module):
    """Frozen sinusoidal positions, LayerNorm and dropout; the modality embedding is carried and never read."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(NUM_POSITIONS, width)
        self.modality_embedding = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            self.position_embeddings.weight.copy_(sinusoids(NUM_POSITIONS, width))
        for embedding in (self.position_embeddings, self.modality_embedding):
            embedding.weight.requires_grad_(False)

    def forward(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        return self.dropout(self.LayerNorm(tokens + self.position_embeddings.weight[: tokens.shape[1]]))


def sinusoids(num_positions: int, width: int) -> Float[Tensor, "positions width"]:
    """Return sines in the even columns and cosines in the odd ones, of the same angle pairwise."""
    places = torch.arange(num_positions, dtype=torch.float64)[:, None]
    pairs = torch.arange(width, dtype=torch.float64) // 2
    angles = places / SINUSOID_BASE ** (2 * pairs / width)
    return torch.where(torch.arange(width) % 2 == 0, angles.sin(), angles.cos()).float()


def attention_pooling(width: int) -> nn.Sequential:
    """Return the network that weighs the nodes of a graph, softmax over them."""
    return nn.Sequential(nn.Linear(width, width // 2), nn.Tanh(), nn.Linear(width // 2, 1), nn.Softmax(dim=-2))


def add_attended_words(
    tokens: Float[Tensor, "batch tokens width"],
    words: Float[Tensor, "batch words width"],
    lengths: Int[Tensor, " batch"],
) -> Float[Tensor, "batch tokens width"]:
    """Add to each token the words it attends to: raw dot products, without projections; words from `lengths` on are
    not seen (VGT, equation 8)."""
    seen = torch.arange(words.shape[1], device=words.device) < lengths[:, None]
    scores = (tokens @ words.mT).masked_fill(~seen[:, None], -torch.inf)
    return tokens + scores.softmax(dim=-1) @ words


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Initialise the linear layers in place as BERT's: a narrow normal, biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=INIT_STD)
            nn.init.zeros_(part.bias)
