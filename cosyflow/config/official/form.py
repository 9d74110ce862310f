"""The official files of the three families: which value of theirs is which setting of ours."""

from __future__ import annotations

from typing import Any

from cosyflow.config.official.hyperyaml import Call, Reference
from cosyflow.config.official.structure import Derived, Fixed, Look, Tree, Unused, apply, name, new, setting, settings

SPEAKING = frozenset({"sample_rate", "qwen_pretrain_path", "llm", "flow", "hift", "get_tokenizer", "allowed_special"})
SPEAKING |= {"feat_extractor"}
"""Top-level keys that the official code reads from a model directory."""

_ENCODER = (
    "input_size",
    "output_size",
    "attention_heads",
    "linear_units",
    "num_blocks",
    "dropout_rate",
    "positional_dropout_rate",
    "attention_dropout_rate",
)
_MEL = ("n_fft", "num_mels", "hop_size", "win_size", "fmin", "fmax")
_UNET = (
    "in_channels",
    "out_channels",
    "channels",
    "dropout",
    "attention_head_dim",
    "n_blocks",
    "num_mid_blocks",
    "num_heads",
)
_HIFT = (
    "in_channels",
    "base_channels",
    "nb_harmonics",
    "sampling_rate",
    "nsf_alpha",
    "nsf_sigma",
    "nsf_voiced_threshold",
    "upsample_rates",
    "upsample_kernel_sizes",
    "resblock_kernel_sizes",
    "resblock_dilation_sizes",
    "source_resblock_kernel_sizes",
    "source_resblock_dilation_sizes",
    "lrelu_slope",
    "audio_limit",
)
_EPOCH_ORDER = "CosyFlow orders whole epochs, by a seed"


def _encoder(prefix: str) -> dict[str, Any]:
    """What the relative-position encoders have in common."""
    return settings(prefix, *_ENCODER) | {
        "normalize_before": Fixed(True),
        "pos_enc_layer_type": Fixed("rel_pos_espnet"),
        "selfattention_layer_type": Fixed("rel_selfattn"),
    }


_CONFORMER = {"use_cnn_module": Fixed(False), "macaron_style": Fixed(False)}
_SAMPLING = name(
    "cosyvoice.utils.common.ras_sampling", **settings("llm.sampling", "top_p", "top_k", "win_size", "tau_r")
)


def _language_model_of_cosyvoice() -> Call:
    dynamic = {"use_dynamic_chunk": Fixed(False), "use_dynamic_left_chunk": Fixed(False)}
    text, speech = "llm.text_encoder", "llm.llm"
    return new(
        "cosyvoice.llm.llm.TransformerLM",
        text_encoder_input_size=setting(f"{text}.input_size"),
        llm_input_size=setting(f"{speech}.input_size"),
        llm_output_size=setting(f"{speech}.output_size"),
        **settings("llm", "text_token_size", "speech_token_size"),
        length_normalized_loss=Fixed(True),
        **settings("llm", "lsm_weight", "spk_embed_dim"),
        text_encoder=new(
            "cosyvoice.transformer.encoder.ConformerEncoder",
            **_encoder(text),
            **settings(text, "input_layer", "static_chunk_size"),
            **_CONFORMER,
            **dynamic,
        ),
        llm=new(
            "cosyvoice.transformer.encoder.TransformerEncoder",
            **_encoder(speech),
            **settings(speech, "input_layer", "static_chunk_size"),
        ),
        sampling=_SAMPLING,
    )


def _language_model_on_qwen2(kind: str) -> Call:
    return new(
        f"cosyvoice.llm.llm.{kind}",
        llm_input_size=setting("llm.qwen2.hidden_size"),
        llm_output_size=setting("llm.qwen2.hidden_size"),
        **settings("llm", "speech_token_size"),
        length_normalized_loss=Fixed(True),
        **settings("llm", "lsm_weight"),
        mix_ratio=setting("llm.mix_ratio", default=[5, 15]),
        llm=new("cosyvoice.llm.llm.Qwen2Encoder", pretrain_path=Unused(Reference("<qwen_pretrain_path>"))),
        sampling=_SAMPLING,
    )


def _flow(kind: str, input_size: Any, **given: Any) -> Call:
    common = settings("flow", "output_size", "spk_embed_dim", "vocab_size")
    return new(
        f"cosyvoice.flow.flow.{kind}",
        input_size=input_size,
        output_type=Fixed("mel"),
        only_mask_loss=Fixed(True),
        **common,
        **given,
    )


