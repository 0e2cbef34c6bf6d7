_base_ = './default_runtime.py'
default_scope = 'mmseg'
visualizer = dict(type='SegLocalVisualizer', vis_backends=_base_.vis_backends, name='visualizer', alpha=0.5)
tta_model = dict(type='mmrope.heads.SegTTAModel')
