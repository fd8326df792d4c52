"""Visual Transformers of Wu et al. 2020 (arXiv 2006.03677): a few tokens in place of a map.

X: (B, HW, C) pixels, T: (B, L, C_T) tokens, L far smaller than HW, C_T often larger than C.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vitedge.models.zoo.configs import VTConfig, VTResNetConfig
from vitedge.models.zoo.resnet import Trunk, init_weights


class TokenMap(nn.Conv1d):
    """A linear map of tokens (B, L, C_in) -> (B, L, C_out), in groups of channels, no bias.

    Without biases as in the equations: a softmax would cancel most of them.
    """

    def __init__(self, width_in: int, width_out: int, groups: int = 1) -> None:
        super().__init__(width_in, width_out, kernel_size=1, groups=groups, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.groups == 1:
            return F.linear(tokens, self.weight[..., 0])  # a MatMul: INT8 on every runtime
        return super().forward(tokens.mT).mT


def lift(width_in: int, width_out: int) -> nn.Module:
    """From the width of a map to that of tokens or back; nothing where they agree."""
    return nn.Identity() if width_in == width_out else TokenMap(width_in, width_out)


class FilterTokenizer(nn.Module):
    """T = softmax_HW(X W_A)ᵀ X: each token is a mean of pixels, weighted by a learned filter."""

    def __init__(self, config: VTConfig, channels: int) -> None:
        super().__init__()
        self.filters = nn.Linear(channels, config.tokens, bias=False)  # W_A
        self.value = lift(channels, config.width)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.filters(x).softmax(dim=1)  # (B, HW, L), over pixels
        return self.value(weights.mT @ x)


class RecurrentTokenizer(nn.Module):
    """T = softmax_HW(X W_Rᵀ)ᵀ X with W_R = T_in W_{T→R}: the last tokens choose the next ones."""

    def __init__(self, config: VTConfig, channels: int) -> None:
        super().__init__()
        self.query = TokenMap(config.width, channels, config.map_groups)  # W_{T→R}
        self.value = lift(channels, config.width)
        self.scale = channels**-0.5

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        weights = (x @ self.query(tokens * self.scale).mT).softmax(dim=1)  # (B, HW, L)
        return self.value(weights.mT @ x)


class TokenTransformer(nn.Module):
    """T' = T + softmax_L((T K)(T Q)ᵀ) T V; T_out = T' + relu(T' F₁) F₂, norms before and after.

    The paper's equations 3-4 at 1024 channels are 4.19 M parameters (K, Q, F₁, F₂); its parameter
    counts leave room for fewer. Here K and Q map to half the width, and K, Q and V are in `groups`
    groups; unless `paired`, one matrix F stands for F₂ and none for F₁: 1.57 M in 4 groups, and
    2.62 M when paired. Where the paper is silent, attention is scaled by 1 / √width as any
    transformer's, and LayerNorms keep the statistics of tokens trainable, however pixels are
    distributed: before each residual branch, and at the end for those who read the tokens
    (projector, next tokenizer, head).
    """

    def __init__(self, config: VTConfig) -> None:
        super().__init__()
        width, half = config.width, config.width // 2
        self.scale = half**-0.5
        self.norm1 = nn.LayerNorm(width)
        self.key = TokenMap(width, half, config.groups)
        self.query = TokenMap(width, half, config.groups)
        self.value = TokenMap(width, width, config.groups)
        self.norm2 = nn.LayerNorm(width)
        self.hidden = TokenMap(width, width) if config.paired else nn.Identity()  # F₁
        self.feed_forward = TokenMap(width, width)  # F₂
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        t = self.norm1(tokens)
        weights = (self.key(t) * self.scale @ self.query(t).mT).softmax(dim=-1)  # (B, L, L)
        tokens = tokens + weights @ self.value(t)
        tokens = tokens + self.feed_forward(F.relu(self.hidden(self.norm2(tokens))))
        return self.norm(tokens)


class Projector(nn.Module):
    """X_out = X + softmax_L((X W_Q)(T W_K)ᵀ) T W_V: a pixel asks the tokens what it is part of.

    (X W_Q)(T W_K)ᵀ = X (T W_K W_Qᵀ)ᵀ: unless `paired`, one matrix W_K W_Qᵀ, which acts on a few
    tokens rather than on all pixels. W_V brings tokens to the width of the map where they differ.
    """

    def __init__(self, config: VTConfig, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels, bias=False) if config.paired else nn.Identity()
        self.key = TokenMap(config.width, channels, config.map_groups)  # W_K, or W_K W_Qᵀ
        self.value = lift(config.width, channels)  # W_V
        self.scale = channels**-0.5

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(tokens * self.scale).mT  # (B, HW, L)
        return x + scores.softmax(dim=-1) @ self.value(tokens)


class VTStage(nn.Module):
    """Pixels (B, HW, C) -> tokens (B, L, C_T): VT modules in a row.

    The first has a filter tokenizer, the others a recurrent one. The last has no projector, for
    the head reads its tokens.
    """

    def __init__(self, config: VTConfig, channels: int, modules: int) -> None:
        super().__init__()
        later = range(modules - 1)
        self.tokenizer = FilterTokenizer(config, channels)
        self.tokenizers = nn.ModuleList(RecurrentTokenizer(config, channels) for _ in later)
        self.transformers = nn.ModuleList(TokenTransformer(config) for _ in range(modules))
        self.projectors = nn.ModuleList(Projector(config, channels) for _ in later)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.transformers[0](self.tokenizer(x))
        later = zip(self.projectors, self.tokenizers, self.transformers[1:], strict=True)
        for project, tokenize, transform in later:
            x = project(x, tokens)
            tokens = transform(tokenize(x, tokens))
        return tokens


class VTResNet(Trunk):
    """Images (B, 3, H, W) float32, normalised -> logits (B, num_classes) float32.

    The head is the mean of the tokens and a linear layer. How the zoo's models compare with the
    published parameters, total MACs, and how many times fewer MACs the last stage has:

    - R18, `paired`, K Q V in 2 groups: 11.49 M (11.7), 1.544 G (1.569), 2.93× (2.4×).
    - R34, `paired`: 19.57 M (19.2), 3.221 G (3.236), 3.24× (5.0×). With 5.0× the total would be
      3.150 G. Maps of 16 tokens take 16 MACs a parameter, so that the 10.0 M parameters left by
      trunk and head, 160 M MACs, and 8 M for tokens times pixels allow at most 3.8×.
    - R50, one matrix a pair, token-to-pixel maps in 8 groups: 14.85 M (21.4), 3.396 G (3.412),
      6.91× (6.1×). The 11.8 M parameters left are 189 M MACs, where 6.1× allows 133 M.
    - R101, likewise: 33.84 M (41.5), 7.108 G (7.129), 6.91× (6.9×). The 12.9 M left are 207 M MACs,
      where 6.9× allows 117 M.

    Where the published figures contradict each other we meet the total first, then the parameters
    of R34, which is close to them, and the ratios of R50 and R101.
    """

    def __init__(self, config: VTResNetConfig) -> None:
        super().__init__(config.trunk)
        self.config = config
        self.vt = VTStage(config.vt, config.trunk.widths[-1], config.modules)
        self.fc = nn.Linear(config.vt.width, config.num_classes)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        x = self.feature_maps(x)[-1].flatten(2).mT  # (B, HW, C)
        return self.fc(self.vt(x).mean(dim=1))