def _decoder(kind: str, estimator: Call) -> Call:
    content = settings("flow.matching", "sigma_min", "training_cfg_rate", "inference_cfg_rate")
    content |= {"solver": Fixed("euler"), "t_scheduler": Fixed("cosine"), "reg_loss_type": Unused("l1")}
    return new(
        f"cosyvoice.flow.flow_matching.{kind}",
        in_channels=Unused(240),
        n_spks=Fixed(1),
        spk_emb_dim=setting("flow.output_size"),
        cfm_params=new("omegaconf.DictConfig", content=content),
        estimator=estimator,
    )


def _unet(kind: str, **given: Any) -> Call:
    return new(f"cosyvoice.flow.decoder.{kind}", **settings("flow.estimator", *_UNET), act_fn=Fixed("gelu"), **given)


_FLOW_OF_COSYVOICE = _flow(
    "MaskedDiffWithXvec",
    setting("flow.encoder.input_size"),
    input_frame_rate=setting("flow.input_frame_rate", "token_frame_rate"),
    encoder=new(
        "cosyvoice.transformer.encoder.ConformerEncoder",
        **_encoder("flow.encoder"),
        input_layer=Fixed("linear"),
        **_CONFORMER,
    ),
    length_regulator=new(
        "cosyvoice.flow.length_regulator.InterpolateRegulator",
        channels=setting("flow.output_size"),
        sampling_ratios=Derived(
            ("flow.regulator_layers",), lambda ratios, _: len(ratios), lambda ours: [1] * ours("flow.regulator_layers")
        ),
    ),
    decoder=_decoder("ConditionalCFM", _unet("ConditionalDecoder")),
)

_STREAMING = {
    "static_chunk_size": setting("flow.estimator.static_chunk_size"),
    "num_decoding_left_chunks": Fixed(-1),
}

_FLOW_OF_COSYVOICE2 = _flow(
    "CausalMaskedDiffWithXvec",
    setting("flow.encoder.layers.input_size"),
    input_frame_rate=setting("token_frame_rate"),
    token_mel_ratio=setting("flow.encoder.upsample_factor"),
    pre_lookahead_len=setting("flow.encoder.pre_lookahead_len"),
    encoder=new(
        "cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder",
        **_encoder("flow.encoder.layers"),
        input_layer=Fixed("linear"),
        **_CONFORMER,
        static_chunk_size=setting("flow.encoder.layers.static_chunk_size"),
    ),
    decoder=_decoder("CausalConditionalCFM", _unet("CausalConditionalDecoder", **_STREAMING)),
)

_DIT = ("dim", "depth", "heads", "dim_head", "ff_mult", "mel_dim", "mu_dim", "spk_dim")
_FLOW_OF_COSYVOICE3 = _flow(
    "CausalMaskedDiffWithDiT",
    setting("flow.output_size"),
    input_frame_rate=setting("token_frame_rate"),
    **settings("flow", "token_mel_ratio", "pre_lookahead_len"),
    pre_lookahead_layer=new(
        "cosyvoice.transformer.upsample_encoder.PreLookaheadLayer",
        in_channels=setting("flow.output_size"),
        channels=setting("flow.pre_lookahead_channels"),
        pre_lookahead_len=setting("flow.pre_lookahead_len"),
    ),
    decoder=_decoder(
        "CausalConditionalCFM",
        new(
            "cosyvoice.flow.DiT.dit.DiT",
            **settings("flow.estimator", *_DIT),
            dropout=setting("flow.estimator.dropout", default=0.1),
            out_channels=setting("flow.output_size"),
            **_STREAMING,
        ),
    ),
)


def _vocoder(kind: str, predictor: str, **given: Any) -> Call:
    generator = "hifigan.generator"
    return new(
        f"cosyvoice.hifigan.generator.{kind}",
        **settings(generator, *_HIFT),
        istft_params=settings(f"{generator}.istft_params", "n_fft", "hop_len"),
        **given,
        f0_predictor=new(
            f"cosyvoice.hifigan.f0_predictor.{predictor}",
            num_class=Fixed(1),
            in_channels=setting(f"{generator}.in_channels"),
            cond_channels=setting(f"{generator}.f0_channels"),
        ),
    )


def _mel_losses(value: Any, _: Look) -> list[dict[str, Any]]:
    calls = value if isinstance(value, list) else []
    return [
        {key: kept for key, kept in call.given.items() if key != "center"} for call in calls if isinstance(call, Call)
    ]


