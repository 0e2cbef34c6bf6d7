# COCO 2017 instances as EoMT augments them: the longer side at 640 times 0.1 to 2.0, crops of 640 x 640, padded with
# black at the bottom and right, in tests as well. Of a crop without objects the authors draw another of the image,
# and MMDetection takes another image.
_base_ = './coco_instance_lsj.py'
image_size = (640, 640)
pad = dict(type='Pad', size=image_size, pad_val=dict(img=0, masks=0, seg=255))

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=_base_.backend_args),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomResize', scale=image_size, ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_type='absolute', crop_size=image_size, recompute_bbox=True),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True),
    pad,
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=_base_.backend_args),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    # the pixels alone are padded: masks are cut to img_shape before they are resized to the file's size
    dict(type='KeyMapper', mapping=dict(img='img'), remapping=dict(img='img'), transforms=[pad]),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
