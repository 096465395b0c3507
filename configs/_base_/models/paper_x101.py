_base_ = ['./paper_r101.py', './resnext101.py']
model = dict(backbone={{_base_.resnext101}})