def _mel_calls(ours: Look) -> list[Call]:
    losses = ours("hifigan.loss.mel_spec_transform")
    return [Call("name", "matcha.utils.audio.mel_spectrogram", {**loss, "center": False}) for loss in losses]


_LOSSES = {
    "multi_mel_spectral_recon_loss_weight": 45,
    "feat_match_loss_weight": 2.0,
    "tpr_loss_weight": 1.0,
    "tpr_loss_tau": 0.04,
}
_HIFIGAN = new(
    "cosyvoice.hifigan.hifigan.HiFiGan",
    generator=Unused(Reference("<hift>")),
    discriminator=new(
        "cosyvoice.hifigan.discriminator.MultipleDiscriminator",
        mpd=new("matcha.hifigan.models.MultiPeriodDiscriminator"),
        mrd=new("cosyvoice.hifigan.discriminator.MultiResSpecDiscriminator"),
    ),
    mel_spec_transform=Derived(("hifigan.loss.mel_spec_transform",), _mel_losses, _mel_calls),
    **{key: setting(f"hifigan.loss.{key}", default=value) for key, value in _LOSSES.items()},
)


def _window_frames(samples: Any, look: Look) -> int:
    """The official pipeline pads what it cuts to whole tokens."""
    whole, hop = look("compute_fbank.num_frames") or 1, look("feat_extractor.hop_size")
    return int(-(-samples // max(whole, 1)) * max(whole, 1) // hop)


def _optimizer(section: str, suffix: str = "") -> dict[str, Any]:
    conf, schedule = f"{section}.optim_conf{suffix}", f"{section}.scheduler_conf{suffix}"
    rates: dict[str, Any] = {"lr": setting(f"{conf}.lr")}
    rates |= {key: setting(f"{conf}.{key}", default=value) for key, value in (("betas", [0.9, 0.999]), ("eps", 1e-8))}
    decay, optimizer = f"{conf}.weight_decay", f"{section}.optim{suffix}"
    rates["weight_decay"] = Derived(
        (decay,),
        lambda value, look: (0.01 if look(optimizer) == "adamw" else 0.0) if value is None else value,  # as PyTorch's
        lambda ours: ours(decay),
        optional=True,
    )
    defaults = {"warmup_steps": 25000, "hold_steps": 0, "max_steps": None, "decay_rate": 0.5, "min_lr": 0.0}
    steps = {key: setting(f"{schedule}.{key}", default=value) for key, value in defaults.items()}
    return {
        f"optim{suffix}": setting(f"{section}.optim{suffix}"),
        f"optim_conf{suffix}": rates,
        f"scheduler{suffix}": setting(f"{section}.scheduler{suffix}"),
        f"scheduler_conf{suffix}": steps,
    }


def _training(section: str, **more: Any) -> dict[str, Any]:
    names = ("max_epoch", "accum_grad", "log_interval", "save_per_step")
    return _optimizer(section) | settings(section, *names) | more


def _processor(kind: str, **given: Any) -> Call:
    return name(f"cosyvoice.dataset.processor.{kind}", **given)


def _steps(*between: str) -> list[Unused]:
    every = ("parquet_opener", "tokenize", "filter", "resample", *between, "shuffle", "sort", "batch", "padding")
    return [Unused(Reference(f"<{step}>")) for step in every]


def _data(whole: Any) -> dict[str, Any]:
    """From shards to batches. `whole`: samples of a token, None where audio is not padded to whole tokens."""
    mel = settings("mel", *_MEL) | {"sampling_rate": setting("sample_rate"), "center": Fixed(False)}
    hop = setting("mel.hop_size", "flow.hop_size") if whole is None else setting("mel.hop_size")
    padded = {} if whole is None else {"num_frames": Unused(whole)}
    whisper = {} if whole is None else {"compute_whisper_fbank": _processor("compute_whisper_fbank", **padded)}
    ratios = {"min_output_input_ratio": 0.0005, "max_output_input_ratio": 1}
    batch = ("train_conf.frames_per_step", "train_conf_gan.frames_per_step")
    return {
        "parquet_opener": _processor("parquet_opener"),
        "allowed_special": Fixed("all"),
        "tokenize": _processor(
            "tokenize",
            get_tokenizer=Unused(Reference("<get_tokenizer>")),
            allowed_special=Unused(Reference("<allowed_special>")),
        ),
        "filter": _processor(
            "filter",
            **settings("filter", "max_length", "min_length", "token_max_length", "token_min_length"),
            **{key: setting(f"filter.{key}", default=value) for key, value in ratios.items()},
        ),
        "resample": _processor("resample", resample_rate=setting("sample_rate")),
        "truncate": _processor(
            "truncate",
            truncate_length=Derived(
                ("train_conf_gan.window_frames",),
                _window_frames,
                lambda ours: ours("train_conf_gan.window_frames") * ours("mel.hop_size"),
            ),
        ),
        "feat_extractor": name("matcha.utils.audio.mel_spectrogram", **mel),
        "compute_fbank": _processor("compute_fbank", feat_extractor=Unused(Reference("<feat_extractor>")), **padded),
        **whisper,
        "compute_f0": _processor("compute_f0", sample_rate=setting("sample_rate"), hop_size=hop),
        "parse_embedding": _processor("parse_embedding", normalize=Fixed(True)),
        "shuffle": _processor("shuffle", shuffle_size=Unused(1000, _EPOCH_ORDER)),
        "sort": _processor("sort", sort_size=Unused(500, _EPOCH_ORDER)),
        "batch": _processor("batch", batch_type=Fixed("dynamic"), max_frames_in_batch=setting(*batch)),
        "padding": _processor("padding", use_spk_embedding=setting("use_spk_embedding")),
        "data_pipeline": _steps("compute_fbank", "parse_embedding", *whisper),
        "data_pipeline_gan": _steps("truncate", "compute_fbank", "compute_f0", "parse_embedding"),
    }


def _file(head: Tree, models: Tree, tokenizer: Call, whole: Any) -> Tree:
    seeds = ("random.seed", "numpy.random.seed", "torch.manual_seed", "torch.cuda.manual_seed_all")
    seed = setting("train_conf.seed", "train_conf_gan.seed")
    gan = "train_conf_gan"
    return {
        **{f"__set_seed{number}": apply(each, seed) for number, each in enumerate(seeds, start=1)},
        "sample_rate": setting("sample_rate"),
        **head,
        **models,
        "hifigan": _HIFIGAN,
        "get_tokenizer": tokenizer,
        **_data(whole),
        "train_conf": _training("train_conf", grad_clip=setting("train_conf.grad_clip")),
        gan: _training(gan, **_optimizer(gan, "_d"), grad_clip=setting(f"{gan}.grad_clip", f"{gan}.grad_clip_d")),
    }


_WHISPER = {
    "multilingual": Fixed(True),
    "num_languages": Fixed(100),
    "language": Fixed("en"),
    "task": Fixed("transcribe"),
}
_QWEN2_PATH = "is an option, --qwen_pretrain_path"


def _on_qwen2(llm: str, flow: Call, vocoder: Call, ratio_key: str, **version: Any) -> Tree:
    tokenizer = name(
        "cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer",
        token_path=Unused(Reference("<qwen_pretrain_path>")),
        skip_special_tokens=Fixed(True),
        **version,
    )
    head = {
        "qwen_pretrain_path": Unused("", _QWEN2_PATH),
        "token_frame_rate": setting("token_frame_rate"),
        "token_mel_ratio": setting(ratio_key),
    }
    models = {"llm": _language_model_on_qwen2(llm), "flow": flow, "hift": vocoder}
    return _file(head, models, tokenizer, 960)


FORMS: dict[str, Tree] = {
    "cosyvoice": _file(
        {"sample_rate": setting("sample_rate", "flow.sample_rate")},
        {
            "llm": _language_model_of_cosyvoice(),
            "flow": _FLOW_OF_COSYVOICE,
            "hift": _vocoder("HiFTGenerator", "ConvRNNF0Predictor"),
        },
        name("whisper.tokenizer.get_tokenizer", **_WHISPER),
        None,
    ),
    "cosyvoice2": _on_qwen2(
        "Qwen2LM",
        _FLOW_OF_COSYVOICE2,
        _vocoder("HiFTGenerator", "ConvRNNF0Predictor"),
        "flow.encoder.upsample_factor",
    ),
    "cosyvoice3": _on_qwen2(
        "CosyVoice3LM",
        _FLOW_OF_COSYVOICE3,
        _vocoder(
            "CausalHiFTGenerator",
            "CausalConvRNNF0Predictor",
            conv_pre_look_right=setting("hifigan.generator.conv_pre_look_right", default=4),
        ),
        "flow.token_mel_ratio",
        version=Fixed("cosyvoice3"),
    ),
}
"""By the names of our families."""
