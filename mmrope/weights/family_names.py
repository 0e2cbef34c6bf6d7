"""Names of tensors in the layouts of families of ViTs: what turns them into timm's, and which are left out."""

Names = tuple[tuple[str, str], ...]  # patterns, and what takes their place

NORMS = (r'layer_norm(\d)\.', r'norm\1.')
BLOCK = r'^(?:model\.)?layers?\.(\d+)\.'
HUGGING_FACE: Names = (
    (r'^embeddings\.cls_token$', 'cls_token'),
    (r'^embeddings\.register_tokens$', 'reg_token'),
    (r'^embeddings\.mask_token$', 'mask_token'),
    (r'^embeddings\.position_embeddings(?:\.weight)?$', 'pos_embed'),
    (r'^embeddings\.patch_embeddings\.(?:projection\.)?', 'patch_embed.proj.'),
    (r'^layernorm\.', 'norm.'),  # of EoMT
    (r'^layer_norm\.', 'norm_pre.'),
    (BLOCK, r'blocks.\1.'),
    (r'\.attention\.(?:o_proj|out_proj)\.', '.attn.proj.'),
    (r'\.attention\.', '.attn.'),
    (r'layer_scale(\d)\.lambda1$', r'gamma_\1'),
    NORMS,
    (r'\.gate_proj\.', '.fc1_g.'),
    (r'(blocks\.\d+\.mlp)\.up_proj\.', r'\1.up_proj.'),
    (r'\.down_proj\.', '.fc2.'),
)
EOMT_DINOV3: Names = ((r'^patch_embed\.', 'embeddings.'), (r'^blocks\.', 'layers.'), *HUGGING_FACE)
DINOV2: Names = ((r'^register_tokens$', 'reg_token'), (r'\.ls(\d)\.gamma$', r'.gamma_\1'))
DINOV3: Names = (
    (r'^storage_tokens$', 'reg_token'),
    (r'\.ls(\d)\.gamma$', r'.gamma_\1'),
    (r'\.mlp\.w1\.', '.mlp.fc1_g.'),
    (r'\.mlp\.w2\.', '.mlp.fc1_x.'),
    (r'\.mlp\.w3\.', '.mlp.fc2.'),
)
EVA02: Names = (
    (r'\.mlp\.w12\.', '.mlp.fc1.'),
    (r'\.mlp\.w1\.', '.mlp.fc1_g.'),
    (r'\.mlp\.w2\.', '.mlp.fc1_x.'),
    (r'\.mlp\.w3\.', '.mlp.fc2.'),
    (r'\.mlp\.ffn_ln\.', '.mlp.norm.'),
    (r'\.attn\.inner_attn_ln\.', '.attn.norm.'),
)
PE: Names = (
    (r'^class_embedding$', 'cls_token'),
    (r'^positional_embedding$', 'pos_embed'),
    (r'^conv1\.', 'patch_embed.proj.'),
    (r'^ln_pre\.', 'norm_pre.'),
    (r'^ln_post\.', 'norm.'),
    (r'^transformer\.resblocks\.', 'blocks.'),
    (r'\.attn\.in_proj_', '.attn.qkv.'),
    (r'\.attn\.out_proj\.', '.attn.proj.'),
    (r'\.ln_(\d)\.', r'.norm\1.'),
    (r'\.mlp\.c_fc\.', '.mlp.fc1.'),
    (r'\.mlp\.c_proj\.', '.mlp.fc2.'),
    (r'\.ls_(\d)\.gamma$', r'.gamma_\1'),
)
SAM3: Names = ((r'^ln_pre\.', 'norm_pre.'),)
SAPIENS2: Names = (
    (r'^storage_tokens$', 'reg_token'),
    (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
    (r'\.attn\.w([qkv])\.', r'.attn.\1_proj.'),
    (r'\.attn\.gamma\.weight$', '.gamma_1'),
    (r'\.ffn\.w12\.', '.mlp.fc1.'),
    (r'\.ffn\.w3\.', '.mlp.fc2.'),
    (r'\.ln(\d)\.', r'.norm\1.'),
    (r'^ln1\.', 'norm.'),
)

DROPPED = {  # by names as timm has them; heads and their norms are left to whoever loads
    r'(?:.*\.)?(?:rope(?:_win|_glb)?\.freqs_(?:cos|sin)|freqs_cis|rotary_emb\.\w+)': 'buffers that are computed',
    r'(?:.*\.)?(?:bias_mask|k_bias)': 'buffers that are computed',
    r'mask_token|lm_head\..*|local_cls_norm\..*|projectors\..*': 'of pretraining',
    r'attn_pool\..*|proj|logit_scale': 'a pooling head',
    r'(?:query|class_predictor|mask_head|upscale_block|criterion)\..*|attn_mask_probs': 'the head of EoMT',
}
