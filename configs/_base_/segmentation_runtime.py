_base_ = './default_runtime.py'
default_scope = 'mmseg'
visualizer = dict(type='SegLocalVisualizer', vis_backends=_base_.vis_backends, name='visualizer')
tta_model = dict(type='SegTTAModel')
