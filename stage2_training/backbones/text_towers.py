"""The text towers of open_clip models, split so that prompt vectors can replace word embeddings."""

from typing import Any

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.transformer import TextTransformer, Transformer, text_global_pool
from torch import Tensor, nn

from sspa.shared.errors import UserError
from sspa.stage2_training.backbones.contract import TextTower


class ClipTextTower(TextTower):
    """The transformer text tower of `CLIP` (kept on the model itself) or `CustomTextCLIP` (under `.text`)."""

    attn_mask: Tensor | None

    def __init__(self, model: Any) -> None:
        super().__init__()
        source = getattr(model, "text", model)
        if getattr(source, "cls_emb", None) is not None:
            raise UserError("text towers with an appended class token (CoCa) are not supported; name a CLIP model")
        self.token_embedding = source.token_embedding
        self.positional_embedding = source.positional_embedding
        self.transformer: Transformer = source.transformer
        self.ln_final = source.ln_final
        self.text_projection = source.text_projection
        self.register_buffer("attn_mask", source.attn_mask, persistent=False)
        inside = isinstance(source, TextTransformer)
        self.pool_type: str = source.pool_type if inside else source.text_pool_type
        self.end_id: int = getattr(source, "eos_id" if inside else "text_eos_id", -1)
        if inside and source.use_pad_mask:
            raise UserError("text towers with a padding mask are not supported; name a CLIP model")
        self.width = self.token_embedding.embedding_dim
        self.context_length = source.context_length

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids)

    def forward(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        dtype = self.transformer.get_cast_dtype()
        x = embeddings.to(dtype) + self.positional_embedding[:length].to(dtype)  # (C, L, w)
        mask = None if self.attn_mask is None else self.attn_mask[:length, :length]
        x = self.ln_final(self.transformer(x, attn_mask=mask))
        x = text_global_pool(x, ids, self.pool_type, eos_token_id=self.end_id)  # (C, w)
        if self.text_projection is None:
            return x
        return self.text_projection(x) if isinstance(self.text_projection, nn.Linear) else x @ self.text_projection

    def used_length(self, ids: Tensor) -> int:
        # Only a causal tower that pools at the end token is unaffected by what follows that token.
        if self.attn_mask is None or self.pool_type not in ("argmax", "eos"):
            return ids.shape[1]
        ends = ids.argmax(dim=-1) if self.pool_type == "argmax" else ids.eq(self.end_id).int().argmax(dim=-1)
        return int(ends.max()) + 1


class HuggingFaceTextTower(TextTower):
    """A Hugging Face encoder as open_clip wraps it: pooled over the unpadded tokens, then projected."""

    def __init__(self, text: HFTextEncoder, context_length: int | None = None) -> None:
        super().__init__()
        self.text = text
        self.padding_id: int = text.config.pad_token_id
        self.width = text.transformer.get_input_embeddings().embedding_dim
        self.context_length = context_length or text.context_length

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.text.transformer.get_input_embeddings()(ids)

    def forward(self, embeddings: Tensor, ids: Tensor) -> Tensor:
        mask = (ids != self.padding_id).long()  # (C, L)
        states = self.text.transformer(inputs_embeds=embeddings, attention_mask=mask)
        return self.text.proj(self.text.pooler(states, mask))

    def used_length(self, ids: Tensor) -> int:
        positions = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        return int(positions.where(ids != self.padding_id, 0).max())
