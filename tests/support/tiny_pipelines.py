"""Tiny text-to-image pipelines of diffusers with random weights, saved as their makers would publish them.

Each makes 32 x 32 pictures in well under a second of a CPU. Weights are larger than initial ones, so that a picture
depends on its prompt.
"""

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}assistant:"
LETTERS = string.ascii_lowercase + string.digits + string.punctuation
# A tokenizer and the encoder of its tokens.
Text = tuple[Any, Any]
# What an autoencoder of a pipeline of flow matching lacks.
PLAIN = {"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.0}
# What transformers of one family share: Flux, and those that read pictures and text as one sequence.
FLUX = {
    "patch_size": 1, "in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
    "num_attention_heads": 2, "joint_attention_dim": 32, "axes_dims_rope": [4, 4, 8],
}  # fmt: skip
JOINT = {
    "sample_size": 16, "in_channels": 4, "out_channels": 4, "attention_head_dim": 8, "num_attention_heads": 4,
    "caption_projection_dim": 32, "joint_attention_dim": 32,
}  # fmt: skip
EVERY_CHARACTER = sorted(set(string.ascii_letters + string.digits + string.punctuation + " \n"))


def of_diffusers(name: str, **values: Any) -> Any:
    """Return an object of a class of diffusers, imported when it is made."""
    import diffusers

    return getattr(diffusers, name)(**values)


def clip(projection: int | None = None) -> Text:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{c}</w>" for c in LETTERS)]
    tokenizer = CLIPTokenizer(vocab=_numbered(words), merges=[], model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=160,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        projection_dim=projection or 32,
    )
    return tokenizer, CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


def t5(kind: str = "T5") -> Text:
    import transformers

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    words += [(c, -3.0) for c in EVERY_CHARACTER if c.strip()]
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=160, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    encoder = getattr(transformers, f"{kind}EncoderModel")(config)
    return transformers.T5Tokenizer(vocab=words, extra_ids=0), encoder


def gemma() -> Text:
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *EVERY_CHARACTER]
    config = Gemma2Config(
        vocab_size=160,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    return GemmaTokenizer(vocab=_numbered(words), merges=[]), Gemma2Model(config)


def qwen() -> Text:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

    words = _numbered(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet())])
    config = Qwen3Config(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=300,
        max_position_embeddings=2048,
        head_dim=8,
    )
    tokenizer = Qwen2Tokenizer(vocab=words, merges=[], chat_template=CHAT, model_max_length=2048)
    return tokenizer, Qwen3Model(config)


def autoencoder(channels: int = 4, *, levels: int = 2, **more: Any) -> Any:
    """Return an autoencoder that halves a picture `levels - 1` times."""
    return of_diffusers(
        "AutoencoderKL",
        sample_size=32,
        block_out_channels=[8] * levels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        **more,
    )


def unet(**more: Any) -> Any:
    return of_diffusers(
        "UNet2DConditionModel",
        block_out_channels=(8, 16),
        layers_per_block=1,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        norm_num_groups=4,
        **more,
    )


def flow(pipeline: str, *, transformer: Any, vae: Any, texts: Sequence[Text], **schedule: Any) -> Any:
    """Return a pipeline of flow matching with one or more text encoders."""
    parts = {"transformer": transformer, "vae": vae}
    for ending, (tokenizer, encoder) in zip(("", "_2", "_3"), texts, strict=False):
        parts |= {f"tokenizer{ending}": tokenizer, f"text_encoder{ending}": encoder}
    return of_diffusers(
        pipeline, scheduler=of_diffusers("FlowMatchEulerDiscreteScheduler", **schedule), **parts
    )


