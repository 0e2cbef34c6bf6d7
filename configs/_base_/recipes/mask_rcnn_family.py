# ViTDet's Mask R-CNN on a pretrained ViT of another family: 25 epochs of COCO on 8 GPUs with 4 images each, two
# iterations a step. Windows of 16 tokens are those of EVA-02's detectors at 1024 pixels; weights of DINOv3's kind
# were not trained with any. Schedule and layer decay, those of ViTDet's B, are this project's choice.
# A frozen backbone has global attention in every block, as in pretraining; that is this project's choice, too.
_base_ = [
    '../models/mask_rcnn_vitdet.py',
    '../datasets/coco_instance_lsj.py',
    '../schedules/vitdet_25e_8x4_accum2.py',
    '../detection_runtime.py',
]
model = dict(backbone=dict(window_size=16))
