# EoMT (Encoder-only Mask Transformer, arXiv 2503.19108) for semantic segmentation: 100 queries join the tokens in the
# last blocks of the ViT (three of S and B, four of L); there is no neck and no decoder. Tests see square windows
# along the longer side, whose probabilities are averaged. With stride 512 two windows lie as the authors'; with three
# or more, for images of more than 2 : 1, theirs overlap evenly, and here the last one alone.
# Experiments merge one of ../backbones into model.backbone.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(out_indices=(), final_norm=True, open_blocks=3),
    decode_head=dict(
        type='mmrope.heads.EoMTDecodeHead', embed_dims=768, num_classes=150, num_queries=100, num_blocks=3
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(512, 512)),
)