def stable_diffusion() -> Any:
    network, vae = unet(sample_size=16, in_channels=4), autoencoder()
    tokenizer, encoder = clip()
    return of_diffusers(
        "StableDiffusionPipeline",
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=network,
        scheduler=of_diffusers("DDIMScheduler", clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def pixart_sigma() -> Any:
    transformer = of_diffusers(
        "PixArtTransformer2DModel",
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    )
    tokenizer, encoder = t5()
    return of_diffusers(
        "PixArtSigmaPipeline",
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=autoencoder(),
        transformer=transformer,
        scheduler=of_diffusers("DDIMScheduler", clip_sample=False),
    )


def stable_diffusion_3() -> Any:
    return flow(
        "StableDiffusion3Pipeline",
        transformer=of_diffusers(
            "SD3Transformer2DModel",
            **JOINT,
            patch_size=1,
            num_layers=2,
            pooled_projection_dim=64,
            pos_embed_max_size=64,
        ),
        vae=autoencoder(**PLAIN | {"shift_factor": 0.06}),
        texts=(clip(32), clip(32), t5()),
    )


def flux() -> Any:
    return flow(
        "FluxPipeline",
        transformer=of_diffusers("FluxTransformer2DModel", **FLUX, pooled_projection_dim=32),
        vae=autoencoder(1, **PLAIN),
        texts=(clip(), t5()),
    )


def sana() -> Any:
    transformer = of_diffusers(
        "SanaTransformer2DModel",
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        # One for which it has no bins of sizes.
        sample_size=8,
    )
    sides = {
        "block_types": ("ResBlock", "EfficientViTBlock"),
        "block_out_channels": (8, 8),
        "qkv_multiscales": ((), (5,)),
        "layers_per_block": (1, 1),
    }
    vae = of_diffusers(
        "AutoencoderDC",
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        upsample_block_type="interpolate",
        downsample_block_type="Conv",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sides.items()},
    )
    return flow("SanaPipeline", transformer=transformer, vae=vae, texts=(gemma(),), shift=7.0)


def lumina2() -> Any:
    transformer = of_diffusers(
        "Lumina2Transformer2DModel",
        sample_size=4,
        patch_size=2,
        in_channels=4,
        hidden_size=8,
        num_layers=2,
        num_attention_heads=1,
        num_kv_heads=1,
        multiple_of=16,
        ffn_dim_multiplier=None,
        norm_eps=1e-5,
        scaling_factor=1.0,
        axes_dim_rope=[4, 2, 2],
        axes_lens=[300, 64, 64],
        cap_feat_dim=8,
    )
    vae = autoencoder(levels=4, **PLAIN)
    return flow("Lumina2Pipeline", transformer=transformer, vae=vae, texts=(gemma(),))


def z_image() -> Any:
    transformer = of_diffusers(
        "ZImageTransformer2DModel",
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=4,
        dim=16,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=1,
        n_kv_heads=1,
        norm_eps=1e-5,
        qk_norm=True,
        cap_feat_dim=16,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=[8, 4, 4],
        axes_lens=[512, 32, 32],
    )
    vae = autoencoder(levels=4, **PLAIN)
    return flow("ZImagePipeline", transformer=transformer, vae=vae, texts=(qwen(),))


def aura_flow() -> Any:
    transformer = of_diffusers(
        "AuraFlowTransformer2DModel",
        **JOINT,
        patch_size=2,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        pos_embed_max_size=256,
    )
    return flow("AuraFlowPipeline", transformer=transformer, texts=(t5("UMT5"),), vae=autoencoder())


def chroma() -> Any:
    transformer = of_diffusers(
        "ChromaTransformer2DModel",
        **FLUX,
        approximator_num_channels=16,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    return flow("ChromaPipeline", transformer=transformer, vae=autoencoder(1, **PLAIN), texts=(t5(),))


def stable_diffusion_upscale() -> Any:
    """Return an upscaler to four times the size, whose sampler draws noise in each step."""
    # Channels of the latent picture, and of the small one.
    network, vae = unet(sample_size=32, in_channels=7, num_class_embeds=100), autoencoder(levels=3)
    tokenizer, encoder = clip()
    return of_diffusers(
        "StableDiffusionUpscalePipeline",
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=network,
        low_res_scheduler=of_diffusers("DDPMScheduler"),
        scheduler=of_diffusers("EulerAncestralDiscreteScheduler"),
        max_noise_level=90,
    )


def latent_diffusion_upscale() -> Any:
    """Return an upscaler to twice the size without a text encoder."""
    shared = {"layers_per_block": 1, "norm_num_groups": 4}
    network = of_diffusers(
        "UNet2DModel",
        block_out_channels=(8, 16),
        sample_size=32,
        in_channels=6,
        out_channels=3,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        **shared,
    )
    vqvae = of_diffusers(
        "VQModel",
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        num_vq_embeddings=16,
        **shared,
    )
    scheduler = of_diffusers("DDIMScheduler", clip_sample=False)
    return of_diffusers("LDMSuperResolutionPipeline", vqvae=vqvae, unet=network, scheduler=scheduler)


UPSCALERS: dict[str, Callable[[], Any]] = {
    "stable-diffusion-upscale": stable_diffusion_upscale,
    "latent-diffusion-upscale": latent_diffusion_upscale,
}
PIPELINES: dict[str, Callable[[], Any]] = {
    "stable-diffusion": stable_diffusion,
    "pixart-sigma": pixart_sigma,
    "stable-diffusion-3": stable_diffusion_3,
    "flux": flux,
    "sana": sana,
    "lumina2": lumina2,
    "z-image": z_image,
    "aura-flow": aura_flow,
    "chroma": chroma,
}


def save_pipeline(name: str, folder: Path) -> Path:
    """Save the pipeline `name` into `folder`, in safetensors and always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = (PIPELINES | UPSCALERS)[name]()
        for network in pipeline.components.values():
            if isinstance(network, torch.nn.Module):
                _strengthen(network)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@torch.no_grad()
def _strengthen(network: torch.nn.Module) -> None:
    """Fill what is initialised with zeros, and enlarge the rest: initial networks hardly use their prompts."""
    for parameter in network.parameters():
        if parameter.dim() > 1:
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
            parameter.mul_(1.5)


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(words)}
